"""What nodes are told ahead of their own track, light and contacts, held against the timeline and the orbits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.links.sites import Sites
from controller.orbit.elements import constellation_orbits
from controller.orbit.frames import ecef_to_geodetic
from controller.orbit.track import track
from controller.outlook import MAX_CONTACTS, MAX_POSITIONS, Outlook
from controller.planner import plan
from controller.scenario import Scenario, Source, parse_scenario
from controller.sky_feed import NO_END_EMU_NS, NS, sky_message
from controller.timeline import NodeEnd, Timeline
from node_agent.sky.whereabouts import IN_ORBIT, ON_THE_GROUND, Whereabouts, whereabouts
from protos.skyrack.v1 import node_pb2
from tests.unit.hand_made import timeline as hand_made

WITHIN_M = 0.05
WITHIN_ON_THE_WAY_M = 6.0  # a minute's chord of an aircraft's great circle: v² t² / 8 R
LIGHT_WITHIN = 0.08  # the penumbra as a straight line
CLOCK = node_pb2.NodeClock(scale=1.0)

TEXT = """
name = "few"
epoch = 2026-01-01T00:00:00Z
duration_s = {duration_s}
step_s = {step_s}

[[constellation]]
name = "low"
walker = {{ pattern = "star", total = 4, planes = 2, phasing = 0, altitude_m = 400_000, inclination_deg = 97.0 }}
isl = {{ topology = "ring" }}

[[ground]]
name = "aircraft"
role = "terminal"
latitude_deg = 50.0
longitude_deg = 8.0
altitude_m = 11_000.0
waypoints = [
    {{ at_s = 700.0, latitude_deg = 51.5, longitude_deg = 8.0, altitude_m = 11_000.0 }},
    {{ at_s = 1400.0, latitude_deg = 51.5, longitude_deg = 10.0, altitude_m = 11_000.0 }},
]

[[ground]]
name = "pole"
role = "gateway"
latitude_deg = -90.0
longitude_deg = 0.0
"""


def few(duration_s: float = 6_000.0, step_s: float = 1.0) -> tuple[Scenario, Timeline]:
    """Four satellites as low as they come, an aircraft that turns, and a station at a pole."""
    scenario = parse_scenario(Source("few.toml", TEXT.format(duration_s=duration_s, step_s=step_s), Path()))
    return scenario, plan(scenario)


def told(outlook: Outlook, node: int, t_s: float) -> node_pb2.Sky:
    """What a node is told that is told anew at a moment."""
    return sky_message(CLOCK, outlook.of(node, outlook.window(node, t_s)), ())


def at(sky: node_pb2.Sky, t_s: float, points: int) -> Whereabouts:
    """Where the node takes itself to be."""
    found = whereabouts(sky.places, round(t_s * NS), points)
    assert found is not None
    return found


@pytest.mark.parametrize(("duration_s", "step_s"), [(6_000.0, 1.0), (100.0, 1.0), (6_000.0, 20.0), (30.0, 0.5)])
def test_a_satellite_knows_its_position_within_centimetres(duration_s: float, step_s: float) -> None:
    """Whenever it is told, and for as long as that holds: as the timeline has it, and as SGP4 has it between steps."""
    scenario, timeline = few(duration_s, step_s)
    outlook = Outlook.of_run(timeline, scenario)
    constellation = scenario.constellations[0]
    orbits = constellation_orbits(constellation, scenario.epoch)
    flown = track(constellation.satellite_names, orbits, scenario.epoch, 0.0, duration_s)
    draw = np.random.default_rng(5)
    for _ in range(20):
        node, told_s = int(draw.integers(timeline.n_satellite)), float(draw.uniform(0.0, duration_s))
        sky = told(outlook, node, told_s)
        until_s = min(told_s + 600.0, duration_s)
        for step in np.unique(draw.integers(int(told_s / step_s), int(until_s / step_s) + 1, 30)).tolist():
            here = at(sky, float(timeline.t_s[step]), IN_ORBIT)
            assert np.linalg.norm(here.r_ecef_m - timeline.sky(step).r_ecef_m[:, node]) < WITHIN_M
        moments_s = draw.uniform(told_s, until_s, 30)
        flown_m = flown.ecef_at(np.full(30, node), moments_s).r_m
        for moment_s, r_m in zip(moments_s.tolist(), flown_m, strict=True):
            here = at(sky, moment_s, IN_ORBIT)
            assert np.linalg.norm(here.r_ecef_m - r_m) < WITHIN_M
            place = ecef_to_geodetic(np.array(here.r_ecef_m))
            expected = (place.latitude_deg, place.longitude_deg, place.altitude_m)
            assert (here.latitude_deg, here.longitude_deg, here.altitude_m) == pytest.approx(expected, abs=1e-6)


def test_a_node_on_the_ground_knows_its_place() -> None:
    """One that stands to a millimetre, at a pole too; one on its way within metres, when it turns too."""
    scenario, timeline = few()
    outlook, sites = Outlook.of_run(timeline, scenario), Sites.of(scenario.grounds)
    aircraft, pole = (timeline.n_satellite + i for i in (0, 1))
    for t_s in np.arange(0.0, 3_000.0, 7.3).tolist():
        flown_m = sites.stand(np.array([0]), np.array([t_s])).r_m[0]
        here = at(told(outlook, aircraft, max(0.0, t_s - 500.0)), t_s, ON_THE_GROUND)
        assert np.linalg.norm(here.r_ecef_m - flown_m) < WITHIN_ON_THE_WAY_M
    still = at(told(outlook, pole, 0.0), 123.4, ON_THE_GROUND)
    assert (still.latitude_deg, still.altitude_m) == pytest.approx((-90.0, 0.0), abs=1e-3)


def test_a_satellite_knows_its_light() -> None:
    """To the second where an eclipse begins and ends, in between and beside it as the timeline has it."""
    scenario, timeline = few()
    outlook = Outlook.of_run(timeline, scenario)
    eclipses = timeline.eclipses
    assert len(eclipses.satellite) >= 4, "no eclipses: the test shows nothing"
    for node, start_s in zip(eclipses.satellite.tolist(), eclipses.start_s.tolist(), strict=True):
        sky = told(outlook, node, max(0.0, start_s - 300.0))
        for step in range(max(0, int(start_s) - 60), min(int(start_s) + 61, timeline.n_step)):
            ratio = at(sky, float(step), IN_ORBIT).illumination_ratio
            assert ratio == pytest.approx(timeline.sky(step).illumination_ratio[node], abs=LIGHT_WITHIN)


def test_a_node_knows_its_contacts() -> None:
    """Its own, from those under way on, as the plan has them; those that last to the run's end have no end."""
    timeline = hand_made(n_step=120)
    outlook, table, last_s = Outlook(timeline, 1.0, {}), timeline.contacts, float(timeline.t_s[-1])
    for node, t_s in ((6, 0.0), (6, 700.0), (0, 650.0), (7, 100.0)):
        sky = told(outlook, node, t_s)
        rows = [
            row for row in range(len(table.a)) if node in (table.a[row], table.b[row]) and table.end_s[row] > t_s
        ]  # fmt: skip
        ahead = [each for each in sky.contacts if each.end_emu_ns > t_s * NS]
        assert len(ahead) == len(rows) > 0
        for contact, row in zip(ahead, rows, strict=True):
            peer = timeline.nodes[int(table.b[row] if table.a[row] == node else table.a[row])].name
            end_s = float(table.end_s[row])
            assert contact.peer == peer
            assert contact.start_emu_ns == round(float(table.start_s[row]) * NS)
            assert contact.end_emu_ns == (NO_END_EMU_NS if end_s == last_s else round(end_s * NS))
            assert contact.delay_us == round(float(table.min_range_m[row]) / 299.792458)
            assert contact.rate_bps == pytest.approx(50_000_000, rel=0.01)


