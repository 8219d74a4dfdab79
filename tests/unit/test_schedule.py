"""What a step commands under faults: which ports are patched, which routes stand, what round trips should take, and in
which order one step becomes the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controller import schedule as schedule_module
from controller.fabric.plan import DARK
from controller.faults import FaultSchedule
from controller.scenario import Source, parse_scenario
from controller.schedule import NO_ROUTE, Pace, Schedule, default_probe_pairs
from controller.timeline import LinkKind, NodeEnd
from tests.unit.hand_made import timeline as hand_made

# The scenario of tests.unit.hand_made: six satellites in a ring, quito and nairobi below it.
RING = """
name = "ring"
epoch = 2026-01-01T00:00:00Z
duration_s = 590.0
step_s = 10.0

[[constellation]]
name = "ring"
walker = { pattern = "star", total = 6, planes = 1, phasing = 0, altitude_m = 780_000, inclination_deg = 0.0 }
isl = { topology = "ring" }

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = 0.0
longitude_deg = -78.5

[[ground]]
name = "nairobi"
role = "terminal"
latitude_deg = 0.0
longitude_deg = 36.8
"""
FAULT = """
[[fault]]
kind = "blackout"
target = "{target}"
at_s = {at_s}
duration_s = 100.0
"""
STEP_S = 10.0
START_S = 7_200.0


def schedule(
    *targets: str,
    start_s: float = 0.0,
    at_s: float = 100.0,
    node_ends: Sequence[NodeEnd] = (),
    probe_pairs: Sequence[tuple[str, str]] = (),
) -> Schedule:
    """The schedule of the ring, with blackouts of these targets for 100 s from at_s."""
    text = RING + "".join(FAULT.format(target=target, at_s=at_s) for target in targets)
    sky = hand_made(step_s=STEP_S, start_s=start_s, node_ends=node_ends)
    return Schedule.of(
        sky, FaultSchedule.from_scenario(parse_scenario(Source("ring.toml", text, Path())), sky), probe_pairs
    )


BEFORE, DURING, AFTER = 9, 10, 20


def faulted(kind: str, target: str, **keys: str | float) -> Schedule:
    """The ring with one fault from 100 s for 100 s."""
    written = "".join(f"{key} = {value!r}\n" for key, value in keys.items())
    text = RING + FAULT.format(target=target, at_s=100.0).replace('"blackout"', f'"{kind}"') + written
    sky = hand_made(step_s=STEP_S)
    return Schedule.of(sky, FaultSchedule.from_scenario(parse_scenario(Source("ring.toml", text, Path())), sky))


def rtt_us(of: Schedule, step: int, a: str, b: str) -> int:
    """The commanded round trip between two nodes."""
    ends = (np.array([of.index_of[name]]) for name in (a, b))
    return int(of.round_trips(of.at(step), *ends).rtt_us[0])


def test_a_blackout_of_a_node_darkens_its_ports_for_its_time_only() -> None:
    """From at_s until at_s + duration_s the satellite's ports are dark; before and after they are patched."""
    of = schedule("ring-p00s00")
    port = int(of.port_start[of.index_of["ring-p00s00"]])
    peers = [int(of.at(step).shaping.peer[port]) for step in (BEFORE, DURING, AFTER - 1, AFTER)]
    assert [peer == DARK for peer in peers] == [False, True, True, False]


def test_the_times_of_faults_count_from_the_epoch() -> None:
    """A run that starts later meets a fault at the same instant of the sky, at another step."""
    of = schedule("ring-p00s00", start_s=START_S, at_s=START_S + 50.0)
    assert of.at(0).t_s == START_S
    masked = [step for step in range(of.n_step) if not of.at(step).usable.all()]
    assert masked == list(range(5, 15))


def test_a_silent_blackout_leaves_the_node_its_routes_and_no_way() -> None:
    """Nobody tells the nodes: what is cut off routes as the geometry has it, but no round trip is commanded."""
    of = schedule("ring-p00s00")
    satellite, other = of.index_of["ring-p00s00"], of.index_of["ring-p00s03"]
    before, during = of.at(BEFORE), of.at(DURING)
    assert during.next_port[satellite, other] == before.next_port[satellite, other] != NO_ROUTE
    assert rtt_us(of, BEFORE, "ring-p00s00", "ring-p00s03") > 0
    assert rtt_us(of, DURING, "ring-p00s00", "ring-p00s03") == NO_ROUTE
    assert rtt_us(of, AFTER, "ring-p00s00", "ring-p00s03") > 0


