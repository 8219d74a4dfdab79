"""The sky of the default preset as a timeline: nodes, links and contacts, held against the geometry."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from controller.faults import FaultSchedule
from controller.orbit.frames import ecef_to_geodetic
from controller.planner import plan, survey
from controller.record.plan_export import plan_lines
from controller.scenario import load_scenario
from controller.timeline import FloatArray, LinkKind, Role, Timeline
from tests.unit.planner.conftest import positions_m
from tests.unit.scenario.text import GOOD, changed, parsed

LIGHT_M_S = 299_792_458.0
EDGE_S = 0.011
"""Edges of contacts are found to 10 ms, and told in hundredths of a second."""


def elevation_deg(timeline: Timeline, ground: int) -> FloatArray:
    """Elevation of all satellites (n_t, n_sat) from the local vertical: another way than the product's."""
    r_m = positions_m(timeline)
    place = ecef_to_geodetic(r_m[0, :, ground])
    latitude, longitude = np.radians(place.latitude_deg), np.radians(place.longitude_deg)
    up = np.array([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
    away_m = r_m[:, :, : timeline.n_satellite] - r_m[:, :, ground, None]
    angle_deg: FloatArray = np.degrees(np.arcsin(np.einsum("txn,x->tn", away_m, up) / np.linalg.norm(away_m, axis=1)))
    return angle_deg


def test_the_preset_becomes_a_timeline_of_71_nodes_and_533_ports(timeline: Timeline) -> None:
    """301 instants; four ISL and four ground ports a satellite, one port a ground node; shapes as documented."""
    assert len(timeline.nodes) == 71
    assert timeline.n_satellite == 66
    assert sum(len(node.ports) for node in timeline.nodes) == 533
    assert timeline.nodes[0].ports == ("isl0", "isl1", "isl2", "isl3", "gsl0", "gsl1", "gsl2", "gsl3")
    assert [node.role for node in timeline.nodes[66:]] == [Role.GATEWAY] * 3 + [Role.TERMINAL] * 2
    assert timeline.t_s.tolist() == [float(i) for i in range(301)]
    assert positions_m(timeline).shape == (301, 3, 71)
    block = timeline.blocks[0]
    assert block.illumination_ratio.shape == (block.n_step, 71)
    assert block.step_start[-1] == len(block.link) == len(block.delay_us) == len(block.rate_bps)
    with pytest.raises(IndexError):
        timeline.sky(301)


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
    for sky in timeline.skies():
        a_m, b_m = sky.r_ecef_m[:, timeline.links.a[sky.link]], sky.r_ecef_m[:, timeline.links.b[sky.link]]
        distance_m = np.linalg.norm(a_m - b_m, axis=0)
        assert np.abs(sky.range_m - distance_m).max() < 1e-3
        assert np.abs(sky.delay_us - distance_m / LIGHT_M_S * 1e6).max() <= 0.5 + 1e-6


def test_range_rates_are_the_slopes_of_ranges(timeline: Timeline) -> None:
    """What a link's range changes from the step before to the step after is twice its rate, at a step of a second."""
    before, now, after = (timeline.sky(step) for step in (100, 101, 102))
    common = [link for link in now.link if link in before.link and link in after.link]
    assert len(common) > 100
    at = [np.flatnonzero(np.isin(sky.link, common)) for sky in (before, now, after)]
    slope_m_s = (after.range_m[at[2]] - before.range_m[at[0]]) / 2.0
    assert now.range_rate_m_s[at[1]] == pytest.approx(slope_m_s, abs=0.05)


def test_rates_and_losses_are_those_of_the_constellation_and_the_ground_node(timeline: Timeline) -> None:
    """An ISL carries its constellation's rate, a GSL its ground node's."""
    table, names, sky = timeline.links, [node.name for node in timeline.nodes], timeline.sky(150)
    for link, rate_bps in zip(sky.link, sky.rate_bps, strict=True):
        ground = {names[table.a[link]], names[table.b[link]]} & {n.name for n in timeline.nodes[66:]}
        slow = 20_000_000 if ground & {"suva", "reykjavik"} else 50_000_000
        assert bool(ground) == (table.kind[link] == LinkKind.GSL)
        assert rate_bps == (slow if ground else 100_000_000)


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
            if held >= 0 and visible[step, held]:
                assert served == [held]
            elif not visible[step].any():
                assert served == []
            else:
                stays = np.argmax(~np.pad(visible[step:], ((0, 1), (0, 0))), axis=0)
                assert len(served) == 1
                assert stays[served[0]] >= stays.max() - 1
            held = served[0] if served else -1


def test_elevations_belong_to_ground_links_alone(timeline: Timeline) -> None:
    """NaN for an ISL; for a GSL the satellite's angle over the ground node's horizon."""
    seen = {index: elevation_deg(timeline, index) for index in range(66, 71)}
    for step, sky in enumerate(timeline.skies()):
        a, b = timeline.links.a[sky.link], timeline.links.b[sky.link]
        is_gsl = timeline.links.kind[sky.link] == LinkKind.GSL
        assert np.isnan(sky.elevation_deg[~is_gsl]).all()
        for one, other, angle_deg in zip(a[is_gsl], b[is_gsl], sky.elevation_deg[is_gsl], strict=True):
            ground, satellite = max(one, other), min(one, other)
            assert angle_deg == pytest.approx(seen[ground][step, satellite], abs=1e-4)


def test_the_steps_show_the_contact_plan(timeline: Timeline) -> None:
    """Two nodes are linked at exactly those steps whose instant lies in one of their contacts."""
    contacts, n_node = timeline.contacts, len(timeline.nodes)
    for step, sky in enumerate(timeline.skies()):
        t_s = float(timeline.t_s[step])
        clear = (np.abs(contacts.start_s - t_s) > EDGE_S) & (np.abs(contacts.end_s - t_s) > EDGE_S)
        on = ((contacts.start_s <= t_s) & (t_s < contacts.end_s)) | (clear & False)
        if t_s == timeline.t_s[-1]:
            on |= contacts.end_s == t_s
        linked = set((timeline.links.a[sky.link] * n_node + timeline.links.b[sky.link]).tolist())
        pair = contacts.a * n_node + contacts.b
        near = set(pair[~clear & (contacts.start_s > 0.0) & (t_s < 300.0)].tolist())
        assert linked - near == set(pair[on].tolist()) - near


def test_contacts_end_where_the_geometry_does_and_not_at_a_step() -> None:
    """Planned at steps of a minute or of a second, the contacts are the same."""
    fine = survey(parsed(changed("step_s = 10.0", "step_s = 1.0").replace("duration_s = 60.0", "duration_s = 1_200.0")))
    coarse = survey(
        parsed(changed("step_s = 10.0", "step_s = 60.0").replace("duration_s = 60.0", "duration_s = 1_200.0"))
    )
    assert len(fine.contacts.a) > 80
    for key in ("a", "b", "start_s", "end_s", "max_elevation_deg", "min_range_m", "volume_bytes"):
        assert np.array_equal(getattr(fine.contacts, key), getattr(coarse.contacts, key), equal_nan=True)


def test_what_a_contact_is_worth(timeline: Timeline) -> None:
    """Highest elevation, least range, greatest range rate and volume, held against the steps of a second."""
    contacts = timeline.contacts
    r_m = positions_m(timeline)
    for row in range(len(contacts.a)):
        a, b = int(contacts.a[row]), int(contacts.b[row])
        during = (timeline.t_s >= contacts.start_s[row]) & (timeline.t_s <= contacts.end_s[row])
        distance_m = np.linalg.norm(r_m[during][:, :, a] - r_m[during][:, :, b], axis=1)
        assert -0.1 <= distance_m.min() - contacts.min_range_m[row] < 4_000.0  # half a step of approach
        if len(distance_m) > 2:
            assert contacts.max_range_rate_m_s[row] == pytest.approx(np.abs(np.diff(distance_m)).max(), rel=0.02, abs=5)
        lasts_s = contacts.end_s[row] - contacts.start_s[row]
        if contacts.kind[row] == LinkKind.GSL:
            ground, satellite = max(a, b), min(a, b)
            highest_deg = elevation_deg(timeline, ground)[during, satellite].max()
            assert contacts.max_elevation_deg[row] == pytest.approx(highest_deg, abs=0.1)
            rate_bps = 20e6 if ground > 68 else 50e6
        else:
            assert np.isnan(contacts.max_elevation_deg[row])
            rate_bps = 100e6
        assert contacts.volume_bytes[row] == pytest.approx(lasts_s * rate_bps / 8.0, abs=rate_bps / 8.0 * EDGE_S)
    assert np.isnan(contacts.max_doppler_hz).all()


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
        usable = faults.masked(float(step), timeline, sky).usable
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
