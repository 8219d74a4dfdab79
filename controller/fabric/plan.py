"""What the fabric is asked to be: the complete state of every port's direction, and its difference from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from controller.timeline import FloatArray, IntArray

DARK = -1
"""The peer of a port that is patched to nothing: what a node sends into it vanishes."""


@dataclass(frozen=True)
class ShapingPlan:
    """The complete state of some directions. Shapes: all (n,).

    A direction is named by the port that sends into it: frames that the node sends out of `port` reach the node behind
    `peer`, delayed, at a limited rate, some lost. `port` and `peer` are the panel's port numbers (0 … n_port - 1).
    """

    port: IntArray
    peer: IntArray  # DARK: nothing arrives anywhere; what is in flight still arrives
    delay_us: IntArray
    rate_bps: IntArray
    loss_ratio: FloatArray

    def __len__(self) -> int:
        return len(self.port)

    @classmethod
    def dark(cls, n_port: int) -> Self:
        """Every direction of n_port ports patched to nothing."""
        zeros = np.zeros(n_port, np.int64)
        return cls(np.arange(n_port), np.full(n_port, DARK), zeros, zeros, np.zeros(n_port))

    def changed_from(self, before: ShapingPlan) -> ShapingPlan:
        """The directions of this plan that differ from `before`, each with its complete state.

        Both plans cover the same ports in the same order.
        """
        same = (
            (self.peer == before.peer)
            & (self.delay_us == before.delay_us)
            & (self.rate_bps == before.rate_bps)
            & (self.loss_ratio == before.loss_ratio)
        )
        rows = ~same
        return ShapingPlan(
            self.port[rows], self.peer[rows], self.delay_us[rows], self.rate_bps[rows], self.loss_ratio[rows]
        )


class Shaper(Protocol):
    """Imposes shaping plans on the panel's ports. The fabric owns this contract; one conformance suite holds it.

    Delay is one way, from the moment the last bit left the sender: a frame arrives bytes × 8 ÷ rate + delay after it was
    sent into an idle direction. Loss is independent for each frame. The queue of a direction holds what waits for the
    rate: `queue_limit_bytes` of it, the rest is dropped.
    """

    name: str

    def apply(self, plan: ShapingPlan) -> None:
        """Make these directions so. Before: ports exist. After: the plan holds for every frame sent from now on.

        Raises ShapingError, which names the port, what was asked, and the kernel's answer.
        """

    def read_back(self) -> ShapingPlan:
        """The state of every port's direction as it is in force, in order of port number."""

    def close(self) -> None:
        """End what the shaper started. Idempotent."""
