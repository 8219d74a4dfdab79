"""What element sets of every format have in common: whose they are, where they stand, and when they hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

# Kinds of elements that SGP4 takes, in a TLE's column 63 and in EPHEMERIS_TYPE: not said, SGP4 and SDP4 (Hoots and
# Roehrich, Spacetrack Report No. 3, 1980). Type 4 is SGP4-XP today, whose elements SGP4 would put kilometres off.
SGP4_EPHEMERIS_TYPES = ("0", "2", "3")


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
