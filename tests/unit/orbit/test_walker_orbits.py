from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from controller.orbit.elements import longest_pass_s, walker_orbits
from controller.orbit.julian import julian_dates
from controller.orbit.track import states
from controller.scenario.model import Walker

IRIDIUM = Walker(
    pattern="star", total=66, planes=6, phasing=2, altitude_m=780_000.0, inclination_deg=86.4, raan_deg=10.0
)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def test_walker_elements_are_those_of_the_contract() -> None:
    """Planes are 30° apart (a star of 6), slots 360°/11, each plane 2·360°/66 ahead; circular, no drag."""
    orbits = walker_orbits(IRIDIUM, EPOCH)
    assert len(orbits) == 66
    for plane, slot in ((0, 0), (1, 0), (2, 5), (5, 10)):
        orbit = orbits[plane * 11 + slot]
        assert math.degrees(orbit.nodeo) == pytest.approx(10.0 + 30.0 * plane)
        assert math.degrees(orbit.mo) == pytest.approx((slot * 360.0 / 11 + plane * 2 * 360.0 / 66) % 360.0)
        assert math.degrees(orbit.inclo) == pytest.approx(86.4)
        assert (orbit.ecco, orbit.argpo, orbit.bstar) == (0.0, 0.0, 0.0)
        assert orbit.no_kozai == pytest.approx(2 * math.pi / (100.45 * 60) * 60, rel=1e-3)  # published: 100.4 min
        assert orbit.jdsatepoch + orbit.jdsatepochF == 2461041.5


def test_a_delta_spreads_its_planes_over_the_whole_turn() -> None:
    """Plane j of p has its node at j·360°/p."""
    delta = Walker(pattern="delta", total=12, planes=3, phasing=1, altitude_m=550_000.0, inclination_deg=53.0)
    nodes_deg = [math.degrees(orbit.nodeo) for orbit in walker_orbits(delta, EPOCH)[::4]]
    assert nodes_deg == pytest.approx([0.0, 120.0, 240.0])


def test_550_km_has_a_period_of_95_65_minutes() -> None:
    """2π√(a³/μ) at 550 km is 95.65 min, and so is the orbit's mean motion."""
    shell = Walker(pattern="delta", total=1, planes=1, phasing=0, altitude_m=550_000.0, inclination_deg=53.0)
    (orbit,) = walker_orbits(shell, EPOCH)
    assert 2 * math.pi / orbit.no_kozai == pytest.approx(95.65, abs=0.005)


def test_walker_satellites_stay_near_their_altitude_and_apart() -> None:
    """Over a turn all satellites stay within 15 km of 780 km over the equatorial radius, neighbours 32.7° apart."""
    error, r_m, _ = states(walker_orbits(IRIDIUM, EPOCH), julian_dates(EPOCH, np.arange(0.0, 6_030.0, 30.0)))
    assert not error.any()
    radius_m = np.linalg.norm(r_m, axis=-1)
    assert np.abs(radius_m - (6_378_137.0 + 780_000.0)).max() < 15_000.0
    cosine = np.sum(r_m[0] * r_m[1], axis=-1) / (radius_m[0] * radius_m[1])
    assert np.degrees(np.arccos(cosine)) == pytest.approx(360.0 / 11, abs=0.25)


def test_the_longest_pass_of_a_low_orbit_and_of_one_that_never_sets() -> None:
    """780 km: 2·acos(R/r) = 54.0° at the mean motion less the Earth's turn, 16.2 min; geostationary: the whole day."""
    high = Walker(pattern="delta", total=1, planes=1, phasing=0, altitude_m=35_786_000.0, inclination_deg=0.0)
    assert longest_pass_s(walker_orbits(IRIDIUM, EPOCH)) == pytest.approx(16.2 * 60.0, rel=0.01)
    assert longest_pass_s(walker_orbits(high, EPOCH)) == 86_400.0
