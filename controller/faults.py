"""Faults: what is masked over the geometry, and when. The sky itself never changes; a fault heals as its mask ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from controller.scenario.model import Fault, Scenario
from controller.timeline import BoolArray, IntArray, Sky, Timeline

_INSTANT_S = 1e-6
"""Instants closer than this are one: a step's is a product of floats."""


@dataclass(frozen=True)
class ActiveFault:
    """A fault that is in force."""

    target: str
    kind: str
    mode: str  # in which way links are taken; empty for a degrade
    until_s: float  # since the epoch

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.kind} of {self.target}" + (f" ({self.mode})" if self.mode else "")


@dataclass(frozen=True)
class Masked:
    """A step's sky under the faults in force. Shapes: all (n_up,), the rows of the sky."""

    sky: Sky  # its delays, rates and losses are the degraded ones
    usable: BoolArray  # no fault takes them
    believed: BoolArray  # usable, or taken in silence: nobody told the nodes
    unplugged: BoolArray  # taken with the carrier


@dataclass(frozen=True)
class FaultSchedule:
    """All faults of a run. `ends` holds the node indices of each: one for a node's fault, two for a link's."""

    faults: tuple[Fault, ...]
    ends: tuple[tuple[int, ...], ...]

    @classmethod
    def from_scenario(cls, scenario: Scenario, timeline: Timeline) -> Self:
        """The scenario's faults, bound to the timeline's nodes."""
        index = {node.name: i for i, node in enumerate(timeline.nodes)}
        ends = tuple(tuple(index[name] for name in fault.ends) for fault in scenario.faults)
        return cls(scenario.faults, ends)

    def masked(self, t_s: float, timeline: Timeline, sky: Sky) -> Masked:
        """One step under the faults in force. `t_s` is the step's instant since the epoch.

        A fault of a node is one of all its links, that of "a~b" of every link between the two. Degrades add up: delays
        are added, what is left of rates and of frames is multiplied. Of ways in which a link is taken the plainest
        counts: no carrier before rejection before silence.
        """
        a, b = timeline.links.a[sky.link], timeline.links.b[sky.link]
        silent, rejected, unplugged = (np.zeros(len(sky.link), np.bool_) for _ in range(3))
        delay_us, rate_bps = sky.delay_us.astype(np.int64), sky.rate_bps.astype(np.float64)
        kept_ratio = 1.0 - sky.loss_ratio
        for fault, ends in zip(self.faults, self.ends, strict=True):
            if not _in_force(fault, t_s):
                continue
            hit = _of(ends, a, b)
            match fault.way:
                case "silent":
                    silent |= hit
                case "reject":
                    rejected |= hit
                case "carrier":
                    unplugged |= hit
                case None:
                    delay_us[hit] += round(fault.extra_delay_s * 1e6)
                    rate_bps[hit] *= fault.rate_ratio
                    kept_ratio[hit] *= 1.0 - fault.loss_ratio
        degraded = replace(
            sky,
            delay_us=delay_us.astype(np.int32),
            rate_bps=np.maximum(rate_bps, _LEAST_BPS).astype(np.int64),
            loss_ratio=1.0 - kept_ratio,
        )
        told = rejected | unplugged
        return Masked(degraded, ~(silent | told), ~told, unplugged)

    def active(self, t_s: float) -> tuple[ActiveFault, ...]:
        """The faults in force at an instant, in the order of the scenario."""
        return tuple(
            ActiveFault(fault.target, fault.kind, fault.way or "", fault.at_s + fault.duration_s)
            for fault in self.faults
            if _in_force(fault, t_s)
        )


_LEAST_BPS = 8.0
"""A degraded link still carries a byte a second."""


def _of(ends: tuple[int, ...], a: IntArray, b: IntArray) -> BoolArray:
    """Which links are a fault's. Shapes: a and b (n,), their nodes → (n,)."""
    if len(ends) == 1:
        of_node: BoolArray = (a == ends[0]) | (b == ends[0])
        return of_node
    between: BoolArray = ((a == ends[0]) & (b == ends[1])) | ((a == ends[1]) & (b == ends[0]))
    return between


def _in_force(fault: Fault, t_s: float) -> bool:
    return fault.at_s - _INSTANT_S <= t_s < fault.at_s + fault.duration_s - _INSTANT_S
