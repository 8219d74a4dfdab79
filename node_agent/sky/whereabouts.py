"""Where the node is at a moment, from what it was told: between the positions told, the place below, the light."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from protos.skyrack.v1 import node_pb2

IN_ORBIT = 6
ON_THE_GROUND = 2
"""How many of the positions told make the curve between them: a polynomial of the fifth degree, a straight line."""

_S = 1_000_000_000
_WGS84_A_M = 6_378_137.0  # NIMA TR8350.2, 3rd ed. (2000), table 3.1
_WGS84_F = 1.0 / 298.257223563
_WGS84_B_M = _WGS84_A_M * (1.0 - _WGS84_F)
_WGS84_E2 = _WGS84_F * (2.0 - _WGS84_F)


@dataclass(frozen=True)
class Whereabouts:
    """Where the node is at one time."""

    at_emu_ns: int
    r_ecef_m: tuple[float, float, float]
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    illumination_ratio: float


def whereabouts(told: Sequence[node_pb2.Place], at_emu_ns: int, points: int) -> Whereabouts | None:
    """Where the node is at a moment; before the first position told, there, after the last, there; None without any.

    `told` is in order of time.
    """
    knots = [place for place in told if len(place.r_ecef_m) == 3]
    if not knots:
        return None
    at_emu_ns = min(max(at_emu_ns, knots[0].at_emu_ns), knots[-1].at_emu_ns)
    x, y, z = _position_m(knots, at_emu_ns, points)
    latitude_deg, longitude_deg, altitude_m = _geodetic(x, y, z)
    return Whereabouts(at_emu_ns, (x, y, z), latitude_deg, longitude_deg, altitude_m, _light(told, at_emu_ns))


def _position_m(knots: Sequence[node_pb2.Place], at_emu_ns: int, points: int) -> tuple[float, float, float]:
    """Lagrange's polynomial through the nearest knots, half of them on either side."""
    after = bisect_right(knots, at_emu_ns, key=lambda knot: knot.at_emu_ns)
    first = max(0, min(after - points // 2, len(knots) - points))
    near = knots[first : first + points]
    times_s = [(knot.at_emu_ns - at_emu_ns) / _S for knot in near]
    x = y = z = 0.0
    for i, knot in enumerate(near):
        weight = math.prod(other / (other - times_s[i]) for j, other in enumerate(times_s) if j != i)
        x += weight * knot.r_ecef_m[0]
        y += weight * knot.r_ecef_m[1]
        z += weight * knot.r_ecef_m[2]
    return x, y, z


def _light(told: Sequence[node_pb2.Place], at_emu_ns: int) -> float:
    """In even steps from one moment told to the next."""
    after = bisect_right(told, at_emu_ns, key=lambda place: place.at_emu_ns)
    before, following = told[max(after - 1, 0)], told[min(after, len(told) - 1)]
    span_ns = following.at_emu_ns - before.at_emu_ns
    share = (at_emu_ns - before.at_emu_ns) / span_ns if span_ns > 0 else 0.0
    return before.illumination_ratio + share * (following.illumination_ratio - before.illumination_ratio)


def _geodetic(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Latitude and longitude in degrees, and altitude in metres, on WGS 84.

    Bowring, Survey Review 23 (1976) 323, with his reduced latitude improved twice: below 1 mm.
    """
    equatorial_m = math.hypot(x, y)
    second_e2 = _WGS84_E2 / (1.0 - _WGS84_E2)
    reduced = math.atan2(z * _WGS84_A_M, equatorial_m * _WGS84_B_M)
    latitude = 0.0
    for _ in range(2):
        latitude = math.atan2(
            z + second_e2 * _WGS84_B_M * math.sin(reduced) ** 3,
            equatorial_m - _WGS84_E2 * _WGS84_A_M * math.cos(reduced) ** 3,
        )
        reduced = math.atan2((1.0 - _WGS84_F) * math.sin(latitude), math.cos(latitude))
    sin, cos = math.sin(latitude), math.cos(latitude)
    altitude_m = equatorial_m * cos + z * sin - _WGS84_A_M * math.sqrt(1.0 - _WGS84_E2 * sin**2)
    return math.degrees(latitude), math.degrees(math.atan2(y, x)), altitude_m
