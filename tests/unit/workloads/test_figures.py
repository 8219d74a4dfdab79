"""Figures of a load, against histories made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.workloads.figures import JobRun, failure, figures, jobs_in_system, sooner, spread_s
from controller.workloads.trace import Arrival, Load, Share

UNIX_S = 1_800_000_000.0
LOAD = Load(20.0, 3, (Share("hot-spots", 1024, 1.0),), 1)


def job_run(number: int, at_s: float, ended_s: float, *, workload: str = "hot-spots", **more: object) -> JobRun:
    """A job that waited a tenth, was in transit for two tenths and ran for the rest, less 0.1 s of return."""
    took_s = ended_s - at_s
    moments = (0.0, 0.1 * took_s, 0.3 * took_s, took_s - 0.1, took_s)
    states = ("WAITING_CONTACT", "IN_TRANSIT", "RUNNING", "RETURNING", "SUCCEEDED")
    run = JobRun(
        arrival=Arrival(number, at_s, workload, 1024, 5, "suva", "s1"),
        job=f"load-abc-up-{number}",
        on_node="s1",
        submitted_s=at_s,
        ended_s=ended_s,
        state="SUCCEEDED",
        reason="exit status 0",
        history=tuple((state, UNIX_S + at_s + moment) for state, moment in zip(states, moments, strict=True)),
        moved_bytes=1000,
        deadline_missed=False,
        hand_offs=0,
        custody_transfers=0,
        outputs={},
    )
    return replace(run, **more)  # type: ignore[arg-type]


def test_response_counts_from_when_a_job_was_due() -> None:
    """A driver that came 2 s late makes the response no quicker; and it is counted as late."""
    runs = [job_run(0, 1.0, 5.0), job_run(1, 2.0, 8.0, submitted_s=4.0), job_run(2, 3.0, 13.0, submitted_s=3.04)]
    result = figures("in orbit", "", LOAD, runs, {"hot-spots"}, 7)
    assert result.response_s == {"count": 3, "mean": 6.667, "p50": 6.0, "p95": 9.6, "p99": 9.92, "max": 10.0}
    assert result.late_submissions == 1
    assert (result.right, result.jobs, result.span_s, result.ground_link_bytes) == (3, 3, 13.0, 7)


def test_phases_are_those_of_the_history() -> None:
    """Waiting, transit, running and returning, each with its own spread; a state entered twice counts twice."""
    history = tuple(
        (state, UNIX_S + at_s)
        for state, at_s in (("WAITING_CONTACT", 0), ("IN_TRANSIT", 1), ("WAITING_CONTACT", 3), ("IN_TRANSIT", 10),
                            ("QUEUED", 12), ("RUNNING", 15), ("RETURNING", 19), ("SUCCEEDED", 20))
    )  # fmt: skip
    run = job_run(0, 0.0, 20.5, history=history)
    assert run.phases_s == {"waiting": 8.0, "transit": 4.0, "queued": 3.0, "running": 4.0, "returning": 1.0}
    result = figures("in orbit", "", LOAD, [run, job_run(1, 1.0, 11.0)], set(), 0)
    assert list(result.phases_s) == ["waiting", "transit", "queued", "running", "returning"]
    assert result.phases_s["queued"]["mean"] == 1.5
    assert result.phases_s["waiting"]["max"] == 8.0


def test_only_right_results_count_as_responses() -> None:
    """What failed, was refused, expired, or brought a wrong result is told by its reason, alike ones together."""
    runs = [
        job_run(0, 1.0, 5.0),
        job_run(1, 2.0, 3.0, state="FAILED", reason="load-abc-up-1 ended with exit status 3", deadline_missed=True),
        job_run(2, 3.0, 4.0, state="FAILED", reason="load-abc-up-2 ended with exit status 4", deadline_missed=True),
        job_run(3, 3.0, 3.0, state="REFUSED", reason="has 64 open jobs", history=(), deadline_missed=True),
        job_run(4, 4.0, 6.0, wrong="tree: root is ab, not cd"),
    ]
    result = figures("in orbit", "", LOAD, runs, {"hot-spots"}, 0)
    assert result.response_s["count"] == result.right == 1
    assert result.failures == {
        "FAILED: JOB ended with exit status #": 2,
        "REFUSED: has # open jobs": 1,
        "wrong result: tree: root is ab, not cd": 1,
    }
    assert result.jobs_by_state == {"SUCCEEDED": 2, "FAILED": 2, "REFUSED": 1}
    assert result.deadline_misses == 3
    assert failure(runs[1]) == failure(runs[2])


def test_insight_is_of_scenes_alone() -> None:
    """A hash is no insight."""
    runs = [job_run(0, 0.0, 4.0), job_run(1, 0.0, 100.0, workload="hash")]
    result = figures("in orbit", "", LOAD, runs, {"hot-spots"}, 0)
    assert result.insight_s["p50"] == 4.0
    assert result.response_s["count"] == 2


def test_littles_law_holds_of_what_the_agents_tell() -> None:
    """L as the driver saw it is λ·W by the agents' histories, as John Little proved; and not where they disagree."""
    runs = [job_run(number, 2.0 * number, 2.0 * number + 5.0) for number in range(50)]
    result = figures("in orbit", "", LOAD, runs, set(), 0)
    assert result.arrivals_per_s == pytest.approx(50 / 103, abs=1e-3)
    assert result.time_in_system_s == pytest.approx(5.0)
    assert result.jobs_in_system == pytest.approx(result.littles_law_jobs, rel=1e-3)
    lying = [replace(run, history=(run.history[0], ("SUCCEEDED", run.history[0][1] + 50))) for run in runs]
    wrong = figures("in orbit", "", LOAD, lying, set(), 0)
    assert wrong.littles_law_jobs > 5 * wrong.jobs_in_system


def test_jobs_in_system_is_an_area_over_time() -> None:
    """Two jobs of 4 s, overlapping or not, in 10 s are 0.8 jobs."""
    assert jobs_in_system([job_run(0, 0.0, 4.0), job_run(1, 2.0, 6.0)], 10.0) == pytest.approx(0.8)
    assert jobs_in_system([job_run(0, 0.0, 4.0), job_run(1, 4.0, 8.0)], 10.0) == pytest.approx(0.8)
    assert jobs_in_system([], 0.0) == 0.0


def test_ways_are_compared_job_by_job() -> None:
    """The median of ratios of the same scenes; a scene that failed in one way is left out."""
    orbit = [job_run(0, 0.0, 2.0), job_run(1, 0.0, 4.0), job_run(2, 0.0, 5.0), job_run(3, 0.0, 1.0, workload="hash")]
    pipe = [job_run(0, 0.0, 8.0), job_run(1, 0.0, 2.0), job_run(2, 0.0, 9.0, state="FAILED"), job_run(3, 0.0, 9.0)]
    assert sooner(orbit, pipe, {"hot-spots"}) == {
        "scenes": 2, "median_ratio": 2.25, "least_ratio": 0.5, "sooner": 1,
    }  # fmt: skip
    assert sooner([], [], {"hot-spots"})["median_ratio"] is None


def test_a_load_of_nothing_has_no_figures() -> None:
    """Null, never zero."""
    assert spread_s([]) == {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None, "max": None}
    result = figures("in orbit", "", LOAD, [job_run(0, 1.0, 1.0, state="REFUSED", history=())], set(), 0)
    assert (result.response_s["p50"], result.jobs_in_system, result.arrivals_per_s) == (None, 0.0, 0.0)
