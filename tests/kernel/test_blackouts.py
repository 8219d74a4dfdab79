"""What nodes notice of a link that is taken, by its mode, with real packets. `silent` is held by the shapers' suite."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest

from controller.fabric.namespaces import in_namespace
from controller.faults import FaultSchedule
from controller.links.routes import WITHDRAWN
from controller.scenario.fault_model import Fault, FaultMode
from controller.schedule import Commanded, Schedule
from controller.timeline import Blocks, MemoryBlocks
from tests.kernel.world import Link, Traffic, World, dark, opened_world, plan, wait_for
from tests.unit.hand_made import timeline as hand_made

AT_ONCE_S = 0.5  # an answer over one hop of 5 ms, on a busy machine; a connection that nobody answers takes a minute
SIOCGIFFLAGS, IFF_RUNNING = 0x8913, 0x40
UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH}


def has_carrier(world: World, node: int, port: str) -> bool:
    """Whether a node sees a carrier on a port."""

    def running() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            answer = fcntl.ioctl(asking, SIOCGIFFLAGS, struct.pack("16sH14x", port.encode(), 0))
        return bool(struct.unpack("16sH14x", answer)[1] & IFF_RUNNING)

    return in_namespace(world.nodes[node].network_namespace, running)


def sees(world: World, node: int, *, carrier: bool) -> bool:
    """Whether a node's port is as it should be."""
    return has_carrier(world, node, "isl0") == carrier


def why_not(world: World, source: int, target: int) -> tuple[int, float]:
    """The error of a connection that cannot be, and after how many seconds it came."""
    began = time.monotonic()

    def connect() -> int:
        with socket.socket() as out:
            out.settimeout(10.0)
            return out.connect_ex((world.nodes[target].address, 5_001))

    return in_namespace(world.nodes[source].network_namespace, connect), time.monotonic() - began


def test_a_rejected_destination_is_unreachable_at_once(pair: World) -> None:
    """Where the route is withdrawn the sender is told by its own kernel: before, the other end answers by itself."""
    pair.shaper.apply(plan(Link(0, 1, delay_us=5_000)))
    assert why_not(pair, 0, 1)[0] == errno.ECONNREFUSED  # nobody listens there, and its kernel says so
    pair.route((0, 1, WITHDRAWN), (1, 0, WITHDRAWN))
    pair.shaper.apply(dark(0, 1))
    error, after_s = why_not(pair, 0, 1)
    assert error in UNREACHABLE
    assert after_s < AT_ONCE_S
    pair.shaper.apply(plan(Link(0, 1, delay_us=5_000)))
    pair.route((0, 1, 0), (1, 0, 0))
    assert why_not(pair, 0, 1)[0] == errno.ECONNREFUSED


def test_a_node_on_the_way_answers_for_what_is_rejected_beyond_it(shaper_name: str) -> None:
    """Three nodes in a row; the far link is rejected: the middle node's ICMP reaches the sender within a round trip."""
    with opened_world(shaper_name, n_node=3, n_port=2) as world:
        near, far = Link(0, 2, delay_us=5_000), Link(3, 4, delay_us=5_000)
        world.shaper.apply(plan(near, far))
        world.route((0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 2, 1), (2, 1, 0), (2, 0, 0))
        assert why_not(world, 0, 2)[0] == errno.ECONNREFUSED
        world.route((1, 2, WITHDRAWN), (2, 1, WITHDRAWN), (2, 0, WITHDRAWN))
        world.shaper.apply(dark(3, 4))
        error, after_s = why_not(world, 0, 2)
        assert error in UNREACHABLE
        assert after_s < AT_ONCE_S


