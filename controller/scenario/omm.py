"""Orbit Mean-Elements Messages as text, in JSON, XML and CSV: found, and every field of every object checked.

Format: CCSDS 502.0-B-3, "Orbit Data Messages" (2023), section 4, and its XML form CCSDS 505.0-B-3; keys and number
formats as CelesTrak and Space-Track write them. Unlike a TLE it has room for catalogue numbers of nine digits.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn, TypeAlias
from xml.parsers import expat

from controller.scenario.element_sets import (
    MAX_BSTAR,
    SGP4_EPHEMERIS_TYPES,
    ElementSet,
    ElementSetError,
    perigee_problem,
)


@dataclass(frozen=True)
class OmmSet(ElementSet):
    """One object's mean elements as SGP4 takes them, in the units of the message."""

    mean_motion_rev_day: float  # Kozai's
    eccentricity: float
    inclination_deg: float
    raan_deg: float
    argument_of_perigee_deg: float
    mean_anomaly_deg: float
    bstar_per_earth_radius: float


class OmmError(ElementSetError):
    """Orbit mean-elements messages that cannot be read."""


Fields: TypeAlias = Mapping[str, object]
"""What a file says of one object: keys and values, of whatever type the format has."""

# Key, least and largest value. Mean motion: at the ground it is 17 a day, at the Moon one in 27 days.
_NUMBERS = (
    ("MEAN_MOTION", 0.01, 20.0),
    ("ECCENTRICITY", 0.0, 0.999_999_999),
    ("INCLINATION", 0.0, 180.0),
    ("RA_OF_ASC_NODE", -360.0, 360.0),
    ("ARG_OF_PERICENTER", -360.0, 360.0),
    ("MEAN_ANOMALY", -360.0, 360.0),
    ("BSTAR", -MAX_BSTAR, MAX_BSTAR),
)
# What the message may leave out, but must not say otherwise: SGP4's elements are in TEME, about the Earth, in UTC.
_GIVENS = (
    ("CENTER_NAME", ("EARTH",)),
    ("REF_FRAME", ("TEME",)),
    ("TIME_SYSTEM", ("UTC",)),
    ("MEAN_ELEMENT_THEORY", ("SGP4", "SGP/SGP4")),
    ("EPHEMERIS_TYPE", SGP4_EPHEMERIS_TYPES),
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_CATALOGUE = re.compile(r"\d{1,9}", re.ASCII)
_EPOCH = re.compile(r"(\d{4})-(?:(\d\d)-(\d\d)|(\d{3}))T(\d\d):(\d\d):(\d\d(?:\.\d+)?)Z?", re.ASCII)
_SHOWN = 40  # characters of a wrong value


class _FieldError(Exception):
    """What is wrong with one object."""


def parse_omm(text: str, extension: str) -> tuple[OmmSet, ...]:
    """All objects of a file, in order; `extension` is ".json", ".xml" or ".csv". Raises OmmError with every problem."""
    sets: list[OmmSet] = []
    problems: list[tuple[str, str]] = []
    for place, fields in _READERS[extension](text):
        try:
            sets.append(_omm_set(place, fields))
        except _FieldError as error:
            name = fields.get("OBJECT_NAME")
            shown = f"{_show(name)}: " if isinstance(name, str) and name else ""
            problems.append((place, f"{shown}{error}"))
    if not sets and not problems:
        problems.append(("", "there is no object in the file"))
    if problems:
        raise OmmError(problems)
    return tuple(sets)


def _omm_set(place: str, fields: Fields) -> OmmSet:
    """One object. Raises _FieldError with its first wrong field."""
    name = fields.get("OBJECT_NAME") or ""
    if not isinstance(name, str):
        raise _FieldError(f"OBJECT_NAME = {_show(name)}: must be text")
    for key, allowed in _GIVENS:
        given = fields.get(key)
        if given not in (None, "") and str(given).strip().upper() not in allowed:
            raise _FieldError(f"{key} = {_show(given)}: must be {allowed[0]}, as SGP4 takes it")
    found = OmmSet(
        name.strip(), _catalogue(fields), place, _epoch_utc(fields), *(_number(fields, *rule) for rule in _NUMBERS)
    )
    sunk = perigee_problem(found.mean_motion_rev_day, found.eccentricity)
    if sunk is not None:
        raise _FieldError(f"MEAN_MOTION, ECCENTRICITY: {sunk}")
    return found


def _required(fields: Fields, key: str) -> object:
    value = fields.get(key)
    if value is None or value == "":
        raise _FieldError(f"{key}: missing; SGP4 needs it")
    return value.strip() if isinstance(value, str) else value


def _number(fields: Fields, key: str, low: float, high: float) -> float:
    value = _required(fields, key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and _NUMBER.fullmatch(value)):
        raise _FieldError(f"{key} = {_show(value)}: must be a number")
    assert isinstance(value, int | float | str)
    # Compared before it becomes a float, which an integer of JSON may be too long for; not a number fails, too.
    compared = float(value) if isinstance(value, str) else value
    if not low <= compared <= high:
        raise _FieldError(f"{key} = {_show(value)}: must be from {low:.9g} to {high:.9g}")
    return float(compared)


def _catalogue(fields: Fields) -> str:
    value = _required(fields, "NORAD_CAT_ID")
    if isinstance(value, bool) or not isinstance(value, int | str) or not _CATALOGUE.fullmatch(_digits(value)):
        raise _FieldError(f"NORAD_CAT_ID = {_show(value)}: must be a whole number of one to nine digits")
    return str(int(value))


def _digits(value: int | str) -> str:
    return value if isinstance(value, str) else str(value) if abs(value) < 10**10 else "too long"


def _epoch_utc(fields: Fields) -> datetime:
    """EPOCH as a calendar date or a day of the year (CCSDS 301.0-B-4, time codes A and B)."""
    value = _required(fields, "EPOCH")
    found = _EPOCH.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        year, month, day, day_of_year, hour, minute, second = found.groups()
        midnight = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
        midnight += timedelta(days=int(day_of_year or 1) - 1)
        since = timedelta(hours=int(hour), minutes=int(minute), seconds=float(second))
        if midnight.year != int(year) or since >= timedelta(days=1) or not 1957 <= midnight.year <= 2200:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise _FieldError(
            f"EPOCH = {_show(value)}: must be an instant of the years 1957 to 2200, such as 2026-01-01T12:00:00.000000"
        ) from error
    return midnight + since


def _show(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return f"a number of more than {_SHOWN} digits"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _objects_of_json(text: str) -> Iterator[tuple[str, Fields]]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise OmmError([(f":{error.lineno}", f"not JSON: {error.msg}, in column {error.colno}")]) from error
    except (ValueError, RecursionError) as error:
        raise OmmError([("", f"not JSON that can be read: {error}")]) from error
    for i, item in enumerate(document if isinstance(document, list) else [document], 1):
        if not isinstance(item, dict):
            raise OmmError([(f", object {i}", f"must be a table of keys in braces, found {_show(item)}")])
        yield f", object {i}", item


def _objects_of_csv(text: str) -> Iterator[tuple[str, Fields]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for row in reader:
            place = f":{reader.line_num}"
            if not row:
                continue
            if header is None:
                header = [key.strip() for key in row]
                if "NORAD_CAT_ID" not in header:
                    raise OmmError([(place, "the first line should name the columns, among them NORAD_CAT_ID")])
            elif len(row) != len(header):
                raise OmmError([(place, f"has {len(row)} values, but the first line names {len(header)} columns")])
            else:
                yield place, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise OmmError([(f":{reader.line_num}", f"not CSV: {error}")]) from error


def _objects_of_xml(text: str) -> Iterator[tuple[str, Fields]]:
    """Each <segment>: what its innermost elements hold. A document type, and with it every entity, is refused."""
    objects: list[Fields] = []
    parser = expat.ParserCreate()
    parser.buffer_text = True
    segment: dict[str, object] | None = None
    words: list[str] = []

    def start(tag: str, _attributes: dict[str, str]) -> None:
        nonlocal segment
        words.clear()
        if tag == "segment":
            segment = {}

    def end(tag: str) -> None:
        nonlocal segment
        if tag == "segment" and segment is not None:
            objects.append(segment)
            segment = None
        elif segment is not None and words:
            segment[tag] = "".join(words).strip()
        words.clear()

    def refuse_document_type(*_declaration: object) -> NoReturn:
        raise OmmError([(f":{parser.CurrentLineNumber}", "has a document type (<!DOCTYPE …>), which no OMM needs")])

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = words.append
    parser.StartDoctypeDeclHandler = refuse_document_type
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise OmmError([(f":{error.lineno}", f"not XML: {what}, in column {error.offset + 1}")]) from error
    return ((f", object {i}", fields) for i, fields in enumerate(objects, 1))


_READERS: dict[str, Callable[[str], Iterator[tuple[str, Fields]]]] = {
    ".json": _objects_of_json,
    ".xml": _objects_of_xml,
    ".csv": _objects_of_csv,
}
EXTENSIONS = tuple(_READERS)
