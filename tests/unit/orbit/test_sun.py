from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from controller.orbit.frames import Geodetic
from controller.orbit.julian import julian_dates
from controller.orbit.sun import (
    ASTRONOMICAL_UNIT_M,
    ground_illumination_ratio,
    satellite_illumination_ratio,
    sun_mod_m,
    visible_ratio,
)
from controller.timeline import FloatArray

SUN_TOLERANCE_AU = 5e-6  # the example's own rounding
ALTITUDE_550_KM_RADIUS_M = 6_378_137.0 + 550_000.0
PERIOD_550_KM_S = 95.65 * 60.0


def circular_orbit_m(beta_deg: float, n: int) -> FloatArray:
    """One turn at 550 km with the Sun, on the x axis, `beta_deg` above its plane. Shape (1, n, 3)."""
    angle = np.linspace(0.0, 2.0 * np.pi, n, endpoint=False)
    beta = math.radians(beta_deg)
    toward = np.array([math.cos(beta), 0.0, -math.sin(beta)])
    aside = np.array([0.0, 1.0, 0.0])
    orbit: FloatArray = ALTITUDE_550_KM_RADIUS_M * (np.cos(angle)[:, None] * toward + np.sin(angle)[:, None] * aside)
    return orbit[None]


def sun_on_x_m(n: int) -> FloatArray:
    """The Sun at rest, an astronomical unit away. Shape (n, 3)."""
    return np.tile([ASTRONOMICAL_UNIT_M, 0.0, 0.0], (n, 1))


def test_sun_matches_vallado_example_5_1() -> None:
    """2006-04-02 00:00: (0.9771945, 0.1924424, 0.0834308) AU (Vallado, 4th ed., example 5-1)."""
    sun_au = sun_mod_m(julian_dates(datetime(2006, 4, 2, tzinfo=UTC), np.zeros(1)))[0] / ASTRONOMICAL_UNIT_M
    assert sun_au == pytest.approx([0.9771945, 0.1924424, 0.0834308], abs=SUN_TOLERANCE_AU)


def test_eclipse_at_550_km_lasts_35_61_minutes_when_the_sun_is_in_the_plane() -> None:
    """At beta 0 less than half of the Sun is seen for 35.61 min of a turn of 95.65 min.

    Independent value: a cylinder's shadow, asin(R/r)/π of the period. The cone's half-light runs 0.27° inside of it at
    most, which is 8 s on each side.
    """
    n = 100_000
    light = satellite_illumination_ratio(circular_orbit_m(0.0, n), sun_on_x_m(n))[0]
    assert np.mean(light < 0.5) * PERIOD_550_KM_S / 60.0 == pytest.approx(35.61, abs=0.05)
    penumbra_s = np.mean((light > 0.0) & (light < 1.0)) * PERIOD_550_KM_S
    assert 12.0 < penumbra_s < 25.0  # twice 0.53° of Sun, crossed at 23° of incidence and 0.063° a second
    assert np.all(light[n // 4 : n // 4 + 10] == 1.0)


@pytest.mark.parametrize(("beta_deg", "has_eclipse"), [(66.5, True), (67.6, False), (90.0, False)])
def test_no_eclipse_above_beta_67_02(beta_deg: float, has_eclipse: bool) -> None:
    """At 550 km the shadow is missed above beta = asin(6378.137 / 6928.137) = 67.02°; half a Sun's width either way."""
    n = 20_000
    light = satellite_illumination_ratio(circular_orbit_m(beta_deg, n), sun_on_x_m(n))[0]
    assert bool(np.any(light < 0.5)) == has_eclipse


def test_two_discs() -> None:
    """Apart: all of it. Covered: nothing. A small disc within: what it leaves. Equal discs by halves: a lens."""
    sun, body = np.full(5, 1.0), np.array([2.0, 2.0, 0.5, 1.0, 1.0])
    free = visible_ratio(sun, body, np.array([3.1, 0.9, 0.2, 1.0, 2.0]))
    lens = (2.0 * math.acos(0.5) - 0.5 * math.sqrt(3.0)) / math.pi  # two unit circles, a unit apart
    assert free == pytest.approx([1.0, 0.0, 0.75, 1.0 - lens, 1.0], abs=1e-12)


def test_sunset_on_the_ground() -> None:
    """Half of the Sun is above a level horizon 90° from the Sun; all a degree before, none a degree after."""
    places = Geodetic(np.zeros(4), np.array([0.0, 89.0, 90.0, 91.0]), np.zeros(4))
    light = ground_illumination_ratio(places, sun_on_x_m(1))[:, 0]
    assert light == pytest.approx([1.0, 1.0, 0.5, 0.0], abs=0.01)
    assert ground_illumination_ratio(Geodetic(np.zeros(0), np.zeros(0), np.zeros(0)), sun_on_x_m(3)).shape == (0, 3)
