"""The table of a job's states, by itself."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest

from node_agent import __version__
from node_agent.errors import PermissionDenied
from node_agent.jobs.states import (
    FINAL,
    TRANSITIONS,
    accepted,
    advanced,
    away_inputs,
    backoff_s,
    check_jurisdiction,
    noted,
    tries_again,
)
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import JobInput, JobSpec

STATES = [state for state in jobs_pb2.JobState.values() if state != jobs_pb2.JOB_STATE_UNSPECIFIED]


def test_the_table_knows_every_state_and_every_open_one_can_end() -> None:
    """All states of the wire are in the table; only final ones have no way on; each can be cancelled."""
    assert set(TRANSITIONS) == set(STATES)
    for state, following in TRANSITIONS.items():
        assert (not following) == (state in FINAL)
        assert state in FINAL or jobs_pb2.JOB_STATE_CANCELLED in following


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, STATES)))
def test_a_step_is_taken_if_and_only_if_the_table_has_it(before: int, after: int) -> None:
    """A step keeps the job as it was and writes state, reason, time and revision; a wrong one tells the history."""
    job = jobs_pb2.Job(spec=JobSpec(id="x"), state=jobs_pb2.JobState.ValueType(before), revision=5)
    job.history.add(state=job.state, reason="so", at_unix_ns=1)
    following = jobs_pb2.JobState.ValueType(after)
    if after in TRANSITIONS[job.state]:
        moved = advanced(job, following, "then", 2)
        assert (moved.state, moved.reason, moved.revision, len(moved.history)) == (after, "then", 6, 2)
        assert (job.state, job.revision, len(job.history)) == (before, 5, 1)
    else:
        with pytest.raises(ValueError, match=jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")):
            advanced(job, following, "then", 2)


def test_a_note_changes_the_reason_alone() -> None:
    """Progress counts as a revision and leaves no trace in the history."""
    job = accepted(JobSpec(id="x"), "gw", 1, None)
    told = noted(job, "40 %")
    assert (told.reason, told.revision, told.history) == ("40 %", job.revision + 1, job.history)


def test_only_inputs_that_lie_elsewhere_are_fetched() -> None:
    """Where a job runs, what lies elsewhere is fetched, and nowhere else; without such inputs it is queued at once."""
    here, there, far = JobInput(object="a"), JobInput(object="b", at_node="sat"), JobInput(object="c", at_node="far")
    assert away_inputs(JobSpec(on_node="sat", inputs=[here, there, far]), "gw") == []
    assert away_inputs(JobSpec(on_node="sat", inputs=[here, there, far]), "sat") == [far]
    assert away_inputs(JobSpec(inputs=[here, there, far]), "gw") == [there, far]
    assert accepted(JobSpec(id="x", inputs=[here]), "gw", 1, None).state == jobs_pb2.JOB_STATE_QUEUED
    assert accepted(JobSpec(id="x", inputs=[far]), "gw", 1, None).reason == "calling far"
    assert accepted(JobSpec(id="x", on_node="sat"), "gw", 1, None).state == jobs_pb2.JOB_STATE_WAITING_CONTACT


def test_agent_and_package_have_one_version() -> None:
    """The version that an agent tells is the distribution's."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__


def test_a_job_past_its_deadline_is_expired_when_it_is_taken() -> None:
    """At its deadline and after it, a new job is EXPIRED; before it, or when nobody has told the time, it is not."""
    spec = JobSpec(id="x", deadline_emu_ns=100)
    assert accepted(spec, "sat", 1, 100).state == jobs_pb2.JOB_STATE_EXPIRED
    assert accepted(spec, "sat", 1, 99).state == jobs_pb2.JOB_STATE_QUEUED
    assert accepted(spec, "sat", 1, None).state == jobs_pb2.JOB_STATE_QUEUED
    assert accepted(JobSpec(id="x"), "sat", 1, 2**62).state == jobs_pb2.JOB_STATE_QUEUED


