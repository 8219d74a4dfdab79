"""Routes: shortest, decided, towards the destinations asked for; repaired step by step; changed without a gap."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.links.routes import NONE, Ports, Router, next_ports, path, path_costs, ports, route_changes
from controller.timeline import BoolArray, FloatArray, IntArray, LinkTable, Sky
from tests.searches import examples

Edge = tuple[int, int, int]  # a, b, delay_us
LIGHT_M_US = 299.792458


def table(n_node: int, pairs: Iterable[tuple[int, int]]) -> LinkTable:
    """Links, each on the next free port of either end."""
    used = [0] * n_node
    rows = []
    for near, far in pairs:
        rows.append((near, far, used[near], used[far]))
        used[near] += 1
        used[far] += 1
    a, b, port_a, port_b = np.array(rows, np.int64).reshape(-1, 4).T
    return LinkTable(
        a, b, np.zeros(len(rows), np.int64), port_a, port_b, np.zeros(len(rows)), np.full(len(rows), 1_500)
    )


def sky_of(link: Sequence[int] | IntArray, delay_us: Sequence[int] | IntArray) -> Sky:
    """A step at which these links are up."""
    delay, n = np.asarray(delay_us, np.int32), len(link)
    return Sky(
        r_ecef_m=np.zeros((3, 0)),
        illumination_ratio=np.zeros(0, np.float32),
        link=np.asarray(link, np.int32),
        range_m=delay.astype(np.float64) * LIGHT_M_US,
        range_rate_m_s=np.zeros(n, np.float32),
        delay_us=delay,
        rate_bps=np.full(n, 10**6),
        loss_ratio=np.zeros(n),
        elevation_deg=np.full(n, np.nan, np.float32),
    )


def network(n_node: int, edges: Sequence[Edge]) -> tuple[LinkTable, Sky]:
    """Links, all of them up."""
    return table(n_node, [edge[:2] for edge in edges]), sky_of(range(len(edges)), [edge[2] for edge in edges])


def all_usable(sky: Sky) -> BoolArray:
    """No fault."""
    return np.ones(len(sky.link), np.bool_)


def shortest_us(n_node: int, links: LinkTable, sky: Sky, is_ground: BoolArray) -> FloatArray:
    """Shortest delays between all nodes by Bellman's iteration, ground nodes only as ends: the oracle."""
    direct = np.full((n_node, n_node), np.inf)
    a, b = links.a[sky.link], links.b[sky.link]
    np.minimum.at(direct, (a, b), sky.delay_us)
    np.minimum.at(direct, (b, a), sky.delay_us)
    np.fill_diagonal(direct, 0.0)
    best = direct.copy()
    for _ in range(n_node):
        for relay in np.flatnonzero(~is_ground):
            best = np.minimum(best, best[:, relay, None] + direct[None, relay])
    return best


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, list[Edge], BoolArray]:
    """Up to nine nodes, up to 16 links with small delays (so that there are ties), some nodes on the ground."""
    n_node = draw(st.integers(2, 9))
    pairs = [(a, b) for a in range(n_node) for b in range(a + 1, n_node)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=16))  # some pairs twice: parallel links
    edges = [(a, b, draw(st.integers(0, 6))) for a, b in chosen]
    return n_node, edges, np.array(draw(st.lists(st.booleans(), min_size=n_node, max_size=n_node)), np.bool_)


@settings(max_examples=examples(200), deadline=None)
@given(networks())
def test_routes_are_shortest_and_never_pass_through_a_ground_node(case: tuple[int, list[Edge], BoolArray]) -> None:
    """In any network each path has the least delay that an exhaustive search finds, and relays are satellites."""
    n_node, edges, is_ground = case
    links, sky = network(n_node, edges)
    every = np.arange(n_node)
    routes = next_ports(n_node, links, sky, all_usable(sky), is_ground, every)
    panel = ports(n_node, links, sky, all_usable(sky))
    source, destination = (grid.ravel() for grid in np.indices((n_node, n_node)))
    costs = path_costs(routes, panel, every, source, destination)
    oracle = shortest_us(n_node, links, sky, is_ground)[source, destination]
    assert np.array_equal(costs.delay_us, np.where(np.isinf(oracle), NONE, oracle))
    for s, d, hops in zip(source.tolist(), destination.tolist(), costs.hops.tolist(), strict=True):
        nodes = path(routes, panel, every, s, d)
        assert len(nodes) == hops + 1
        assert not any(is_ground[node] for node in nodes[1:-1])
    assert np.array_equal(costs.delay_us.reshape(n_node, n_node), costs.delay_us.reshape(n_node, n_node).T)


