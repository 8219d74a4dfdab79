"""From how jobs went to the figures of a load. Pure.

Response time counts from the moment a job was due, not from when the load's driver came to submit it: a driver that is
held up shall not make the system look quick (G. Tene, "How NOT to measure latency", 2013).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controller.record.model import LoadResult
from controller.workloads.trace import Arrival, Load

LATE_S = 0.05
"""A job that is submitted so long after it was due counts as late: the load was not quite the trace."""

PHASES: Mapping[str, str] = {
    "WAITING_CONTACT": "waiting",
    "IN_TRANSIT": "transit",
    "QUEUED": "queued",
    "RUNNING": "running",
    "SUSPENDED": "suspended",
    "RETURNING": "returning",
}
"""What each state of a job is called among the figures; the report has these names too."""

SUCCEEDED = "SUCCEEDED"
UNFINISHED = "UNFINISHED"  # not final when the load's patience was over
REFUSED = "REFUSED"  # its node on the ground did not take it


@dataclass(frozen=True)
class JobRun:
    """How one job of a trace went. Times are of the wall clock, since the load began, unless they say otherwise."""

    arrival: Arrival
    job: str
    on_node: str
    submitted_s: float
    ended_s: float
    state: str  # SUCCEEDED …, UNFINISHED or REFUSED
    reason: str
    history: tuple[tuple[str, float], ...]  # each state, and when it began, by the agents' clock (Unix time)
    moved_bytes: int
    deadline_missed: bool
    hand_offs: int
    custody_transfers: int
    outputs: Mapping[str, str]  # name → object
    wrong: str | None = None  # what is wrong of its result

    @property
    def response_s(self) -> float:
        """From when it was due until its result was back."""
        return self.ended_s - self.arrival.at_s

    @property
    def is_right(self) -> bool:
        """It succeeded, and its result is the known one."""
        return self.state == SUCCEEDED and self.wrong is None

    @property
    def phases_s(self) -> dict[str, float]:
        """How long it was in each phase."""
        stays: dict[str, float] = {}
        for (state, began_s), (_, ended_s) in pairwise(self.history):
            phase = PHASES[state]
            stays[phase] = stays.get(phase, 0.0) + ended_s - began_s
        return stays

    @property
    def in_system_s(self) -> float:
        """From when it was taken until it was final, by the agents' clock; by the driver's where they do not tell."""
        if len(self.history) > 1:
            return self.history[-1][1] - self.history[0][1]
        return self.ended_s - self.submitted_s


def spread_s(values: Sequence[float]) -> dict[str, float | int | None]:
    """How many, mean and percentiles (linear interpolation between order statistics). Of nothing, null."""
    if not values:
        return {"count": 0, "mean": None, "p50": None, "p95": None, "p99": None, "max": None}
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    figures = {"mean": np.mean(values), "p50": p50, "p95": p95, "p99": p99, "max": max(values)}
    return {"count": len(values), **{key: round(float(value), 3) for key, value in figures.items()}}


def failure(run: JobRun) -> str:
    """Why a job's result is of no use, with its numbers taken out: alike failures count as one reason."""
    words = f"wrong result: {run.wrong}" if run.state == SUCCEEDED else f"{run.state}: {run.reason}"
    return re.sub(r"\d+(\.\d+)?", "#", words.replace(run.job, "JOB"))


def jobs_in_system(runs: Iterable[JobRun], span_s: float) -> float:
    """The mean number of jobs between submission and end, as the driver saw them come and go."""
    edges = sorted(edge for run in runs for edge in ((run.submitted_s, 1), (run.ended_s, -1)))
    area, number, last_s = 0.0, 0, 0.0
    for at_s, change in edges:
        area += number * (at_s - last_s)
        number, last_s = number + change, at_s
    return area / span_s if span_s > 0 else 0.0


def figures(
    way: str, policy: str, load: Load, runs: Sequence[JobRun], scenes: set[str], ground_bytes: int
) -> LoadResult:
    """The figures of one pass over a trace. `scenes`: the workloads that search what a satellite has captured."""
    right = [run for run in runs if run.is_right]
    phases = sorted({phase for run in right for phase in run.phases_s}, key=[*PHASES.values()].index)
    span_s = max((run.ended_s for run in runs), default=0.0)
    taken = [run for run in runs if run.state != REFUSED]
    arrivals_per_s = len(taken) / span_s if span_s else 0.0
    in_system_s = float(np.mean([run.in_system_s for run in taken])) if taken else 0.0
    return LoadResult(
        way=way,
        policy=policy,
        seed=load.seed,
        rate_per_min=load.rate_per_min,
        jobs=len(runs),
        right=len(right),
        span_s=round(span_s, 3),
        jobs_by_state=dict(Counter(run.state for run in runs)),
        failures=dict(Counter(failure(run) for run in runs if not run.is_right)),
        late_submissions=sum(run.submitted_s - run.arrival.at_s > LATE_S for run in runs),
        response_s=spread_s([run.response_s for run in right]),
        insight_s=spread_s([run.response_s for run in right if run.arrival.workload in scenes]),
        phases_s={phase: spread_s([run.phases_s.get(phase, 0.0) for run in right]) for phase in phases},
        ground_link_bytes=ground_bytes,
        moved_bytes=sum(run.moved_bytes for run in runs),
        deadline_misses=sum(run.deadline_missed for run in runs),
        hand_offs=sum(run.hand_offs for run in runs),
        custody_transfers=sum(run.custody_transfers for run in runs),
        jobs_in_system=round(jobs_in_system(taken, span_s), 4),
        arrivals_per_s=round(arrivals_per_s, 4),
        time_in_system_s=round(in_system_s, 4),
        littles_law_jobs=round(arrivals_per_s * in_system_s, 4),
    )


def sooner(first: Sequence[JobRun], second: Sequence[JobRun], scenes: set[str]) -> dict[str, float | int | None]:
    """How much sooner each scene's insight came in the first pass than in the second: the ratio, job by job."""
    other = {run.arrival.number: run for run in second if run.is_right}
    ratios = [
        other[run.arrival.number].response_s / run.response_s
        for run in first
        if run.is_right and run.arrival.workload in scenes and run.arrival.number in other
    ]
    if not ratios:
        return {"scenes": 0, "median_ratio": None, "least_ratio": None, "sooner": 0}
    return {
        "scenes": len(ratios),
        "median_ratio": round(float(np.median(ratios)), 3),
        "least_ratio": round(min(ratios), 3),
        "sooner": sum(ratio > 1 for ratio in ratios),
    }
