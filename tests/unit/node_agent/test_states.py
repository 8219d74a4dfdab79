"""The table of a job's states, by itself."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path

import pytest

from node_agent import __version__
from node_agent.states import FINAL, TRANSITIONS, accepted, advanced, away_inputs, noted
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