@settings(max_examples=examples(50), deadline=None)
@given(networks(), st.data())
def test_a_column_depends_on_its_own_destination_only(
    case: tuple[int, list[Edge], BoolArray], data: st.DataObject
) -> None:
    """Routes towards some nodes, in any order, are those columns of the routes towards all."""
    n_node, edges, is_ground = case
    links, sky = network(n_node, edges)
    some = np.array(data.draw(st.lists(st.integers(0, n_node - 1), unique=True)), np.int64)
    to_all = next_ports(n_node, links, sky, all_usable(sky), is_ground, np.arange(n_node))
    to_some = next_ports(n_node, links, sky, all_usable(sky), is_ground, some)
    np.testing.assert_array_equal(to_some, to_all[:, some])


def test_ties_are_decided_by_hops_and_then_by_the_lowest_port() -> None:
    """Of paths of one delay the one of fewer hops is taken; of equal ones, the one out of the lowest port."""
    #   0 ─10─ 1 ─10─ 3, 0 ─10─ 2 ─10─ 3 (equal), and 0 ─20─ 3 (one hop, on port 2)
    links, sky = network(4, [(0, 2, 10), (2, 3, 10), (0, 1, 10), (1, 3, 10), (0, 3, 20)])
    ground, every = np.zeros(4, np.bool_), np.arange(4)
    assert next_ports(4, links, sky, all_usable(sky), ground, every)[0, 3] == 2
    masked = np.array([True, True, True, True, False])
    assert next_ports(4, links, sky, masked, ground, every)[0, 3] == 0
    assert next_ports(4, links, sky, masked, ground, every)[3, 0] == 0


def test_of_parallel_links_the_shortest_counts() -> None:
    """Two links between the same nodes are two ways, not one of both lengths."""
    links, sky = network(3, [(0, 1, 9), (0, 1, 5), (1, 2, 1), (0, 2, 7)])
    routes = next_ports(3, links, sky, all_usable(sky), np.zeros(3, np.bool_), np.arange(3))
    assert routes[0].tolist() == [NONE, 1, 1]


def test_masked_links_carry_no_route() -> None:
    """What a fault masks is not used, and a node cut off has no route to anybody, nor anybody to it."""
    links, sky = network(3, [(0, 1, 5), (1, 2, 5)])
    every, satellites, masked = np.arange(3), np.zeros(3, np.bool_), np.array([True, False])
    routes = next_ports(3, links, sky, masked, satellites, every)
    expected: IntArray = np.array([[NONE, 0, NONE], [0, NONE, NONE], [NONE, NONE, NONE]])
    assert np.array_equal(routes, expected)
    assert path(routes, ports(3, links, sky, masked), every, 0, 2) == []
    nothing = next_ports(3, links, sky, np.zeros(2, np.bool_), satellites, every)
    assert np.all(nothing == NONE)


def test_routes_towards_nobody_are_no_routes() -> None:
    """Without a destination, and without a link, there is an answer of the right shape."""
    links, sky = network(3, [(0, 1, 5)])
    router = Router(3, links, np.zeros(3, np.bool_), np.empty(0, np.int64))
    for delay_us in (5, 6):
        assert router.next_ports(sky_of([0], [delay_us]), all_usable(sky)).shape == (3, 0)
    bare, dark = network(3, [])
    assert next_ports(3, bare, dark, all_usable(dark), np.zeros(3, np.bool_), np.arange(3)).tolist() == [[NONE] * 3] * 3


