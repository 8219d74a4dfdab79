"""Where the Sun is, and how much of it a node sees.

Satellites are in TEME, the Sun in the mean equator and equinox of date. These frames differ by nutation of the pole
alone, less than 0.003° from 2020 to 2050. Taking one for the other moves an eclipse's edge in low orbit by less than
0.1 s, but for grazing ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.orbit.frames import WGS84_A_M
from controller.orbit.julian import JulianDates
from controller.timeline import Float32Array, FloatArray

ASTRONOMICAL_UNIT_M = 149_597_870_700.0  # IAU 2012 resolution B2
SUN_RADIUS_M = 695_700_000.0  # IAU 2015 resolution B3, nominal

_CELLS_AT_ONCE = 16_384  # satellites times steps whose arrays stay in the processor's cache


def sun_mod_m(dates: JulianDates) -> FloatArray:
    """The Sun as seen from the Earth, in the mean equator and equinox of date. Shape (n_t, 3).

    The Astronomical Almanac's low-precision Sun, in Vallado, 4th ed., algorithm 29: within 0.01° from 1950 to 2050,
    aberration included, which is what shadows follow.
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


@dataclass(frozen=True)
class Discs:
    """The Sun and the Earth as satellites see them, in radians. Shapes: all alike."""

    sun_radius: FloatArray
    earth_radius: FloatArray
    separation: FloatArray  # between their centres


def discs(r_m: FloatArray, sun_m: FloatArray) -> Discs:
    """What satellites see. Shapes: satellites (…, 3, n), Sun (…, 3, n) or (…, 3, 1), in one frame → (…, n).

    The Earth is a sphere of WGS 84's equatorial radius, without air.
    """
    to_sun_m = sun_m - r_m
    sun_distance_m = np.sqrt(np.sum(to_sun_m * to_sun_m, axis=-2))
    earth_distance_m = np.sqrt(np.sum(r_m * r_m, axis=-2))
    cosine = -np.sum(to_sun_m * r_m, axis=-2) / (sun_distance_m * earth_distance_m)
    return Discs(
        np.arcsin(SUN_RADIUS_M / sun_distance_m),
        np.arcsin(np.minimum(WGS84_A_M / earth_distance_m, 1.0)),
        np.arccos(np.clip(cosine, -1.0, 1.0)),
    )


def visible_ratio(seen: Discs) -> FloatArray:
    """The part of the Sun's disc that the Earth's leaves free: 1 whole, 0 none. Shapes (n,) → (n,).

    Montenbruck and Gill, Satellite Orbits (2000), section 3.4.2: the area where two circles overlap.
    """
    a, b, c = seen.sun_radius, seen.earth_radius, seen.separation
    ratio: FloatArray = np.ones(c.shape)
    ratio[c <= b - a] = 0.0
    inside = c <= a - b  # the Earth is the smaller disc and lies within the Sun's
    ratio[inside] = 1.0 - (b[inside] / a[inside]) ** 2
    partly = (c < a + b) & (c > np.abs(b - a))
    a, b, c = a[partly], b[partly], c[partly]
    x = (c**2 + a**2 - b**2) / (2.0 * c)
    y = np.sqrt(np.maximum(a**2 - x**2, 0.0))
    overlap = a**2 * np.arccos(np.clip(x / a, -1.0, 1.0)) + b**2 * np.arccos(np.clip((c - x) / b, -1.0, 1.0)) - c * y
    ratio[partly] = np.clip(1.0 - overlap / (np.pi * a**2), 0.0, 1.0)
    return ratio


