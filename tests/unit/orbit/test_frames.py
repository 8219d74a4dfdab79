from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from controller.orbit.frames import (
    EARTH_TURN_RAD_S,
    Look,
    ecef_to_geodetic,
    geodetic_to_ecef_m,
    gmst_rad,
    local_axes,
    look,
    teme_to_ecef_m,
)
from controller.orbit.julian import julian_dates
from controller.timeline import FloatArray

GMST_PRINTED_TOLERANCE_DEG = 1e-7  # the example's one-float Julian date has 40 µs, which is 1.7e-7° of turn
GMST_EXACT_TOLERANCE_DEG = 1e-10
AIAA_2006_6753_APPENDIX_C_TOLERANCE_M = 0.05  # the printed UT1 − UTC has 0.1 µs, the printed position 0.1 m
AIAA_2006_6753_APPENDIX_C_TOLERANCE_M_S = 1e-4  # and the printed velocity 1e-6 m/s, with a day 1e-8 longer
GEODETIC_TOLERANCE_M = 1e-3
SIDEREAL_TOLERANCE_RAD = 1e-8
# The normal of the ellipsoid and the line to the Earth's centre part by up to 0.192°, at 45° of latitude.
VERTICALS_TOLERANCE_DEG = 2 * 0.193


def seen_from(latitude_deg: float, longitude_deg: float, altitude_m: float, r_m: FloatArray) -> Look:
    """What stands still at r_m (…, 3), as seen from a place."""
    place = np.array(latitude_deg), np.array(longitude_deg)
    away_m = r_m - geodetic_to_ecef_m(*place, np.array(altitude_m))
    return look(local_axes(*place), away_m, np.zeros_like(away_m))


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


