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
from controller.planner import plan, survey
from controller.record.plan_export import plan_lines
from controller.scenario import load_scenario
from controller.scenario.tle import checksum
from controller.timeline import Block, ContentHash, FloatArray, IntArray, LinkKind, MemoryBlocks, Role, Timeline
from tests.unit.scenario.text import GOOD, WALKER, changed, parsed

LIGHT_M_S = 299_792_458.0
IRIDIUM_TLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "tle" / "Iridium.tle"
EDGE_S = 0.011
"""Edges of contacts are found to 10 ms, and told in hundredths of a second."""


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    """The preset's, computed once."""
    return plan(load_scenario("iridium-66"))


def positions_m(timeline: Timeline) -> FloatArray:
    """All places. Shape (n_t, 3, n_node)."""
    return np.concatenate([timeline.blocks[i].r_ecef_m for i in range(len(timeline.blocks))])


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


def test_the_content_hash_is_the_same_each_time_and_names_what_is_commanded(timeline: Timeline) -> None:
    """The same scenario gives the same hash, however it is cut into blocks; a commanded microsecond changes it."""
    again = plan(load_scenario("iridium-66"))
    assert again.content_hash == timeline.content_hash
    assert timeline.content_hash.startswith("sha256:")
    block = timeline.blocks[0]

    def name(*blocks: Block) -> str:
        digest = ContentHash(timeline)
        for each in blocks:
            digest.update(each)
        return digest.text()

    assert name(block) == timeline.content_hash
    assert name(*cut(block, 100)) == timeline.content_hash
    later = replace(block, delay_us=block.delay_us + np.eye(1, len(block.delay_us), dtype=np.int32)[0])
    slower = replace(block, rate_bps=block.rate_bps - 8)
    assert len({timeline.content_hash, name(later), name(slower)}) == 3
    assert plan(load_scenario("iridium-66", 299.0)).content_hash != timeline.content_hash


def cut(block: Block, n_step: int) -> tuple[Block, Block]:
    """The same steps as two blocks, the first of n_step."""
    row = int(block.step_start[n_step])
    rows = ("link", "range_m", "range_rate_m_s", "delay_us", "rate_bps", "elevation_deg")
    steps = ("r_ecef_m", "illumination_ratio")
    first = {key: getattr(block, key)[:row] for key in rows} | {key: getattr(block, key)[:n_step] for key in steps}
    rest = {key: getattr(block, key)[row:] for key in rows} | {key: getattr(block, key)[n_step:] for key in steps}
    return (
        Block(first_step=0, step_start=block.step_start[: n_step + 1], **first),
        Block(first_step=n_step, step_start=block.step_start[n_step:] - row, **rest),
    )


def test_the_hash_does_not_see_what_machines_differ_in(timeline: Timeline) -> None:
    """A nanometre more or less, as the last bits of sines give it, changes no hash."""
    block = timeline.blocks[0]
    digest = ContentHash(timeline)
    digest.update(replace(block, r_ecef_m=block.r_ecef_m + 1e-9))
    assert digest.text() == timeline.content_hash


# What the preset's sky was when this hash was last taken. It changes when the physics, a rule of choice or the preset
# changes: then it is right to put the new one here, and to say why in CHANGELOG.md.
PRESET_HASH = "sha256:82199c5f61ef7c44c21e8be5e5772bb6f0428efb9c1688232371312a538bace0"


def test_the_hash_of_the_preset_is_that_of_other_machines(timeline: Timeline) -> None:
    """Another machine, another build of numpy, another day: the same commanded sky."""
    assert timeline.content_hash == PRESET_HASH