@pytest.mark.parametrize(("kind", "mode"), [("blackout", "reject"), ("blackout", "carrier"), ("node-down", None)])
def test_a_fault_that_is_told_leaves_no_route(kind: str, mode: str | None) -> None:
    """Where nodes are told, what has no path has no route: senders know at once. It heals with the fault."""
    of = faulted(kind, "ring-p00s00", **({} if mode is None else {"mode": mode}))
    satellite, other = of.index_of["ring-p00s00"], of.index_of["ring-p00s03"]
    for step, is_cut in ((BEFORE, False), (DURING, True), (AFTER - 1, True), (AFTER, False)):
        state = of.at(step)
        assert (state.next_port[satellite, other] == NO_ROUTE) == is_cut
        assert (state.next_port[other, satellite] == NO_ROUTE) == is_cut
        unplugged = state.unplugged.tolist()
        assert bool(unplugged) == (is_cut and mode != "reject")
        if unplugged:
            up = np.flatnonzero(of.at(BEFORE).shaping.peer != DARK)
            own = [p for p in up if int(np.searchsorted(of.port_start, p, side="right")) - 1 == satellite]
            peers = of.at(BEFORE).shaping.peer[own]
            assert unplugged == sorted([*own, *peers.tolist()])


def test_carriers_go_last_and_come_back_first() -> None:
    """A change names the ports whose carrier comes and goes; applied both ways it ends where it began."""
    of = faulted("blackout", "ring-p00s00~ring-p00s01", mode="carrier")
    before, during = of.at(BEFORE), of.at(DURING)
    there, back = of.change(before, during), of.change(during, before)
    assert len(there.unplugged) == 2
    assert len(there.plugged_in) == 0
    assert there.unplugged.tolist() == back.plugged_in.tolist()
    assert len(back.unplugged) == 0


def test_a_degrade_changes_what_links_carry_and_no_more() -> None:
    """Delay is added, rate and surviving frames are multiplied, for the fault's time and on the target's links only."""
    of = faulted("degrade", "ring-p00s00~ring-p00s01", extra_delay_s=0.005, rate_ratio=0.25, loss_ratio=0.1)
    before, during, after = (of.at(step) for step in (BEFORE, DURING, AFTER))
    links = of.timeline.links
    row = next(i for i, link in enumerate(during.sky.link) if {links.a[link], links.b[link]} == {0, 1})
    others = np.arange(len(during.sky.link)) != row
    geometry = of.timeline.sky(DURING)
    assert during.usable.all()
    assert during.sky.delay_us[row] == geometry.delay_us[row] + 5_000
    assert during.sky.rate_bps[row] == geometry.rate_bps[row] // 4
    assert during.sky.loss_ratio[row] == pytest.approx(1.0 - 0.9 * (1.0 - geometry.loss_ratio[row]))
    for key in ("delay_us", "rate_bps", "loss_ratio"):
        assert np.array_equal(getattr(during.sky, key)[others], getattr(geometry, key)[others])
        for state in (before, after):
            assert np.array_equal(getattr(state.sky, key), getattr(of.timeline.sky(state.step), key))
    port = int(of.port_start[links.a[during.sky.link[row]]] + links.port_a[during.sky.link[row]])
    assert during.shaping.delay_us[port] == during.sky.delay_us[row]
    assert during.shaping.loss_ratio[port] == pytest.approx(during.sky.loss_ratio[row], abs=1e-9)  # the kernel's step


def test_routes_go_around_a_link_in_blackout() -> None:
    """Where another path is left, it is taken while the link is dark: the long way round the ring."""
    of = schedule("ring-p00s00~ring-p00s01")
    direct_us, around_us = (rtt_us(of, step, "ring-p00s00", "ring-p00s01") for step in (BEFORE, DURING))
    assert around_us == pytest.approx(5 * direct_us, rel=0.01)


