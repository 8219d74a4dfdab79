from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.record.model import JobRecord, Sample, StepRecord, WorkloadResult
from controller.record.read import RunRecord
from controller.record.recorder import Recorder
from controller.record.summary import spread, summarise
from tests.unit.record.sample_run import SampleRun
from tests.unit.record.test_recorder import JOB, RESULT, STEP, manifest


def summary_of(
    steps: tuple[StepRecord, ...] = (),
    samples: tuple[Sample, ...] = (),
    jobs: tuple[JobRecord, ...] = (),
    workloads: tuple[WorkloadResult, ...] = (),
    time_scale: float = 1.0,
) -> dict[str, Any]:
    """The summary of a run that left just this."""
    return summarise(RunRecord(replace(manifest(), time_scale=time_scale), steps, samples, jobs, workloads, ()))


def probe(commanded_us: int | None, measured_us: float | None, hops: int = 1) -> Sample:
    """A probe over so many hops."""
    return Sample(0.0, "link" if hops == 1 else "path", "a", "b", hops, commanded_us, measured_us)


def test_median_and_p99_agree_with_an_independent_computation() -> None:
    """Median and 99th percentile are those of the standard library's inclusive quantiles."""
    values = [((i * 7919) % 1009) / 10 for i in range(777)]
    cut = statistics.quantiles(values, n=100, method="inclusive")
    found = spread(values)
    assert found["median"] == pytest.approx(statistics.median(values), abs=1e-3)
    assert found["p99"] == pytest.approx(cut[98], abs=1e-3)
    assert (found["count"], found["min"], found["max"]) == (777, min(values), max(values))


def test_rtt_error_is_measured_minus_commanded_per_link_and_per_hop() -> None:
    """Errors keep their sign; those of a path are divided by its hops; those of links stand apart."""
    found = summary_of(samples=(probe(10_000, 10_300.0), probe(50_000, 50_800.0, hops=4), probe(9_000, 8_900.0)))
    assert found["rtt_error_us"]["max"] == 800.0
    assert (found["rtt_error_one_hop_us"]["min"], found["rtt_error_one_hop_us"]["max"]) == (-100.0, 300.0)
    assert found["rtt_error_per_hop_us"]["median"] == 200.0


def test_silence_and_leaks_are_counted_apart() -> None:
    """No answer though up, and an answer though down, are both figures; no answer while down is as it should be."""
    found = summary_of(samples=(probe(10_000, None), probe(10_000, 10_100.0), probe(None, None), probe(None, 10_000.0)))
    assert (found["probes"], found["commanded_up_unanswered"], found["commanded_down_answered"]) == (4, 1, 1)
    assert found["commanded_up_unanswered_ratio"] == 0.5


def test_an_overrun_ends_after_the_next_step_was_due() -> None:
    """Lateness counts as well as the time taken, and a time scale shortens the period."""
    steps = (replace(STEP, late_ms=600.0, took_ms=500.0), replace(STEP, late_ms=0.0, took_ms=500.0))
    assert summary_of(steps=steps)["overruns"] == 1
    assert summary_of(steps=steps, time_scale=4.0)["overruns"] == 2


def test_share_of_a_core_is_cpu_time_over_real_time() -> None:
    """Two steps of 1 s with 90 and 30 ms of CPU are 6 % of a core; at four times real time, 24 %."""
    steps = (replace(STEP, cpu_ms=90.0), replace(STEP, cpu_ms=30.0))
    assert summary_of(steps=steps)["loop_share_of_core_ratio"] == 0.06
    assert summary_of(steps=steps, time_scale=4.0)["loop_share_of_core_ratio"] == 0.24


def test_a_job_counts_by_its_last_state() -> None:
    """One job of one gateway counts once; the same id at another gateway is another job."""
    jobs = (JOB, replace(JOB, state="SUCCEEDED"), replace(JOB, gateway="nairobi", state="FAILED"))
    assert summary_of(jobs=jobs)["jobs_by_state"] == {"SUCCEEDED": 1, "FAILED": 1}


@pytest.mark.parametrize(
    ("digests", "same"), [((), None), (("x",), None), (("x", "x"), True), (("x", "y"), False)], ids=str
)
def test_findings_are_the_same_only_if_all_digests_are(digests: tuple[str, ...], same: bool | None) -> None:
    """The comparison's verdict rests on the findings' digests, and on two ways at least."""
    results = tuple(replace(RESULT, finding_digest=digest) for digest in digests)
    assert summary_of(workloads=results)["same_finding"] is same


def test_findings_are_compared_within_one_scene() -> None:
    """Another scene has another finding, which is no difference between ways."""
    other = replace(RESULT, scene="sha256:5d", finding_digest="y")
    assert summary_of(workloads=(RESULT, RESULT, other))["same_finding"] is True
    assert summary_of(workloads=(RESULT, other))["same_finding"] is None


def test_a_figure_of_nothing_is_null(tmp_path: Path) -> None:
    """An empty run has a summary, in which no figure pretends to be a measurement."""
    summary = Recorder(tmp_path, manifest()).close()
    assert summary["steps"] == 0
    assert summary["loop_share_of_core_ratio"] is None
    assert summary["rtt_error_us"]["median"] is None
    assert summary["commanded_up_unanswered_ratio"] is None
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert not (tmp_path / "summary.json.part").exists()


def test_summary_of_a_whole_run(sample_run: SampleRun) -> None:
    """The contract's figures are all there, and the counts agree with what was written."""
    summary: dict[str, Any] = json.loads((sample_run.run_dir / "summary.json").read_text())
    errors = [
        s.measured_rtt_us - s.commanded_rtt_us for s in sample_run.samples if s.commanded_rtt_us and s.measured_rtt_us
    ]
    assert summary["steps"] == len(sample_run.timeline.t_s)
    assert summary["rtt_error_us"]["median"] == pytest.approx(statistics.median(errors), abs=0.001)
    assert summary["jobs_by_state"] == {"SUCCEEDED": 3}
    assert summary["links_changed"] > 100
    assert (summary["faults"], summary["commanded_down_answered"]) == (1, 0)
