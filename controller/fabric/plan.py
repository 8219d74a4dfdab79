"""What the fabric is asked to be: the complete state of every port's direction, and how it differs between steps."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np

from controller.timeline import MTU_BYTES, BoolArray, FloatArray, IntArray, LinkTable, Sky

DARK = -1
"""The peer of a port that is patched to nothing: what a node sends into it vanishes."""

ETHERNET_BYTES = 14
FRAME_BYTES = MTU_BYTES + ETHERNET_BYTES
LOSS_DECIMALS = 9  # what netem's 32 bits of a loss ratio resolve

QUEUE_S = (
    0.05  # a router's buffer of 50 ms: full speed for TCP whose round trip is about as long, no more bloat than that
)
QUEUE_FLOOR_BYTES = 64 * FRAME_BYTES
SEGMENT_S = 0.001  # as a burst of a real sender may take
AT_ONCE_CEILING_BYTES = 65_536


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
    mtu_bytes: IntArray  # the largest packet; the port takes it on at both its ends. DARK: it keeps what it has

    def __len__(self) -> int:
        return len(self.port)

    @classmethod
    def dark(cls, n_port: int) -> Self:
        """Every direction of n_port ports patched to nothing."""
        nothing = np.zeros(n_port, np.int64)
        mtu_bytes = np.full(n_port, MTU_BYTES)
        return cls(np.arange(n_port), np.full(n_port, DARK), nothing, nothing.copy(), np.zeros(n_port), mtu_bytes)

    def changed_from(self, before: ShapingPlan) -> ShapingPlan:
        """The directions of this plan that differ from `before`, each with its complete state.

        Both plans cover the same ports in the same order.
        """
        differs = np.zeros(len(self), np.bool_)
        for name in STATE:
            differs |= getattr(self, name) != getattr(before, name)
        return self.only(differs)

    def only(self, rows: BoolArray) -> ShapingPlan:
        """Some of the directions. Shape: rows (n,)."""
        return ShapingPlan(self.port[rows], *(getattr(self, name)[rows] for name in STATE))


STATE = tuple(field.name for field in fields(ShapingPlan) if field.name != "port")


def shaping_plan(port_start: IntArray, links: LinkTable, sky: Sky, usable: BoolArray) -> ShapingPlan:
    """The state of every direction of a run at one step.

    Shapes: port_start (n_node + 1,), the first port number of each node, then the number of ports; usable (n_up,),
    which links of the sky no fault masks.
    """
    link = sky.link[usable]
    port_a = port_start[links.a[link]] + links.port_a[link]
    port_b = port_start[links.b[link]] + links.port_b[link]
    plan = ShapingPlan.dark(int(port_start[-1]))
    for port, peer in ((port_a, port_b), (port_b, port_a)):
        plan.peer[port] = peer
        plan.delay_us[port] = sky.delay_us[usable]
        plan.rate_bps[port] = sky.rate_bps[usable] // 8 * 8  # the kernel counts whole bytes
        plan.loss_ratio[port] = np.round(sky.loss_ratio[usable], LOSS_DECIMALS)
        plan.mtu_bytes[port] = links.mtu_bytes[link]
    return plan


def queue_limit_bytes(plan: ShapingPlan) -> IntArray:
    """What each direction of a plan holds while it waits to be sent: as much as is under way on it, or QUEUE_S of its
    rate if that is more, as it is in low orbits."""
    waiting_s = np.maximum(QUEUE_S, plan.delay_us * 1e-6)
    waiting_bytes: IntArray = (plan.rate_bps * waiting_s / 8).astype(np.int64)
    return np.maximum(QUEUE_FLOOR_BYTES, waiting_bytes)


def frames_at_once(plan: ShapingPlan) -> IntArray:
    """How many frames a sender may hand over as one, for later segmentation (GSO), in each direction of a plan: as many
    as take SEGMENT_S of its rate, one at the least. (In frames, not bytes, the kernel keeps to it exactly: a frame of
    many segments has its headers once until it is taken apart.)

    Where frames are lost, one at a time: a lost frame of many segments would be a burst of losses.
    """
    one = plan.mtu_bytes + ETHERNET_BYTES
    worth_bytes = np.minimum((plan.rate_bps * SEGMENT_S / 8).astype(np.int64), AT_ONCE_CEILING_BYTES)
    return np.where(plan.loss_ratio > 0, 1, np.maximum(1, worth_bytes // one))


class Shaper(Protocol):
    """Imposes shaping plans on the panel's ports. The fabric owns this contract; one conformance suite holds it.

    Delay is one way, from the moment the last bit left the sender: a frame arrives bytes × 8 ÷ rate + delay after it
    was sent into an idle direction. Loss is independent for each frame. The queue of a direction holds what waits for
    the rate: `queue_limit_bytes` of it, the rest is dropped. Frames of a direction arrive in the order they were sent,
    also when its delay shrinks.
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