def test_a_port_without_carrier_is_seen_by_its_node_and_comes_back(pair: World) -> None:
    """Both ends of the link see NO-CARRIER, and nothing passes; with the carrier back all is as before."""
    link = plan(Link(0, 1, delay_us=5_000))
    pair.shaper.apply(link)
    assert has_carrier(pair, 0, "isl0")
    pair.shaper.apply(dark(0, 1))
    pair.panel.set_carriers(np.array([0, 1]), on=False)
    for node in (0, 1):
        wait_for(partial(sees, pair, node, carrier=False), "no carrier")
    pair.panel.set_carriers(np.array([0, 1]), on=True)
    pair.panel.set_carriers(np.empty(0, np.int64), on=False)  # as most steps ask
    pair.shaper.apply(link)
    for node in (0, 1):
        wait_for(partial(sees, pair, node, carrier=True), "a carrier")
    with pair.sending(0, 1) as traffic:
        traffic.send(20, 0.01)
        delay_ms = traffic.received().delay_ms
    assert len(delay_ms) == 20
    assert delay_ms.min() == pytest.approx(5.0, abs=1.0)


class Sky:
    """Three satellites in a ring and two ground nodes, in namespaces, commanded as a run commands them."""

    def __init__(self, world: World, delays_us: Sequence[int] = ()) -> None:
        """`delays_us`: those of all links, step by step, over and over; without any, they are as the ring has them."""
        timeline = hand_made(n_satellite=3)
        if delays_us:
            timeline = replace(timeline, blocks=_delayed(timeline.blocks, delays_us))
        ports = timeline.nodes[0].ports  # every node of this world has as many
        nodes = tuple(replace(node, ports=ports) for node in timeline.nodes)
        self.world, self.faults = world, FaultSchedule((), nodes)
        self.schedule = Schedule.of(replace(timeline, nodes=nodes), self.faults)
        self.state: Commanded | None = None

    def command(self, t_s: float, step: int = 0) -> None:
        """A step, under the faults of a moment: in the order of a run's loop."""
        state = self.schedule.at(step, t_s)
        change = self.schedule.change(self.state, state)
        self.world.panel.set_carriers(change.plugged_in, on=True)
        self.world.shaper.apply(change.made)
        for wave in change.routes:
            self.world.routes.apply(wave)
        self.world.shaper.apply(change.broken)
        self.world.panel.set_carriers(change.unplugged, on=False)
        self.state = state

    def arrived(self, source: int, target: int) -> int:
        """How many of twenty datagrams arrive."""
        with self.world.sending(source, target) as traffic:
            traffic.send(20, 0.005)
            return len(traffic.received().number)


def _delayed(blocks: Blocks, delays_us: Sequence[int]) -> MemoryBlocks:
    delayed = MemoryBlocks(blocks.block_steps)
    for index in range(len(blocks)):
        block = blocks[index]
        step = block.first_step + np.repeat(np.arange(block.n_step), np.diff(block.step_start))
        delay_us = np.array(delays_us, np.int32)[step % len(delays_us)]
        delayed.append(replace(block, delay_us=delay_us))
    return delayed


STEP_S, AT_LEAST = 0.1, 60
QUIET_PERCENT = 20  # other load on the machine only ever adds to a delay


def _send_until(traffic: Traffic, ended: threading.Event) -> None:
    while not ended.is_set():
        traffic.send(10, 0.001)


def _has_sent(traffic: Traffic, since_s: float, count: int) -> bool:
    sent_s = traffic.sent_s
    return len(sent_s) >= count and sent_s[-count][0] > since_s


