"""Orbits as SGP4 takes them: from a Walker pattern, or from element sets (TLE, OMM).

SGP4 is Vallado et al., AIAA 2006-6753, with the constants of WGS 72, to which element sets are fitted. With
`track`, this is the only place that knows the sgp4 package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from sgp4.api import WGS72, Satrec

from controller.orbit.frames import EARTH_TURN_RAD_S, WGS84_A_M
from controller.scenario.element_sets import ElementSet
from controller.scenario.model import Constellation, Scenario, Walker
from controller.scenario.omm import OmmSet
from controller.scenario.tle import TleSet

MU_WGS72_M3_S2 = 398_600.8e9  # of SGP4 itself: AIAA 2006-6753, section II
_SGP4_EPOCH = datetime(1949, 12, 31, tzinfo=UTC)
_LONGEST_PASS_S = 86_400.0
_DAY_MIN = 1_440.0
MAX_ELEMENT_AGE = timedelta(days=30)

Orbit: TypeAlias = Satrec
"""What SGP4 knows of one satellite."""


def walker_orbits(walker: Walker, epoch_utc: datetime) -> list[Orbit]:
    """Plane by plane and slot by slot, the mean elements at the epoch, in TEME.

    Plane j of p has its node at raan_deg + j·360°/p (delta) or + j·180°/p (star); slot k of plane j has mean anomaly
    k·360°/(t/p) + j·f·360°/t (Walker, J. Brit. Interplanet. Soc. 37 (1984) 559). The mean motion is √(μ/a³) with μ of
    WGS 72 and a = 6,378,137 m + altitude. SGP4 takes it as Kozai's and works with Brouwer's semi-major axis, which for
    low orbits is some km from a; that, the Earth's flattening and SGP4's least eccentricity of 1e-6 leave real
    altitudes within about 15 km of the nominal one. No drag.
    """
    a_m = WGS84_A_M + walker.altitude_m
    mean_motion_rad_min = 60.0 * math.sqrt(MU_WGS72_M3_S2 / a_m**3)
    span_deg = 180.0 if walker.pattern == "star" else 360.0
    epoch_days = (epoch_utc - _SGP4_EPOCH).total_seconds() / 86_400.0
    orbits: list[Orbit] = []
    for plane in range(walker.planes):
        raan_deg = walker.raan_deg + plane * span_deg / walker.planes
        for slot in range(walker.slots):
            anomaly_deg = slot * 360.0 / walker.slots + plane * walker.phasing * 360.0 / walker.total
            orbit = Satrec()
            # Wrapped, since SGP4 wants angles of one turn. Order: model, mode (improved), number, epoch, bstar, ndot,
            # nddot, eccentricity, argument of perigee, inclination, mean anomaly, mean motion, node.
            orbit.sgp4init(
                WGS72, "i", len(orbits) % 100_000, epoch_days, 0.0, 0.0, 0.0, 0.0, 0.0,
                math.radians(walker.inclination_deg), math.radians(anomaly_deg % 360.0),
                mean_motion_rad_min, math.radians(raan_deg % 360.0),
            )  # fmt: skip
            orbits.append(orbit)
    return orbits


def tle_orbits(sets: Sequence[TleSet]) -> list[Orbit]:
    """The orbits of element sets, in their order."""
    return [Satrec.twoline2rv(s.line_1, s.line_2, WGS72) for s in sets]


def omm_orbits(sets: Sequence[OmmSet]) -> list[Orbit]:
    """The orbits of mean-elements messages, in their order.

    Numbered 0 for SGP4, which has no use for catalogue numbers and no room for nine digits.
    """
    orbits: list[Orbit] = []
    for s in sets:
        since = s.epoch_utc - _SGP4_EPOCH
        day_ratio = (since.seconds + since.microseconds * 1e-6) / 86_400.0
        orbit = Satrec()
        # In the order that walker_orbits explains. SGP4 makes no use of the derivatives of the mean motion.
        orbit.sgp4init(
            WGS72, "i", 0, since.days + day_ratio, s.bstar_per_earth_radius, 0.0, 0.0, s.eccentricity,
            math.radians(s.argument_of_perigee_deg % 360.0), math.radians(s.inclination_deg),
            math.radians(s.mean_anomaly_deg % 360.0), s.mean_motion_rev_day * math.tau / _DAY_MIN,
            math.radians(s.raan_deg % 360.0),
        )  # fmt: skip
        orbit.jdsatepochF = day_ratio  # one number for day and fraction has kept it to some 0.3 µs only
        orbits.append(orbit)
    return orbits


def constellation_orbits(constellation: Constellation, epoch_utc: datetime) -> list[Orbit]:
    """The orbits of a constellation's satellites, in the order of its satellite_names."""
    if constellation.walker is not None:
        return walker_orbits(constellation.walker, epoch_utc)
    sets = constellation.element_sets  # of one kind
    return tle_orbits([s for s in sets if isinstance(s, TleSet)]) + omm_orbits(
        [s for s in sets if isinstance(s, OmmSet)]
    )


