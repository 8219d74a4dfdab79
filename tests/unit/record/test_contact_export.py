from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from controller.record.contact_export import COLUMNS, contacts, contacts_csv, contacts_ics, contacts_json
from controller.record.eclipse_export import eclipses, eclipses_csv, eclipses_json
from controller.record.words import size, span
from controller.timeline import Head, LinkKind
from tests.unit.hand_made import EPOCH_UTC, head

CONTRACT = ("a", "b", "kind", "start_utc", "end_utc", "duration_s", "max_elevation_deg", "min_range_m")


@pytest.fixture(scope="module")
def sky() -> Head:
    """Six satellites and two ground nodes for ten minutes."""
    return head()


def test_a_row_is_a_contact_of_the_plan(sky: Head) -> None:
    """Names, kind, instants and figures are those of the table, in its order; what does not exist is None."""
    rows = list(contacts(sky))
    table = sky.contacts
    assert len(rows) == len(table.a) == 12
    for i, row in enumerate(rows):
        assert (row.a, row.b) == (sky.nodes[table.a[i]].name, sky.nodes[table.b[i]].name)
        assert row.a < row.b
        assert (row.start_utc - EPOCH_UTC).total_seconds() == table.start_s[i]
        assert row.duration_s == (row.end_utc - row.start_utc).total_seconds()
        assert (row.kind == "isl") == (row.max_elevation_deg is None) == (row.max_doppler_hz is None)
        assert row.volume_bytes == table.volume_bytes[i]
    gsl = next(row for row in rows if row.kind == "gsl")
    assert (gsl.max_elevation_deg, gsl.min_range_m, gsl.max_range_rate_m_s, gsl.max_doppler_hz) == (
        47.25, 812_100.123, 6_543.21, 261_000.5,
    )  # fmt: skip


def test_csv_and_json_say_the_same(sky: Head) -> None:
    """Both begin with the contract's columns; times are UTC to the millisecond; an ISL's elevation is empty or null."""
    from_csv = list(csv.DictReader(io.StringIO(contacts_csv(contacts(sky)))))
    from_json = json.loads(contacts_json(contacts(sky)))
    assert tuple(from_csv[0]) == tuple(from_json[0]) == COLUMNS
    assert COLUMNS[:8] == CONTRACT
    assert COLUMNS[8:] == ("max_range_rate_m_s", "max_doppler_hz", "volume_bytes")
    assert from_csv[0]["start_utc"] == "2026-01-01T00:00:00.250Z"
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in from_json]
    assert from_csv == as_text


def test_contacts_are_chosen_by_kind_and_node(sky: Head) -> None:
    """One kind, or all in which one of some nodes takes part, or both."""
    assert {row.kind for row in contacts(sky, LinkKind.ISL)} == {"isl"}
    own = list(contacts(sky, nodes=["nairobi", "ring-p00s03"]))
    assert own == [row for row in contacts(sky) if {"nairobi", "ring-p00s03"} & {row.a, row.b}]
    assert list(contacts(sky, LinkKind.ISL, ["nairobi"])) == []


def test_no_contacts_are_a_header_and_an_empty_list(sky: Head) -> None:
    """A sky without links."""
    assert contacts_csv(iter(())).splitlines() == [",".join(COLUMNS)]
    assert json.loads(contacts_json(iter(()))) == []
    assert contacts_ics(sky, iter(())).split("\r\n")[-2:] == ["END:VCALENDAR", ""]


def events(text: str) -> list[dict[str, str]]:
    """The events of a calendar, its lines unfolded and its texts unescaped, after RFC 5545, section 3.1 and 3.3.11."""
    lines = re.sub(r"\r\n[ \t]", "", text).split("\r\n")
    assert lines[0] == "BEGIN:VCALENDAR"
    assert lines[-2:] == ["END:VCALENDAR", ""]
    found: list[dict[str, str]] = []
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        if line == "BEGIN:VEVENT":
            found.append({})
        elif found and line != "END:VEVENT":
            assert name not in found[-1]
            found[-1][name] = re.sub(r"\\(.)", lambda match: "\n" if match[1] in "nN" else match[1], value)
    assert text.count("BEGIN:VEVENT") == text.count("END:VEVENT") == len(found)
    return found


