"""Faults of every target, at times and with rates, those that come up while a run is up, and links that are set."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controller.errors import InputError
from controller.faults import FaultSchedule, LinkOverride, Masked, in_region
from controller.orbit.frames import geodetic_to_ecef_m
from controller.scenario import Source, parse_scenario
from controller.scenario.fault_model import Fault, Region
from controller.schedule import NO_ROUTE, Schedule
from controller.timeline import Timeline
from tests.unit.hand_made import timeline as hand_made
from tests.unit.test_schedule import RING

ARC_TOLERANCE_RATIO = 0.006
"""What an arc of the mean sphere may differ from the ellipsoid's geodesic: its radii of curvature are within 0.6 %."""

SKY = hand_made(step_s=10.0)
NEIGHBOURS = ("ring-p00s00", "ring-p00s01")


def faults_of(text: str, seed: int = 1, sky: Timeline = SKY) -> FaultSchedule:
    """The faults of the ring's scenario with these tables."""
    scenario = parse_scenario(Source("ring.toml", f"seed = {seed}\n" + RING + text, Path()))
    return FaultSchedule.from_scenario(scenario, sky)


def blackout(target: str = "ring-p00s00", **keys: Any) -> Fault:
    """A blackout, from the epoch on unless told otherwise."""
    return Fault(**{"kind": "blackout", "target": target, "at_s": 0.0, **keys})


def masked(faults: FaultSchedule, t_s: float, step: int = 0) -> Masked:
    """A step of the ring under faults as at a moment."""
    return faults.masked(t_s, SKY, SKY.sky(step))


def names_taken(faults: FaultSchedule, t_s: float, step: int = 0) -> list[set[str]]:
    """The links that are taken, by the names of their ends."""
    sky, links = SKY.sky(step), SKY.links
    rows = sky.link[~faults.masked(t_s, SKY, sky).usable]
    return [{SKY.nodes[links.a[row]].name, SKY.nodes[links.b[row]].name} for row in rows]


def test_a_fault_of_a_plane_is_one_of_all_its_satellites() -> None:
    """The ring is one plane: with it every link is gone, each satellite is in blackout, and the ground is not."""
    faults = faults_of('[[fault]]\nkind = "blackout"\ntarget = "plane:ring-p00"\nat_s = 100\nduration_s = 50\n')
    assert masked(faults, 99.0).usable.all()
    assert not masked(faults, 100.0).usable.any()
    assert masked(faults, 150.0).usable.all()
    taking = faults.taking("ring-p00s03", 120.0, SKY.sky(12))
    assert taking is not None
    assert taking.words == "blackout of plane:ring-p00 (silent)"
    assert faults.taking("quito", 120.0, SKY.sky(12)) is None
    assert faults.taking("ring-p00s03", 150.0, SKY.sky(15)) is None


def test_a_region_covers_who_is_over_it_at_the_moment() -> None:
    """Satellites go through a region over the equator: in each step just the links of those within it are taken."""
    radius_m = 2_000_000.0
    faults = faults_of(
        '[[fault]]\nkind = "blackout"\nat_s = 0\n'
        f"region = {{ latitude_deg = 0, longitude_deg = 0, radius_m = {radius_m} }}\n"
    )
    seen = set()
    for step in range(SKY.n_step):
        sky = SKY.sky(step)
        x_m, y_m, _ = sky.r_ecef_m
        over = np.abs(np.arctan2(y_m, x_m)) <= radius_m / 6_371_008.8  # on the equator the arc is the longitude
        inside = {SKY.nodes[i].name for i in np.flatnonzero(over)}
        seen.add(frozenset(inside))
        links = [{SKY.nodes[SKY.links.a[row]].name, SKY.nodes[SKY.links.b[row]].name} for row in sky.link]
        expected = [ends for ends in links if ends & inside]
        assert names_taken(faults, 10.0 * step, step) == expected
    assert len(seen) > 1  # somebody came or went


