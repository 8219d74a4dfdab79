"""Host routes: packets cross several nodes, move when told, and errors name who and whither."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from controller.fabric.netlink import RouteError
from controller.fabric.plan import shaping_plan
from controller.fabric.routes import WITHDRAWN
from controller.links.routes import NONE, next_ports, ports, route_changes
from controller.timeline import MTU_BYTES, LinkKind, LinkTable, Sky
from tests.kernel.world import MBIT, Link, World, dark, opened_world, plan

# Two relays between two ends: 0 – 1 – 2 – 3 and 0 – 2 – 1 – 3 are both ways, and the relays stand in opposite orders.
RELAYS = LinkTable(
    a=np.array([0, 0, 1, 1, 2]),
    b=np.array([1, 2, 2, 3, 3]),
    kind=np.full(5, LinkKind.ISL),
    port_a=np.array([0, 1, 1, 2, 2]),
    port_b=np.array([0, 0, 1, 0, 1]),
    loss_ratio=np.zeros(5),
    mtu_bytes=np.full(5, MTU_BYTES),
)
ONE_ORDER_US, OTHER_ORDER_US = (2_000, 30_000, 2_000, 30_000, 2_000), (30_000, 2_000, 2_000, 2_000, 30_000)
EVERY_LINK = np.ones(5, np.bool_)


@pytest.fixture
def chain(shaper_name: str) -> Iterator[World]:
    """Four nodes in a row, 0 – 1 – 2 – 3, 4 ms apart, and a direct link of 30 ms from 0 to 3; ports 2n and 2n + 1."""
    with opened_world(shaper_name, n_node=4, n_port=2) as world:
        world.shaper.apply(plan(*(Link(2 * k + 1, 2 * k + 2, delay_us=4_000) for k in range(3)), Link(0, 7, 30_000)))
        world.route(*((k, 3, 1) for k in range(3)), *((k, 0, 0) for k in range(1, 4)))
        yield world


def test_packets_are_forwarded_over_three_hops(chain: World) -> None:
    """A datagram crosses two nodes between its ends, and its delay is the sum of its hops."""
    with chain.sending(0, 3) as traffic:
        traffic.send(60, 0.004)
        received = traffic.received()
    assert len(received.number) == 60
    assert abs(np.median(received.delay_ms) - 12.0) <= 2.0


def test_a_route_that_moves_loses_nothing(chain: World) -> None:
    """A route replaced in the midst of traffic is made before the old one is broken."""
    with chain.sending(0, 3) as traffic:
        traffic.send(40, 0.002)
        chain.route((0, 3, 0))
        traffic.send(40, 0.002)
        received = traffic.received()
    assert sorted(received.number.tolist()) == list(range(80))
    last = np.isin(received.number, range(50, 80))
    assert abs(np.median(received.delay_ms[last]) - 30.0) <= 2.0


def test_a_withdrawn_route_is_no_route(chain: World) -> None:
    """Sending without a route fails at once, and a new route heals it."""
    chain.route((0, 3, WITHDRAWN))
    with chain.sending(0, 3) as traffic:
        with pytest.raises(OSError, match="unreachable"):
            traffic.send(1, 0.0)
        chain.route((0, 3, 1))
        traffic.send(5, 0.001)
        assert len(traffic.received().number) == 5


def test_a_route_that_cannot_be_is_refused_by_name(chain: World) -> None:
    """An unknown port, and a route which is not there to withdraw, are named with node and destination."""
    with pytest.raises(RouteError, match=r"node0 to node2 \(10\.77\.0\.3\) by port number 9: ENODEV"):
        chain.route((0, 2, 9))
    with pytest.raises(RouteError, match=r"withdraw the route of node0 to node2 .*ESRCH"):
        chain.route((0, 2, WITHDRAWN))


def test_a_dark_hop_breaks_the_path(chain: World) -> None:
    """A blackout in the middle of a path swallows what would cross it."""
    chain.shaper.apply(dark(3, 4))
    with chain.sending(0, 3) as traffic:
        traffic.send(20, 0.001)
        assert len(traffic.received().number) == 0


def _relay_sky(delay_us: tuple[int, ...]) -> Sky:
    """A step in which all links of RELAYS are up, each with its delay."""
    numbers = np.zeros(5, np.float32)
    return Sky(
        r_ecef_m=np.zeros((3, 4)),
        illumination_ratio=np.ones(4, np.float32),
        link=np.arange(5, dtype=np.int32),
        range_m=np.zeros(5),
        range_rate_m_s=numbers,
        delay_us=np.array(delay_us, np.int32),
        rate_bps=np.full(5, 100 * MBIT),
        loss_ratio=np.zeros(5),
        elevation_deg=numbers,
    )


def test_planned_route_changes_lose_nothing_and_double_nothing(shaper_name: str) -> None:
    """Of 1,000 datagrams a second, none is lost or doubled while routes move, again and again, between standing paths.

    The relays change places each time. Waves are made so slowly here that in a wrong order datagrams would go to and
    fro between them until their time to live is over.
    """
    skies = [_relay_sky(ONE_ORDER_US), *(_relay_sky(each) for each in (OTHER_ORDER_US, ONE_ORDER_US) * 2)]
    starts, nodes, no_ground = np.arange(5) * 3, np.arange(4), np.zeros(4, np.bool_)
    wanted = [next_ports(4, RELAYS, sky, EVERY_LINK, no_ground, nodes) for sky in skies]
    count, wave_s = 4_000, 0.2
    with opened_world(shaper_name, n_node=4, n_port=3) as world:

        def change(sky: Sky, before: np.ndarray, after: np.ndarray, pause: Callable[[], None]) -> None:
            world.shaper.apply(shaping_plan(starts, RELAYS, sky, EVERY_LINK))
            for wave in route_changes(before, after, ports(4, RELAYS, sky, EVERY_LINK), nodes):
                world.routes.apply(wave)
                pause()

        change(skies[0], np.full_like(wanted[0], NONE), wanted[0], lambda: None)
        with world.sending(0, 3) as traffic:
            sender = threading.Thread(target=traffic.send, args=(count, 0.001))
            sender.start()
            for sky, (before, after) in zip(skies[1:], pairwise(wanted), strict=True):
                change(sky, before, after, lambda: sender.join(wave_s))
                assert sender.is_alive(), "routes change in the midst of traffic"
            sender.join()
            received = traffic.received()
    assert sorted(received.number.tolist()) == list(range(count))
    assert abs(np.median(received.delay_ms) - 6.0) <= 2.0
