from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from controller.links.isl import (
    AFT,
    FORE,
    NEXT_PLANE,
    PREVIOUS_PLANE,
    IslPairs,
    element_set_pairs,
    named_pairs,
    walker_pairs,
)
from controller.links.isl_access import IslView, acquired
from controller.orbit.crossings import Spans
from controller.orbit.elements import tle_orbits, walker_orbits
from controller.orbit.frames import ecef_to_geodetic, geodetic_to_ecef_m
from controller.orbit.julian import julian_dates
from controller.orbit.track import Track, states, track
from controller.scenario.link_model import IslPolicy
from controller.scenario.model import Walker
from controller.scenario.tle import parse_tle
from controller.timeline import FloatArray

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
IRIDIUM = Walker(pattern="star", total=66, planes=6, phasing=2, altitude_m=780_000.0, inclination_deg=86.4)
SHELL = Walker(pattern="delta", total=24, planes=6, phasing=1, altitude_m=550_000.0, inclination_deg=53.0)
STARLINK_TLE = Path(__file__).resolve().parents[4] / "shared" / "data" / "tle" / "Starlink.tle"


def as_set(pairs: IslPairs) -> set[tuple[int, int, int, int]]:
    """Rows of (a, b, port_a, port_b)."""
    return set(zip(*(x.tolist() for x in (pairs.a, pairs.b, pairs.port_a, pairs.port_b)), strict=True))


def assert_no_port_is_used_twice(pairs: IslPairs) -> None:
    """Each port has one link at most, and so have each two satellites."""
    ends = [*zip(pairs.a, pairs.port_a, strict=True), *zip(pairs.b, pairs.port_b, strict=True)]
    assert max(Counter(ends).values(), default=0) <= 1
    assert len({frozenset((a, b)) for a, b in zip(pairs.a, pairs.b, strict=True)}) == len(pairs.a)


