from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.orbit.frames import ecef_to_geodetic, geodetic_to_ecef_m, gmst_rad, look, teme_to_ecef_m
from controller.orbit.julian import julian_dates

GMST_PRINTED_TOLERANCE_DEG = 1e-7  # the example's one-float Julian date has 40 µs, which is 1.7e-7° of turn
GMST_EXACT_TOLERANCE_DEG = 1e-10
AIAA_2006_6753_APPENDIX_C_TOLERANCE_M = 0.05  # the printed UT1 − UTC has 0.1 µs, the printed position 0.1 m
GEODETIC_TOLERANCE_M = 1e-3


def test_gmst_matches_vallado_example_3_5() -> None:
    """1992-08-20 12:14 UT1 is 152.578787810° of sidereal time (Vallado, 4th ed., example 3-5)."""
    dates = julian_dates(datetime(1992, 8, 20, 12, 14, tzinfo=UTC), np.zeros(1))
    assert math.degrees(gmst_rad(dates)[0]) == pytest.approx(152.578787810, abs=GMST_PRINTED_TOLERANCE_DEG)


@given(st.integers(0, 36_525), st.integers(0, 86_399_999_999))
def test_gmst_matches_exact_arithmetic(day: int, microsecond: int) -> None:
    """From 1976 to 2076 the two-part evaluation agrees with the same polynomial in fractions without rounding."""
    instant = datetime(1976, 1, 1, tzinfo=UTC) + timedelta(days=day, microseconds=microsecond)
    since_j2000 = Fraction((instant - datetime(2000, 1, 1, 12, tzinfo=UTC)) // timedelta(microseconds=1), 1_000_000)
    t = since_j2000 / 86_400 / 36_525
    seconds = Fraction("67310.54841") + t * (
        876_600 * 3_600 + Fraction("8640184.812866") + t * (Fraction("0.093104") - t * Fraction("6.2e-6"))
    )
    angle_deg = math.degrees(gmst_rad(julian_dates(instant, np.zeros(1)))[0])
    assert abs(math.remainder(angle_deg - float(seconds % 86_400) / 240.0, 360.0)) < GMST_EXACT_TOLERANCE_DEG


def test_teme_to_ecef_matches_aiaa_2006_6753_appendix_c() -> None:
    """A TEME position turns into the pseudo-Earth-fixed one printed in Vallado et al., AIAA 2006-6753, appendix C."""
    utc_of_example = datetime(2004, 4, 6, 7, 51, 28, 386009, tzinfo=UTC)
    ut1_minus_utc_s = -0.4399619
    gmst = gmst_rad(julian_dates(utc_of_example, np.array([ut1_minus_utc_s])))
    r_teme_m = np.array([[5094.18016210, 6127.64465950, 6380.34453270]]) * 1e3
    r_pef_m = np.array([[-1033.4750313, 7901.3055856, 6380.3445328]]) * 1e3
    error_m = np.linalg.norm(teme_to_ecef_m(r_teme_m, gmst) - r_pef_m)
    assert error_m < AIAA_2006_6753_APPENDIX_C_TOLERANCE_M


def test_instants_keep_their_microseconds_in_two_parts() -> None:
    """A day and a fraction tell instants 1 µs apart, also 31 days after the epoch."""
    dates = julian_dates(datetime(2026, 1, 1, 23, 59, 59, 999999, tzinfo=UTC), np.array([0.0, 1e-6, 31 * 86_400.0]))
    assert np.all(dates.day % 1.0 == 0.5)
    assert dates.day.tolist() == [2461041.5, 2461042.5, 2461072.5]
    assert dates.fraction[1] == pytest.approx(0.0, abs=1e-13)
    assert dates.fraction[2] == pytest.approx(1.0 - 1e-6 / 86_400.0, abs=1e-13)


def test_the_earth_turns_once_in_a_sidereal_day() -> None:
    """After 86,164.0905 s (the mean sidereal day) the angle is the same again."""
    angles = gmst_rad(julian_dates(datetime(2026, 3, 20, tzinfo=UTC), np.array([0.0, 86_164.0905])))
    assert math.remainder(angles[1] - angles[0], 2 * math.pi) == pytest.approx(0.0, abs=1e-8)


def test_geodetic_matches_vallado_example_3_3() -> None:
    """(6524.834, 6862.875, 6448.296) km lies at 34.352496°, 46.4464°, 5085.22 km (Vallado, 4th ed., example 3-3)."""
    place = ecef_to_geodetic(np.array([6524.834e3, 6862.875e3, 6448.296e3]))
    assert float(place.latitude_deg) == pytest.approx(34.352496, abs=1e-6)
    assert float(place.longitude_deg) == pytest.approx(46.4464, abs=1e-4)
    assert float(place.altitude_m) == pytest.approx(5085.22e3, abs=10.0)


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(-500, 40_000_000))
def test_places_survive_the_way_there_and_back(latitude_deg: float, longitude_deg: float, altitude_m: float) -> None:
    """Geodetic → ECEF → geodetic → ECEF comes back to the same point, poles and antimeridian included."""
    r_m = geodetic_to_ecef_m(np.array(latitude_deg), np.array(longitude_deg), np.array(altitude_m))
    place = ecef_to_geodetic(r_m)
    again_m = geodetic_to_ecef_m(place.latitude_deg, place.longitude_deg, place.altitude_m)
    assert np.linalg.norm(again_m - r_m) < GEODETIC_TOLERANCE_M
    assert float(place.altitude_m) == pytest.approx(altitude_m, abs=GEODETIC_TOLERANCE_M)
    assert float(place.latitude_deg) == pytest.approx(latitude_deg, abs=1e-8)


