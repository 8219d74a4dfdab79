"""Two-line element sets as text: found, checked column by column, and taken apart into names and lines.

Format: Hoots and Roehrich, Spacetrack Report No. 3 (1980); columns as CelesTrak describes them. Numbers are turned into
an orbit by `elements`, which owns SGP4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE_LENGTH = 69


@dataclass(frozen=True)
class TleSet:
    """One object's elements, as text that has passed the checks."""

    name: str  # as printed; empty in a two-line set
    catalogue: str
    line_1: str
    line_2: str
    line_number: int  # of line_1 in its file, counted from 1


class TleError(ValueError):
    """Element sets that cannot be read. `problems` holds (line number, what is wrong) of each."""

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"line {number}: {message}" for number, message in problems))


# name of the field, its columns (counted from 1, as the format's description does), and what must stand there
_DIGITS = re.compile(r" *\d+")
_DECIMAL = re.compile(r" *[+-]?\d*\.\d*")
_EXPONENT = re.compile(r"[ +-]\d{5}[+-]\d")
_LINE_1_FIELDS = (
    ("epoch year", 19, 20, _DIGITS),
    ("epoch day", 21, 32, _DECIMAL),
    ("first derivative of mean motion", 34, 43, _DECIMAL),
    ("second derivative of mean motion", 45, 52, _EXPONENT),
    ("drag term", 54, 61, _EXPONENT),
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
            return f"columns {first} to {last} should hold the {name}, found {field!r}"
    return None


def parse_tle(text: str) -> tuple[TleSet, ...]:
    """All element sets of a file, in order; of two and three lines, also mixed. Raises TleError with every problem."""
    lines = [(number, line.rstrip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    sets: list[TleSet] = []
    problems: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        name = ""
        if not lines[at][1].startswith(("1 ", "2 ")):
            name = lines[at][1].removeprefix("0 ").strip()
            at += 1
        pair = lines[at : at + 2]
        if len(pair) < 2:
            problems.append((lines[-1][0], "the file ends in the middle of an element set"))
            break
        (number_1, line_1), (number_2, line_2) = pair
        problem_1 = _line_problem(line_1, "1")
        problem_2 = _line_problem(line_2, "2")
        at += 2
        if problem_1 is not None:
            problems.append((number_1, problem_1))
        if problem_2 is not None:
            problems.append((number_2, problem_2))
        if problem_1 is not None or problem_2 is not None:
            # After a broken line, go on where the next set surely begins.
            while at < len(lines) and lines[at][1].startswith("2 "):
                at += 1
        elif line_1[2:7] != line_2[2:7]:
            problems.append((number_2, f"is of object {line_2[2:7]}, but the line before it of {line_1[2:7]}"))
        else:
            sets.append(TleSet(name, line_1[2:7].strip(), line_1, line_2, number_1))
    if not sets and not problems:
        problems.append((1, "there is no element set in the file"))
    if problems:
        raise TleError(problems)
    return tuple(sets)
