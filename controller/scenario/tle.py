"""Two-line element sets as text: found, checked column by column, and taken apart into names and lines.

Format: Hoots and Roehrich, Spacetrack Report No. 3 (1980); columns as CelesTrak describes them. Numbers are turned into
an orbit by `elements`, which owns SGP4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controller.scenario.element_sets import (
    MAX_BSTAR,
    SGP4_EPHEMERIS_TYPES,
    ElementSet,
    ElementSetError,
    perigee_problem,
)

LINE_LENGTH = 69
_FIRST_YEAR = 1957  # of Sputnik 1: two digits of a year below 57 are of this century


@dataclass(frozen=True)
class TleSet(ElementSet):
    """One object's elements, as lines that have passed the checks. The name of a two-line set is empty."""

    line_1: str
    line_2: str


class TleError(ElementSetError):
    """Two- or three-line element sets that cannot be read."""


# name of the field, its columns (counted from 1, as the format's description does), and what must stand there
_DIGITS = re.compile(r" *\d+")
_DECIMAL = re.compile(r" *[+-]?(\d+\.\d*|\.\d+)")
_EXPONENT = re.compile(r"[ +-]\d{5}[+-]\d")
# Five digits, or a letter for their first two, "A" for 10 to "Z" for 33, without I and O (18 SPCS, "Alpha-5").
_CATALOGUE = re.compile(r" *\d+|[A-HJ-NP-Z]\d{4}")
_ALPHA_5 = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_EPHEMERIS_TYPE = re.compile("|".join(SGP4_EPHEMERIS_TYPES) + "|")
_LINE_1_FIELDS = (
    ("catalogue number", 3, 7, _CATALOGUE),
    ("epoch year", 19, 20, _DIGITS),
    ("epoch day", 21, 32, _DECIMAL),
    ("first derivative of mean motion", 34, 43, _DECIMAL),
    ("second derivative of mean motion", 45, 52, _EXPONENT),
    ("drag term", 54, 61, _EXPONENT),
    ("ephemeris type of SGP4, 0", 63, 63, _EPHEMERIS_TYPE),
)
_LINE_1_BLANKS = (2, 9, 18, 33, 44, 53, 62, 64)
_LINE_2_BLANKS = (2, 8, 17, 26, 34, 43, 52)
_LINE_2_FIELDS = (
    ("inclination", 9, 16, _DECIMAL),
    ("right ascension of the ascending node", 18, 25, _DECIMAL),
    ("eccentricity", 27, 33, _DIGITS),
    ("argument of perigee", 35, 42, _DECIMAL),
    ("mean anomaly", 44, 51, _DECIMAL),
    ("mean motion", 53, 63, _DECIMAL),
)
# name of the field, its columns, and from where to where its value may be
_LINE_1_RANGES = (("epoch day", 21, 32, 1.0, 367.0),)
_LINE_2_RANGES = (
    ("inclination", 9, 16, 0.0, 180.0),
    ("mean motion", 53, 63, 0.01, 20.0),
)


def checksum(line: str) -> int:
    """The last digit that a line should have: its digits added up, each minus sign counted as one, modulo 10."""
    return sum(int(c) if c.isdecimal() else c == "-" for c in line[: LINE_LENGTH - 1]) % 10


def _line_problem(line: str, number: str) -> str | None:
    """What is wrong with an element line, or None."""
    if not line.startswith(f"{number} "):
        return f"expected element line {number}, found {line[:30]!r}"
    if len(line) != LINE_LENGTH or not line.isascii():
        return f"an element line has {LINE_LENGTH} ASCII characters, this one has {len(line)}"
    if line[-1] != str(checksum(line)):
        return f"the checksum is {line[-1]!r}, but the line adds up to {checksum(line)}; a character of it was changed"
    for column in _LINE_1_BLANKS if number == "1" else _LINE_2_BLANKS:
        if line[column - 1] != " ":
            return f"column {column} should be blank, found {line[column - 1]!r}"
    for name, first, last, pattern in _LINE_1_FIELDS if number == "1" else _LINE_2_FIELDS:
        field = line[first - 1 : last]
        if not pattern.fullmatch(field.rstrip()):
            where = f"column {first}" if first == last else f"columns {first} to {last}"
            return f"{where} should hold the {name}, found {field!r}"
    if number == "1" and abs(_assumed_decimal(line[53:61])) > MAX_BSTAR:
        limits = f"from {-MAX_BSTAR:g} to {MAX_BSTAR:g}"
        return f"columns 54 to 61 hold the drag term, which must be {limits}, not {line[53:61]}"
    for name, first, last, low, high in _LINE_1_RANGES if number == "1" else _LINE_2_RANGES:
        field = line[first - 1 : last]
        if not low <= float(field) <= high:
            return f"columns {first} to {last} hold the {name}, which must be from {low:.9g} to {high:.9g}, not {field}"
    return None if number == "1" else perigee_problem(float(line[52:63]), float(f"0.{line[26:33].replace(' ', '0')}"))


def _assumed_decimal(field: str) -> float:
    """A number whose point and base are left out: "-11606-4" → -0.11606e-4."""
    return float(f"{field[0].strip()}.{field[1:6]}e{field[6:]}")


def _catalogue(field: str) -> str:
    """A catalogue number without leading zeros or Alpha-5: "00005" → "5", "T0002" → "270002"."""
    high = field[0]
    return str(int(f"{10 + _ALPHA_5.index(high)}{field[1:]}" if high.isalpha() else field))


def _epoch_utc(line_1: str) -> datetime:
    """The year and the day of the year, from 1 for its first midnight, in UTC."""
    year = int(line_1[18:20])
    year += 1900 if year >= _FIRST_YEAR - 1900 else 2000
    return datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=float(line_1[20:32]) - 1.0)


def _place(line_number: int) -> str:
    return f":{line_number}"


def parse_tle(text: str) -> tuple[TleSet, ...]:
    """All element sets of a file, in order; of two and three lines, also mixed. Raises TleError with every problem."""
    lines = [(number, line.rstrip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    sets: list[TleSet] = []
    problems: list[tuple[str, str]] = []
    at = 0
    while at < len(lines):
        name = ""
        if not lines[at][1].startswith(("1 ", "2 ")):
            name = lines[at][1].removeprefix("0 ").strip()
            at += 1
        pair = lines[at : at + 2]
        if len(pair) < 2:
            problems.append((_place(lines[-1][0]), "the file ends in the middle of an element set"))
            break
        (number_1, line_1), (number_2, line_2) = pair
        problem_1 = _line_problem(line_1, "1")
        problem_2 = _line_problem(line_2, "2")
        at += 2
        if problem_1 is not None:
            problems.append((_place(number_1), problem_1))
        if problem_2 is not None:
            problems.append((_place(number_2), problem_2))
        if problem_1 is not None or problem_2 is not None:
            # After a broken line, go on where the next set surely begins.
            while at < len(lines) and lines[at][1].startswith("2 "):
                at += 1
        elif line_1[2:7] != line_2[2:7]:
            problems.append((_place(number_2), f"is of object {line_2[2:7]}, but the line before it of {line_1[2:7]}"))
        else:
            sets.append(TleSet(name, _catalogue(line_1[2:7]), _place(number_1), _epoch_utc(line_1), line_1, line_2))
    if not sets and not problems:
        problems.append((_place(1), "there is no element set in the file"))
    if problems:
        raise TleError(problems)
    return tuple(sets)
