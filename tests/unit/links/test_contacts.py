from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest

from controller.links.contacts import contacts, contacts_csv, contacts_json
from controller.planner import plan
from controller.timeline import Timeline
from tests.unit.scenario.text import GOOD, parsed

COLUMNS = ["a", "b", "kind", "start_utc", "end_utc", "duration_s", "max_elevation_deg", "min_range_m"]


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    """Twenty minutes in steps of 10 s: several handovers."""
    return plan(parsed(GOOD.replace("duration_s = 60.0", "duration_s = 1200.0")))


def test_contacts_cover_exactly_the_steps_at_which_links_are_up(timeline: Timeline) -> None:
    """Each step's links are those whose contact it lies in; no link is higher or nearer than its contact says."""
    names = [node.name for node in timeline.nodes]
    rows = contacts(timeline)
    for step in range(len(timeline.t_s) - 1):
        at = timeline.epoch_utc + timedelta(seconds=float(timeline.t_s[step]))
        sky = timeline.sky(step)
        up = {(names[timeline.links.a[k]], names[timeline.links.b[k]]) for k in sky.link}
        assert {(c.a, c.b) for c in rows if c.start_utc <= at < c.end_utc} == up
        for k, range_m, elevation_deg in zip(sky.link, sky.range_m, sky.elevation_deg, strict=True):
            (contact,) = [
                c for c in rows if (c.a, c.b) == (names[timeline.links.a[k]], names[timeline.links.b[k]])
                and c.start_utc <= at < c.end_utc
            ]  # fmt: skip
            assert contact.min_range_m <= range_m + 0.001
            assert contact.max_elevation_deg is None or contact.max_elevation_deg >= elevation_deg - 0.0001
            assert (contact.max_elevation_deg is None) == bool(np.isnan(elevation_deg)) == (contact.kind == "isl")
    assert all(c.duration_s == (c.end_utc - c.start_utc).total_seconds() > 0.0 for c in rows)
    assert [(c.start_utc, c.a, c.b) for c in rows] == sorted((c.start_utc, c.a, c.b) for c in rows)


def test_a_ground_node_with_one_antenna_has_one_contact_at_a_time(timeline: Timeline) -> None:
    """Contacts of Beijing follow one another; there are several in 20 minutes."""
    own = [c for c in contacts(timeline) if "beijing" in (c.a, c.b)]
    assert len(own) >= 2
    assert all(before.end_utc <= after.start_utc for before, after in pairwise(own))


def test_csv_and_json_say_the_same(timeline: Timeline) -> None:
    """Both have the documented columns; times are UTC to the millisecond; an ISL's elevation is empty or null."""
    rows = contacts(timeline)
    from_csv = list(csv.DictReader(io.StringIO(contacts_csv(rows))))
    from_json = json.loads(contacts_json(rows))
    assert list(from_csv[0]) == list(from_json[0]) == COLUMNS
    assert from_csv[0]["start_utc"] == "2026-01-01T00:00:00.000Z"
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in from_json]
    assert from_csv == as_text


def test_no_links_no_contacts() -> None:
    """A sky without links has a header alone, and an empty list."""
    empty = plan(parsed(GOOD.split("[[ground]]")[0] + 'isl = { topology = "none" }\n'))
    assert contacts(empty) == []
    assert contacts_csv([]).splitlines() == [",".join(COLUMNS)]
    assert json.loads(contacts_json([])) == []