def test_no_more_is_told_than_fits() -> None:
    """At any pace of the sky: so many positions and contacts, and from the telling on for a whole window."""
    timeline = hand_made(n_step=20_000, block_steps=1_000)
    for time_scale in (0.5, 1.0, 30.0, 1_000.0):
        outlook = Outlook(timeline, time_scale, {})
        for t_s in (0.0, 61_234.5, 199_990.0):
            own = outlook.of(2, outlook.window(2, t_s))
            assert len(own.places.t_s) <= MAX_POSITIONS + 10
            assert len(own.contacts) <= MAX_CONTACTS
            assert own.places.t_s[0] <= t_s
            assert own.places.t_s[-1] >= min(t_s + 600.0, 199_990.0)


def test_nodes_are_told_anew_one_after_another() -> None:
    """Each once a window, and never all of them at once."""
    timeline = hand_made(n_satellite=30, n_step=200)
    outlook, n_node = Outlook(timeline, 1.0, {}), len(timeline.nodes)
    windows = np.array([[outlook.window(node, float(t_s)) for node in range(n_node)] for t_s in range(1_801)])
    renewed = np.diff(windows, axis=0)
    assert renewed.sum(axis=0).tolist() == [3] * n_node
    assert renewed.sum(axis=1).max() == 1


def test_a_node_that_leaves_the_sky_has_no_place_then() -> None:
    """Its places end with it."""
    timeline = hand_made(n_step=200, node_ends=[NodeEnd(2, 1_000.0, "its orbit has decayed")])
    outlook = Outlook(timeline, 1.0, {})
    before = outlook.of(2, outlook.window(2, 900.0)).places
    assert before.t_s[-1] < 1_000.0
    assert not np.isnan(before.r_ecef_m).any()
    assert whereabouts(told(outlook, 2, 1_900.0).places, 1_900 * NS, IN_ORBIT) is None
