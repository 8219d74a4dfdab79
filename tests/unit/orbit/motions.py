"""Motions whose course is known without the code under test: circular orbits, and SGP4's verification set."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import sgp4
from sgp4.api import WGS72, Satrec

from controller.orbit.elements import Orbit, tle_orbits
from controller.orbit.julian import JulianDates
from controller.orbit.track import Track
from controller.scenario.element_sets import ElementSetError
from controller.scenario.tle import parse_tle
from controller.timeline import FloatArray

EARTH_RADIUS_M = 6_378_137.0  # WGS 84's equatorial one
EARTH_MU_M3_S2 = 398_600.4418e9  # WGS 84


def circular_track(
    epoch_utc: datetime,
    altitude_m: float,
    inclination_deg: FloatArray,
    raan_deg: FloatArray,
    latitude_argument_deg: FloatArray,
    end_s: float,
) -> Track:
    """Kepler's circular orbits about a point, knots written down from their formula. Shapes: angles (n_sat,).

    Knots are 30 s apart, from three before the epoch to five after end_s.
    """
    radius_m = EARTH_RADIUS_M + altitude_m
    knot_s = 30.0 * np.arange(-3.0, np.ceil(end_s / 30.0) + 5.0)
    rate_rad_s = np.sqrt(EARTH_MU_M3_S2 / radius_m**3)
    u = np.radians(latitude_argument_deg) + rate_rad_s * knot_s[:, None]
    i, node = np.radians(inclination_deg), np.radians(raan_deg)
    r_m = radius_m * np.stack(
        (
            np.cos(u) * np.cos(node) - np.sin(u) * np.cos(i) * np.sin(node),
            np.cos(u) * np.sin(node) + np.sin(u) * np.cos(i) * np.cos(node),
            np.sin(u) * np.sin(i),
        ),
        axis=1,
    )
    n_satellite = r_m.shape[2]
    return Track(epoch_utc, float(knot_s[0]), 30.0, r_m, np.full(n_satellite, np.inf), ("",) * n_satellite)


@dataclass(frozen=True)
class VerificationCase:
    """An element set of SGP4-VER.TLE and what tcppver.out prints for it. Shapes: (n,), (n, 3)."""

    catalogue: str
    orbit: Orbit
    has_wrong_checksum: bool
    since_epoch_min: FloatArray
    r_teme_km: FloatArray
    v_teme_km_s: FloatArray

    @property
    def dates(self) -> JulianDates:
        """The printed instants: days and fractions kept apart, so that nothing is rounded to microseconds."""
        return self.dates_at(self.since_epoch_min)

    def dates_at(self, since_epoch_min: FloatArray) -> JulianDates:
        """Instants after the elements' own epoch."""
        fraction = self.orbit.jdsatepochF + since_epoch_min / 1440.0
        return JulianDates(self.orbit.jdsatepoch + np.floor(fraction), fraction - np.floor(fraction))


def verification_cases() -> list[VerificationCase]:
    """The verification set of AIAA 2006-6753 in the order of its files, which the sgp4 package ships."""
    folder = Path(sgp4.__file__).parent
    blocks: list[list[list[float]]] = []
    for line in (folder / "tcppver.out").read_text().splitlines():
        if line.endswith("xx"):
            blocks.append([])
        else:
            blocks[-1].append([float(word) for word in line.split()[:7]])
    elements = [line[:69] for line in (folder / "SGP4-VER.TLE").read_text().splitlines() if line[:2] in ("1 ", "2 ")]
    cases = []
    for line_1, line_2, block in zip(elements[::2], elements[1::2], blocks, strict=True):
        try:
            (orbit,) = tle_orbits(parse_tle(f"{line_1}\n{line_2}\n"))
            has_wrong_checksum = False
        except ElementSetError:  # three sets have wrong checksums on purpose
            orbit, has_wrong_checksum = Satrec.twoline2rv(line_1, line_2, WGS72), True
        rows = np.array(block)
        cases.append(VerificationCase(line_1[2:7], orbit, has_wrong_checksum, rows[:, 0], rows[:, 1:4], rows[:, 4:7]))
    return cases