@pytest.mark.parametrize(("radius_ratio", "is_inside"), [(1.0 + ARC_TOLERANCE_RATIO, True), (0.994, False)])
def test_a_regions_radius_is_along_the_ground(radius_ratio: float, is_inside: bool) -> None:
    """Flinders Peak to Buninyong, 54,972.271 m: GDA94 Technical Manual (ICSM), Vincenty's inverse formula."""
    flinders_peak = (-37.95103341666667, 144.42486788888888)
    buninyong = (-37.65282113888889, 143.92649552777777)
    r_m = geodetic_to_ecef_m(np.array([buninyong[0]]), np.array([buninyong[1]]), np.array([780_000.0]))
    region = Region(latitude_deg=flinders_peak[0], longitude_deg=flinders_peak[1], radius_m=54_972.271 * radius_ratio)
    assert in_region(region, r_m.reshape(1, 3).T).tolist() == [is_inside]


def test_a_node_that_has_left_the_sky_is_in_no_region() -> None:
    """Its place is NaN."""
    everywhere = Region(latitude_deg=0.0, longitude_deg=0.0, radius_m=20_100_000.0)
    assert in_region(everywhere, np.array([[7e6, np.nan], [0.0, np.nan], [0.0, np.nan]])).tolist() == [True, False]


def test_a_rate_is_seeded_and_has_its_mean() -> None:
    """The same seed gives the same times, asked in any order; another seed and another fault give others. Over 30 days
    of 2 an hour that last 600 s there are as many as the renewal process has, within five standard deviations."""
    table = '[[fault]]\nkind = "blackout"\ntarget = "quito"\nrate_per_hour = 2\nduration_s = 600\n'
    days_s = 30 * 86_400.0
    faults, again, other = faults_of(table * 2), faults_of(table * 2), faults_of(table * 2, seed=2)
    assert again.active(days_s) == faults.active(days_s)  # asked late first
    of = [[t for t in schedule.within(0.0, days_s) if t.id == "f0"] for schedule in (faults, again, other)]
    assert of[0] == of[1] != of[2]
    second = [t.at_s for t in faults.within(0.0, days_s) if t.id == "f1"]
    assert second != [t.at_s for t in of[0]]
    # A cycle is 600 s and an exponential time of 1,800 s in the mean; the count's variance is sigma² T / mean³.
    mean_s, sigma_s = 2_400.0, 1_800.0
    assert abs(len(of[0]) - days_s / mean_s) <= 5 * math.sqrt(sigma_s**2 * days_s / mean_s**3)
    assert all(t.until_s == t.at_s + 600.0 for t in of[0])
    assert all(later.at_s > earlier.until_s for earlier, later in zip(of[0], of[0][1:], strict=False))
    first = of[0][0]
    assert "f0" not in {each.id for each in faults.active(first.at_s - 0.01)}
    assert first in faults.active(first.at_s)
    assert first in faults.active(first.until_s - 0.01)
    assert first not in faults.active(first.until_s)


def test_rated_times_are_the_same_on_every_machine() -> None:
    """The first times of seed 1, to the millisecond: they are part of what a seed means."""
    faults = faults_of('[[fault]]\nkind = "blackout"\ntarget = "quito"\nrate_per_hour = 60\nduration_s = 10\n')
    assert [round(t.at_s, 3) for t in faults.within(0.0, 200.0)] == [96.53, 174.027]


def test_an_injected_fault_is_in_force_from_then_until_it_is_cleared() -> None:
    """Without a duration it stays; cleared it heals at that moment, and another clear finds nothing left."""
    faults = faults_of('[[fault]]\nkind = "blackout"\ntarget = "quito"\nat_s = 100\nduration_s = 50\n')
    name = faults.inject(blackout("~".join(NEIGHBOURS), mode="reject"), 42.5)
    assert name == "f1"
    assert names_taken(faults, 42.0) == []
    assert names_taken(faults, 42.5) == [set(NEIGHBOURS)]
    (active,) = faults.active(43.0)
    assert (active.id, active.at_s, active.until_s, active.until_words) == ("f1", 42.5, math.inf, "until it is cleared")
    assert [(f.id, f.origin, f.active, f.mode) for f in faults.listed(43.0)] == [
        ("f0", "scenario", False, "silent"),
        ("f1", "injected", True, "reject"),
    ]
    assert faults.clear("f1", 60.0) == 1
    assert names_taken(faults, 59.9) == [set(NEIGHBOURS)]
    assert names_taken(faults, 60.0) == []
    assert faults.clear("f1", 61.0) == 0
    assert [f.id for f in faults.listed(61.0)] == ["f0"]