def walk(seed: int, n_step: int = 25) -> Iterable[tuple[int, LinkTable, Sky, BoolArray, BoolArray, IntArray]]:
    """A network whose delays drift and whose links, ports and faults come and go, step by step."""
    rng = np.random.default_rng(seed)
    n_node = int(rng.integers(4, 40))
    is_ground = rng.random(n_node) < rng.choice([0.0, 0.3])
    pairs = [(a, b) for a in range(n_node) for b in range(a + 1, n_node) if rng.random() < 4 / n_node]
    first = table(n_node, pairs)
    # Each port of the table is there twice: a second link that patches the same port of `a` to another port of `b`.
    links = LinkTable(
        np.concatenate([first.a, first.a]),
        np.concatenate([first.b, rng.permutation(first.b)]),
        np.concatenate([first.kind, first.kind]),
        np.concatenate([first.port_a, first.port_a]),
        np.concatenate([first.port_b, first.port_b + 40]),
        np.concatenate([first.loss_ratio, first.loss_ratio]),
        np.concatenate([first.mtu_bytes, first.mtu_bytes]),
    )
    kept = (links.a != links.b).nonzero()[0]
    _, own_port = np.unique(np.stack([links.b[kept], links.port_b[kept]]), axis=1, return_index=True)
    kept = np.sort(kept[own_port])
    destinations = rng.permutation(n_node)[: rng.integers(1, n_node + 1)]
    delay_us = rng.integers(0, 50, len(links.a))
    is_up = rng.random(len(links.a)) < 0.8
    for _ in range(n_step):
        if rng.random() < 0.8:
            delay_us = np.maximum(0, delay_us + rng.integers(-3, 4, len(delay_us)))
            is_up ^= rng.random(len(is_up)) < rng.choice([0.0, 0.02, 0.3], p=[0.5, 0.4, 0.1])
        up = kept[is_up[kept]]
        _, sole = np.unique(np.stack([links.a[up], links.port_a[up]]), axis=1, return_index=True)
        up = np.sort(up[sole])  # a port is patched to one port
        usable = rng.random(len(up)) < rng.choice([1.0, 0.9], p=[0.7, 0.3])
        yield n_node, links, sky_of(up, delay_us[up]), usable, is_ground, destinations


@pytest.mark.parametrize("seed", range(40))
def test_repaired_routes_are_those_from_nothing(seed: int) -> None:
    """Over random walks of delays, links, ports and faults, remembering the step before never changes an answer."""
    router: Router | None = None
    for n_node, links, sky, usable, is_ground, destinations in walk(seed):
        if router is None:
            router = Router(n_node, links, is_ground, destinations)
        expected = next_ports(n_node, links, sky, usable, is_ground, destinations)
        np.testing.assert_array_equal(router.next_ports(sky, usable), expected)


def test_where_nothing_changed_nothing_is_computed() -> None:
    """The same links, usable and as long as before, give the very same array; a delay of 1 µs more gives another."""
    links, sky = network(4, [(0, 1, 10), (1, 2, 10), (2, 3, 10), (0, 3, 30)])
    router = Router(4, links, np.zeros(4, np.bool_), np.arange(4))
    first = router.next_ports(sky, all_usable(sky))
    assert router.next_ports(sky_of(range(4), [10, 10, 10, 30]), all_usable(sky)) is first
    changed = router.next_ports(sky_of(range(4), [10, 10, 10, 31]), all_usable(sky))
    assert changed is not first
    assert router.next_ports(sky, np.array([True, True, True, False]))[0, 3] == 0


def arrives(port: IntArray, panel: Ports, source: int, destination: int) -> bool:
    """Whether a packet that follows the routes to one destination comes to it. Shape: port (n_node,)."""
    at = source
    for _ in range(len(port) + 1):
        if at == destination:
            return True
        if port[at] == NONE:
            return False
        at = int(panel.peer[at, port[at]])
    return False


def both_up(n_node: int, seed: int) -> tuple[LinkTable, Sky, Sky, Sky]:
    """A network, two steps of it with other links and delays, and a step at which the links of both are up."""
    rng = np.random.default_rng(seed)
    links = table(n_node, [(a, b) for a in range(n_node) for b in range(a + 1, n_node) if rng.random() < 5 / n_node])
    n = len(links.a)
    steps = []
    for _ in range(2):
        up = np.flatnonzero(rng.random(n) < 0.7)
        steps.append(sky_of(up, rng.integers(1, 100, len(up))))
    return links, steps[0], steps[1], sky_of(range(n), np.zeros(n, np.int64))


