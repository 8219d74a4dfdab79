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
    isl_geometry,
    walker_pairs,
)
from controller.orbit.elements import tle_orbits, walker_orbits
from controller.orbit.ephemeris import propagate
from controller.scenario.model import IslPolicy, Walker
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
        ephemeris = propagate([""] * walker.total, orbits, EPOCH, np.zeros(1))
        found = element_set_pairs(ephemeris.r_teme_m[:, 0], ephemeris.v_teme_m_s[:, 0], "plus-grid")
        assert_no_port_is_used_twice(found)
        expected = {frozenset(row[:2]) for row in as_set(walker_pairs(walker, "plus-grid"))}
        assert {frozenset(row[:2]) for row in as_set(found)} == expected
        ring = element_set_pairs(ephemeris.r_teme_m[:, 0], ephemeris.v_teme_m_s[:, 0], "ring")
        assert len(ring.a) == walker.total


@pytest.mark.skipif(not STARLINK_TLE.is_file(), reason=f"the shared element sets are not at {STARLINK_TLE}")
def test_real_element_sets_become_a_grid_of_partners_at_most_one_a_side() -> None:
    """From 2,990 Starlink sets of 2022-09-14: no port twice, in-plane partners in order, most joined on both sides."""
    sets = [s for s in parse_tle(STARLINK_TLE.read_text()) if s.name.startswith("STARLINK")]
    ephemeris = propagate([s.name for s in sets], tle_orbits(sets), datetime(2022, 9, 14, 12, tzinfo=UTC), np.zeros(1))
    pairs = element_set_pairs(ephemeris.r_teme_m[:, 0], ephemeris.v_teme_m_s[:, 0], "plus-grid")
    assert_no_port_is_used_twice(pairs)
    assert len(pairs.a) > 1.4 * len(sets)


def facing_m(apart_m: float) -> FloatArray:
    """Two satellites at 550 km, `apart_m` apart over the equator. Shape (2, 1, 3)."""
    radius_m = 6_378_137.0 + 550_000.0
    half = math.asin(apart_m / 2.0 / radius_m)
    return radius_m * np.array([[[math.cos(half), math.sin(half), 0.0]], [[math.cos(half), -math.sin(half), 0.0]]])


ONE_PAIR = IslPairs.of([(0, 1, FORE, AFT)])
ONE_CROSS_PAIR = IslPairs.of([(0, 1, NEXT_PLANE, PREVIOUS_PLANE)])


@pytest.mark.parametrize(("apart_m", "is_up"), [(5_016_500.0, True), (5_016_700.0, False)])
def test_the_longest_link_at_550_km_that_grazes_80_km_is_5_016_6_km(apart_m: float, is_up: bool) -> None:
    """2·√((R + 550)² − (R + 80)²) = 5,016.6 km with R = 6,378.137 km."""
    geometry = isl_geometry(ONE_PAIR, IslPolicy(), facing_m(apart_m), np.zeros((2, 1)))
    assert geometry.range_m[0, 0] == pytest.approx(apart_m)
    assert bool(geometry.is_up[0, 0]) == is_up


def test_the_closest_point_is_that_of_the_segment_not_of_the_line() -> None:
    """Two satellites one above the other see each other, though the line through them meets the Earth's centre."""
    r_m = np.array([[[7_000_000.0, 0.0, 0.0]], [[8_000_000.0, 1.0, 0.0]]])
    assert isl_geometry(ONE_PAIR, IslPolicy(), r_m, np.zeros((2, 1))).is_up.all()


def test_range_and_latitude_limits() -> None:
    """A link beyond max_range_m is down; one between planes is down while either end is above the latitude."""
    r_m = facing_m(3_000_000.0)
    assert not isl_geometry(ONE_PAIR, IslPolicy(max_range_m=2_999_999.0), r_m, np.zeros((2, 1))).is_up.any()
    assert isl_geometry(ONE_PAIR, IslPolicy(max_range_m=3_000_001.0), r_m, np.zeros((2, 1))).is_up.all()
    polar = IslPolicy(cross_plane_max_latitude_deg=70.0)
    for latitudes_deg, is_up in (((69.0, -69.0), True), ((69.0, -71.0), False), ((71.0, 0.0), False)):
        latitude_deg = np.array(latitudes_deg)[:, None]
        assert isl_geometry(ONE_CROSS_PAIR, polar, r_m, latitude_deg).is_up.item() == is_up
        assert isl_geometry(ONE_PAIR, polar, r_m, latitude_deg).is_up.item()