def test_blocks_of_a_long_run_are_handed_on_one_by_one() -> None:
    """A store sees the blocks in order as they are computed; together they hold every step once."""

    class Counting(MemoryBlocks):
        def append(self, block: Block) -> None:
            assert block.first_step == sum(self[i].n_step for i in range(len(self)))
            super().append(block)

    scenario = load_scenario("starlink-shell1", 240.0)
    store = Counting()
    timeline = plan(scenario, store)
    assert timeline.blocks is store
    assert len(store) > 1
    assert sum(store[i].n_step for i in range(len(store))) == timeline.n_step == 241
    assert all(store[i].n_step == store.block_steps for i in range(len(store) - 1))
    assert np.array_equal(timeline.sky(200).r_ecef_m, store[200 // store.block_steps].r_ecef_m[200 % store.block_steps])


def test_a_run_that_begins_later_sees_the_same_sky() -> None:
    """start_s moves the window, not the sky: what a long run has at 300 s, one that begins there has at its start."""
    whole = plan(parsed(changed("duration_s = 60.0", "duration_s = 400.0")))
    late = plan(parsed(changed("duration_s = 60.0", "duration_s = 60.0\nstart_s = 300.0")))
    assert (late.t_s[0], late.t_s[-1]) == (300.0, 360.0)
    assert late.sky(0).r_ecef_m == pytest.approx(whole.sky(30).r_ecef_m, rel=0.0, abs=1e-6)


def test_a_run_of_which_nothing_is_visible_has_no_ground_links() -> None:
    """A gateway without a satellite in view leaves the plan with ISLs alone; without ISLs, with nothing."""
    lonely = changed(f"walker = {{ {WALKER} }}", f"walker = {{ {WALKER} }}\nmax_gsl = 0\nisl.topology = 'none'")
    timeline = plan(parsed(lonely))
    assert len(timeline.contacts.a) == 0
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
    sky = timeline.sky(3)
    isl = timeline.links.kind[sky.link] == LinkKind.ISL
    is_low = timeline.links.a[sky.link] >= 66
    assert np.all(is_low[isl] == (timeline.links.b[sky.link][isl] >= 66))
    assert set(sky.rate_bps[isl & is_low]) == {7_000_000}
    assert set(sky.rate_bps[isl & ~is_low]) == {100_000_000}


RELAY = """
[[constellation]]
name = "relay"
walker = { pattern = "delta", total = 3, planes = 1, phasing = 0, altitude_m = 35_786_000, inclination_deg = 0.0 }
isl = { topology = "ring", rate_bps = 1_000_000_000 }
max_gsl = 0

[[isl]]
between = ["sat", "relay"]
k = 1
serves = 30
rate_bps = 3_000_000
"""


def ends_of(timeline: Timeline, step: int, rate_bps: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Nodes and ports of the links of a rate: node a, port a, node b, port b."""
    sky, table = timeline.sky(step), timeline.links
    link = sky.link[sky.rate_bps == rate_bps]
    return table.a[link], table.port_a[link], table.b[link], table.port_b[link]


def test_a_relay_constellation_is_linked_to_the_low_one() -> None:
    """Each low satellite seeks one relay, on a port after its own; no relay serves more than it may, nor any ground."""
    timeline = plan(parsed(GOOD + RELAY))
    relay = timeline.nodes[66]
    assert relay.ports == tuple(f"isl{i}" for i in range(34))
    assert timeline.nodes[0].ports[:5] == ("isl0", "isl1", "isl2", "isl3", "isl4")
    a, port_a, b, port_b = ends_of(timeline, 0, 3_000_000)
    low, high = np.minimum(a, b), np.maximum(a, b)
    assert 50 < len(low) <= 66
    assert np.unique(low).size == len(low)
    assert set(high) <= {66, 67, 68}
    assert np.bincount(high).max() <= 30
    port_of_low, port_of_high = np.where(a < 66, port_a, port_b), np.where(a < 66, port_b, port_a)
    assert set(port_of_low) == {4}
    assert port_of_high.min() == 4
    assert len({*zip(high.tolist(), port_of_high.tolist(), strict=True)}) == len(high)


def test_budgets_make_rates_follow_range_and_name_a_carrier() -> None:
    """A radio budget's rate falls with range; its contacts end where it does not close, and have a Doppler shift."""
    radio = "radio = { frequency_hz = 20e9, bandwidth_hz = 100e6, eirp_dbw = 38, g_t_db_k = 2, losses_db = 1 }"
    text = changed("longitude_deg = 116.60", f"longitude_deg = 116.60\nmin_elevation_deg = 5\n{radio}")
    timeline = plan(parsed(text.replace("duration_s = 60.0", "duration_s = 900.0")))
    contacts = timeline.contacts
    own = (contacts.kind == LinkKind.GSL) & ((contacts.a == 66) | (contacts.b == 66))
    assert contacts.max_doppler_hz[own] == pytest.approx(contacts.max_range_rate_m_s[own] / LIGHT_M_S * 20e9)
    ranges_m, rates_bps = [], []
    for sky in timeline.skies():
        link = (timeline.links.kind[sky.link] == LinkKind.GSL) & (
            (timeline.links.a[sky.link] == 66) | (timeline.links.b[sky.link] == 66)
        )
        ranges_m += sky.range_m[link].tolist()
        rates_bps += sky.rate_bps[link].tolist()
    order = np.argsort(ranges_m)
    assert len(set(rates_bps)) > 2
    assert np.all(np.diff(np.array(rates_bps)[order]) <= 0)


def test_rain_takes_rate_and_at_times_the_link() -> None:
    """With it raining half of the hour the rate is less than under a clear sky at times, and never more."""
    radio = "radio = { frequency_hz = 30e9, bandwidth_hz = 100e6, eirp_dbw = 44, g_t_db_k = 4 }"
    rain = "rain = { r001_mm_h = 120.0, probability_ratio = 0.05, mean_duration_s = 200 }"
    dry = changed("longitude_deg = 178.44", f"longitude_deg = 178.44\n{radio}").replace("= 60.0", "= 40_000.0")
    clear, wet = plan(parsed(dry)), plan(parsed(dry.replace(radio, f"{radio}\n{rain}")))
    n_less = n_gone = 0
    for one, other in zip(clear.skies(), wet.skies(), strict=True):
        kept = np.isin(one.link, other.link)
        n_gone += int((~kept).sum())
        assert np.all(other.rate_bps <= one.rate_bps[kept])
        n_less += int((other.rate_bps < one.rate_bps[kept]).sum())
    assert n_less > 0
    assert n_gone > 0
    assert np.array_equal(clear.contacts.start_s, wet.contacts.start_s)
    assert np.array_equal(clear.contacts.volume_bytes, wet.contacts.volume_bytes)


def test_a_fault_on_a_pair_of_satellites_that_no_link_joins_is_refused() -> None:
    """The message has the file, the key, and who the neighbours are."""
    fault = '[[fault]]\nkind = "blackout"\ntarget = "sat-p00s00~sat-p00s05"\nat_s = 1\nduration_s = 1\n'
    with pytest.raises(InputError, match=r"trial\.toml: fault\[0\]\.target.*joined to sat-p00s01, sat-p00s10"):
        plan(parsed(GOOD + fault))


DECAYING = (
    "MINOTAUR\n"
    "1 28872U 05037B   05333.02012661  .25992681  00000-0  24476-3 0  1534\n"
    "2 28872  96.4736 157.9986 0303955 244.0492 110.6523 16.46015938 10708\n"
)


def test_a_satellite_that_has_decayed_before_the_run_is_refused_with_the_file(tmp_path: Path) -> None:
    """SGP4's error reaches the user with the scenario's file, the satellite, the time and the meaning."""
    (tmp_path / "some.tle").write_text(DECAYING)
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"').replace("2026-01-01", "2005-12-09")
    with pytest.raises(InputError, match=r"trial\.toml: satellite 'minotaur' has no position from 2005-12-09.*decayed"):
        plan(parsed(text, tmp_path))


def test_a_satellite_that_decays_in_the_run_goes_down_then(tmp_path: Path) -> None:
    """From its end it has no place, no light and no contact; the reason says why. Until then it is there."""
    (tmp_path / "some.tle").write_text(DECAYING)
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "some.tle"\nisl = { topology = "none" }')
    text = text.replace("2026-01-01", "2005-11-29").replace("T00:00", "T00:30").replace("= 60.0", "= 6_000.0")
    timeline = plan(parsed(text, tmp_path))
    (end,) = timeline.node_ends
    assert end.node == 0
    assert 3_000.0 < end.at_s < 3_060.0
    assert "SGP4 error" in end.reason
    for step in (0, 100, 302, 303, 600):
        sky, is_there = timeline.sky(step), timeline.t_s[step] < end.at_s
        assert np.isfinite(sky.r_ecef_m[:, 0]).all() == is_there
        assert np.isfinite(sky.illumination_ratio[0]) == is_there
        assert np.isfinite(sky.r_ecef_m[:, 1:]).all()
    # A ground node where it comes down sees it until its end.
    last = ecef_to_geodetic(2.0 * timeline.sky(302).r_ecef_m[:, 0] - timeline.sky(301).r_ecef_m[:, 0])
    under = text.replace("40.07", f"{last.latitude_deg:.3f}").replace("116.60", f"{last.longitude_deg:.3f}")
    contacts = survey(parsed(under, tmp_path)).contacts
    assert contacts.end_s.tolist() == pytest.approx([end.at_s], abs=EDGE_S)


def test_two_satellites_in_one_place_have_a_link_of_no_length(tmp_path: Path) -> None:
    """Docked objects, or one set given twice under two names: no range, no range rate, no delay, and no error."""
    (tmp_path / "two.tle").write_text(DECAYING + DECAYING.replace("MINOTAUR", "TWIN").replace("28872", "28873"))
    sets = (tmp_path / "two.tle").read_text().splitlines()
    (tmp_path / "two.tle").write_text("\n".join(x[:68] + str(checksum(x)) if len(x) == 69 else x for x in sets))
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "two.tle"\nisl = { topology = "ring" }')
    timeline = plan(parsed(text.replace("2026-01-01", "2005-11-29").replace("T00:00", "T00:30"), tmp_path))
    isl = timeline.contacts.kind == LinkKind.ISL
    assert timeline.contacts.max_range_rate_m_s[isl] == pytest.approx([0.0])
    sky = timeline.sky(3)
    assert (sky.range_m[0], sky.range_rate_m_s[0], sky.delay_us[0]) == (0.0, 0.0, 0)


def test_a_step_longer_than_a_pass_is_warned_of() -> None:
    """Contacts that begin and end between two steps are counted, with the shortest, and what to do."""
    long = changed("step_s = 10.0", "step_s = 1_200.0").replace("duration_s = 60.0", "duration_s = 7_200.0")
    timeline = plan(parsed(long))
    assert any("step_s = 1200" in line and "shorter than a step" in line for line in timeline.warnings)
    assert not plan(parsed(GOOD)).warnings


@pytest.mark.skipif(not IRIDIUM_TLE.is_file(), reason=f"the shared element sets are not at {IRIDIUM_TLE}")
def test_real_element_sets_make_a_timeline() -> None:
    """The Iridium sets of 2022-09-14 plan as they are: satellites named by slug, all of them in low orbits."""
    text = changed(f"walker = {{ {WALKER} }}", 'tle = "Iridium.tle"').replace("2026-01-01", "2022-09-14")
    timeline = plan(parsed(text, IRIDIUM_TLE.parent))
    assert timeline.nodes[0].name == "iridium-7"
    assert timeline.n_satellite == 31
    altitude_m = ecef_to_geodetic(positions_m(timeline)[:, :, :31].transpose(0, 2, 1)).altitude_m
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
