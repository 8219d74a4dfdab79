"""What a step commands under faults: which ports are patched, which routes stand, what round trips should take."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from controller.fabric.plan import DARK
from controller.faults import FaultSchedule
from controller.planner import plan
from controller.scenario import Source, parse_scenario
from controller.schedule import NO_ROUTE, Schedule, default_probe_pairs
from controller.timeline import Role, Timeline

RING = """
name = "ring"
epoch = 2026-01-01T00:00:00Z
duration_s = 30.0

[[constellation]]
name = "sat"
walker = { pattern = "star", total = 6, planes = 1, phasing = 0, altitude_m = 8_000_000, inclination_deg = 90.0 }
isl = { topology = "ring" }

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47

[[ground]]
name = "mumbai"
role = "terminal"
latitude_deg = 19.08
longitude_deg = 72.88
"""
FAULT = """
[[fault]]
kind = "blackout"
target = "{target}"
at_s = 10.0
duration_s = 10.0
"""
BEFORE, DURING, AFTER = 9, 10, 20


def schedule(text: str) -> Schedule:
    """The schedule of a scenario's text."""

    scenario = parse_scenario(Source("ring.toml", text, Path()))
    timeline = plan(scenario)
    return Schedule.of(timeline, FaultSchedule.from_scenario(scenario, timeline))


def index_of(timeline: Timeline, name: str) -> int:
    """Where a node stands."""
    return [node.name for node in timeline.nodes].index(name)


def rtt_us(of: Schedule, step: int, a: str, b: str) -> int:
    """The commanded round trip between two nodes."""
    ends = (np.array([index_of(of.timeline, name)]) for name in (a, b))
    return int(of.round_trips(of.at(step), *ends).rtt_us[0])


def test_a_blackout_of_a_node_darkens_its_ports_for_its_time_only() -> None:
    """From at_s until at_s + duration_s the gateway's port is dark; before and after it is patched."""
    of = schedule(RING + FAULT.format(target="quito"))
    port = int(of.port_start[index_of(of.timeline, "quito")])
    peers = [int(of.at(step).shaping.peer[port]) for step in (BEFORE, DURING, AFTER - 1, AFTER)]
    assert [peer == DARK for peer in peers] == [False, True, True, False]


def test_a_silent_blackout_leaves_the_node_its_routes_and_no_way() -> None:
    """Nobody tells the nodes: the gateway still routes as the geometry has it, but no round trip is commanded."""
    of = schedule(RING + FAULT.format(target="quito"))
    quito, mumbai = index_of(of.timeline, "quito"), index_of(of.timeline, "mumbai")
    before, during = of.at(BEFORE), of.at(DURING)
    assert during.next_port[quito, mumbai] == before.next_port[quito, mumbai] != NO_ROUTE
    assert rtt_us(of, BEFORE, "quito", "mumbai") > 0
    assert rtt_us(of, DURING, "quito", "mumbai") == NO_ROUTE
    assert rtt_us(of, AFTER, "quito", "mumbai") > 0


def test_routes_go_around_a_link_in_blackout() -> None:
    """Where another path is left, it is taken while the link is dark: the long way round the ring."""
    of = schedule(RING + FAULT.format(target="sat-p00s00~sat-p00s01"))
    direct_us, around_us = (rtt_us(of, step, "sat-p00s00", "sat-p00s01") for step in (BEFORE, DURING))
    assert around_us == pytest.approx(5 * direct_us, rel=0.01)


def test_both_directions_of_a_link_are_commanded_alike() -> None:
    """Ports are patched in pairs, with one delay and rate both ways."""
    shaping = schedule(RING).at(0).shaping
    up = np.flatnonzero(shaping.peer != DARK)
    assert len(up) == 2 * (6 + 2)
    np.testing.assert_array_equal(shaping.peer[shaping.peer[up]], up)
    np.testing.assert_array_equal(shaping.delay_us[shaping.peer[up]], shaping.delay_us[up])
    np.testing.assert_array_equal(shaping.rate_bps[shaping.peer[up]], shaping.rate_bps[up])


def test_a_round_trip_is_the_sum_of_its_links_both_ways() -> None:
    """Between neighbours it is twice the link's delay, and of one hop."""
    of = schedule(RING)
    state, ends = of.at(0), (np.array([0]), np.array([1]))
    link = next(
        i for i, row in enumerate(state.sky.link) if {of.timeline.links.a[row], of.timeline.links.b[row]} == {0, 1}
    )
    trips = of.round_trips(state, *ends)
    assert trips.rtt_us[0] == 2 * state.sky.delay_us[link]
    assert trips.hops[0] == 1


def test_default_probes_join_gateways_terminals_and_neighbours() -> None:
    """Without pairs in the scenario: gateways with each other, terminals with gateways, and lasting neighbours."""
    timeline = schedule(RING).timeline
    pairs = default_probe_pairs(timeline)
    assert ("mumbai", "quito") in pairs
    roles = {node.name: node.role for node in timeline.nodes}
    neighbours = [pair for pair in pairs if all(roles[name] is Role.SATELLITE for name in pair)]
    assert 1 <= len(neighbours) <= 4


def test_the_same_scenario_commands_the_same() -> None:
    """Two plans of one text agree in hash, ports and routes at every step."""
    one, other = schedule(RING), schedule(RING)
    assert one.timeline.content_hash == other.timeline.content_hash
    assert one.timeline.epoch_utc == datetime(2026, 1, 1, tzinfo=UTC)
    for step in range(one.n_step):
        np.testing.assert_array_equal(one.at(step).next_port, other.at(step).next_port)
        assert len(one.at(step).shaping.changed_from(other.at(step).shaping)) == 0