def test_the_plus_grid_of_a_star_leaves_its_seam_open() -> None:
    """Iridium: 66 links in planes, 55 between neighbouring planes, none between the first and the last."""
    pairs = walker_pairs(IRIDIUM, "plus-grid")
    assert len(pairs.a) == 66 + 55
    assert int(pairs.is_cross_plane.sum()) == 55
    assert (0, 1, FORE, AFT) in as_set(pairs)
    assert (10, 0, FORE, AFT) in as_set(pairs)
    assert (0, 11, NEXT_PLANE, PREVIOUS_PLANE) in as_set(pairs)
    assert not any({a // 11, b // 11} == {0, 5} for a, b, _, _ in as_set(pairs))
    assert_no_port_is_used_twice(pairs)


def test_the_plus_grid_of_a_delta_closes_with_the_phasing() -> None:
    """The last plane's slot k joins the first plane's slot k + f: the same geometry as between all other planes."""
    pairs = walker_pairs(SHELL, "plus-grid")
    assert len(pairs.a) == 48
    assert (20, 1, NEXT_PLANE, PREVIOUS_PLANE) in as_set(pairs)
    assert_no_port_is_used_twice(pairs)
    across = pairs.is_cross_plane
    anomaly_deg = np.degrees([orbit.mo for orbit in walker_orbits(SHELL, EPOCH)])
    ahead_deg = (anomaly_deg[pairs.b[across]] - anomaly_deg[pairs.a[across]]) % 360.0
    assert ahead_deg == pytest.approx(np.full(24, 1 * 360.0 / 24))


def test_ring_none_and_small_patterns() -> None:
    """A ring has in-plane links alone; two satellites of a plane are joined once, two planes of a delta too."""
    assert len(walker_pairs(IRIDIUM, "ring").a) == 66
    assert not walker_pairs(IRIDIUM, "ring").is_cross_plane.any()
    assert len(walker_pairs(IRIDIUM, "none").a) == 0
    for total, planes, expected in ((1, 1, 0), (2, 1, 1), (3, 1, 3), (4, 2, 4), (2, 2, 1)):
        small = Walker(
            pattern="delta", total=total, planes=planes, phasing=0, altitude_m=550_000.0, inclination_deg=53.0
        )
        pairs = walker_pairs(small, "plus-grid")
        assert len(pairs.a) == expected
        assert_no_port_is_used_twice(pairs)


def test_planes_are_found_again_from_states_alone() -> None:
    """The links found from the states of a Walker pattern are those of the pattern itself, its seam included."""
    for walker in (IRIDIUM, SHELL):
        orbits = walker_orbits(walker, EPOCH)
        _, r_m, v_m_s = states(orbits, julian_dates(EPOCH, np.zeros(1)))
        found = element_set_pairs(r_m[:, 0], v_m_s[:, 0], "plus-grid")
        assert_no_port_is_used_twice(found)
        expected = {frozenset(row[:2]) for row in as_set(walker_pairs(walker, "plus-grid"))}
        assert {frozenset(row[:2]) for row in as_set(found)} == expected
        ring = element_set_pairs(r_m[:, 0], v_m_s[:, 0], "ring")
        assert len(ring.a) == walker.total


@pytest.mark.skipif(not STARLINK_TLE.is_file(), reason=f"the shared element sets are not at {STARLINK_TLE}")
def test_real_element_sets_become_a_grid_of_partners_at_most_one_a_side() -> None:
    """From 2,990 Starlink sets of 2022-09-14: no port twice, in-plane partners in order, most joined on both sides."""
    sets = [s for s in parse_tle(STARLINK_TLE.read_text()) if s.name.startswith("STARLINK")]
    _, r_m, v_m_s = states(tle_orbits(sets), julian_dates(datetime(2022, 9, 14, 12, tzinfo=UTC), np.zeros(1)))
    pairs = element_set_pairs(r_m[:, 0], v_m_s[:, 0], "plus-grid")
    assert_no_port_is_used_twice(pairs)
    assert len(pairs.a) > 1.4 * len(sets)


def facing_track(apart_m: float) -> Track:
    """Two satellites that stand still at 550 km over the equator, `apart_m` apart."""
    radius_m = 6_378_137.0 + 550_000.0
    half = math.asin(apart_m / 2.0 / radius_m)
    return still(radius_m * np.array([[math.cos(half), math.sin(half), 0.0], [math.cos(half), -math.sin(half), 0.0]]))


def still(places_m: FloatArray) -> Track:
    """Satellites that stand still. Shape (n_sat, 3)."""
    knots_m = np.repeat(places_m.T[None], 12, axis=0)
    return Track(EPOCH, -30.0, 10.0, knots_m, np.full(len(places_m), np.inf), ("",) * len(places_m))


ONE_PAIR = IslPairs.of([(0, 1, FORE, AFT)])
ONE_CROSS_PAIR = IslPairs.of([(0, 1, NEXT_PLANE, PREVIOUS_PLANE)])


def is_up(track: Track, policy: IslPolicy, pairs: IslPairs = ONE_PAIR, reach_m: float = math.inf) -> bool:
    """Whether the one pair may be linked, at an instant and for a while alike."""
    view = IslView(track, track, policy, reach_m)
    found = view.usable(pairs, 0.0, 30.0, 10.0)
    now = bool(view.margin(pairs, np.zeros(1, np.int64), np.array([12.0]))[0] >= 0.0)
    assert (found.start_s.tolist(), found.end_s.tolist()) == (([0.0], [30.0]) if now else ([], []))
    return now


@pytest.mark.parametrize(("apart_m", "expected"), [(5_016_500.0, True), (5_016_700.0, False)])
def test_the_longest_link_at_550_km_that_grazes_80_km_is_5_016_6_km(apart_m: float, expected: bool) -> None:
    """2·√((R + 550)² − (R + 80)²) = 5,016.6 km with R = 6,378.137 km."""
    assert is_up(facing_track(apart_m), IslPolicy()) == expected


def test_the_closest_point_is_that_of_the_segment_not_of_the_line() -> None:
    """Two satellites one above the other see each other, though the line through them meets the Earth's centre."""
    assert is_up(still(np.array([[7_000_000.0, 0.0, 0.0], [8_000_000.0, 1.0, 0.0]])), IslPolicy())


def test_range_and_latitude_limits() -> None:
    """A link beyond max_range_m or its budget's reach is down; one between planes is, while an end is too far north."""
    track = facing_track(3_000_000.0)
    assert not is_up(track, IslPolicy(max_range_m=2_999_999.0))
    assert is_up(track, IslPolicy(max_range_m=3_000_001.0))
    assert not is_up(track, IslPolicy(), reach_m=2_999_999.0)
    polar = IslPolicy(cross_plane_max_latitude_deg=70.0)
    for latitudes_deg, expected in (((69.0, 60.0), True), ((69.0, 71.0), False), ((-71.0, -60.0), False)):
        places = geodetic_to_ecef_m(np.array(latitudes_deg), np.zeros(2), np.full(2, 550_000.0))
        assert is_up(still(places), polar, ONE_CROSS_PAIR) == expected
        assert is_up(still(places), polar, ONE_PAIR)


def test_edges_of_a_cross_plane_link_are_those_of_the_latitude() -> None:
    """Where the latitude rule ends a link, its higher end is at that latitude, within what it flies in 10 ms."""
    flown = track([""] * 66, walker_orbits(IRIDIUM, EPOCH), EPOCH, 0.0, 6_000.0)
    pairs = walker_pairs(IRIDIUM, "plus-grid")
    view = IslView(flown, flown, IslPolicy(cross_plane_max_latitude_deg=70.0, grazing_altitude_m=0.0), math.inf)
    found = view.usable(pairs, 0.0, 6_000.0, 20.0)
    inner = np.flatnonzero((found.start_s > 0.0) & pairs.is_cross_plane[found.row])
    assert len(inner) > 100
    ends = np.stack([flown.at(end[found.row[inner]], found.start_s[inner]).r_m for end in (pairs.a, pairs.b)])
    highest_deg = np.abs(ecef_to_geodetic(ends).latitude_deg).max(axis=0)
    assert highest_deg == pytest.approx(np.full(len(inner), 70.0), abs=0.01 * 360.0 / 6_000.0)


def test_a_slew_limit_holds_a_link_that_turns_too_fast() -> None:
    """Two satellites 1,000 km apart whose relative speed of 10 km/s is square to the line turn by 0.573° a second."""
    knots_s = np.arange(12) * 10.0 - 30.0
    fixed = np.repeat(np.array([[8_000_000.0], [0.0], [0.0]])[None], 12, axis=0)
    moving = np.stack([np.full(12, 9_000_000.0), 10_000.0 * (knots_s - 12.0), np.zeros(12)], axis=1)[:, :, None]
    slewing = Track(EPOCH, -30.0, 10.0, np.concatenate((fixed, moving), axis=2), np.full(2, np.inf), ("", ""))
    row, at_s = np.zeros(1, np.int64), np.array([12.0])
    for limit_deg_s, expected in ((0.572, False), (0.574, True)):
        view = IslView(slewing, slewing, IslPolicy(max_slew_deg_s=limit_deg_s), math.inf)
        assert bool(view.margin(ONE_PAIR, row, at_s)[0] >= 0.0) == expected


def test_acquisition_delays_what_begins_in_the_run_alone() -> None:
    """A pairing that is up at the start has been acquired; a later one carries data so much later, or never."""
    spans = Spans(np.arange(3), np.array([0.0, 5.0, 5.0]), np.array([9.0, 9.0, 6.0]))
    left = acquired(spans, IslPolicy(acquisition_s=2.0), 0.0)
    assert (left.row.tolist(), left.start_s.tolist(), left.end_s.tolist()) == ([0, 1], [0.0, 7.0], [9.0, 9.0])


def test_named_pairs_take_ports_in_their_order() -> None:
    """Each satellite's first pair is on its first port, its second on its second; two constellations count apart."""
    names = ["a", "b", "c"]
    assert as_set(named_pairs(names, [("a", "b"), ("a", "c")])) == {(0, 1, 0, 0), (0, 2, 1, 0)}
    assert as_set(named_pairs(names, [("a", "x"), ("b", "x")], ["x"])) == {(0, 0, 0, 0), (1, 0, 0, 1)}