def test_a_clear_by_target_ends_all_that_is_left_of_it() -> None:
    """What is in force heals, what is to come does not come, a rate comes no more; others stay."""
    faults = faults_of(
        '[[fault]]\nkind = "blackout"\ntarget = "quito"\nat_s = 100\nduration_s = 50\n'
        '[[fault]]\nkind = "blackout"\ntarget = "quito"\nat_s = 0\nduration_s = 10\n'
        '[[fault]]\nkind = "blackout"\ntarget = "quito"\nrate_per_hour = 300\nduration_s = 1\n'
        '[[fault]]\nkind = "node-down"\ntarget = "nairobi"\nat_s = 0\n'
    )
    faults.inject(blackout("quito", duration_s=500.0), 15.0)
    assert [f.origin for f in faults.listed(20.0)] == ["scenario", "rate", "scenario", "injected"]
    assert faults.clear("quito", 20.0) == 3  # the second was over
    assert {each.target for each in faults.within(20.0, 10_000.0)} == {"nairobi"}
    assert faults.clear("nobody", 20.0) == 0


def test_a_region_is_listed_and_cleared_by_its_label() -> None:
    """Latitude, longitude and radius, as given."""
    faults = FaultSchedule((), SKY.nodes)
    region = Region(latitude_deg=-18.25, longitude_deg=178.5, radius_m=1_500_000.0)
    faults.inject(Fault(kind="degrade", region=region, at_s=0.0, rate_ratio=0.5), 0.0)
    (listed,) = faults.listed(1.0)
    assert (listed.target, listed.mode) == ("region:-18.25,178.5,1500000", "")
    assert Region.from_label(listed.target) == region
    assert Region.from_label("quito") is None
    with pytest.raises(ValueError, match="unpack"):
        Region.from_label("region:1,2")
    assert faults.clear(listed.target, 1.0) == 1


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("quitto", "did you mean 'quito'"),
        ("quito~nairobi", "no link joins these two"),
        ("plane:ring-p01", "no Walker constellation has a plane 'ring-p01'; did you mean 'ring-p00'"),
        ("ring-p00s00~ring-p00s03", "no link joins ring-p00s00 and ring-p00s03 at any time"),
    ],
)
def test_an_injected_fault_names_what_there_is(target: str, said: str) -> None:
    """A target that there is not is refused by name, and nothing is in force."""
    faults = faults_of("")
    with pytest.raises(InputError, match=said):
        faults.inject(blackout(target), 0.0)
    assert faults.listed(0.0) == ()


def test_a_moment_within_a_step_may_be_commanded() -> None:
    """The present step asked again for the moment of an injection has the fault; the step's own instant has not."""
    faults = faults_of("")
    of = Schedule.of(SKY, faults)
    before = of.at(1)
    name = faults.inject(blackout(mode="carrier"), 12.5)
    state = of.at(1, 12.5)
    assert (state.t_s, state.step, [fault.id for fault in state.faults]) == (12.5, 1, [name])
    assert not state.usable.all()
    assert len(of.change(before, state).unplugged) == 4
    assert of.at(1).usable.all()
    faults.clear(name, 12.5)  # the clock may stand still
    healed = of.at(1, 12.5)
    assert healed.faults == ()
    assert len(of.change(state, healed).plugged_in) == 4