def satellite_illumination_ratio(r_m: FloatArray, sun_m: FloatArray) -> Float32Array:
    """The part of the Sun's disc that each satellite sees past the Earth: a conical shadow with its penumbra.

    Shapes: satellites (n_t, 3, n_sat), Sun (n_t, 3), in one frame → (n_t, n_sat). NaN where a position is NaN.
    """
    n_t, _, n_satellite = r_m.shape
    ratio: Float32Array = np.empty((n_t, n_satellite), np.float32)
    n_at_once = max(1, _CELLS_AT_ONCE // max(1, n_satellite))
    for first in range(0, n_t, n_at_once):
        steps = slice(first, first + n_at_once)
        _tell_light_from_shadow(ratio[steps], r_m[steps], sun_m[steps])
    step, satellite = np.nonzero(ratio < 0.0)
    ratio[step, satellite] = visible_ratio(discs(r_m[step, :, satellite].T, sun_m[step].T))
    return ratio


def _tell_light_from_shadow(ratio: Float32Array, r_m: FloatArray, sun_m: FloatArray) -> None:
    """Fill in 1 in the light, 0 in the umbra, and −1 in between, where the discs have to be drawn.

    Two dot products tell: at x behind the Earth's centre and y beside the axis, the penumbra is where
    y·cos f < R + x·sin f, sin f = (Sun's radius + R) / distance, and the umbra where y·cos f < R − x·sin f,
    sin f = (Sun's radius − R) / distance: the common tangents of two spheres (Montenbruck and Gill, section 3.4).
    """
    distance_m = np.linalg.norm(sun_m, axis=-1)[:, None]
    behind_m = np.matmul((-sun_m / distance_m)[:, None], r_m)[:, 0]
    beside_m2 = np.einsum("txn,txn->tn", r_m, r_m)
    beside_m2 -= behind_m * behind_m
    sin_outer, sin_inner = (SUN_RADIUS_M + WGS84_A_M) / distance_m, (SUN_RADIUS_M - WGS84_A_M) / distance_m
    outer_m = _cone_radius_m(behind_m, sin_outer)
    shaded = beside_m2 < np.multiply(outer_m, outer_m, out=outer_m)
    shaded &= behind_m > -WGS84_A_M * sin_outer  # before the circle where the tangents touch there is no shadow
    np.subtract(1.0, shaded, out=ratio)
    inner_m = _cone_radius_m(behind_m, -sin_inner)
    inner_m *= np.abs(inner_m)  # beyond the umbra's tip the radius is negative, and so is no square below this
    shaded &= beside_m2 >= inner_m
    ratio -= shaded
    lost = np.isnan(behind_m)
    if lost.any():
        ratio[lost] = np.nan


def _cone_radius_m(behind_m: FloatArray, sine: FloatArray) -> FloatArray:
    """How far a cone that touches the Earth reaches from its axis. Shapes: (n_t, n_sat), (n_t, 1) → (n_t, n_sat)."""
    radius_m = behind_m * sine
    radius_m += WGS84_A_M
    radius_m *= 1.0 / np.sqrt(1.0 - sine * sine)
    return radius_m


def ground_illumination_ratio(up: FloatArray, sun_ecef_m: FloatArray) -> FloatArray:
    """The part of the Sun's disc above each ground node's level horizon, without refraction.

    Shapes: unit vectors upwards in ECEF (n_t, 3, n_gnd), Sun (n_t, 3) → (n_t, n_gnd). The Sun's parallax on the ground,
    0.0024°, is left out.
    """
    distance_m = np.linalg.norm(sun_ecef_m, axis=-1)
    sine = np.einsum("tx,txn->tn", sun_ecef_m / distance_m[:, None], up)
    radius = np.arcsin(SUN_RADIUS_M / distance_m)[:, None]
    # The horizon cuts a segment off the disc: its chord runs `height` radii below the centre.
    height = np.clip(np.arcsin(np.clip(sine, -1.0, 1.0)) / radius, -1.0, 1.0)
    ratio: FloatArray = np.clip((np.arccos(-height) + height * np.sqrt(1.0 - height * height)) / np.pi, 0.0, 1.0)
    return ratio


def beta_deg(r_m: FloatArray, v_m_s: FloatArray, sun_m: FloatArray) -> FloatArray:
    """The Sun's angle above the orbital plane, positive on the side of the angular momentum. Shapes: (n, 3) → (n,)."""
    momentum = np.cross(r_m, v_m_s)
    sine = np.sum(momentum * sun_m, axis=-1) / (np.linalg.norm(momentum, axis=-1) * np.linalg.norm(sun_m, axis=-1))
    angle_deg: FloatArray = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    return angle_deg
