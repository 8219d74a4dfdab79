"""Placement: each refusal, each policy, and that the same facts give the same choice."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from controller.errors import InputError
from controller.jobs.contact_graph import ContactGraph
from controller.jobs.placement import (
    LOOKED_AT,
    RESULT_BYTES,
    Bar,
    Candidate,
    Decision,
    Facts,
    Item,
    Load,
    Order,
    Verdict,
    across_planes,
    decide,
    infeasible,
    promising,
)
from controller.jobs.policies import POLICIES, policy_named
from tests.unit.jobs.graphs import MB, Contact, graph_of

GB = 1_000 * MB
FREE = Load(store_free_bytes=2 * GB, open_jobs=0, job_slots=1)
# A gateway g sees a from the start, b from 100 s and c from 200 s, each for as long as it takes; d hangs on c.
CONTACTS = [
    Contact("g", "a", 0.0, 1_000.0), Contact("g", "b", 100.0, 1_000.0), Contact("g", "c", 200.0, 1_000.0),
    Contact("c", "d", 0.0, 1_000.0),
]  # fmt: skip
GRAPH = graph_of("gabcd", CONTACTS, ground="g")


def candidate(
    name: str, load: Load | None = FREE, jurisdiction: str = "", plane: str = "", lack: str = ""
) -> Candidate:
    """A node with half a gigabyte of memory and a core."""
    return Candidate(name, name == "g", 512 * MB, 1.0, jurisdiction, plane, lack, load)


def facts(*changed: Candidate, graph: ContactGraph = GRAPH, now_s: float = 0.0) -> Facts:
    """The five nodes, some of them other than usual."""
    of_name = {name: candidate(name) for name in "gabcd"} | {each.name: each for each in changed}
    return Facts(now_s, graph, tuple(of_name.values()))


def verdict_on(decision: Decision, node: str) -> Verdict:
    """What was said of one."""
    return next(verdict for verdict in decision.verdicts if verdict.node == node)


def earliest(order: Order, of: Facts | None = None) -> Decision:
    """By the earliest result."""
    return decide(order, of or facts(), policy_named("earliest-result"))


def script(size_bytes: int = 1_000, at: str = "g") -> Item:
    """What a job needs."""
    return Item("sha256:" + "0" * 64, size_bytes, tuple(at))


# --- refusals ---


@pytest.mark.parametrize(
    ("order", "of", "node", "bar", "words"),
    [
        (Order("g"), facts(), "g", Bar.POLICY, "stands on the ground"),
        (
            Order("g", jurisdictions=("CN",)), facts(candidate("a", jurisdiction="US")), "a", Bar.RESIDENCY,
            "lies in US, and the job is for CN alone",
        ),
        (Order("g", jurisdictions=("CN", "SG")), facts(), "a", Bar.RESIDENCY, "has no jurisdiction, and the job"),
        (Order("g"), facts(candidate("a", lack="a is lost since t = 3 s")), "a", Bar.DOWN, "a is lost since t = 3 s"),
        (Order("g", memory_bytes=GB), facts(), "a", Bar.MEMORY, "asks for 1.0 GB of memory, it has 512.0 MB"),
        (Order("g", cpu_s=90.0, wall_s=60.0), facts(), "a", Bar.CPU, "90 s of CPU within 60 s, it has 1 cores"),
        (Order("g", cpu_s=90.0, deadline_s=60.0), facts(), "a", Bar.CPU, "90 s of CPU within 60 s"),
        (Order("g", disk_bytes=3 * GB), facts(), "a", Bar.DISK, "needs 3.0 GB of room, 2.0 GB of its store are free"),
        (
            Order("g", (script(600 * MB),)), facts(candidate("a", replace(FREE, store_free_bytes=500 * MB))), "a",
            Bar.DISK, "needs 600.0 MB of room",
        ),
        (Order("g"), facts(now_s=1_000.0), "a", Bar.CONTACT, "no contacts to come lead from g"),
        (Order("g", (script(1_001 * MB),)), facts(), "a", Bar.VOLUME, "from g carry 1.0 GB at a time"),
        (
            Order("g", (script(at="d"),)), facts(candidate("d", lack="d is down")), "a", Bar.CONTACT,
            "it needs sha256:000000000000: d is down",
        ),
        (Order("g", (script(at=""),)), facts(), "a", Bar.CONTACT, "no node has it"),
        (
            Order("g", (script(at="d"),)), facts(now_s=1_000.0), "a", Bar.CONTACT,
            "no contact to come brings sha256:000000000000 from d to g",
        ),
        (
            Order("g", (script(50 * MB),), deadline_s=40.0), facts(), "a", Bar.DEADLINE,
            "it would be there at t = 50.0 s, 10.0 s after its deadline",
        ),
        (
            Order("g", (script(50 * MB),), deadline_s=50.5), facts(), "a", Bar.DEADLINE,
            "its result would be back at t = 51.1 s, 0.6 s after its deadline",
        ),
        (Order("g"), facts(candidate("a", load=None)), "a", Bar.FAR, "not looked at: 24 others"),
    ],
)  # fmt: skip
def test_each_refusal_has_its_reason(order: Order, of: Facts, node: str, bar: Bar, words: str) -> None:
    """What was asked, and what there is, in one line; the policy never chooses such a node."""
    decision = earliest(order, of)
    verdict = verdict_on(decision, node)
    assert verdict.bar is bar, verdict
    assert words in verdict.reason
    assert decision.chosen != node


def test_a_result_that_cannot_come_back_is_no_result() -> None:
    """b is reached before its contact ends, and nothing leads back afterwards."""
    graph = graph_of("gb", [Contact("g", "b", 0.0, 10.5)], ground="g")
    of = Facts(0.0, graph, (candidate("g"), candidate("b")))
    assert earliest(Order("g", (script(10 * MB),)), of).chosen == ""
    assert verdict_on(earliest(Order("g", (script(10 * MB),)), of), "b").reason == "no contacts to come lead back to g"
    assert earliest(Order("g", (script(9 * MB),)), of).chosen == "b"
    assert earliest(Order("g", (script(10 * MB),), is_keep=True), of).chosen == "b", "what is kept has no result"


def test_an_infeasible_job_is_told_in_one_line() -> None:
    """How many for which reason, and who came nearest: with it the user knows what to change."""
    order = Order("g", (script(120 * MB),), deadline_s=100.0)
    told = infeasible(earliest(order, facts(candidate("d", lack="d is lost"))))
    assert told == (
        "no node can take it: 1 not of those that the policy chooses from, 1 down, in blackout or mute, 3 with the "
        "result too late; nearest: a, it would be there at t = 120.0 s, 20.0 s after its deadline"
    )


# --- residency on the way ---


@pytest.mark.parametrize(("transit", "chosen"), [(False, ""), (True, "d")])
def test_who_lies_outside_relays_only_what_may_be_in_transit(transit: bool, chosen: str) -> None:
    """d is in CN, and all ways to it lead over c, which is not: it goes there as ciphertext, if that is allowed."""
    order = Order("g", jurisdictions=("CN",), transit=transit)
    decision = earliest(order, facts(candidate("d", jurisdiction="CN"), candidate("c", jurisdiction="US")))
    assert decision.chosen == chosen


def test_who_is_down_relays_nothing() -> None:
    """With c lost, nothing reaches d."""
    assert verdict_on(earliest(Order("g"), facts(candidate("c", lack="c is lost"))), "d").bar is Bar.CONTACT


# --- policies ---


def test_earliest_result_counts_the_way_there_the_queue_and_the_way_back() -> None:
    """a is seen now, and is best; with twenty jobs before it or as many bytes to move, it is as good as it is late."""
    assert earliest(Order("g")).chosen == "a"
    at_s = 1.0 + RESULT_BYTES / MB
    assert verdict_on(earliest(Order("g")), "a").result_at_s == pytest.approx(at_s)
    assert verdict_on(earliest(Order("g", (script(20 * MB),))), "a").result_at_s == pytest.approx(20.0 + at_s)
    busy = facts(candidate("a", replace(FREE, open_jobs=150)))
    assert verdict_on(earliest(Order("g"), busy), "a").result_at_s == pytest.approx(150.0 + at_s)
    assert earliest(Order("g"), busy).chosen == "b"


def test_earliest_result_goes_to_the_data_where_that_is_sooner() -> None:
    """What lies at d comes to the gateway at 200 s at the soonest: it is sooner to search it there."""
    assert earliest(Order("g", (script(), replace(script(90 * MB, "d"), name="sha256:1")))).chosen == "d"


@pytest.mark.parametrize(("at", "chosen"), [("c", "c"), ("dc", "d"), ("g", "a")])
def test_data_local_moves_the_fewest_bytes(at: str, chosen: str) -> None:
    """It goes where its inputs lie; where several have them, or none has, where the result is back soonest."""
    of = facts(candidate("c", replace(FREE, open_jobs=3 if len(at) == 2 else 0)))
    assert decide(Order("g", (script(5 * MB, at),)), of, policy_named("data-local")).chosen == chosen


def test_spread_goes_where_the_fewest_jobs_are_open() -> None:
    """Of nodes that are as idle, to the plane with the fewest; of those, where the result is back soonest."""
    busy = replace(FREE, open_jobs=2)
    of = facts(candidate("a", busy, plane="p0"), candidate("b", plane="p0"), candidate("c", plane="p1"))
    decision = decide(Order("g"), of, policy_named("spread"))
    assert [v.node for v in decision.verdicts if v.bar is None] == ["c", "d", "b", "a"]
    assert verdict_on(decision, "b").score == pytest.approx(0.002)
    assert verdict_on(decision, "a").reason == "2 open jobs there, 2 in its plane"


def test_pinned_takes_the_first_that_is_feasible() -> None:
    """In the order in which they are named, those on the ground too; no other is looked at."""
    pinned = policy_named("pinned")
    order = Order("g", pinned_to=("c", "g"))
    assert decide(order, facts(), pinned).chosen == "c"
    decision = decide(order, facts(candidate("c", lack="c is lost")), pinned)
    assert decision.chosen == "g"
    assert verdict_on(decision, "a").reason == "not one of those that it is pinned to"


def test_an_unknown_policy_is_told_which_there_are() -> None:
    """One message."""
    with pytest.raises(
        InputError, match="no policy 'best': it must be one of earliest-result, data-local, spread, pinned"
    ):
        policy_named("best")


@pytest.mark.parametrize("policy", POLICIES)
def test_the_order_of_candidates_does_not_matter(policy: str) -> None:
    """The same facts give the same verdicts and choice, however they are sorted; of equals the name decides."""
    graph = graph_of("gabcd", [Contact("g", name, 0.0, 100.0) for name in "abcd"], ground="g")
    order = Order("g", pinned_to=("d", "b"))
    decisions = {
        decide(order, Facts(0.0, graph, nodes), policy_named(policy))
        for nodes in itertools.permutations([candidate(name) for name in "gabcd"])
    }
    assert len(decisions) == 1
    assert decisions.pop().chosen == ("d" if policy == "pinned" else "a")


# --- several nodes ---


def test_replicas_lie_in_planes_of_their_own_as_far_as_there_are() -> None:
    """Two planes and four nodes: the first two copies are in different planes, and a fifth there is not."""
    of = facts(*(candidate(name, plane=plane) for name, plane in zip("abcd", ("p0", "p0", "p1", "p1"), strict=True)))
    decision = decide(Order("g", (script(),), is_keep=True), of, policy_named("spread"))
    assert across_planes(decision, of, 2) == ["a", "c"]
    assert across_planes(decision, of, 4) == ["a", "c", "b", "d"]
    assert across_planes(decision, of, 5) == ["a", "c", "b", "d"]


def test_of_many_nodes_those_are_asked_that_can_have_it_soonest() -> None:
    """Who has an input comes first, then who is reached soonest; the gateway and who is down are not asked."""
    order, of = Order("g", (script(at="d"),)), facts(candidate("a", lack="a is lost"))
    assert promising(order, of, policy_named("spread")) == ["d", "b", "c"]
    assert promising(Order("g"), facts(), policy_named("pinned")) == []
    assert LOOKED_AT < 200


def test_the_sky_may_go_faster_than_packets() -> None:
    """At ten seconds of the sky a second, a job of a second takes ten of it."""
    slow = earliest(Order("g"), replace(facts(), time_scale=10.0))
    assert verdict_on(slow, "a").result_at_s == pytest.approx(10.0 + RESULT_BYTES / MB)
