"""From the frame of SGP4 to the Earth-fixed one, and from there to what an observer sees.

Frames: TEME (true equator, mean equinox, of date) as SGP4 gives it; ECEF, which here is the pseudo-Earth-fixed frame
PEF, that is TEME turned by the Greenwich mean sidereal time of 1982. Polar motion (up to some 15 m on the ground) and
UT1 − UTC (up to some 420 m at the equator) are left out. Geodetic positions are on WGS 84. What observers see is
geometric: without refraction, light time and aberration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.orbit.julian import DAY_S, JulianDates
from controller.timeline import FloatArray

# NIMA TR8350.2, 3rd ed. (2000), table 3.1: WGS 84
WGS84_A_M = 6_378_137.0
WGS84_F = 1.0 / 298.257223563
WGS84_B_M = WGS84_A_M * (1.0 - WGS84_F)
WGS84_E2 = WGS84_F * (2.0 - WGS84_F)
EARTH_TURN_RAD_S = 7.292_115_855_3e-5
"""The Earth against the mean equinox of date, as GMST 1982 grows: 1.002737909350795 turns a day (Aoki et al., 1982)."""

_GEODETIC_MIN_RADIUS_M = 1e6


def gmst_rad(dates_ut1: JulianDates) -> FloatArray:
    """Greenwich mean sidereal time of 1982, in [0, 2π). Shape (n_t,).

    Aoki et al., Astron. Astrophys. 105 (1982) 359; Vallado, Fundamentals of Astrodynamics, 4th ed., eq. 3-47. The term
    of one turn a day is taken from the fractions of the days alone, which keeps its precision.
    """
    t = dates_ut1.centuries
    whole, part = dates_ut1.days_since_j2000
    turns = np.mod(whole, 1.0) + part
    seconds = 67_310.54841 + DAY_S * turns + t * (8_640_184.812866 + t * (0.093104 - t * 6.2e-6))
    return np.mod(seconds / DAY_S, 1.0) * 2.0 * np.pi


def teme_to_ecef_m(r_teme_m: FloatArray, gmst: FloatArray) -> FloatArray:
    """Positions turned with the Earth. Shapes: r (…, n_t, 3), gmst (n_t,) → (…, n_t, 3)."""
    cos, sin = np.cos(gmst), np.sin(gmst)
    r_ecef_m = np.empty_like(r_teme_m)
    r_ecef_m[..., 0] = cos * r_teme_m[..., 0] + sin * r_teme_m[..., 1]
    r_ecef_m[..., 1] = cos * r_teme_m[..., 1] - sin * r_teme_m[..., 0]
    r_ecef_m[..., 2] = r_teme_m[..., 2]
    return r_ecef_m


@dataclass(frozen=True)
class Geodetic:
    """Places on WGS 84. Shapes: all alike."""

    latitude_deg: FloatArray
    longitude_deg: FloatArray  # -180 to 180
    altitude_m: FloatArray  # above the ellipsoid


def geodetic_to_ecef_m(latitude_deg: FloatArray, longitude_deg: FloatArray, altitude_m: FloatArray) -> FloatArray:
    """Positions of places. Shapes: (…) → (…, 3). Vallado, 4th ed., eq. 3-14."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    normal_m = WGS84_A_M / np.sqrt(1.0 - WGS84_E2 * np.sin(latitude) ** 2)
    return np.stack(
        (
            (normal_m + altitude_m) * np.cos(latitude) * np.cos(longitude),
            (normal_m + altitude_m) * np.cos(latitude) * np.sin(longitude),
            (normal_m * (1.0 - WGS84_E2) + altitude_m) * np.sin(latitude),
        ),
        axis=-1,
    )


def ecef_to_geodetic(r_ecef_m: FloatArray) -> Geodetic:
    """Places under positions. Shape (…, 3) → (…).

    Bowring, Survey Review 23 (1976) 323, with his reduced latitude improved twice: below 1 mm from 1,000 km from the
    Earth's centre to beyond the Moon. Raises ValueError deeper inside, where normals of the ellipsoid meet. At a pole
    the longitude is 0; NaN stays NaN.
    """
    x, y, z = r_ecef_m[..., 0], r_ecef_m[..., 1], r_ecef_m[..., 2]
    equatorial_m = np.hypot(x, y)
    if np.any(np.hypot(equatorial_m, z) < _GEODETIC_MIN_RADIUS_M):
        raise ValueError(
            f"a position within {_GEODETIC_MIN_RADIUS_M:.0f} m of the Earth's centre has no place under it"
        )
    second_e2 = WGS84_E2 / (1.0 - WGS84_E2)
    reduced = np.arctan2(z * WGS84_A_M, equatorial_m * WGS84_B_M)
    for _ in range(2):
        latitude = np.arctan2(
            z + second_e2 * WGS84_B_M * np.sin(reduced) ** 3,
            equatorial_m - WGS84_E2 * WGS84_A_M * np.cos(reduced) ** 3,
        )
        reduced = np.arctan2((1.0 - WGS84_F) * np.sin(latitude), np.cos(latitude))
    sin, cos = np.sin(latitude), np.cos(latitude)
    # Along the normal: exact at the equator and at the poles alike.
    altitude_m = equatorial_m * cos + z * sin - WGS84_A_M * np.sqrt(1.0 - WGS84_E2 * sin**2)
    return Geodetic(np.degrees(latitude), np.degrees(np.arctan2(y, x)), altitude_m)


@dataclass(frozen=True)
class Axes:
    """Unit vectors in ECEF at places. Shapes: alike, (…, 3). At a pole the longitude tells."""

    east: FloatArray
    north: FloatArray
    up: FloatArray  # the ellipsoid's normal


def local_axes(latitude_deg: FloatArray, longitude_deg: FloatArray) -> Axes:
    """Where east, north and up are at places. Shapes: (…) → (…, 3)."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    sin_lat, cos_lat, sin_lon, cos_lon = np.sin(latitude), np.cos(latitude), np.sin(longitude), np.cos(longitude)
    return Axes(
        np.stack((-sin_lon, cos_lon, np.zeros_like(sin_lon)), axis=-1),
        np.stack((-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat), axis=-1),
        np.stack((cos_lat * cos_lon, cos_lat * sin_lon, sin_lat), axis=-1),
    )


@dataclass(frozen=True)
class Look:
    """What observers see. Shapes: all alike."""

    azimuth_deg: FloatArray  # from north over east, 0 to 360
    elevation_deg: FloatArray  # above the plane that touches the ellipsoid, without refraction
    range_m: FloatArray
    range_rate_m_s: FloatArray  # positive: what is seen recedes


def look(axes: Axes, away_m: FloatArray, away_m_s: FloatArray) -> Look:
    """What observers see of things at `away_m` from them that move by `away_m_s` against them, both in ECEF.

    Shapes: (…, 3) → (…). Vallado, 4th ed., algorithm 27, with geodetic up.
    """
    range_m = np.linalg.norm(away_m, axis=-1)
    east_m, north_m, up_m = (np.sum(away_m * axis, axis=-1) for axis in (axes.east, axes.north, axes.up))
    return Look(
        np.mod(np.degrees(np.arctan2(east_m, north_m)), 360.0),
        np.degrees(np.arctan2(up_m, np.hypot(east_m, north_m))),
        range_m,
        np.sum(away_m * away_m_s, axis=-1) / range_m,
    )
