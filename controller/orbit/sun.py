"""Where the Sun is, and how much of it a node sees."""

from __future__ import annotations

import numpy as np

from controller.orbit.frames import WGS84_A_M, Geodetic
from controller.orbit.julian import JulianDates
from controller.timeline import FloatArray

ASTRONOMICAL_UNIT_M = 149_597_870_700.0  # IAU 2012 resolution B2
SUN_RADIUS_M = 695_700_000.0  # IAU 2015 resolution B3, nominal


def sun_mod_m(dates: JulianDates) -> FloatArray:
    """The Sun as seen from the Earth, in the mean equator and equinox of date. Shape (n_t, 3).

    The Astronomical Almanac's low-precision Sun, in Vallado, 4th ed., algorithm 29: within 0.01° from 1950 to 2050. The
    frame differs from TEME by nutation alone, below 0.005°.
    """
    t = dates.centuries
    mean_anomaly = np.radians(357.5277233 + 35_999.05034 * t)
    longitude = np.radians(
        280.460 + 36_000.771 * t + 1.914666471 * np.sin(mean_anomaly) + 0.019994643 * np.sin(2.0 * mean_anomaly)
    )
    distance_au = 1.000140612 - 0.016708617 * np.cos(mean_anomaly) - 0.000139589 * np.cos(2.0 * mean_anomaly)
    obliquity = np.radians(23.439291 - 0.0130042 * t)
    direction = np.stack(
        (np.cos(longitude), np.cos(obliquity) * np.sin(longitude), np.sin(obliquity) * np.sin(longitude)), axis=-1
    )
    sun_m: FloatArray = distance_au[:, None] * ASTRONOMICAL_UNIT_M * direction
    return sun_m


def visible_ratio(sun_radius: FloatArray, body_radius: FloatArray, separation: FloatArray) -> FloatArray:
    """The part of the Sun's disc that another disc leaves free: 1 whole, 0 none. Angles in radians, shapes broadcast.

    Montenbruck and Gill, Satellite Orbits (2000), section 3.4.2: the area where two circles overlap.
    """
    a, b, c = np.broadcast_arrays(sun_radius, body_radius, separation)
    ratio: FloatArray = np.ones(c.shape)
    ratio[c <= b - a] = 0.0
    inside = c <= a - b  # the body is the smaller disc and lies within the Sun's
    ratio[inside] = 1.0 - (b[inside] / a[inside]) ** 2
    partly = (c < a + b) & (c > np.abs(b - a))
    a, b, c = a[partly], b[partly], c[partly]
    x = (c**2 + a**2 - b**2) / (2.0 * c)
    y = np.sqrt(np.maximum(a**2 - x**2, 0.0))
    overlap = a**2 * np.arccos(np.clip(x / a, -1.0, 1.0)) + b**2 * np.arccos(np.clip((c - x) / b, -1.0, 1.0)) - c * y
    ratio[partly] = np.clip(1.0 - overlap / (np.pi * a**2), 0.0, 1.0)
    return ratio


def _separation(u: FloatArray, v: FloatArray) -> FloatArray:
    """Angle between vectors (…, 3) in radians, without the loss that arccos has at small angles."""
    angle: FloatArray = np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), np.sum(u * v, axis=-1))
    return angle


def satellite_illumination_ratio(r_m: FloatArray, sun_m: FloatArray) -> FloatArray:
    """The part of the Sun's disc that each satellite sees past the Earth: a conical shadow with its penumbra.

    Shapes: satellites (n_sat, n_t, 3), Sun (n_t, 3), in one frame → (n_sat, n_t). The Earth is a sphere of WGS 84's
    equatorial radius, without air.
    """
    to_sun_m = sun_m - r_m
    sun_distance_m = np.linalg.norm(to_sun_m, axis=-1)
    earth_distance_m = np.linalg.norm(r_m, axis=-1)
    return visible_ratio(
        np.arcsin(SUN_RADIUS_M / sun_distance_m),
        np.arcsin(np.minimum(WGS84_A_M / earth_distance_m, 1.0)),
        _separation(to_sun_m, -r_m),
    )


def ground_illumination_ratio(place: Geodetic, sun_ecef_m: FloatArray) -> FloatArray:
    """The part of the Sun's disc above each ground node's level horizon.

    Shapes: places (n_gnd,), Sun (n_t, 3) → (n_gnd, n_t).
    """
    latitude, longitude = np.radians(place.latitude_deg), np.radians(place.longitude_deg)
    down = -np.stack(
        (np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)), axis=-1
    )
    sun_radius = np.arcsin(SUN_RADIUS_M / np.linalg.norm(sun_ecef_m, axis=-1))
    separation = _separation(*np.broadcast_arrays(sun_ecef_m[None], down[:, None]))
    return visible_ratio(sun_radius, np.array(np.pi / 2), separation)
