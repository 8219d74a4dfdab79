"""The figures of a run, from its record: what summary.json holds and the report's tiles show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from controller.record.model import Event, JobRecord, Sample, StepRecord, WorkloadResult
from controller.record.read import RunRecord

DROP_CAUSES = ("lost", "queue", "overrun", "refused")
"""As commanded; the queue of a direction was full; the shaper could not keep up; a port was gone or down."""


def summarise(record: RunRecord) -> dict[str, Any]:
    """Everything that is counted of a run. A figure of nothing is null, never zero."""
    kinds = Counter(event.kind for event in record.events)
    return {
        "run_id": record.manifest.run_id,
        "scenario": record.manifest.scenario_name,
        "shaper": record.manifest.shaper,
        **_loop(record.steps, record.manifest.step_s / record.manifest.time_scale),
        "drift": _drift(record),
        "links_changed": kinds["link-up"] + kinds["link-down"],
        "handovers": kinds["handover"],
        "faults": kinds["fault-on"],
        "nodes_lost": kinds["node-lost"],
        "frames_dropped": _frames_dropped(record.events),
        **_probes(record.samples),
        "jobs_by_state": dict(Counter(job.state for job in last_states(record.jobs))),
        "workloads": [asdict(result) for result in record.workloads],
        "same_finding": same_finding(record.workloads),
        "loads": [asdict(result) for result in record.loads],
    }


def overran(step: StepRecord, period_s: float) -> bool:
    """Whether a step ended after the next one was due."""
    return step.late_ms + step.took_ms > period_s * 1e3


def last_states(jobs: Iterable[JobRecord]) -> list[JobRecord]:
    """The last record of each job, in the order in which the jobs were first seen."""
    return list({(job.gateway, job.id): job for job in jobs}.values())


def compared(results: Sequence[WorkloadResult]) -> list[list[WorkloadResult]]:
    """The results of each scene that was searched in more than one way, in the order in which the scenes came."""
    scenes: dict[str, list[WorkloadResult]] = {}
    for result in results:
        scenes.setdefault(result.scene, []).append(result)
    return [ways for ways in scenes.values() if len(ways) > 1]


def same_finding(results: Sequence[WorkloadResult]) -> bool | None:
    """Whether all ways found the same in each scene. None where no scene was searched in two ways."""
    scenes = compared(results)
    return all(len({way.finding_digest for way in ways}) == 1 for ways in scenes) if scenes else None


def errors_us(samples: Iterable[Sample], *, per_hop: bool = False) -> list[float]:
    """Measured − commanded of every answered probe; divided by the path's hops where asked."""
    return [
        sample.error_us / (max(sample.hops, 1) if per_hop else 1) for sample in samples if sample.error_us is not None
    ]


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """How many, median, 99th percentile and extremes (linear interpolation between order statistics)."""
    if not values:
        return {"count": 0, "median": None, "p99": None, "min": None, "max": None}
    median, p99 = np.percentile(values, [50, 99])
    return {
        "count": len(values),
        "median": round(float(median), 3),
        "p99": round(float(p99), 3),
        "min": round(float(min(values)), 3),
        "max": round(float(max(values)), 3),
    }


def _drift(record: RunRecord) -> int:
    """Directions whose state in force was not the commanded one, and which were commanded again."""
    while_it_stood = sum(int(each.fields["directions"]) for each in record.events if each.kind == "drift-repaired")
    return while_it_stood + sum(step.drift for step in record.steps)


def _frames_dropped(events: Iterable[Event]) -> dict[str, int] | None:
    """Frames that did not arrive, by cause. None where the shaper does not count, or the run was killed."""
    counted = [event.fields for event in events if event.kind == "frames-dropped"]
    return {cause: int(counted[-1][cause]) for cause in DROP_CAUSES} if counted else None


def _loop(steps: Sequence[StepRecord], period_s: float) -> dict[str, Any]:
    cpu_s = sum(step.cpu_ms for step in steps) / 1e3
    return {
        "steps": len(steps),
        "overruns": sum(overran(step, period_s) for step in steps),
        "late_ms": spread([step.late_ms for step in steps]),
        "took_ms": spread([step.took_ms for step in steps]),
        "cpu_ms": spread([step.cpu_ms for step in steps]),
        "loop_share_of_core_ratio": round(cpu_s / (len(steps) * period_s), 5) if steps else None,
        "links_up": spread([step.links_up for step in steps]),
        "directions_changed": sum(step.directions_changed for step in steps),
        "routes_changed": sum(step.routes_changed for step in steps),
    }


def _probes(samples: Sequence[Sample]) -> dict[str, Any]:
    commanded_up = [sample for sample in samples if sample.commanded_rtt_us is not None]
    unanswered = sum(sample.measured_rtt_us is None for sample in commanded_up)
    return {
        "probes": len(samples),
        "rtt_error_us": spread(errors_us(samples)),
        "rtt_error_one_hop_us": spread(errors_us(s for s in samples if s.kind == "link")),
        "rtt_error_per_hop_us": spread(errors_us((s for s in samples if s.kind == "path"), per_hop=True)),
        "commanded_up_unanswered": unanswered,
        "commanded_up_unanswered_ratio": round(unanswered / len(commanded_up), 6) if commanded_up else None,
        "commanded_down_answered": sum(s.commanded_rtt_us is None and s.measured_rtt_us is not None for s in samples),
    }
