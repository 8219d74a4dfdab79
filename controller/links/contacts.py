"""The contact plan: for each two nodes, the intervals in which the timeline links them.

Resolution: the timeline's step. A contact starts at the first step at which the link is up, and ends at the first at
which it is not, or at the end of the timeline. Faults are no part of it: nobody plans them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta

import numpy as np

from controller.timeline import LinkKind, Timeline, utc_text


@dataclass(frozen=True)
class Contact:
    """One interval during which two nodes are linked."""

    a: str
    b: str  # a sorts before b
    kind: str  # "isl" or "gsl"
    start_utc: datetime
    end_utc: datetime
    duration_s: float
    max_elevation_deg: float | None  # at the ground node; None for an ISL
    min_range_m: float


def contacts(timeline: Timeline) -> list[Contact]:
    """All contacts, in order of start, then of names. A link that is up at the last instant only is none."""
    n_step, n_node = len(timeline.t_s), len(timeline.nodes)
    row_step = np.repeat(np.arange(n_step), np.diff(timeline.step_start))
    a, b = timeline.links.a[timeline.link], timeline.links.b[timeline.link]
    # The pair of nodes counts, not the ports through which they are joined.
    pair = a * n_node + b
    order = np.lexsort((row_step, pair))
    pair, row_step = pair[order], row_step[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(pair) != 0) | (np.diff(row_step) != 1)
    starts = np.flatnonzero(is_first)
    if not len(starts):
        return []
    ends = np.append(starts[1:], len(order))
    max_elevation_deg = np.maximum.reduceat(timeline.elevation_deg[order], starts)
    min_range_m = np.minimum.reduceat(timeline.range_m[order], starts)
    found = []
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        row = order[start]
        start_s = float(timeline.t_s[row_step[start]])
        end_s = float(timeline.t_s[min(int(row_step[end - 1]) + 1, n_step - 1)])
        is_isl = timeline.links.kind[timeline.link[row]] == LinkKind.ISL
        if end_s > start_s:
            found.append(
                Contact(
                    a=timeline.nodes[a[row]].name,
                    b=timeline.nodes[b[row]].name,
                    kind="isl" if is_isl else "gsl",
                    start_utc=timeline.epoch_utc + timedelta(seconds=start_s),
                    end_utc=timeline.epoch_utc + timedelta(seconds=end_s),
                    duration_s=round(end_s - start_s, 6),
                    max_elevation_deg=None if is_isl else round(float(max_elevation_deg[k]), 4),
                    min_range_m=round(float(min_range_m[k]), 3),
                )
            )
    return sorted(found, key=lambda contact: (contact.start_utc, contact.a, contact.b))


def _row(contact: Contact) -> dict[str, object]:
    row = asdict(contact)
    return {**row, "start_utc": utc_text(contact.start_utc), "end_utc": utc_text(contact.end_utc)}


def contacts_csv(rows: Sequence[Contact]) -> str:
    """A header line and a line a contact; an ISL's elevation is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Contact)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(contact) for contact in rows)
    return text.getvalue()


def contacts_json(rows: Sequence[Contact]) -> str:
    """One document: a list with an object a contact."""
    return json.dumps([_row(contact) for contact in rows], indent=1)