@given(st.integers(0, 3_155_760_000), st.floats(6.4e6, 4.3e7), st.floats(-1.5, 1.5))
def test_a_sidereal_day_brings_the_same_stars_over_the_same_place(
    second: int, radius_m: float, declination: float
) -> None:
    """After 86,164.0905 s (the mean sidereal day: Aoki et al., 1982) a direction of TEME is the same of ECEF again."""
    instant = datetime(1976, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    dates = julian_dates(instant, np.array([0.0, 86_164.09053, 43_082.045265]))
    fixed_m = radius_m * np.array([np.cos(declination), 0.0, np.sin(declination)])
    now_m, again_m, opposite_m = teme_to_ecef_m(np.tile(fixed_m, (3, 1)), gmst_rad(dates))
    assert np.linalg.norm(again_m - now_m) < radius_m * SIDEREAL_TOLERANCE_RAD
    assert np.linalg.norm(opposite_m[:2] + now_m[:2]) < radius_m * SIDEREAL_TOLERANCE_RAD


def test_the_earths_rate_is_the_slope_of_its_angle() -> None:
    """EARTH_TURN_RAD_S is how GMST grows, and the published 1.002737909350795 turns a day (Aoki et al., 1982)."""
    angles = gmst_rad(julian_dates(datetime(2026, 6, 1, tzinfo=UTC), np.array([0.0, 10_000.0])))
    assert (angles[1] - angles[0]) / 10_000.0 == pytest.approx(EARTH_TURN_RAD_S, abs=1e-13)
    assert 1.002737909350795 * 2.0 * math.pi / 86_400.0 == pytest.approx(EARTH_TURN_RAD_S, abs=1e-14)


def test_velocities_turn_as_in_aiaa_2006_6753_appendix_c() -> None:
    """The example's velocity in TEME becomes the one printed in PEF: turned, less what the Earth's turn adds."""
    gmst = gmst_rad(julian_dates(datetime(2004, 4, 6, 7, 51, 28, 386009, tzinfo=UTC), np.array([-0.4399619])))
    v_teme_m_s = np.array([[-4746.131487, 785.818041, 5531.931288]])
    r_pef_m = np.array([-1033.4750313, 7901.3055856, 6380.3445328]) * 1e3
    turned_m_s = teme_to_ecef_m(v_teme_m_s, gmst)[0] - np.cross([0.0, 0.0, EARTH_TURN_RAD_S], r_pef_m)
    expected_m_s = np.array([-3225.632747, -2872.442511, 5531.931288])
    assert np.linalg.norm(turned_m_s - expected_m_s) < AIAA_2006_6753_APPENDIX_C_TOLERANCE_M_S


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


@pytest.mark.parametrize("altitude_m", [-100.0, 0.0, 550_000.0, 35_786_000.0])
@pytest.mark.parametrize(("latitude_deg", "z_m"), [(90.0, 6_356_752.3142), (-90.0, -6_356_752.3142)])
def test_the_poles_are_places(latitude_deg: float, z_m: float, altitude_m: float) -> None:
    """At a pole the Earth is 6,356,752.3142 m high (WGS 84's semi-minor axis), and the longitude is 0."""
    r_m = geodetic_to_ecef_m(np.array(latitude_deg), np.array(123.0), np.array(altitude_m))
    assert r_m == pytest.approx([0.0, 0.0, z_m + math.copysign(1.0, z_m) * altitude_m], abs=GEODETIC_TOLERANCE_M)
    place = ecef_to_geodetic(np.array([0.0, 0.0, z_m + math.copysign(1.0, z_m) * altitude_m]))
    assert float(place.latitude_deg) == latitude_deg
    assert float(place.longitude_deg) == 0.0
    assert float(place.altitude_m) == pytest.approx(altitude_m, abs=GEODETIC_TOLERANCE_M)


def test_the_antimeridian_is_one_meridian() -> None:
    """+180° and −180° are the same place; longitudes come back between them."""
    east_m, west_m = geodetic_to_ecef_m(np.full(2, -17.0), np.array([180.0, -180.0]), np.zeros(2))
    assert np.linalg.norm(east_m - west_m) < GEODETIC_TOLERANCE_M
    assert np.abs(ecef_to_geodetic(np.stack((east_m, west_m))).longitude_deg) == pytest.approx(180.0)


def test_the_middle_of_the_earth_has_no_place() -> None:
    """Within 1,000 km of the centre, where normals meet, there is an error; NaN stays NaN."""
    for r_m in (np.zeros(3), np.array([[7e6, 0.0, 0.0], [0.0, 9e5, 0.0]])):
        with pytest.raises(ValueError, match="centre"):
            ecef_to_geodetic(r_m)
    gone = ecef_to_geodetic(np.array([[np.nan] * 3, [7e6, 0.0, 0.0]]))
    assert np.isnan(gone.latitude_deg).tolist() == [True, False]
    assert np.isnan(gone.altitude_m).tolist() == [True, False]


@pytest.mark.parametrize(
    ("north", "east", "azimuth_deg"), [(1.0, 0.0, 0.0), (0.0, 1.0, 90.0), (-1.0, 0.0, 180.0), (0.0, -1.0, 270.0)]
)
def test_azimuth_goes_from_north_over_east(north: float, east: float, azimuth_deg: float) -> None:
    """A neighbouring place to the north, east, south or west is seen in that direction, at the horizon."""
    there_m = geodetic_to_ecef_m(np.array(20.0 + 0.001 * north), np.array(-75.0 + 0.001 * east), np.array(0.0))
    seen = seen_from(20.0, -75.0, 0.0, there_m)
    assert abs(math.remainder(float(seen.azimuth_deg) - azimuth_deg, 360.0)) < 0.01
    assert float(seen.elevation_deg) == pytest.approx(0.0, abs=0.01)


def test_the_zenith_is_straight_up() -> None:
    """A point 500 km above a place stands at 90° there, 500 km away."""
    seen = seen_from(-33.0, 151.0, 100.0, geodetic_to_ecef_m(np.array(-33.0), np.array(151.0), np.array(500_100.0)))
    assert float(seen.elevation_deg) == pytest.approx(90.0, abs=1e-6)
    assert float(seen.range_m) == pytest.approx(500_000.0, abs=1e-6)


places = st.tuples(st.floats(-90.0, 90.0), st.floats(-180.0, 180.0), st.floats(0.0, 2e6))


@given(places, places, st.tuples(*[st.floats(-8e3, 8e3)] * 3))
def test_a_link_is_the_same_seen_from_both_ends(
    one: tuple[float, float, float], other: tuple[float, float, float], velocity_m_s: tuple[float, float, float]
) -> None:
    """Range and range rate do not tell the ends apart; elevations add up to minus the angle between the verticals.

    On a sphere they do so exactly, since ends and centre lie in one plane; verticals of the ellipsoid are a little off.
    """
    a, b = (np.array(place) for place in (one, other))
    a_m, b_m = (geodetic_to_ecef_m(*place) for place in (a, b))
    assume(np.linalg.norm(b_m - a_m) > 1e4)
    axes_a, axes_b = (local_axes(place[0], place[1]) for place in (a, b))
    there = look(axes_a, b_m - a_m, np.array(velocity_m_s))
    back = look(axes_b, a_m - b_m, -np.array(velocity_m_s))
    assert there.range_m == pytest.approx(back.range_m, rel=1e-12)
    assert there.range_rate_m_s == pytest.approx(back.range_rate_m_s, rel=1e-9, abs=1e-6)
    between_deg = math.degrees(math.acos(np.clip(axes_a.up @ axes_b.up, -1.0, 1.0)))
    assert float(there.elevation_deg + back.elevation_deg) == pytest.approx(-between_deg, abs=VERTICALS_TOLERANCE_DEG)


@given(places, places, st.tuples(*[st.floats(-8e3, 8e3)] * 3))
def test_the_range_rate_is_how_the_range_grows(
    one: tuple[float, float, float], other: tuple[float, float, float], velocity_m_s: tuple[float, float, float]
) -> None:
    """Positive for what recedes: the difference of ranges 10 ms before and after."""
    here_m, there_m = geodetic_to_ecef_m(*np.array(one)), geodetic_to_ecef_m(*np.array(other))
    velocity = np.array(velocity_m_s)
    away_m = there_m - here_m
    assume(np.linalg.norm(away_m) > 1e6)
    seen = look(local_axes(np.array(one[0]), np.array(one[1])), away_m, velocity)
    grown_m = np.linalg.norm(away_m + 0.01 * velocity) - np.linalg.norm(away_m - 0.01 * velocity)
    assert float(seen.range_rate_m_s) == pytest.approx(grown_m / 0.02, abs=1e-4)


def test_axes_are_right_handed_unit_vectors_also_at_the_poles() -> None:
    """East × north = up, up is the direction in which the altitude grows."""
    latitude_deg, longitude_deg = np.array([-90.0, -35.0, 0.0, 61.0, 90.0]), np.array([10.0, 180.0, -180.0, -30.0, 0.0])
    axes = local_axes(latitude_deg, longitude_deg)
    assert np.abs(np.cross(axes.east, axes.north) - axes.up).max() < 1e-12
    low_m, high_m = (geodetic_to_ecef_m(latitude_deg, longitude_deg, np.full(5, h)) for h in (0.0, 1e6))
    assert np.abs((high_m - low_m) / 1e6 - axes.up).max() < 1e-9