@pytest.mark.parametrize("seed", range(20))
def test_no_packet_is_lost_or_turned_back_while_routes_change(seed: int) -> None:
    """While the links of both steps are up, after every single change each node that had a path before and has one
    after reaches its destination: there is no loop and no dead end, in whatever order a wave is made."""
    n_node = 14
    links, one, other, both = both_up(n_node, seed)
    is_ground, every = np.arange(n_node) >= n_node - 3, np.arange(n_node)
    before, after = (next_ports(n_node, links, sky, all_usable(sky), is_ground, every) for sky in (one, other))
    panel = ports(n_node, links, both, all_usable(both))
    waves = route_changes(before, after, ports(n_node, links, other, all_usable(other)), every)
    lasting = np.argwhere((before != NONE) & (after != NONE)).tolist()
    standing = before.copy()
    rng = np.random.default_rng(seed)
    for wave in waves:
        for i in rng.permutation(len(wave)).tolist():
            destination = int(wave.destination[i])
            standing[wave.node[i], destination] = wave.port[i]
            for node, to in lasting:
                if to == destination:
                    assert arrives(standing[:, to], panel, node, to), f"from {node} to {to}"
    np.testing.assert_array_equal(standing, after)
    assert sum(len(wave) for wave in waves) == np.count_nonzero(before != after) > 0


def test_changes_go_outwards_from_the_destination_and_routes_go_last() -> None:
    """Of a chain that turns to another way, the node next to the destination changes first; what has no way any more
    loses its route in the last wave."""
    #   0 ─ 1 ─ 2 ─ 3 ─ 4; 4 also joined to 0, and 5 to 0: the short way to 4 leads first one way round, then the other
    links = table(6, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4), (0, 5)])
    satellites, to = np.zeros(6, np.bool_), np.array([4])
    one, other = sky_of(range(6), [1, 1, 1, 1, 9, 1]), sky_of(range(5), [1, 1, 1, 9, 1])
    before, after = (next_ports(6, links, sky, all_usable(sky), satellites, to) for sky in (one, other))
    waves = route_changes(before, after, ports(6, links, other, all_usable(other)), to)
    assert [wave.node.tolist() for wave in waves] == [[0], [1], [2], [3], [5]]
    assert waves[-1].port.tolist() == [NONE]
    assert all(wave.destination.tolist() == [4] for wave in waves)
    assert route_changes(after, after, ports(6, links, other, all_usable(other)), to) == ()


def test_the_routes_of_a_small_constellation_take_under_2_ms_a_step() -> None:
    """66 satellites in a grid and 5 ground nodes, routes from every node to every other, as in the default preset."""
    planes, slots, n_ground = 6, 11, 5
    satellite = np.arange(planes * slots).reshape(planes, slots)
    pairs = [
        *zip(satellite.ravel().tolist(), np.roll(satellite, -1, axis=1).ravel().tolist(), strict=True),
        *zip(satellite[:-1].ravel().tolist(), satellite[1:].ravel().tolist(), strict=True),
        *((planes * slots + ground, 13 * ground) for ground in range(n_ground)),
    ]
    n_node = planes * slots + n_ground
    links, is_ground = table(n_node, pairs), np.arange(n_node) >= planes * slots
    router = Router(n_node, links, is_ground, np.arange(n_node))
    rng = np.random.default_rng(1)
    delay_us = rng.integers(5_000, 15_000, len(pairs))
    took_s = []
    for _ in range(25):
        delay_us = delay_us + rng.integers(-5, 6, len(pairs))
        sky = sky_of(range(len(pairs)), delay_us)
        start_s = time.perf_counter()
        routes = router.next_ports(sky, all_usable(sky))
        took_s.append(time.perf_counter() - start_s)
        assert np.count_nonzero(routes == NONE) == n_node
    assert min(took_s) < 2e-3  # the best of them: what else runs on the machine says nothing of the code
