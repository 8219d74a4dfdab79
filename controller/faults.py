"""Faults: what is masked over the geometry, and when. The sky itself never changes; a fault heals as its mask ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from controller.scenario.model import Fault, Scenario
from controller.timeline import BoolArray, Sky, Timeline

_INSTANT_S = 1e-6
"""Instants closer than this are one: a step's is a product of floats."""


@dataclass(frozen=True)
class ActiveFault:
    """A fault that is in force."""

    target: str
    kind: str
    mode: str
    until_s: float  # since the epoch


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

    def usable(self, t_s: float, timeline: Timeline, sky: Sky) -> BoolArray:
        """Which of the sky's links no fault masks. Shape (n_up,). `t_s` is the step's instant since the epoch.

        A blackout of a node masks all its links, that of "a~b" every link between the two.
        """
        a, b = timeline.links.a[sky.link], timeline.links.b[sky.link]
        usable = np.ones(len(sky.link), np.bool_)
        for fault, ends in zip(self.faults, self.ends, strict=True):
            if not _in_force(fault, t_s):
                continue
            if len(ends) == 1:
                usable &= (a != ends[0]) & (b != ends[0])
            else:
                usable &= ~(((a == ends[0]) & (b == ends[1])) | ((a == ends[1]) & (b == ends[0])))
        return usable

    def active(self, t_s: float) -> tuple[ActiveFault, ...]:
        """The faults in force at an instant, in the order of the scenario."""
        return tuple(
            ActiveFault(fault.target, fault.kind, fault.mode, fault.at_s + fault.duration_s)
            for fault in self.faults
            if _in_force(fault, t_s)
        )


def _in_force(fault: Fault, t_s: float) -> bool:
    return fault.at_s - _INSTANT_S <= t_s < fault.at_s + fault.duration_s - _INSTANT_S
