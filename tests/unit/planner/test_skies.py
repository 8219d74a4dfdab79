"""Skies of other kinds: several constellations, relays, budgets and rain, decay, and what cannot be planned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.errors import InputError
from controller.orbit.frames import ecef_to_geodetic
from controller.planner import plan, survey
from controller.scenario import load_scenario
from controller.scenario.tle import checksum
from controller.timeline import Block, IntArray, LinkKind, MemoryBlocks, Timeline
from tests.unit.planner.conftest import positions_m
from tests.unit.scenario.text import GOOD, WALKER, changed, parsed

LIGHT_M_S = 299_792_458.0
IRIDIUM_TLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "tle" / "Iridium.tle"
EDGE_S = 0.011
"""Edges of contacts are found to 10 ms, and told in hundredths of a second."""


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
