"""Host routes: packets cross several nodes, move when told, and errors name who and whither."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from controller.fabric.netlink import RouteError
from controller.fabric.routes import WITHDRAWN
from tests.kernel.world import Link, World, dark, opened_world, plan


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