def test_the_calendar_is_one_after_rfc_5545(sky: Head) -> None:
    """Lines end in CRLF and have at most 75 octets; version and product are named; each event has what it must have."""
    text = contacts_ics(sky, contacts(sky))
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))
    assert "VERSION:2.0\r\n" in text
    assert "PRODID:" in text
    assert all({"UID", "DTSTAMP", "DTSTART", "DTEND", "SUMMARY"} <= set(event) for event in events(text))


def test_the_calendar_holds_the_contacts_of_ground_nodes(sky: Head) -> None:
    """Each GSL once: start and end to the nearest second in UTC, ground node before satellite, its own lasting UID."""
    found = events(contacts_ics(sky, contacts(sky)))
    rows = list(contacts(sky, LinkKind.GSL))
    assert len(found) == len(rows)
    for event, row in zip(found, rows, strict=True):
        for key, exact in (("DTSTART", row.start_utc), ("DTEND", row.end_utc)):
            instant = datetime.strptime(event[key], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            assert abs(instant - exact) <= timedelta(seconds=0.5)
        ground, satellite = sorted((row.a, row.b), key=lambda name: name.startswith("ring"))
        assert event["SUMMARY"] == f"{ground}: {satellite}, max 47°"
        assert event["DTSTAMP"] == "20260101T000000Z"
        assert "812.1 km" in event["DESCRIPTION"]
    assert len({event["UID"] for event in found}) == len(found)
    assert events(contacts_ics(sky, contacts(sky))) == found


def test_a_very_short_contact_is_a_second_in_the_calendar(sky: Head) -> None:
    """An event ends after its start, whatever rounding does."""
    (short,) = [replace(row, end_utc=row.start_utc + timedelta(milliseconds=20)) for row in contacts(sky)][-1:]
    (event,) = events(contacts_ics(sky, iter([short])))
    assert int(event["DTEND"][:-1].replace("T", "")) == int(event["DTSTART"][:-1].replace("T", "")) + 1


def test_long_lines_of_many_octets_are_folded_between_characters(sky: Head) -> None:
    """A name in another script is not taken apart."""
    (row,) = list(contacts(sky, LinkKind.GSL))[:1]
    named = replace(row, a="甘" * 40, b="肃" * 40)
    text = contacts_ics(sky, iter([named]))
    assert all(len(line.encode()) <= 75 for line in text.split("\r\n"))
    assert f"{'甘' * 40}: {'肃' * 40}" in events(text)[0]["SUMMARY"]


def test_eclipses_are_told_with_their_umbra(sky: Head) -> None:
    """Start, end, umbra and beta of each; a partial eclipse has no umbra; CSV and JSON say the same."""
    first, second = eclipses(sky)
    assert (first.node, first.duration_s, first.umbra_start_utc, first.umbra_duration_s) == (
        "ring-p00s00",
        40.0,
        None,
        0.0,
    )
    assert second.umbra_start_utc == EPOCH_UTC + timedelta(seconds=25.5)
    assert second.umbra_duration_s == float(np.ptp([25.5, sky.t_s[-1]]))
    assert (second.beta_deg, second.end_utc) == (-3.25, EPOCH_UTC + timedelta(seconds=float(sky.t_s[-1])))
    assert list(eclipses(sky, ["ring-p00s01"])) == [second]
    from_csv = list(csv.DictReader(io.StringIO(eclipses_csv(eclipses(sky)))))
    from_json = json.loads(eclipses_json(eclipses(sky)))
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in from_json]
    assert from_csv == as_text
    assert from_json[1]["umbra_start_utc"] == "2026-01-01T00:00:25.750Z"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (24_003_500, "24 MB"), (3.125e9, "3.12 GB"), (4e12, "4 TB")],
)
def test_bytes_in_words(value: float, text: str) -> None:
    """Three digits and a unit in powers of ten."""
    assert size(value) == text


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(0.25, "0.25 s"), (59.97, "59.97 s"), (727.4, "12 min 07 s"), (11_100, "3 h 05 min"), (187_200, "2 d 04 h")],
)
def test_spans_in_words(value_s: float, text: str) -> None:
    """Seconds up to a minute, then two units."""
    assert span(value_s) == text