def test_an_override_has_the_last_word_and_goes_as_it_came() -> None:
    """It replaces what geometry and faults make of the link, on that link alone, and cleared nothing of it is left."""
    faults = faults_of('[[fault]]\nkind = "degrade"\ntarget = "ring-p00s00"\nat_s = 0\nrate_ratio = 0.5\n')
    plain = masked(faults, 0.0)
    a, b = SKY.links.a[plain.sky.link], SKY.links.b[plain.sky.link]
    row = np.flatnonzero((a == 0) & (b == 1))
    faults.set_link(NEIGHBOURS[1], NEIGHBOURS[0], LinkOverride(delay_us=1_234, rate_bps=9_000, loss_ratio=0.25))
    assert list(faults.overrides()) == [NEIGHBOURS]
    found = masked(faults, 0.0)
    for key, value in (("delay_us", 1_234), ("rate_bps", 9_000), ("loss_ratio", 0.25)):
        expected = getattr(plain.sky, key).copy()
        expected[row] = value
        np.testing.assert_array_equal(getattr(found.sky, key), expected)
    assert found.usable.all()
    assert faults.clear_link(*NEIGHBOURS)
    assert not faults.clear_link(*NEIGHBOURS)
    assert faults.overrides() == {}
    np.testing.assert_array_equal(masked(faults, 0.0).sky.rate_bps, plain.sky.rate_bps)


def test_a_link_set_down_is_told_and_one_set_up_is_free_of_faults() -> None:
    """Down: routes go around it and nobody believes in it. Up: no fault takes it, in whatever mode."""
    faults = faults_of(
        '[[fault]]\nkind = "blackout"\ntarget = "ring-p00s00"\nat_s = 100\n'
        '[[fault]]\nkind = "node-down"\ntarget = "ring-p00s01"\nat_s = 100\n'
    )
    of = Schedule.of(SKY, faults)
    direct = of.at(0).next_port[0, 1]
    faults.set_link(*NEIGHBOURS, LinkOverride(up=False))
    down = masked(faults, 0.0)
    assert names_taken(faults, 0.0) == [set(NEIGHBOURS)]
    assert not down.unplugged.any()
    np.testing.assert_array_equal(down.believed, down.usable)
    assert of.at(0).next_port[0, 1] not in (direct, NO_ROUTE)
    faults.set_link(*NEIGHBOURS, LinkOverride(up=True))
    assert set(NEIGHBOURS) not in names_taken(faults, 100.0)
    assert len(names_taken(faults, 100.0)) >= 2


@pytest.mark.parametrize(
    "values",
    [{}, {"delay_us": -1}, {"delay_us": 10_000_001}, {"rate_bps": 999}, {"loss_ratio": 1.01}, {"loss_ratio": math.nan}],
)
def test_an_override_that_no_link_has_is_refused(values: dict[str, Any]) -> None:
    """So is one that says nothing."""
    with pytest.raises(InputError):
        LinkOverride(**values)


@pytest.mark.parametrize(("a", "b"), [("quito", "nairobi"), ("quito", "nobody"), ("ring-p00s00", "ring-p00s02")])
def test_only_links_that_there_are_may_be_set(a: str, b: str) -> None:
    """Both must be nodes that some link of the run joins."""
    faults = faults_of("")
    with pytest.raises(InputError, match=r"no link joins|no node is called"):
        faults.set_link(a, b, LinkOverride(up=False))
    assert faults.overrides() == {}


def test_many_degrades_reach_no_further_than_a_delay_can() -> None:
    """The sum of extra delays stays within what a sky's delays hold, and a rate stays a byte a second at least."""
    faults = FaultSchedule((), SKY.nodes)
    for _ in range(250):
        faults.inject(Fault(kind="degrade", target="quito", at_s=0.0, extra_delay_s=10.0, rate_ratio=0.01), 0.0)
    found = masked(faults, 0.0).sky
    of_quito = np.any(np.stack([SKY.links.a[found.link], SKY.links.b[found.link]]) == 6, axis=0)
    assert of_quito.any()
    assert set(found.delay_us[of_quito].tolist()) == {2**31 - 1}
    assert set(found.rate_bps[of_quito].tolist()) == {8}
    np.testing.assert_array_equal(replace(found).delay_us[~of_quito], SKY.sky(0).delay_us[~of_quito])
