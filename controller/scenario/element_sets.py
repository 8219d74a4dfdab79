"""What element sets of every format have in common: whose they are, where they stand, and when they hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

# Kinds of elements that SGP4 takes, in a TLE's column 63 and in EPHEMERIS_TYPE: not said, SGP4 and SDP4 (Hoots and
# Roehrich, Spacetrack Report No. 3, 1980). Type 4 is SGP4-XP today, whose elements SGP4 would put kilometres off.
SGP4_EPHEMERIS_TYPES = ("0", "2", "3")
# What falls within a day has a drag term of some 0.1 to 1 Earth radii⁻¹; far beyond that SGP4 has no orbit to give.
MAX_BSTAR = 10.0

_MU_M3_S2, _EARTH_RADIUS_M = 398_600.8e9, 6_378_135.0  # WGS 72
_LOWEST_PERIGEE_M = -100_000.0  # mean elements of satellites that are coming down reach below the ground


@dataclass(frozen=True)
class ElementSet:
    """One object's elements that have passed the checks of their format."""

    name: str  # as printed; empty where the file gives none
    catalogue: str  # its number in the catalogue, up to nine digits, without leading zeros
    place: str  # where in its file, to stand behind the file's name: ":5" for a line, or ", object 3"
    epoch_utc: datetime  # when its elements hold, to the microsecond


class ElementSetError(ValueError):
    """Element sets that cannot be read. `problems` holds (place, what is wrong) of each."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{place.lstrip(':, ')}: {message}" for place, message in problems))


def perigee_problem(mean_motion_rev_day: float, eccentricity: float) -> str | None:
    """Why no satellite has such an orbit: its perigee is deep in the Earth. None for one that may be."""
    semi_major_axis_m = (_MU_M3_S2 / (mean_motion_rev_day * math.tau / 86_400.0) ** 2) ** (1.0 / 3.0)
    perigee_m = semi_major_axis_m * (1.0 - eccentricity) - _EARTH_RADIUS_M
    if perigee_m >= _LOWEST_PERIGEE_M:
        return None
    return (
        f"mean motion {mean_motion_rev_day:.9g} a day and eccentricity {eccentricity:.9g} put the perigee "
        f"{-perigee_m / 1e3:,.0f} km below the ground: one of the two is wrong"
    )
