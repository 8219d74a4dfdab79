"""The contact plan for programs and people: rows, CSV, JSON, and a calendar."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta

import numpy as np

from controller.record.rows import csv_text, json_text
from controller.record.words import size, span
from controller.timeline import BoolArray, Head, LinkKind, utc_text

PRODUCT = "-//skyrack//contact plan//EN"
LINE_OCTETS = 75  # RFC 5545, section 3.1


@dataclass(frozen=True)
class Contact:
    """One interval during which two nodes are linked, as it is exported: the first eight fields are the contract's."""

    a: str
    b: str  # a sorts before b
    kind: str  # "isl" or "gsl"
    start_utc: datetime
    end_utc: datetime
    duration_s: float
    max_elevation_deg: float | None  # at the ground node; None for an ISL
    min_range_m: float
    max_range_rate_m_s: float
    max_doppler_hz: float | None  # None where no carrier is given
    volume_bytes: int

    def ground_first(self, grounds: frozenset[str]) -> tuple[str, str]:
        """Both ends, the ground node before the satellite."""
        return (self.b, self.a) if self.b in grounds else (self.a, self.b)


COLUMNS = tuple(field.name for field in fields(Contact))


def contacts(head: Head, kind: LinkKind | None = None, nodes: Sequence[str] = ()) -> Iterator[Contact]:
    """The contact plan in its own order: all of it, or of one kind, or of some nodes."""
    table, names = head.contacts, [node.name for node in head.nodes]
    chosen: BoolArray = np.ones(len(table.a), np.bool_)
    if kind is not None:
        chosen &= table.kind == int(kind)
    if nodes:
        index = [i for i, name in enumerate(names) if name in frozenset(nodes)]
        chosen &= np.isin(table.a, index) | np.isin(table.b, index)
    for row in np.flatnonzero(chosen).tolist():
        start_s, end_s = float(table.start_s[row]), float(table.end_s[row])
        yield Contact(
            a=names[table.a[row]],
            b=names[table.b[row]],
            kind=LinkKind(int(table.kind[row])).name.lower(),
            start_utc=head.epoch_utc + timedelta(seconds=start_s),
            end_utc=head.epoch_utc + timedelta(seconds=end_s),
            duration_s=round(end_s - start_s, 3),
            max_elevation_deg=_figure(table.max_elevation_deg[row], 4),
            min_range_m=round(float(table.min_range_m[row]), 3),
            max_range_rate_m_s=round(float(table.max_range_rate_m_s[row]), 3),
            max_doppler_hz=_figure(table.max_doppler_hz[row], 1),
            volume_bytes=int(table.volume_bytes[row]),
        )


def contacts_csv(rows: Iterator[Contact]) -> str:
    """A header line and a line a contact; an ISL's elevation is empty."""
    return csv_text(COLUMNS, map(_row, rows))


def contacts_json(rows: Iterator[Contact]) -> str:
    """One document: a list with an object a contact."""
    return json_text(map(_row, rows))


def contacts_ics(head: Head, rows: Iterator[Contact]) -> str:
    """The contacts of ground nodes as a calendar, RFC 5545; ISLs are left out. The same plan is the same text.

    A calendar knows whole seconds: start and end are the nearest ones, the exact times stand in the description.
    """
    grounds = frozenset(node.name for node in head.nodes[head.n_satellite :])
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:{PRODUCT}", "CALSCALE:GREGORIAN"]
    for contact in rows:
        if contact.kind != "gsl":
            continue
        ground, satellite = contact.ground_first(grounds)
        start = _whole_second(contact.start_utc)
        end = max(_whole_second(contact.end_utc), start + timedelta(seconds=1))
        elevation = "" if contact.max_elevation_deg is None else f", max {contact.max_elevation_deg:.0f}°"
        exact = f"{utc_text(contact.start_utc)} to {utc_text(contact.end_utc)} ({span(contact.duration_s)})"
        more = f"nearest {contact.min_range_m / 1e3:.1f} km\nup to {size(contact.volume_bytes)} one way"
        key = f"{ground}\n{satellite}\n{utc_text(contact.start_utc)}"
        lines += [
            "BEGIN:VEVENT",
            f"UID:{hashlib.sha256(key.encode()).hexdigest()[:32]}@skyrack",
            f"DTSTAMP:{_ics_instant(_whole_second(head.epoch_utc))}",
            f"DTSTART:{_ics_instant(start)}",
            f"DTEND:{_ics_instant(end)}",
            f"SUMMARY:{_ics_text(f'{ground}: {satellite}{elevation}')}",
            f"DESCRIPTION:{_ics_text(f'{exact}' + chr(10) + more)}",
            f"LOCATION:{_ics_text(ground)}",
            "TRANSP:TRANSPARENT",
            "END:VEVENT",
        ]
    lines.append("END:VCALENDAR")
    return "".join(f"{part}\r\n" for line in lines for part in _folded(line))


def _row(contact: Contact) -> dict[str, object]:
    row = asdict(contact)
    return {**row, "start_utc": utc_text(contact.start_utc), "end_utc": utc_text(contact.end_utc)}


def _figure(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(float(value), digits)


def _whole_second(instant: datetime) -> datetime:
    return (instant + timedelta(milliseconds=500)).replace(microsecond=0)


def _ics_instant(instant: datetime) -> str:
    """RFC 5545, section 3.3.5, form 2: UTC."""
    return f"{instant.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _ics_text(raw: str) -> str:
    """RFC 5545, section 3.3.11."""
    escaped = raw.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    return escaped.replace("\n", "\\n")


def _folded(line: str) -> Iterator[str]:
    """A line in parts of no more than 75 octets, every part after the first with one space before it; no character is
    taken apart."""
    part, octets = "", 0
    for character in line:
        size_octets = len(character.encode())
        if octets + size_octets > LINE_OCTETS:
            yield part
            part, octets = " ", 1
        part += character
        octets += size_octets
    yield part