def element_age_warnings(scenario: Scenario) -> tuple[str, ...]:
    """A line for each constellation with element sets whose epoch is more than 30 days from the run, in its words."""
    begin_utc = scenario.epoch + timedelta(seconds=scenario.start_s)
    end_utc = begin_utc + timedelta(seconds=scenario.duration_s)
    warnings: list[str] = []
    for constellation in scenario.constellations:
        sets = constellation.element_sets
        ages = [max(abs(begin_utc - s.epoch_utc), abs(end_utc - s.epoch_utc)) for s in sets]
        n_far = sum(age > MAX_ELEMENT_AGE for age in ages)
        if n_far:
            i = max(range(len(sets)), key=lambda i: ages[i])
            warnings.append(
                f"{_far_words(constellation, sets[i], ages[i], n_far)}: SGP4 strays from the real satellites by "
                "kilometres a day, so that contacts and eclipses may be minutes off; take newer elements, or move "
                f"epoch towards {sets[i].epoch_utc:%Y-%m-%d}"
            )
    return tuple(warnings)


def _far_words(constellation: Constellation, farthest: ElementSet, age: timedelta, n_far: int) -> str:
    file = constellation.element_file
    assert file is not None
    return (
        f"{file.path}: {n_far} of {len(constellation.element_sets)} element sets of {constellation.name!r} hold more "
        f"than {MAX_ELEMENT_AGE.days} days from the run ({farthest.name or farthest.catalogue}{farthest.place}: "
        f"{age / timedelta(days=1):,.0f} days)"
    )


def longest_pass_s(orbits: Sequence[Orbit]) -> float:
    """How long the longest pass of any of the satellites lasts over a level horizon, at most a day.

    A satellite at distance r is above the horizon within acos(R/r) of its nadir, and the ground follows it at the
    Earth's rate at most.
    """
    longest_s: float = 0.0
    for orbit in orbits:
        rate_rad_s = orbit.no_kozai / 60.0 - EARTH_TURN_RAD_S
        apogee_m = orbit.a * WGS84_A_M * (1.0 + orbit.ecco)
        half_rad = math.acos(min(1.0, WGS84_A_M / apogee_m))
        longest_s = max(longest_s, 2.0 * half_rad / rate_rad_s if rate_rad_s > 0.0 else _LONGEST_PASS_S)
    return float(min(longest_s, _LONGEST_PASS_S))


def fastest_rad_s(orbits: Sequence[Orbit]) -> float:
    """The greatest angular rate of any of the satellites about the Earth, at its perigee."""
    return float(max(o.no_kozai / 60.0 * (1.0 + o.ecco) ** 2 / (1.0 - o.ecco**2) ** 1.5 for o in orbits))
