"""The controller's journal: what is written is there after a kill -9, all of it or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.errors import SkyrackError
from controller.jobs.journal import Entry, Journal
from protos.skyrack.v1 import controller_pb2, jobs_pb2
from protos.skyrack.v1.objects_pb2 import ObjectInfo, ObjectTerms

ROOT = Path(__file__).parents[3]
WRITER = """
import sys
from pathlib import Path
from controller.jobs.journal import Entry, Journal
from protos.skyrack.v1 import controller_pb2, jobs_pb2
journal = Journal(Path(sys.argv[1]))
for number in range(10_000):
    spec = jobs_pb2.JobSpec(id=f"j{number}")
    journal.decide(Entry(controller_pb2.ViaSubmitRequest(spec=spec), spec, controller_pb2.Explanation(), "placed"))
    journal.denied("emulator", "submit", spec.id, "so")
    print(number, flush=True)
"""


def entry(job_id: str, stands: str = "placed", policy: str = "") -> Entry:
    """A job that was decided."""
    spec = jobs_pb2.JobSpec(id=job_id, on_node="sat-1")
    request = controller_pb2.ViaSubmitRequest(via="beijing", spec=spec, policy=policy)
    return Entry(request, spec, controller_pb2.Explanation(policy=policy, chosen="sat-1", at_s=3.0), stands)


def test_what_was_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    """A writer that is killed at any moment has left all that it had told of."""
    path = tmp_path / "controller.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(25)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
    journal = Journal(path)
    assert len(told) < 10_000, "it was killed before its end"
    assert [each.spec.id for each in journal.open_jobs()][: len(told)] == [f"j{number}" for number in told]
    assert [event.of for event in journal.audit()][: len(told)] == [f"j{number}" for number in told]
    journal.close()


def test_a_job_is_known_as_it_stands(tmp_path: Path) -> None:
    """Placed, taken, ended; a refused one is not open, and the next under its id takes its place."""
    journal = Journal(tmp_path / "controller.db")
    journal.decide(entry("j1", "refused", "spread"))
    assert journal.open_jobs() == []
    journal.decide(entry("j1", policy="data-local"))
    journal.decide(entry("j2"))
    journal.stands("j1", "taken")
    again = Journal(tmp_path / "controller.db")
    assert again.open_jobs() == [entry("j1", "taken", "data-local"), entry("j2")]
    assert again.policies() == {"j1": "data-local"}
    journal.stands("j1", "ended")
    journal.forget("j2")
    assert again.open_jobs() == []
    assert again.job("j1") == entry("j1", "ended", "data-local")
    assert again.job("j2") is None


def test_an_object_is_known_with_its_holders(tmp_path: Path) -> None:
    """Those that have it, in order of their names; that it is bound to a country outlasts a copy without terms."""
    journal = Journal(tmp_path / "controller.db")
    bound = ObjectTerms(jurisdictions=["CN"], holders=["a", "b"])
    journal.holds("b", [ObjectInfo(object="sha256:1", size_bytes=7, terms=bound)])
    journal.holds("a", [ObjectInfo(object="sha256:1", size_bytes=7)])
    known = journal.known("sha256:1")
    assert known is not None
    assert (known.size_bytes, known.terms, known.at_nodes) == (7, bound, ("a", "b"))
    journal.dropped("b", "sha256:1")
    known = journal.known("sha256:1")
    assert known is not None
    assert known.at_nodes == ("a",)
    assert journal.known("sha256:2") is None


def test_a_file_that_is_no_journal_is_one_message(tmp_path: Path) -> None:
    """Which file, and why."""
    (tmp_path / "controller.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(SkyrackError, match=r"the journal .*controller\.db cannot be opened: file is not a database"):
        Journal(tmp_path / "controller.db")
