"""`skyrack path`: the route at a moment, hop by hop, and the reason where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from controller.cli.main import skyrack
from controller.errors import InputError
from controller.explain import Route, explain
from controller.faults import FaultSchedule
from controller.planner import plan
from controller.scenario import load_scenario
from controller.scenario.fault_model import Fault
from controller.scenario.load import read_source
from controller.schedule import Schedule
from controller.timeline import LinkKind, MemoryBlocks, NodeEnd, Timeline
from controller.timeline_file import TimelineWriter
from tests.unit.hand_made import timeline as hand_made


def schedule(sky: Timeline, *targets: str) -> Schedule:
    """A sky under blackouts of these targets from t = 100 s for 100 s."""
    faults = tuple(Fault(kind="blackout", target=target, at_s=100.0, duration_s=100.0) for target in targets)
    return Schedule.of(sky, FaultSchedule(faults, sky.nodes))


def without(sky: Timeline, kind: LinkKind, from_s: float, to_s: float) -> Timeline:
    """The sky with no links of a kind for a while."""
    whole = hand_made(n_step=sky.n_step, block_steps=sky.n_step).blocks[0]
    step = np.repeat(np.arange(sky.n_step), np.diff(whole.step_start))
    gone = (sky.links.kind[whole.link] == kind) & (sky.t_s[step] >= from_s) & (sky.t_s[step] < to_s)
    kept = ~gone
    blocks = MemoryBlocks(sky.n_step)
    blocks.append(
        replace(
            whole,
            step_start=np.searchsorted(step[kept], np.arange(sky.n_step + 1)).astype(np.int64),
            **{
                key: getattr(whole, key)[kept]
                for key in ("link", "range_m", "range_rate_m_s", "delay_us", "rate_bps", "elevation_deg")
            },
        )
    )
    return replace(sky, blocks=blocks)


def step_with_links(of: Schedule, *ends: str) -> int:
    """The first step, not the very first, at which each of these has a link."""
    links = of.timeline.links
    for step in range(1, of.n_step):
        link = of.timeline.sky(step).link
        if {of.index_of[name] for name in ends} <= {*links.a[link].tolist(), *links.b[link].tolist()}:
            return step
    raise AssertionError(f"{ends} are never linked at one time")


def names(route: Route) -> list[str]:
    """The nodes of a route."""
    return [route.hops[0].node, *(hop.to for hop in route.hops)]


def test_a_route_is_told_hop_by_hop_with_its_totals() -> None:
    """Each hop has its ports, kind, range, delay and rate as the step has them; totals are sums, the slowest counts."""
    of = schedule(hand_made())
    step = step_with_links(of, "nairobi")
    step_t_s = 10.0 * step
    route = explain(of, "nairobi", "ring-p00s00", step_t_s + 7.0)
    assert (route.t_s, route.step_t_s, route.reason, route.faults) == (step_t_s + 7.0, step_t_s, None, ())
    assert names(route)[0] == "nairobi"
    assert names(route)[-1] == "ring-p00s00"
    sky, links = of.timeline.sky(step), of.timeline.links
    for hop in route.hops:
        ends = {of.index_of[hop.node], of.index_of[hop.to]}
        (row,) = (i for i, link in enumerate(sky.link) if {int(links.a[link]), int(links.b[link])} == ends)
        assert hop.range_m == pytest.approx(sky.range_m[row], abs=1e-3)
        assert (hop.delay_us, hop.rate_bps) == (sky.delay_us[row], sky.rate_bps[row])
        assert (hop.kind == "gsl") == hop.port.startswith("gsl") == hop.to_port.startswith("gsl")
        assert (hop.elevation_deg is None) == (hop.kind == "isl")
    assert route.delay_us == sum(hop.delay_us for hop in route.hops)
    assert route.rtt_us == 2 * route.delay_us
    assert route.rate_bps == 50_000_000


def test_a_fault_is_named_and_gone_around() -> None:
    """With the direct link in blackout the route is the long way round the ring, and says which fault is in force."""
    of = schedule(hand_made(), "ring-p00s00~ring-p00s01")
    assert names(explain(of, "ring-p00s00", "ring-p00s01", 99.0)) == ["ring-p00s00", "ring-p00s01"]
    route = explain(of, "ring-p00s00", "ring-p00s01", 100.0)
    assert len(route.hops) == 5
    assert route.faults == ("blackout of ring-p00s00~ring-p00s01 (silent) until t = 200 s",)


@pytest.mark.parametrize(
    ("targets", "a", "b", "words"),
    [
        (["ring-p00s03"], "ring-p00s00", "ring-p00s03", "ring-p00s03 is in blackout (silent) until t = 200 s"),
        (
            ["ring-p00s00~ring-p00s01", "ring-p00s03~ring-p00s04"], "ring-p00s00", "ring-p00s02",
            "every path between ring-p00s00 and ring-p00s02 is cut by a fault: blackout of ring-p00s00~ring-p00s01",
        ),
        (
            ["ring-p00s00~ring-p00s01", "ring-p00s01~ring-p00s02"], "ring-p00s01", "ring-p00s04",
            "all links of ring-p00s01 are cut by a fault",
        ),
    ],
)  # fmt: skip
def test_a_fault_that_leaves_no_path_is_the_reason(targets: list[str], a: str, b: str, words: str) -> None:
    """A blackout of an end, of all its links, or of a cut through the network."""
    route = explain(schedule(without(hand_made(), LinkKind.GSL, 0.0, 600.0), *targets), a, b, 150.0)
    assert route.hops == ()
    assert (route.rtt_us, route.rate_bps, route.delay_us) == (None, None, 0)
    assert words in (route.reason or "")


def test_a_node_without_a_link_is_told_when_its_next_contact_begins() -> None:
    """The earliest contact after the moment, and with whom; or that there is none any more."""
    sky = without(hand_made(), LinkKind.GSL, 0.0, 600.0)
    contacts = sky.contacts
    ground = np.flatnonzero((contacts.a == 7) | (contacts.b == 7))
    first = ground[np.argmin(contacts.start_s[ground])]
    assert contacts.start_s[first] > 0.0
    other = sky.nodes[int(contacts.a[first] + contacts.b[first] - 7)].name
    reason = explain(schedule(sky), "nairobi", "ring-p00s00", 0.0).reason or ""
    assert reason.startswith("nairobi has no link at t = 0 s; ")
    assert reason.endswith(f"its next contact begins at t = {contacts.start_s[first]:g} s, with {other}")
    late = explain(schedule(sky), "ring-p00s00", "nairobi", float(contacts.start_s[ground].max()) + 10.0)
    assert (late.reason or "").endswith("and no contact later in the run")


def test_a_split_network_is_called_so() -> None:
    """Where both ends have links but no path joins them, both parts are told."""
    sky = without(hand_made(), LinkKind.ISL, 0.0, 600.0)
    of = schedule(sky)
    step = step_with_links(of, "quito", "nairobi")
    reason = explain(of, "quito", "nairobi", float(sky.t_s[step])).reason or ""
    assert "the network is split" in reason
    assert "quito reaches 1 other nodes, nairobi reaches 1" in reason


def test_a_node_that_has_left_the_sky_is_the_reason() -> None:
    """After its end, with the words of its end."""
    of = schedule(hand_made(node_ends=[NodeEnd(2, 95.0, "its orbit has decayed")]))
    assert explain(of, "ring-p00s02", "ring-p00s00", 90.0).hops
    assert explain(of, "ring-p00s00", "ring-p00s02", 100.0).reason == (
        "ring-p00s02 is down since t = 95 s: its orbit has decayed"
    )


@pytest.mark.parametrize(
    ("a", "b", "t_s", "words"),
    [
        ("quitto", "nairobi", 0.0, "did you mean 'quito'"),
        ("quito", "quito", 0.0, "name two nodes"),
        ("quito", "nairobi", 7_199.0, "from t = 7200 to 7790 s"),
        ("quito", "nairobi", 7_800.0, "from t = 7200 to 7790 s"),
    ],
)
def test_what_cannot_be_asked_is_said(a: str, b: str, t_s: float, words: str) -> None:
    """Unknown nodes, one node twice, and moments outside the run: times count from the epoch."""
    with pytest.raises(InputError, match=words):
        explain(schedule(hand_made(start_s=7_200.0)), a, b, t_s)


def test_the_command_reads_scenarios_folders_and_files(tmp_path: Path) -> None:
    """A preset's name, a saved timeline and a run's folder that holds one tell the same route, as one JSON document."""
    scenario = load_scenario("iridium-66", 20.0, start_s=30.0)
    path = tmp_path / "timeline.npz"
    with TimelineWriter(path, read_source("iridium-66")) as writer:
        writer.finish(plan(scenario, writer)).close()
    told = []
    for where in ("iridium-66", str(path), str(tmp_path)):
        asked = ["path", "nairobi", "suva", "--at", "45", "--in", where, "--json"]
        told.append(json.loads(CliRunner().invoke(skyrack, asked, catch_exceptions=False).stdout))
    assert told[1] == told[2]
    assert told[0]["step_t_s"] == told[1]["step_t_s"] == 45.0
    assert told[1]["hops"][0]["node"] == "nairobi"
    assert told[1]["hops"][-1]["to"] == "suva"
    shown = CliRunner().invoke(skyrack, ["path", "nairobi", "suva", "--at", "45", "--in", str(path)])
    assert shown.exit_code == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("--at", "nan", "--in", "iridium-66"), "number of seconds"),
        (("--at", "1e300", "--in", "iridium-66"), "from t = 0 to 300 s"),
        (("--in", "iridium-66"), "--at SECONDS"),
        (("--at", "1", "--in", "."), "no folder of a run"),
    ],
)
def test_wrong_questions_are_input_errors(asked: tuple[str, ...], words: str) -> None:
    """A moment that is none, or none at all, and a folder without a run: told in one message."""
    done = CliRunner().invoke(skyrack, ["path", "nairobi", "suva", *asked])
    assert isinstance(done.exception, InputError)
    assert words in str(done.exception)