@pytest.mark.parametrize(
    ("north", "east", "azimuth_deg"), [(1.0, 0.0, 0.0), (0.0, 1.0, 90.0), (-1.0, 0.0, 180.0), (0.0, -1.0, 270.0)]
)
def test_azimuth_goes_from_north_over_east(north: float, east: float, azimuth_deg: float) -> None:
    """A neighbouring place to the north, east, south or west is seen in that direction, at the horizon."""
    there_m = geodetic_to_ecef_m(np.array(20.0 + 0.001 * north), np.array(-75.0 + 0.001 * east), np.array(0.0))
    seen = look(20.0, -75.0, 0.0, there_m)
    assert abs(math.remainder(float(seen.azimuth_deg) - azimuth_deg, 360.0)) < 0.01
    assert float(seen.elevation_deg) == pytest.approx(0.0, abs=0.01)


def test_the_zenith_is_straight_up() -> None:
    """A point 500 km above a place stands at 90° there, 500 km away."""
    seen = look(-33.0, 151.0, 100.0, geodetic_to_ecef_m(np.array(-33.0), np.array(151.0), np.array(500_100.0)))
    assert float(seen.elevation_deg) == pytest.approx(90.0, abs=1e-6)
    assert float(seen.range_m) == pytest.approx(500_000.0, abs=1e-6)


@pytest.mark.parametrize(("elevation_deg", "slant_km"), [(10.0, 1815.7), (25.0, 1123.4), (40.0, 812.1)])
def test_slant_range_to_550_km(elevation_deg: float, slant_km: float) -> None:
    """From the equator, a satellite at 550 km stands at 10°, 25°, 40° when 1,815.7, 1,123.4, 812.1 km away.

    Independent values: the law of cosines on a sphere of 6,378.137 km. The observer's equator is such a circle.
    """
    angles_deg = np.linspace(0.0, 25.0, 250_001)
    radius_m = 6_378_137.0 + 550_000.0
    orbit_m = radius_m * np.stack(
        (np.cos(np.radians(angles_deg)), np.sin(np.radians(angles_deg)), np.zeros_like(angles_deg)), axis=-1
    )
    seen = look(0.0, 0.0, 0.0, orbit_m)
    nearest = np.argmin(np.abs(seen.elevation_deg - elevation_deg))
    assert float(seen.range_m[nearest]) / 1e3 == pytest.approx(slant_km, abs=0.06)