def test_both_directions_of_a_link_are_commanded_alike() -> None:
    """Ports are patched in pairs, with one delay and rate both ways: the sky's, in whole bytes a second."""
    of = schedule()
    state = of.at(0)
    shaping = state.shaping
    up = np.flatnonzero(shaping.peer != DARK)
    assert len(up) == 2 * len(state.sky.link)
    np.testing.assert_array_equal(shaping.peer[shaping.peer[up]], up)
    np.testing.assert_array_equal(shaping.delay_us[shaping.peer[up]], shaping.delay_us[up])
    np.testing.assert_array_equal(shaping.rate_bps[shaping.peer[up]], shaping.rate_bps[up])
    assert set(shaping.rate_bps[up].tolist()) == set((state.sky.rate_bps // 8 * 8).tolist())


def test_a_round_trip_is_the_sum_of_its_links_both_ways() -> None:
    """Between neighbours it is twice the link's delay, and of one hop."""
    of = schedule()
    state, ends = of.at(0), (np.array([0]), np.array([1]))
    links = of.timeline.links
    row = next(i for i, link in enumerate(state.sky.link) if {links.a[link], links.b[link]} == {0, 1})
    trips = of.round_trips(state, *ends)
    assert trips.rtt_us[0] == 2 * state.sky.delay_us[row]
    assert trips.hops[0] == 1


def test_default_probes_join_gateways_terminals_and_neighbours() -> None:
    """Without pairs in the scenario: gateways with each other, terminals with gateways, and lasting neighbours."""
    pairs = default_probe_pairs(schedule().timeline)
    assert ("nairobi", "quito") in pairs
    neighbours = [pair for pair in pairs if pair[0].startswith("ring") and pair[1].startswith("ring")]
    assert len(neighbours) == 4


def test_neighbours_that_part_are_not_probed() -> None:
    """A contact between satellites that begins later or ends earlier than the run makes no pair."""
    sky = schedule().timeline
    is_isl = sky.contacts.kind == LinkKind.ISL
    short = replace(sky.contacts, end_s=np.where(is_isl, sky.contacts.end_s - 1.0, sky.contacts.end_s))
    assert default_probe_pairs(replace(sky, contacts=short)) == [("nairobi", "quito")]


def test_what_was_asked_before_changes_no_answer() -> None:
    """Steps in order, backwards and from a fresh schedule command the same routes, faults among them."""
    one = schedule("quito", "ring-p00s02~ring-p00s03", "ring-p00s00")
    forward = [one.at(step) for step in range(one.n_step)]
    backward = [one.at(step) for step in reversed(range(one.n_step))][::-1]
    for step, (first, second) in enumerate(zip(forward, backward, strict=True)):
        np.testing.assert_array_equal(first.next_port, second.next_port)
        assert len(first.shaping.changed_from(second.shaping)) == 0
        if step % 7 == 0:
            fresh = schedule("quito", "ring-p00s02~ring-p00s03", "ring-p00s00")
            np.testing.assert_array_equal(fresh.at(step).next_port, first.next_port)


def test_in_a_large_sky_routes_lead_to_those_that_somebody_talks_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit: to ground nodes and the ends of probes; to others from when they are asked for. Round trips to
    nodes that no route leads to are those that they would have."""
    everywhere = schedule()
    assert everywhere.destinations.tolist() == list(range(8))
    trips = everywhere.round_trips(everywhere.at(0), np.array([6, 0]), np.array([4, 4]))
    monkeypatch.setattr(schedule_module, "ALL_TO_ALL_NODES", 7)
    of = schedule(probe_pairs=[("quito", "ring-p00s02")])
    before = of.at(0)
    assert before.destinations.tolist() == [2, 6, 7]
    assert before.next_port.shape == (8, 3)
    np.testing.assert_array_equal(of.round_trips(before, np.array([6, 0]), np.array([4, 4])).rtt_us, trips.rtt_us)
    assert of.add_destinations(["ring-p00s04", "", "nobody", "quito"])
    assert not of.add_destinations(["ring-p00s04"])
    after = of.at(0)
    assert after.destinations.tolist() == [2, 6, 7, 4]
    np.testing.assert_array_equal(after.next_port, everywhere.at(0).next_port[:, after.destinations])
    change = of.change(before, after)
    assert change.n_direction == 0
    assert change.n_route == np.count_nonzero(after.next_port[:, 3] != NO_ROUTE) > 4
    assert {int(node) for wave in change.routes for node in wave.destination} == {4}


def applied(of: Schedule, steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Peers of all ports and routes of all pairs, after the changes from nothing through these steps."""
    peer, port = np.full(int(of.port_start[-1]), DARK), np.full((8, 8), NO_ROUTE)
    before = None
    for step in steps:
        state = of.at(step)
        change = of.change(before, state)
        assert not np.any(change.made.peer == DARK)
        assert np.all(change.broken.peer == DARK)
        for plan in (change.made, change.broken):
            peer[plan.port] = plan.peer
        for wave in change.routes:
            port[wave.node, wave.destination] = wave.port
        assert change.n_direction == len(change.made) + len(change.broken)
        before = state
    return peer, port


@pytest.mark.parametrize("steps", [[0], [0, 9, 10], [0, 10, 20], list(range(0, 60, 3))])
def test_changes_add_up_to_what_is_commanded(steps: list[int]) -> None:
    """Step after step, what is made, routed and broken leaves the fabric as the last step commands."""
    of = schedule("quito", "ring-p00s02~ring-p00s03")
    peer, port = applied(of, steps)
    last = of.at(steps[-1])
    np.testing.assert_array_equal(peer, last.shaping.peer)
    np.testing.assert_array_equal(port, last.next_port)


def test_a_node_that_leaves_the_sky_is_ended_from_then_on() -> None:
    """Its end is known at its instant, its ports are dark and nothing leads to it."""
    end = NodeEnd(2, 95.0, "its orbit has decayed")
    of = schedule(node_ends=[end])
    assert of.ended(94.9) == ()
    assert of.ended(95.0) == (end,)
    state = of.at(10)
    ports = slice(int(of.port_start[2]), int(of.port_start[3]))
    assert np.all(state.shaping.peer[ports] == DARK)
    assert np.all(state.next_port[:, 2] == NO_ROUTE)
    assert np.all(of.at(9).shaping.peer[ports][:2] != DARK)


def test_the_sky_keeps_its_pace() -> None:
    """At a time scale of 10 a step of 10 s is due every second, from the sky's start on; and back."""
    pace = Pace(start_s=START_S, time_scale=10.0, started_mono_s=500.0)
    assert pace.mono_s(START_S + 20.0) == pytest.approx(502.0)
    assert pace.t_s(502.0) == pytest.approx(START_S + 20.0)
    assert Pace(0.0, 0.5, 0.0).mono_s(1.0) == pytest.approx(2.0)
