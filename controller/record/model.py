"""What a run's record is made of: one dataclass a line of events.jsonl or samples.jsonl, and the manifest."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

from controller.timeline import utc_text

EventKind = Literal[
    "run-started",  # run
    "step",  # the fields of StepRecord
    "link-up",  # a, b, link ("isl" or "gsl")
    "link-down",  # a, b, link, reason
    "handover",  # ground, before, after (names of satellites)
    "fault-on",  # target, fault ("blackout" …), mode
    "fault-off",  # target, fault
    "job",  # the fields of JobRecord
    "workload",  # the fields of WorkloadResult
    "load",  # the fields of LoadResult
    "node-lost",  # node, reason: its process has ended
    "program-started",  # node, image, image_id: an image of the user's
    "program-ended",  # node, image, exit_status, reason, last_words
    "runtime-away",  # reason: what the nodes live in does not answer
    "runtime-back",
    "drift-repaired",  # directions: found while the sky stood, when no step counts them
    "node-down",  # node, reason: it has left the sky
    "sky-paused",
    "sky-resumed",
    "sky-sought",  # left_s, step: went to t_s as one change; what ended with it ended at left_s
    "link-set",  # a, b, and what of delay_us, rate_bps, loss_ratio, up was set
    "link-cleared",  # a, b
    "fault-injected",  # id, and the keys of the fault
    "fault-cleared",  # which, cleared
    "frames-dropped",  # lost (as commanded), queue, overrun, refused: frames of the whole run
    "run-ended",  # reason
]
"""The events of a run, with the fields that the report reads. An event may carry more."""


@dataclass(frozen=True)
class StepRecord:
    """What one step of the loop did, and how late it was."""

    step: int
    t_s: float
    late_ms: float  # started so long after it was due
    took_ms: float  # wall clock, from its start until all was applied
    cpu_ms: float  # CPU time that the loop's process spent in it
    links_up: int
    directions_changed: int
    routes_changed: int
    drift: int  # directions whose state in force was not the commanded one


@dataclass(frozen=True)
class Sample:
    """One probe: what the round trip should have been when it was sent, and what it was."""

    t_s: float
    kind: Literal["link", "path"]  # "link": one hop between neighbours
    a: str
    b: str
    hops: int
    commanded_rtt_us: int | None  # None: no path was commanded
    measured_rtt_us: float | None  # None: no answer

    @property
    def error_us(self) -> float | None:
        """Measured − commanded; None where either is absent."""
        if self.commanded_rtt_us is None or self.measured_rtt_us is None:
            return None
        return self.measured_rtt_us - self.commanded_rtt_us


@dataclass(frozen=True)
class JobRecord:
    """A job entered a state."""

    gateway: str
    id: str
    on_node: str
    state: str  # "WAITING_CONTACT" … as in the protos, without the prefix
    reason: str
    moved_bytes: int
    t_s: float
    label: str


@dataclass(frozen=True)
class WorkloadResult:
    """One way of getting the same insight, for the comparison of bent pipe and in orbit."""

    way: str  # "bent pipe", "in orbit"
    scene: str  # what was searched: ways of one scene must find the same
    job: str
    satellite: str
    gateway: str
    time_to_insight_s: float
    ground_link_bytes: int
    finding: str  # in a few words, for people
    finding_digest: str  # "sha256:…" of the finding's own bytes


@dataclass(frozen=True)
class LoadResult:
    """One pass over the trace of an open load. Spreads have count, mean, p50, p95, p99 and max, of jobs done right."""

    way: str  # "in orbit", "bent pipe"
    policy: str  # what chose the nodes
    seed: int
    rate_per_min: float
    jobs: int
    right: int  # succeeded, with the known result
    span_s: float  # of the wall clock, from the load's begin to the last job's end
    jobs_by_state: dict[str, int]
    failures: dict[str, int]  # reason → jobs
    late_submissions: int  # the load's driver was held up: not quite the trace
    response_s: dict[str, float | int | None]  # from when a job was due until its result was back
    insight_s: dict[str, float | int | None]  # the same, of jobs that search a scene
    phases_s: dict[str, dict[str, float | int | None]]  # "waiting", "transit", "queued", "running", "returning"
    ground_link_bytes: int  # over all links of ground nodes meanwhile, headers and probes included
    moved_bytes: int  # of objects, as the agents count them
    deadline_misses: int
    hand_offs: int  # of the ground node that asked, while its job was under way
    custody_transfers: int  # to nodes between the one that asked and the one that computed
    jobs_in_system: float  # Little's law, L = λ·W: L as the driver saw it
    arrivals_per_s: float  # λ
    time_in_system_s: float  # W, by the agents' clock
    littles_law_jobs: float  # λ·W


@dataclass(frozen=True)
class Event:
    """A line of events.jsonl that is neither a step, a job nor a workload's result."""

    kind: str
    t_s: float
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What ran, where, with what: enough to run it again."""

    run_id: str
    scenario_name: str
    scenario_text: str
    scenario_sha256: str
    timeline_hash: str
    seed: int
    epoch_utc: str
    duration_s: float
    step_s: float
    time_scale: float
    runtime: str
    engine_version: str
    shaper: str
    shaper_reason: str
    started_utc: str
    argv: tuple[str, ...]
    skyrack_version: str
    python_version: str
    host: str
    kernel: str
    cpu_count: int
    memory_bytes: int
    start_s: float = 0.0  # where the run began, since the epoch
    runtime_reason: str = ""  # why it was chosen

    @classmethod
    def here(
        cls,
        *,
        run_id: str,
        scenario_name: str,
        scenario_text: str,
        timeline_hash: str,
        seed: int,
        epoch_utc: datetime,
        duration_s: float,
        step_s: float,
        runtime: str,
        engine_version: str,
        shaper: str,
        shaper_reason: str,
        time_scale: float = 1.0,
        start_s: float = 0.0,
        runtime_reason: str = "",
    ) -> Manifest:
        """The manifest of a run that starts now, on this machine."""
        return cls(
            run_id=run_id,
            scenario_name=scenario_name,
            scenario_text=scenario_text,
            scenario_sha256=f"sha256:{hashlib.sha256(scenario_text.encode()).hexdigest()}",
            timeline_hash=timeline_hash,
            seed=seed,
            epoch_utc=utc_text(epoch_utc),
            duration_s=duration_s,
            step_s=step_s,
            time_scale=time_scale,
            runtime=runtime,
            engine_version=engine_version,
            shaper=shaper,
            shaper_reason=shaper_reason,
            started_utc=utc_text(datetime.now(UTC)),
            argv=tuple(sys.argv),
            skyrack_version=version("skyrack"),
            python_version=platform.python_version(),
            host=platform.node(),
            kernel=platform.release(),
            cpu_count=len(os.sched_getaffinity(0)),
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            start_s=start_s,
            runtime_reason=runtime_reason,
        )
