from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from controller.errors import InputError
from controller.faults import FaultSchedule
from controller.orbit.frames import ecef_to_geodetic
from controller.planner import plan
from controller.record.plan_export import plan_lines
from controller.scenario import load_scenario
from controller.timeline import FloatArray, LinkKind, Role, Timeline, content_hash
from tests.unit.scenario.text import GOOD, WALKER, changed, parsed

LIGHT_M_S = 299_792_458.0
IRIDIUM_TLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "tle" / "Iridium.tle"


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    """The preset's, computed once."""
    return plan(load_scenario("iridium-66"))


def elevation_deg(timeline: Timeline, ground: int) -> FloatArray:
    """Elevation of all satellites, from the angle to the local vertical: another way than the product's."""
    n_sat = sum(node.role is Role.SATELLITE for node in timeline.nodes)
    here_m = timeline.r_ecef_m[ground]
    place = ecef_to_geodetic(here_m[0])
    latitude, longitude = np.radians(place.latitude_deg), np.radians(place.longitude_deg)
    up = np.array([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    away_m = timeline.r_ecef_m[:n_sat] - here_m
    angle_deg: FloatArray = np.degrees(np.arcsin(away_m @ up / np.linalg.norm(away_m, axis=-1)))
    return angle_deg


def test_the_preset_becomes_a_timeline_of_71_nodes_and_533_ports(timeline: Timeline) -> None:
    """301 instants; four ISL and four ground ports a satellite, one port a ground node; shapes as documented."""
    assert len(timeline.nodes) == 71
    assert sum(len(node.ports) for node in timeline.nodes) == 533
    assert timeline.nodes[0].ports == ("isl0", "isl1", "isl2", "isl3", "gsl0", "gsl1", "gsl2", "gsl3")
    assert [node.role for node in timeline.nodes[66:]] == [Role.GATEWAY] * 3 + [Role.TERMINAL] * 2
    assert timeline.t_s.tolist() == [float(i) for i in range(301)]
    assert timeline.r_ecef_m.shape == (71, 301, 3)
    assert timeline.illumination_ratio.shape == (71, 301)
    assert len(timeline.step_start) == 302
    assert timeline.step_start[-1] == len(timeline.link) == len(timeline.delay_us)


def test_links_are_in_order_and_no_port_is_used_twice_at_once(timeline: Timeline) -> None:
    """names[a] < names[b]; rows in order of names; at each step each port is the end of one link at most."""
    table, names = timeline.links, [node.name for node in timeline.nodes]
    keys = [(names[a], names[b], p, q) for a, b, p, q in zip(table.a, table.b, table.port_a, table.port_b, strict=True)]
    assert keys == sorted(set(keys))
    assert all(a < b for a, b, _, _ in keys)
    for step in range(0, 301, 20):
        rows = timeline.sky(step).link
        assert np.all(np.diff(rows) > 0)
        ends = [
            *zip(table.a[rows], table.port_a[rows], strict=True),
            *zip(table.b[rows], table.port_b[rows], strict=True),
        ]
        assert len(set(ends)) == len(ends)


def test_delays_are_ranges_over_c_in_whole_microseconds(timeline: Timeline) -> None:
    """Every delay is within half a microsecond of the distance of the two nodes over the speed of light."""
    step = np.repeat(np.arange(301), np.diff(timeline.step_start))
    a_m = timeline.r_ecef_m[timeline.links.a[timeline.link], step]
    b_m = timeline.r_ecef_m[timeline.links.b[timeline.link], step]
    distance_m = np.linalg.norm(a_m - b_m, axis=-1)
    assert np.abs(timeline.range_m - distance_m).max() < 1e-3
    assert np.abs(timeline.delay_us - distance_m / LIGHT_M_S * 1e6).max() <= 0.5 + 1e-6


def test_rates_and_losses_are_those_of_the_constellation_and_the_ground_node(timeline: Timeline) -> None:
    """An ISL carries its constellation's rate, a GSL its ground node's."""
    table, names = timeline.links, [node.name for node in timeline.nodes]
    for a, b, kind, rate_bps in zip(table.a, table.b, table.kind, table.rate_bps, strict=True):
        ground = {names[a], names[b]} & {"suva", "reykjavik", "beijing", "nairobi", "punta-arenas"}
        expected = 100_000_000 if kind == LinkKind.ISL else 20_000_000 if ground & {"suva", "reykjavik"} else 50_000_000
        assert bool(ground) == (kind == LinkKind.GSL)
        assert rate_bps == expected


def test_ground_nodes_follow_the_handover_rule_also_past_the_end_of_the_run(timeline: Timeline) -> None:
    """Each ground node keeps its satellite while above the mask and then takes the one that stays longest.

    Held against a search of its own in a sky five times as long, in steps of a second; of satellites that set within
    the same second either will do.
    """
    scenario = load_scenario("iridium-66")
    longer = plan(load_scenario("iridium-66", 1_500.0))
    for index, ground in enumerate(scenario.grounds, 66):
        visible = elevation_deg(longer, index) >= ground.min_elevation_deg
        held = -1
        for step in range(301):
            sky = timeline.sky(step)
            ends = np.stack((timeline.links.a[sky.link], timeline.links.b[sky.link]), axis=1)
            served = [int(end.sum()) - index for end in ends[np.any(ends == index, axis=1)]]
            if held >= 0 and visible[held, step]:
                assert served == [held]
            elif not visible[:, step].any():
                assert served == []
            else:
                stays = np.argmax(~np.pad(visible[:, step:], ((0, 0), (0, 1))), axis=1)
                assert len(served) == 1
                assert stays[served[0]] >= stays.max() - 1
            held = served[0] if served else -1


def test_elevations_belong_to_ground_links_alone(timeline: Timeline) -> None:
    """NaN for an ISL; for a GSL the satellite's angle over the ground node's horizon."""
    is_gsl = timeline.links.kind[timeline.link] == LinkKind.GSL
    assert np.isnan(timeline.elevation_deg[~is_gsl]).all()
    step = np.repeat(np.arange(301), np.diff(timeline.step_start))
    for index in range(66, 71):
        expected = elevation_deg(timeline, index)
        a, b = timeline.links.a[timeline.link], timeline.links.b[timeline.link]
        rows = np.flatnonzero((a == index) | (b == index))
        satellite = (a + b)[rows] - index
        assert timeline.elevation_deg[rows] == pytest.approx(expected[satellite, step[rows]], abs=1e-6)


def test_cross_plane_links_are_off_near_the_poles(timeline: Timeline) -> None:
    """No link between planes while one of its ends is above 70° of latitude; links in a plane are always on."""
    latitude_deg = np.abs(ecef_to_geodetic(timeline.r_ecef_m).latitude_deg)
    names = [node.name for node in timeline.nodes]
    for step in (0, 150, 300):
        sky = timeline.sky(step)
        isl = sky.link[timeline.links.kind[sky.link] == LinkKind.ISL]
        pairs = [(int(timeline.links.a[k]), int(timeline.links.b[k])) for k in isl]
        within = [p for p in pairs if names[p[0]][:11] == names[p[1]][:11]]
        across = [p for p in pairs if names[p[0]][:11] != names[p[1]][:11]]
        assert len(within) == 66
        assert all(latitude_deg[list(p), step].max() <= 70.0 for p in across)
        neighbours = [(k, k + 11) for k in range(55)]
        assert len(across) == sum(latitude_deg[list(p), step].max() <= 70.0 for p in neighbours)


def test_the_hash_names_the_content() -> None:
    """The same scenario gives the same hash; another altitude, rate, port pool or step another one."""
    base = plan(parsed(GOOD)).content_hash
    assert base.startswith("sha256:")
    assert len(base) == 71
    assert plan(parsed(GOOD)).content_hash == base
    for old, new in (
        ("780_000", "781_000"),
        ("[[ground]]", "max_gsl = 3\n[[ground]]"),
        ("step_s = 10.0", "step_s = 5.0"),
        ("00:00:00Z", "00:00:01Z"),
        ("116.60", "116.60\nrate_bps = 1_000_000"),
        ("116.60", "116.60\nloss_ratio = 0.001"),
        ('name = "suva"', 'name = "fiji"'),
    ):
        assert plan(parsed(changed(old, new))).content_hash != base


def test_the_hash_does_not_depend_on_the_machine() -> None:
    """Noise of the size of rounding does not change it, and its value is the one written here on another machine."""
    timeline = plan(parsed(GOOD))
    noise_m = np.random.default_rng(1).uniform(-1e-7, 1e-7, timeline.r_ecef_m.shape)
    noisy = replace(timeline, r_ecef_m=timeline.r_ecef_m + noise_m, range_m=timeline.range_m + 1e-7)
    assert content_hash(noisy) == timeline.content_hash
    assert timeline.content_hash == "sha256:242db18b78a702cbae7b5d54b06801094360e33f0e8c5a0eaa54b226fd7d6aab"


def test_a_sky_without_ground_nodes_or_links() -> None:
    """A scenario may have satellites alone, without a single link."""
    text = GOOD.split("[[ground]]")[0] + 'isl = { topology = "none" }\nisl_ports = 0\n'
    timeline = plan(parsed(text))
    assert len(timeline.nodes) == 66
    assert len(timeline.link) == len(timeline.links.a) == 0
    assert timeline.sky(6).link.shape == (0,)


def test_several_constellations_stand_one_after_another() -> None:
    """The second constellation's nodes follow the first's; each has its own links; grounds see both."""
    second = (
        '[[constellation]]\nname = "low"\nwalker = { pattern = "delta", total = 200, planes = 10, phasing = 1, '
        "altitude_m = 550_000, inclination_deg = 53 }\nisl = { rate_bps = 7_000_000 }\nmax_gsl = 1\n[[ground]]"
    )
    timeline = plan(parsed(changed("[[ground]]", second)))
    assert len(timeline.nodes) == 268
    assert timeline.nodes[66].name == "low-p00s00"
    isl = timeline.links.kind == LinkKind.ISL
    is_low = timeline.links.a >= 66
    assert np.all(is_low[isl] == (timeline.links.b[isl] >= 66))
    assert set(timeline.links.rate_bps[isl & is_low]) == {7_000_000}
    assert set(timeline.links.rate_bps[isl & ~is_low]) == {100_000_000}


def test_a_fault_on_a_pair_of_satellites_that_no_link_joins_is_refused() -> None:
    """The message has the file, the key, and who the neighbours are."""
    fault = '[[fault]]\nkind = "blackout"\ntarget = "sat-p00s00~sat-p00s05"\nat_s = 1\nduration_s = 1\n'
    with pytest.raises(InputError, match=r"trial\.toml: fault\[0\]\.target.*joined to sat-p00s01, sat-p00s10"):
        plan(parsed(GOOD + fault))


def test_a_decayed_satellite_is_refused_with_the_file(tmp_path: Path) -> None:
    """SGP4's error reaches the user with the scenario's file, the satellite, the time and the meaning."""
    decaying = (
        "MINOTAUR\n"
        "1 28872U 05037B   05333.02012661  .25992681  00000-0  24476-3 0  1534\n"
        "2 28872  96.4736 157.9986 0303955 244.0492 110.6523 16.46015938 10708\n"
    )
    (tmp_path / "some.tle").write_text(decaying)
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"').replace("2026-01-01", "2005-12-09")
    with pytest.raises(InputError, match=r"trial\.toml: satellite 'minotaur' has no position at 2005-12-09.*decayed"):
        plan(parsed(text, tmp_path))


@pytest.mark.skipif(not IRIDIUM_TLE.is_file(), reason=f"the shared element sets are not at {IRIDIUM_TLE}")
def test_real_element_sets_make_a_timeline() -> None:
    """The Iridium sets of 2022-09-14 plan as they are: satellites named by slug, all of them in low orbits."""
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "Iridium.tle"').replace("2026-01-01", "2022-09-14")
    timeline = plan(parsed(text, IRIDIUM_TLE.parent))
    satellites = [node for node in timeline.nodes if node.role is Role.SATELLITE]
    assert satellites[0].name == "iridium-7"
    assert len(satellites) == 31
    altitude_m = ecef_to_geodetic(timeline.r_ecef_m[: len(satellites)]).altitude_m
    assert altitude_m.min() > 300_000.0
    assert altitude_m.max() < 1_400_000.0


def test_plan_lines_are_as_documented() -> None:
    """One JSON document a step with every node and every usable link; links in a blackout are absent."""
    text = GOOD + (
        '[[fault]]\nkind = "blackout"\ntarget = "beijing"\nat_s = 20\nduration_s = 20\n'
        '[[fault]]\nkind = "blackout"\ntarget = "sat-p00s01~sat-p00s00"\nat_s = 0\nduration_s = 10\n'
    )
    scenario = parsed(text)
    timeline = plan(scenario)
    lines = [json.loads(line) for line in plan_lines(timeline, FaultSchedule.from_scenario(scenario, timeline))]
    assert [line["t_s"] for line in lines] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    assert lines[1]["utc"] == "2026-01-01T00:00:10.000Z"
    assert list(lines[0]) == ["t_s", "utc", "nodes", "links"]
    assert list(lines[0]["nodes"]) == list(scenario.node_names)
    beijing = lines[0]["nodes"]["beijing"]
    assert (beijing["latitude_deg"], beijing["longitude_deg"], beijing["altitude_m"]) == (40.07, 116.6, 0.0)
    assert len(beijing["r_ecef_m"]) == 3
    assert beijing["illumination_ratio"] == 1.0  # 08:00 in the morning
    assert list(lines[0]["links"][0]) == [
        "a", "b", "kind", "range_m", "delay_us", "rate_bps", "loss_ratio", "elevation_deg",
    ]  # fmt: skip
    for line in lines:
        pairs = [(link["a"], link["b"]) for link in line["links"]]
        assert pairs == sorted(pairs)
        assert all(a < b for a, b in pairs)
        assert all((link["elevation_deg"] is None) == (link["kind"] == "isl") for link in line["links"])
        assert all(isinstance(link["delay_us"], int) and isinstance(link["rate_bps"], int) for link in line["links"])
        assert any("beijing" in pair for pair in pairs) == (line["t_s"] not in (20.0, 30.0))
        assert (("sat-p00s00", "sat-p00s01") in pairs) == (line["t_s"] > 0.0)


def test_faults_are_in_force_from_their_start_until_just_before_their_end(timeline: Timeline) -> None:
    """The preset's blackout of Beijing holds from 60 s to 90 s, and masks the links of no other node."""
    faults = FaultSchedule.from_scenario(load_scenario("iridium-66"), timeline)
    for step, masked in ((59, False), (60, True), (89, True), (90, False)):
        sky = timeline.sky(step)
        usable = faults.usable(float(step), timeline, sky)
        beijing = (timeline.links.a[sky.link] == 66) | (timeline.links.b[sky.link] == 66)
        assert beijing.sum() == 1
        assert np.array_equal(usable, ~beijing if masked else np.ones(len(beijing), np.bool_))
        active = faults.active(float(step))
        assert [(f.target, f.kind, f.mode, f.until_s) for f in active] == (
            [("beijing", "blackout", "silent", 90.0)] if masked else []
        )


def test_the_epoch_of_the_timeline_is_utc() -> None:
    """An aware datetime in UTC, whatever zone the scenario is written in."""
    assert plan(parsed(changed("00:00:00Z", "00:00:00-05:30"))).epoch_utc == datetime(2026, 1, 1, 5, 30, tzinfo=UTC)
