from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.errors import InputError, SkyrackError
from controller.record.model import JobRecord, LoadResult, Manifest, Sample, StepRecord, WorkloadResult
from controller.record.read import read_record
from controller.record.recorder import Recorder

STEP = StepRecord(
    step=3, t_s=3.0, late_ms=0.5, took_ms=12.0, cpu_ms=9.0, links_up=7, directions_changed=4, routes_changed=2, drift=0
)
SAMPLE = Sample(t_s=3.2, kind="link", a="a", b="b", hops=1, commanded_rtt_us=27_000, measured_rtt_us=27_240.5)
JOB = JobRecord("beijing", "j1", "sat-p00s00", "RUNNING", "attempt 1", 2_300, 4.0, "search")
RESULT = WorkloadResult("in orbit", "sha256:5c", "j1", "sat-p00s00", "beijing", 7.4, 3_500, "17 hot spots", "sha256:aa")

SPREAD_S: dict[str, float | int | None] = {"count": 9, "mean": 3.1, "p50": 3.0, "p95": 4.0, "p99": 4.5, "max": 5.0}
LOAD = LoadResult(
    way="in orbit", policy="", seed=1, rate_per_min=20.0, jobs=10, right=9, span_s=30.0,
    jobs_by_state={"SUCCEEDED": 9, "FAILED": 1}, failures={"FAILED: exit status #": 1}, late_submissions=0,
    response_s=SPREAD_S, insight_s=SPREAD_S, phases_s={"transit": SPREAD_S, "running": SPREAD_S},
    ground_link_bytes=1_200_000, moved_bytes=1_000_000, deadline_misses=1, hand_offs=2, custody_transfers=0,
    jobs_in_system=1.0, arrivals_per_s=0.33, time_in_system_s=3.0, littles_law_jobs=1.0,
)  # fmt: skip


