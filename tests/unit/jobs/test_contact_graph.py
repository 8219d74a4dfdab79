"""Contact-graph routing: examples by hand, and every way tried out on small graphs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.faults import FaultSchedule, LinkOverride
from controller.jobs.contact_graph import FREE, HORIZON_S, ContactGraph, Forward, Passage, Way, contacts_ahead
from controller.planner import survey
from controller.scenario.fault_model import Fault
from controller.scenario.load import parse_scenario, read_source
from controller.schedule import Schedule
from tests.searches import examples
from tests.unit.hand_made import timeline
from tests.unit.jobs.graphs import MB, MBPS, Contact, graph_of, only


def way(graph: ContactGraph, a: str, b: str, at_s: float = 0.0, size_bytes: int = 0, passage: Passage = FREE) -> Way:
    """The soonest way, which there must be."""
    found = graph.earliest_arrival(a, at_s, size_bytes, b, passage)
    assert found is not None
    return found


# --- by hand ---


def test_one_contact_takes_the_transfer_and_the_light_time() -> None:
    """Ten megabytes at a megabyte a second and 0.1 s of light, over a contact that begins at 5 s: 15.1 s."""
    found = way(graph_of("ab", [Contact("a", "b", 5.0, 20.0, 0.1)]), "a", "b", size_bytes=10 * MB)
    assert found.arrives_s == pytest.approx(15.1)
    assert (found.hops[0].leaves_s, found.hops[0].reaches_s) == pytest.approx((5.0, 5.1))


def test_what_does_not_fit_a_contact_waits_for_one_that_it_fits() -> None:
    """A transfer of 10 s does not begin at 0 in a contact that ends at 9 s, but at 30 s in the one after it."""
    graph = graph_of("ab", [Contact("a", "b", 0.0, 9.0), Contact("a", "b", 30.0, 50.0)])
    assert way(graph, "a", "b", size_bytes=10 * MB).arrives_s == 40.0
    assert graph.earliest_arrival("a", 41.0, 10 * MB, "b") is None


def test_packets_cut_through_contacts_that_are_up_together() -> None:
    """Over three hops of 10 s each that are up at once, 10 s and the light times pass, not 30 s."""
    graph = graph_of("abcd", [Contact(a, b, 0.0, 100.0, 0.01) for a, b in ("ab", "bc", "cd")])
    assert way(graph, "a", "d", size_bytes=10 * MB).arrives_s == pytest.approx(10.03)


def test_the_slowest_hop_counts_where_packets_cut_through() -> None:
    """A hop at half the rate in the middle has all of it take twice as long."""
    graph = graph_of(
        "abcd", [Contact("a", "b", 0, 100), Contact("b", "c", 0, 100, rate_bps=4 * MBPS), Contact("c", "d", 0, 100)]
    )
    assert way(graph, "a", "d", size_bytes=10 * MB).arrives_s == 20.0


def test_a_node_stores_carries_and_forwards() -> None:
    """No path from end to end stands at any time: b takes it until 10 s, and passes it on from 50 s."""
    graph = graph_of("abc", [Contact("a", "b", 0.0, 20.0), Contact("b", "c", 50.0, 80.0)])
    found = way(graph, "a", "c", size_bytes=10 * MB)
    assert found.arrives_s == 60.0
    assert [(hop.node, hop.leaves_s, hop.arrives_s) for hop in found.hops] == [("a", 0.0, 10.0), ("b", 50.0, 60.0)]


def test_ground_nodes_relay_nothing() -> None:
    """A gateway between two satellites is no way from one to the other, and still an end of one."""
    contacts = [Contact("a", "g", 0.0, 100.0), Contact("g", "c", 0.0, 100.0)]
    assert graph_of("agc", contacts, ground="g").earliest_arrival("a", 0.0, 0, "c") is None
    assert way(graph_of("agc", contacts, ground="g"), "g", "c").arrives_s == 0.0
    assert way(graph_of("agc", contacts), "a", "c").arrives_s == 0.0


def test_who_may_neither_hold_nor_relay_is_gone_round() -> None:
    """With b excluded the way leads over c, though it takes longer; with both, there is none."""
    graph = graph_of(
        "abcd",
        [Contact("a", "b", 0, 9), Contact("b", "d", 0, 9), Contact("a", "c", 0, 9), Contact("c", "d", 3.0, 9.0)],
    )
    assert way(graph, "a", "d").arrives_s == 0.0
    assert [hop.to for hop in way(graph, "a", "d", passage=only("acd")).hops] == ["c", "d"]
    assert graph.earliest_arrival("a", 0.0, 0, "d", only("ad")) is None


def test_who_may_only_relay_keeps_nothing() -> None:
    """Over b, which may relay and not hold, it leaves a when the whole way stands, though a sees b from the start."""
    graph = graph_of("abc", [Contact("a", "b", 0.0, 60.0, 0.1), Contact("b", "c", 50.0, 80.0, 0.1)])
    found = way(graph, "a", "c", size_bytes=8 * MB, passage=only("ac", "b"))
    assert found.arrives_s == pytest.approx(58.1)
    assert [hop.leaves_s for hop in found.hops] == pytest.approx([49.9, 50.0])
    assert graph.earliest_arrival("a", 0.0, 12 * MB, "c", only("ac", "b")) is None  # a and b part before it is through
    assert way(graph, "a", "c", size_bytes=12 * MB).arrives_s == pytest.approx(62.1)


def test_nothing_to_do_where_it_is_already() -> None:
    """From a node to itself: at once, without a hop; and nothing to forward."""
    arrivals = graph_of("ab", []).search("a", 7.0, MB)
    assert arrivals.way("a") == Way(7.0, ())
    assert arrivals.forward("a") is None
    assert arrivals.arrives_s("b") == math.inf


# --- custodians ---


def test_the_custodian_is_the_node_before_which_it_would_have_to_wait() -> None:
    """c has to wait for d until 50 s, so a hands it to c, over b, while both contacts on the way are up."""
    graph = graph_of(
        "abcde",
        [
            Contact("a", "b", 10.0, 40.0, 1.0),
            Contact("b", "c", 0.0, 30.0, 1.0),
            Contact("c", "d", 50.0, 80.0, 1.0),
            Contact("d", "e", 0.0, 80.0, 1.0),
        ],
    )
    forwards = {forward.to_node: forward for forward in graph.search("a", 0.0, MB).forwards()}
    # The contact of b with c ends for a one light time of a and b before.
    assert forwards["e"] == Forward("e", "c", 10.0, 29.0)
    assert forwards["c"] == Forward("c", "c", 10.0, 29.0)
    assert forwards["b"] == Forward("b", "b", 10.0, 40.0)
    assert graph.search("c", 0.0, MB).forward("e") == Forward("e", "e", 50.0, 79.0)


def test_who_may_not_hold_is_no_custodian() -> None:
    """Where b may only relay, a itself waits."""
    graph = graph_of("abc", [Contact("a", "b", 0.0, 60.0), Contact("b", "c", 50.0, 80.0)])
    assert graph.search("a", 0.0).forward("c") == Forward("c", "b", 0.0, 60.0)
    assert graph.search("a", 0.0, passage=only("ac", "b")).forward("c") == Forward("c", "c", 50.0, 60.0)


# --- against every way there is ---

NAMES = "abcde"


@st.composite
def graphs(draw: st.DrawFn, delays_s: Sequence[float]) -> list[Contact]:
    """A few contacts between five nodes; those of one pair follow one another."""
    contacts = []
    for i, a in enumerate(NAMES):
        for b in NAMES[i + 1 :]:
            edges_s = sorted(draw(st.lists(st.integers(0, 40), max_size=4, unique=True)))
            for start_s, end_s in zip(edges_s[::2], edges_s[1::2], strict=False):
                delay_s, rate = draw(st.sampled_from(delays_s)), draw(st.sampled_from((1, 2, 8)))
                contacts.append(Contact(a, b, start_s, end_s, delay_s, rate * MBPS))
    return contacts


def walks(
    contacts: Sequence[Contact], holds: str, at: str, to: str, been: str = ""
) -> Iterator[list[tuple[str, Contact]]]:
    """Every sequence of contacts that leads from one node to another, with the node that each leads to. To none twice,
    but to those that may not hold again after it was held."""
    if at == to:
        yield []
        return
    been = "".join(node for node in been if node in holds) + at if at in holds else been + at
    for contact in contacts:
        if at in (contact.a, contact.b):
            onward = contact.b if at == contact.a else contact.a
            if onward not in been:
                yield from ([(onward, contact), *rest] for rest in walks(contacts, holds, onward, to, been))


def arrives_s(walk: Sequence[tuple[str, Contact]], holds: str, relays: str, size_bits: float) -> float:
    """When the last bit comes over one walk: stretch by stretch between those that may hold, each begun at every moment
    that may be the best."""
    first_s = last_s = 0.0
    stretch: list[Contact] = []
    for number, (node, contact) in enumerate(walk):
        stretch.append(contact)
        is_end = number == len(walk) - 1
        if node not in holds and not is_end:
            if node not in relays:
                return math.inf
            continue
        ahead_s = [sum(c.delay_s for c in stretch[:i]) for i in range(len(stretch))]
        transfer_s = max(size_bits / c.rate_bps for c in stretch)
        moments = [first_s, *(c.start_s - delay_s for c, delay_s in zip(stretch, ahead_s, strict=True))]
        fitting = [
            (x_s, max(last_s, x_s + transfer_s))
            for x_s in moments
            if x_s >= first_s
            and all(
                c.start_s <= x_s + delay_s < c.end_s and max(last_s, x_s + transfer_s) + delay_s <= c.end_s
                for c, delay_s in zip(stretch, ahead_s, strict=True)
            )
        ]
        if not fitting:
            return math.inf
        left_s, done_s = min(fitting)
        way_s = sum(c.delay_s for c in stretch)
        first_s, last_s, stretch = left_s + way_s, done_s + way_s, []
    return last_s


@settings(max_examples=examples(400), deadline=None)
@given(graphs((0.0, 0.25, 1.0)), st.sampled_from((0, MB, 5 * MB)), st.sets(st.sampled_from("bcd")))
def test_no_way_is_sooner(contacts: list[Contact], size_bytes: int, holders: set[str]) -> None:
    """The soonest of all walks over those that may hold is what the search finds."""
    holds = "ae" + "".join(sorted(holders))
    found = graph_of(NAMES, contacts).search("a", 0.0, size_bytes, only(holds))
    of_walks = (arrives_s(walk, holds, "", 8.0 * size_bytes) for walk in walks(contacts, holds, "a", "e"))
    assert found.arrives_s("e") == pytest.approx(min(of_walks, default=math.inf))


@settings(max_examples=examples(400), deadline=None)
@given(graphs((0.0,)), st.sampled_from((0, MB, 5 * MB)), st.sets(st.sampled_from("bcd")))
def test_no_way_is_sooner_where_some_only_relay(contacts: list[Contact], size_bytes: int, holders: set[str]) -> None:
    """So too where the others relay and keep nothing."""
    holds = "ae" + "".join(sorted(holders))
    found = graph_of(NAMES, contacts).search("a", 0.0, size_bytes, only(holds, NAMES))
    of_walks = (arrives_s(walk, holds, NAMES, 8.0 * size_bytes) for walk in walks(contacts, holds, "a", "e"))
    assert found.arrives_s("e") == pytest.approx(min(of_walks, default=math.inf))


@settings(max_examples=examples(200), deadline=None)
@given(graphs((0.0, 0.25)), st.sampled_from((0, MB)), st.sets(st.sampled_from("bcd")))
def test_a_way_can_be_gone(contacts: list[Contact], size_bytes: int, holders: set[str]) -> None:
    """Hops follow one another, each within its contact, and nobody passes on what has not come."""
    passage = only("ae" + "".join(holders), NAMES)
    found = graph_of(NAMES, contacts).earliest_arrival("a", 0.0, size_bytes, "e", passage)
    if found is None:
        return
    assert [hop.node for hop in found.hops] == ["a", *(hop.to for hop in found.hops[:-1])]
    assert found.hops[-1].arrives_s == found.arrives_s
    for hop in found.hops:
        on = [c for c in contacts if {c.a, c.b} == {hop.node, hop.to} and c.end_s == hop.until_s]
        assert len(on) == 1
        assert on[0].start_s <= hop.leaves_s + 1e-9
        assert hop.arrives_s <= on[0].end_s + on[0].delay_s + 1e-9
        assert hop.reaches_s == pytest.approx(hop.leaves_s + on[0].delay_s)
    for hop, onward in zip(found.hops, found.hops[1:], strict=False):
        assert hop.reaches_s <= onward.leaves_s + 1e-9
        assert hop.arrives_s <= onward.arrives_s + 1e-9
        assert passage.may_hold(hop.to) or onward.leaves_s == pytest.approx(hop.reaches_s)


# --- of a timeline ---


def test_a_timeline_becomes_contacts_of_its_steps() -> None:
    """A contact begins and ends with the steps that have it; what is linked at the last instant stays."""
    sky = survey(parse_scenario(read_source("iridium-66"), 300.0))
    up: dict[tuple[int, int], list[int]] = {}
    for step, state in enumerate(sky.skies()):
        for a, b in zip(sky.links.a[state.link].tolist(), sky.links.b[state.link].tolist(), strict=True):
            up.setdefault((a, b), []).append(step)
    ahead = contacts_ahead(sky, 0.0)
    for a, b, start_s, end_s in zip(*(c.tolist() for c in (ahead.a, ahead.b, ahead.start_s, ahead.end_s)), strict=True):
        steps = up.pop((a, b))
        assert steps == list(range(steps[0], steps[-1] + 1))
        assert (start_s, end_s) == (sky.t_s[steps[0]], HORIZON_S if steps[-1] == 300 else sky.t_s[steps[-1] + 1])
    assert not up
    assert any(end_s < 300.0 for end_s in ahead.end_s)
    assert contacts_ahead(sky, 1_000.0).end_s.min() > 80_000.0  # as it holds, after its end


def test_what_faults_take_now_is_not_counted_on() -> None:
    """A link that is down goes by another way round the ring, and one that is up has the delay and rate of now."""
    sky = timeline()
    faults = FaultSchedule((), sky.nodes, links=sky.links)
    schedule = Schedule.of(sky, faults)
    a, b = "ring-p00s00", "ring-p00s01"
    before = ContactGraph.of(sky, 0.0, schedule.at(0))
    assert len(way(before, a, b).hops) == 1
    faults.set_link(a, b, LinkOverride(delay_us=250_000, rate_bps=1_000_000))
    slower = ContactGraph.of(sky, 0.0, schedule.at(0))
    assert slower.search(a, 0.0, MB, only(a + b)).arrives_s(b) == pytest.approx(8.25)
    faults.set_link(a, b, LinkOverride(up=False))
    assert len(way(ContactGraph.of(sky, 0.0, schedule.at(0)), a, b).hops) == 5


def test_faults_to_come_are_not_foreseen() -> None:
    """A blackout that the scenario announces for later changes nothing before it comes."""
    sky = timeline()
    fault = Fault(kind="blackout", target="ring-p00s01", at_s=100.0, duration_s=100.0)
    schedule = Schedule.of(sky, FaultSchedule((fault,), sky.nodes, links=sky.links))
    foreseen = ContactGraph.of(sky, 90.0, schedule.at(9)).earliest_arrival("ring-p00s00", 90.0, 0, "ring-p00s01")
    assert foreseen is not None
    assert foreseen.hops[0].until_s > 200.0
    assert ContactGraph.of(sky, 100.0, schedule.at(10)).search("ring-p00s00", 100.0).way("ring-p00s01") is None


def test_a_constellation_is_searched_in_milliseconds() -> None:
    """66 satellites and 10 minutes: built within a second, and then all that a node can reach within 20 ms."""
    sky = survey(parse_scenario(read_source("iridium-66"), 600.0))
    began_s = time.process_time()
    graph = ContactGraph.of(sky, 0.0)
    built_s = time.process_time()
    for name in graph.names:
        arrivals = graph.search(name, 0.0, MB)
        assert all(arrivals.arrives_s(other) < math.inf for other in graph.names)
    assert built_s - began_s < 1.0
    assert (time.process_time() - built_s) / len(graph.names) < 0.02