@pytest.mark.parametrize("kind", ["blackout", "degrade"])
def test_a_fault_over_changing_geometry_heals_exactly_when_it_is_commanded(
    shaper_name: str, kind: Literal["blackout", "degrade"]
) -> None:
    """Every 100 ms the geometry gives all links another delay; from the fifth step to the tenth there is a fault.

    Of 1,000 datagrams a second, each meets what was in force when it was sent: while the blackout holds none arrives,
    before and after it every one does; a degrade's extra delay is in each of its steps, beside the geometry's, and in
    no other. Those that are sent while a step is being commanded may meet either.
    """
    delays_us, first, last, n_step = (20_000, 5_000, 15_000, 10_000), 5, 10, 16
    extra_us = 30_000 if kind == "degrade" else 0
    with opened_world(shaper_name, n_node=5, n_port=4) as world:
        sky = Sky(world, delays_us)
        keys: dict[str, Any] = {"extra_delay_s": extra_us / 1e6} if kind == "degrade" else {"mode": "silent"}
        fault = Fault(kind=kind, target="ring-p00s00", at_s=0.0, **keys)
        sky.command(0.0)
        edges_s = [(0.0, time.time())]  # when each step began to be commanded, and when it was
        name = ""
        with world.sending(1, 0) as traffic:
            ended = threading.Event()
            sender = threading.Thread(target=_send_until, args=(traffic, ended))
            sender.start()
            for step in range(1, n_step):
                ended.wait(STEP_S)
                wait_for(partial(_has_sent, traffic, edges_s[-1][1], AT_LEAST), "frames of this step")
                if step == first:
                    name = sky.faults.inject(fault, float(step))
                if step == last:
                    assert sky.faults.clear(name, float(step)) == 1
                began_s = time.time()
                sky.command(float(step), step)
                edges_s.append((began_s, time.time()))
            wait_for(partial(_has_sent, traffic, edges_s[-1][1], AT_LEAST), "frames of the last step")
            ended.set()
            sender.join()
            received = traffic.received()
        sent_s = np.array(traffic.sent_s)  # (n, 2)
    arrived = np.isin(np.arange(len(sent_s)), received.number)
    assert received.number.tolist() == sorted(set(received.number.tolist())), "none overtakes, none is doubled"
    edges_s.append((float("inf"), 0.0))
    for step, ((_, in_force_s), (until_s, _)) in enumerate(pairwise(edges_s)):
        met = (sent_s[:, 0] > in_force_s) & (sent_s[:, 1] < until_s)
        assert met.sum() >= AT_LEAST - 2
        if first <= step < last and kind == "blackout":
            assert not arrived[met].any(), step
            continue
        assert arrived[met].all(), step
        late = np.flatnonzero(met)[met.sum() // 2 :]  # a shorter delay never lets them overtake: first those before
        expected_ms = (delays_us[step % len(delays_us)] + (extra_us if first <= step < last else 0)) / 1e3
        measured_ms = received.delay_ms[np.isin(received.number, late)]
        assert abs(np.percentile(measured_ms, QUIET_PERCENT) - expected_ms) <= 1.0, step


@pytest.mark.parametrize("mode", ["silent", "reject", "carrier"])
def test_an_injected_blackout_means_its_mode_and_heals_when_it_is_cleared(shaper_name: str, mode: FaultMode) -> None:
    """A satellite is cut off, as the mode has it, from the command on; cleared, its packets arrive as before. The other
    two reach each other all the time."""
    with opened_world(shaper_name, n_node=5, n_port=4) as world:
        sky = Sky(world)
        sky.command(0.0)
        assert sky.arrived(1, 0) == 20
        fault = Fault(kind="blackout", target="ring-p00s00", at_s=0.0, mode=mode)
        name = sky.faults.inject(fault, 4.5)
        sky.command(4.5)
        if mode == "silent":
            assert sky.arrived(1, 0) == 0  # nobody is told: the route stays, and the send call has no error
        else:
            error, after_s = why_not(world, 1, 0)
            assert error in UNREACHABLE
            assert after_s < AT_ONCE_S
        if mode == "carrier":
            wait_for(lambda: not has_carrier(world, 0, "isl0") and not has_carrier(world, 0, "isl1"), "no carrier")
        else:
            assert has_carrier(world, 0, "isl0")
        assert sky.arrived(1, 2) == 20
        assert sky.faults.clear(name, 4.75) == 1
        sky.command(4.75)
        wait_for(lambda: has_carrier(world, 0, "isl0") and has_carrier(world, 0, "isl1"), "a carrier")
        assert sky.arrived(1, 0) == 20
        assert sky.arrived(0, 1) == 20
