"""The times of less than the whole Sun, for programs and people: rows, CSV, JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta

import numpy as np

from controller.record.rows import csv_text, json_text
from controller.timeline import BoolArray, Head, utc_text


@dataclass(frozen=True)
class Eclipse:
    """One interval during which a satellite sees less than the whole Sun, cut at the start and the end of the run."""

    node: str
    start_utc: datetime
    end_utc: datetime
    duration_s: float
    umbra_start_utc: datetime | None  # None where the Sun is never hidden whole
    umbra_end_utc: datetime | None
    umbra_duration_s: float
    beta_deg: float


COLUMNS = tuple(field.name for field in fields(Eclipse))


def eclipses(head: Head, nodes: Sequence[str] = ()) -> Iterator[Eclipse]:
    """All eclipses by satellite and start, or those of some nodes."""
    table, names = head.eclipses, [node.name for node in head.nodes]
    chosen: BoolArray = np.ones(len(table.satellite), np.bool_)
    if nodes:
        chosen &= np.isin(table.satellite, [i for i, name in enumerate(names) if name in frozenset(nodes)])

    def instant(value_s: float) -> datetime | None:
        return None if math.isnan(value_s) else head.epoch_utc + timedelta(seconds=float(value_s))

    for row in np.flatnonzero(chosen).tolist():
        start_s, end_s = float(table.start_s[row]), float(table.end_s[row])
        umbra_s = float(table.umbra_end_s[row] - table.umbra_start_s[row])
        yield Eclipse(
            node=names[table.satellite[row]],
            start_utc=head.epoch_utc + timedelta(seconds=start_s),
            end_utc=head.epoch_utc + timedelta(seconds=end_s),
            duration_s=round(end_s - start_s, 3),
            umbra_start_utc=instant(table.umbra_start_s[row]),
            umbra_end_utc=instant(table.umbra_end_s[row]),
            umbra_duration_s=0.0 if math.isnan(umbra_s) else round(umbra_s, 3),
            beta_deg=round(float(table.beta_deg[row]), 4),
        )


def eclipses_csv(rows: Iterator[Eclipse]) -> str:
    """A header line and a line an eclipse; without umbra its times are empty."""
    return csv_text(COLUMNS, map(_row, rows))


def eclipses_json(rows: Iterator[Eclipse]) -> str:
    """One document: a list with an object an eclipse."""
    return json_text(map(_row, rows))


def _row(eclipse: Eclipse) -> dict[str, object]:
    return {key: utc_text(value) if isinstance(value, datetime) else value for key, value in asdict(eclipse).items()}