def manifest() -> Manifest:
    """A manifest of a tiny run."""
    return Manifest.here(
        run_id="k3f9a1c2",
        scenario_name="tiny",
        scenario_text='name = "tiny"\n',
        timeline_hash="sha256:00",
        seed=1,
        epoch_utc=datetime(2026, 1, 1, tzinfo=UTC),
        duration_s=10.0,
        step_s=1.0,
        runtime="docker",
        engine_version="20.10",
        shaper="netem",
        shaper_reason="this kernel has sch_netem",
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """A file's lines, each a JSON document."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    """Every step, sample, job, workload and event comes back from the files as it was given."""
    recorded = manifest()
    recorder = Recorder(tmp_path / "run", recorded)
    recorder.event("handover", 2.0, ground="beijing", before="s1", after="s2")
    recorder.step(STEP)
    recorder.sample(SAMPLE)
    recorder.job(JOB)
    recorder.workload(5.0, RESULT)
    recorder.load(6.0, LOAD)
    recorder.close()
    record = read_record(tmp_path / "run")
    assert record.manifest == recorded
    assert record.loads == (LOAD,)
    assert (record.steps, record.samples, record.jobs, record.workloads) == ((STEP,), (SAMPLE,), (JOB,), (RESULT,))
    assert [(e.kind, e.t_s, e.fields) for e in record.events] == [
        ("handover", 2.0, {"ground": "beijing", "before": "s1", "after": "s2"})
    ]


def test_events_carry_scenario_time_and_utc(tmp_path: Path) -> None:
    """An event's `utc` is the scenario's epoch plus its t_s, so that it can be laid beside `skyrack plan`."""
    recorder = Recorder(tmp_path, manifest())
    recorder.event("link-up", 61.5, a="a", b="b", link="isl")
    recorder.close()
    assert lines(tmp_path / "events.jsonl") == [
        {"kind": "link-up", "t_s": 61.5, "utc": "2026-01-01T00:01:01.500Z", "a": "a", "b": "b", "link": "isl"}
    ]


def test_manifest_is_there_from_the_first_moment(tmp_path: Path) -> None:
    """manifest.json is complete before anything else happens."""
    recorder = Recorder(tmp_path, manifest())
    document = json.loads((tmp_path / "manifest.json").read_text())
    recorder.close()
    assert set(document) == set(asdict(manifest()))
    assert (document["cpu_count"], document["kernel"]) == (len(os.sched_getaffinity(0)), os.uname().release)
    assert document["memory_bytes"] > 0


def test_threads_never_mix_their_lines(tmp_path: Path) -> None:
    """Eight threads that write at once leave whole lines, each once."""
    recorder = Recorder(tmp_path, manifest())

    def work(number: int) -> None:
        for i in range(500):
            recorder.sample(Sample(float(i), "path", f"n{number}", "b" * 200, 2, i, float(i)))
            recorder.event("link-up", float(i), a=f"n{number}", b="x", link="gsl")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    recorder.close()
    assert len({(row["a"], row["t_s"]) for row in lines(tmp_path / "samples.jsonl")}) == 4000
    assert len({(row["a"], row["t_s"]) for row in lines(tmp_path / "events.jsonl")}) == 4000


def test_a_killed_run_loses_no_line(tmp_path: Path) -> None:
    """What was recorded before kill -9 is on file, and can be read and reported on."""
    program = (
        "import sys, pathlib\n"
        "from tests.unit.record.test_recorder import manifest, STEP, SAMPLE\n"
        "from controller.record.recorder import Recorder\n"
        "recorder = Recorder(pathlib.Path(sys.argv[1]), manifest())\n"
        "recorder.step(STEP); recorder.sample(SAMPLE); print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    record = read_record(tmp_path)
    assert (record.steps, record.samples) == ((STEP,), (SAMPLE,))


def test_a_torn_last_line_is_left_out_and_a_broken_one_is_named(tmp_path: Path) -> None:
    """A line that a kill cut off is ignored; damage in the middle is an error with file and line."""
    recorder = Recorder(tmp_path, manifest())
    recorder.step(STEP)
    recorder.close()
    with (tmp_path / "events.jsonl").open("a") as stream:
        stream.write('{"kind": "ste')
    assert read_record(tmp_path).steps == (STEP,)
    (tmp_path / "events.jsonl").write_text('{"kind": "ste\n')
    with pytest.raises(InputError, match=r"events\.jsonl:1"):
        read_record(tmp_path)
    (tmp_path / "events.jsonl").write_text('{"kind": "step", "t_s": 1.0}\n')
    with pytest.raises(InputError, match="lacks something"):
        read_record(tmp_path)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """The line that does not fit is not begun; that error, which names file and reason, is every later line's too,
    in both files; the record up to there is read."""
    recorder = Recorder(tmp_path, manifest())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(SkyrackError) as first:  # noqa: PT012  (which of them does not fit is not the point)
            for _ in range(100):
                recorder.step(STEP)
        with pytest.raises(SkyrackError) as again:
            recorder.sample(SAMPLE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(first.value) == str(again.value) == f"cannot write {tmp_path / 'events.jsonl'}: File too large"
    recorder.close()
    steps = lines(tmp_path / "events.jsonl")
    assert len(steps) > 1
    assert len(read_record(tmp_path).steps) == len(steps)
    assert (tmp_path / "events.jsonl").read_text().endswith("\n")


def test_a_summary_that_does_not_fit_is_named_and_not_begun(tmp_path: Path) -> None:
    """No half of a document stays, under any name."""
    recorder = Recorder(tmp_path, manifest())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(SkyrackError, match=r"cannot write .*/summary\.json: File too large"):
            recorder.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "events.jsonl", "samples.jsonl"}


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    """A second run never writes over the record of the first."""
    Recorder(tmp_path, manifest()).close()
    with pytest.raises(InputError, match="--out"):
        Recorder(tmp_path, manifest())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Where the record cannot be made, the error names the folder and the cause."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SkyrackError, match="Not a directory"):
        Recorder(tmp_path / "file" / "run", manifest())


def test_a_folder_without_a_record_is_named(tmp_path: Path) -> None:
    """Reading a folder that holds no record, or a foreign manifest, says so."""
    with pytest.raises(InputError, match="holds no record"):
        read_record(tmp_path)
    (tmp_path / "manifest.json").write_text('{"name": "something else"}')
    with pytest.raises(InputError, match="no manifest"):
        read_record(tmp_path)


def test_close_is_idempotent_and_late_probes_are_left_out(tmp_path: Path) -> None:
    """A probe that is answered after the end neither fails nor changes the record."""
    recorder = Recorder(tmp_path, manifest())
    first = recorder.close()
    recorder.sample(SAMPLE)
    assert recorder.close() == first
    assert (tmp_path / "samples.jsonl").read_text() == ""