@pytest.mark.parametrize(
    ("most", "attempt", "interrupted", "again"),
    [
        (0, 1, False, False),
        (0, 9, True, True),
        (0, 10, True, False),
        (1, 1, True, False),
        (1, 1, False, False),
        (3, 2, False, True),
        (3, 2, True, True),
        (3, 3, False, False),
        (3, 3, True, False),
        (50, 49, True, True),
    ],
)
def test_another_attempt_follows_as_often_as_the_wire_says(
    most: int, attempt: int, interrupted: bool, again: bool
) -> None:
    """0: after interruptions alone, up to ten starts; otherwise after failures too, up to so many."""
    job = jobs_pb2.Job(spec=JobSpec(id="x", max_attempts=most), attempt=attempt)
    assert tries_again(job, interrupted) == again


def test_the_wait_before_an_attempt_doubles_up_to_half_a_minute() -> None:
    """0.5, 1, 2 … 30 s, of which up to half is left out: the same for the same job, another for another."""
    waits_s = [backoff_s(jobs_pb2.Job(spec=JobSpec(id="x"), attempt=attempt)) for attempt in range(1, 101)]
    assert waits_s[0] == 0
    for number, wait_s in enumerate(waits_s[1:]):
        longest_s = min(0.5 * 2**number, 30)
        assert longest_s / 2 <= wait_s <= longest_s
    assert waits_s == [backoff_s(jobs_pb2.Job(spec=JobSpec(id="x"), attempt=attempt)) for attempt in range(1, 101)]
    others = {backoff_s(jobs_pb2.Job(spec=JobSpec(id=str(number)), attempt=2)) for number in range(100)}
    assert len(others) == 100


def test_a_new_attempt_knows_nothing_of_the_end_of_the_one_before() -> None:
    """What an attempt left is told until the next one runs."""
    job = accepted(JobSpec(id="x"), "sat", 1, None)
    job.MergeFrom(jobs_pb2.Job(exit_status=3, signal=9, stdout=b"o", stderr=b"e", usage=jobs_pb2.JobUsage(cpu_s=1)))
    job.outputs.add(name="out")
    again = advanced(job, jobs_pb2.JOB_STATE_QUEUED, "again", 2)
    assert (again.exit_status, again.stdout) == (3, b"o")
    runs = advanced(again, jobs_pb2.JOB_STATE_RUNNING, "attempt 2", 3)
    assert (runs.exit_status, runs.signal, runs.stdout, runs.stderr) == (0, 0, b"", b"")
    assert not runs.outputs
    assert not runs.HasField("usage")


def test_a_history_without_end_still_fits_a_message() -> None:
    """Of thousands of states the first and the newest are kept."""
    job = accepted(JobSpec(id="x", on_node="sat"), "gw", 1, None)
    for number in range(2, 4000):
        following = jobs_pb2.JOB_STATE_IN_TRANSIT if number % 2 == 0 else jobs_pb2.JOB_STATE_WAITING_CONTACT
        job = advanced(job, following, "so", number)
    assert [job.history[0].at_unix_ns, job.history[-1].at_unix_ns, len(job.history)] == [1, 3999, 1000]


def test_residency_is_held_where_a_job_runs() -> None:
    """A node outside a job's jurisdictions, or in none, may not run it; one that hands it on may take it."""
    spec = JobSpec(id="x", jurisdictions=["CN", "DE"])
    check_jurisdiction(spec, "sat", "DE")
    check_jurisdiction(JobSpec(id="x"), "sat", "")
    check_jurisdiction(JobSpec(id="x", on_node="sat", jurisdictions=["CN"]), "gw", "US")
    with pytest.raises(PermissionDenied, match="in CN, DE alone, and sat lies in US"):
        check_jurisdiction(spec, "sat", "US")
    with pytest.raises(PermissionDenied, match="sat has no jurisdiction"):
        check_jurisdiction(spec, "sat", "")
