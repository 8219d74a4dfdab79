from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from controller.record.map_plot import coastline
from controller.record.read import FaultWindow
from controller.record.sky_series import (
    contact_spans,
    cut_at_antimeridian,
    footprint_deg,
    links_per_step,
    masked,
    of_kind,
    until,
)
from controller.timeline import LinkKind
from tests.unit.record.sample_run import SampleRun


def test_a_line_over_the_antimeridian_is_cut_where_it_crosses() -> None:
    """A line eastwards over 180° ends at the one edge and goes on at the other, at the latitude between its ends."""
    longitudes, latitudes = cut_at_antimeridian(np.array([170.0, 178.0, -178.0]), np.array([0.0, 10.0, 14.0]))
    assert longitudes == [170.0, 178.0, 180.0, None, -180.0, -178.0]
    assert latitudes == [0.0, 10.0, 12.0, None, 12.0, 14.0]


def test_a_line_westwards_over_the_antimeridian_is_cut_too() -> None:
    """The same the other way round, with the crossing nearer to one end."""
    longitudes, latitudes = cut_at_antimeridian(np.array([-179.0, 177.0]), np.array([0.0, 8.0]))
    assert longitudes == [-179.0, -180.0, None, 180.0, 177.0]
    assert latitudes == [0.0, 2.0, None, 2.0, 8.0]


def test_contact_spans_hold_every_contact_once(sample_run: SampleRun) -> None:
    """Walked step by step, each ground link lies in exactly one span, and spans of one pair never touch."""
    timeline = sample_run.timeline
    expected = set()
    for step in range(len(timeline.t_s)):
        link = timeline.sky(step).link
        for a, b, kind in zip(timeline.links.a[link], timeline.links.b[link], timeline.links.kind[link], strict=True):
            if kind == LinkKind.GSL:
                expected.add((max(int(a), int(b)), min(int(a), int(b)), step))
    spans = contact_spans(timeline)
    covered = [(s.ground, s.satellite, step) for s in spans for step in range(s.first, s.last + 1)]
    assert len(covered) == len(set(covered))
    assert set(covered) == expected
    assert all((s.ground, s.satellite, s.last + 1) not in expected for s in spans)
    assert all(s.start_s == timeline.t_s[s.first] for s in spans)


def test_a_fault_masks_the_links_of_its_node_while_it_lasts(sample_run: SampleRun) -> None:
    """In a blackout of beijing just its one ground link is missing, from the start and until the end of the fault."""
    timeline = sample_run.timeline
    fault = FaultWindow("beijing", "blackout", "silent", 60.0, 90.0)
    every = np.ones(len(timeline.link), np.bool_)
    lost = links_per_step(timeline, every) - links_per_step(timeline, ~masked(timeline, [fault]))
    assert np.array_equal(lost, ((timeline.t_s >= 60) & (timeline.t_s < 90)).astype(int))


def test_a_fault_of_a_link_masks_that_link_alone(sample_run: SampleRun) -> None:
    """A fault on "a~b" takes the one link between the two."""
    timeline = sample_run.timeline
    row = int(timeline.link[0])
    names = [timeline.nodes[int(ends[row])].name for ends in (timeline.links.a, timeline.links.b)]
    rows = masked(timeline, [FaultWindow("~".join(names), "blackout", "silent", 0.0, 5.0)])
    assert rows.sum() == 5
    assert set(timeline.link[rows].tolist()) == {row}


def test_kinds_add_up(sample_run: SampleRun) -> None:
    """ISLs and GSLs together are all links of a step."""
    timeline = sample_run.timeline
    total = sum(links_per_step(timeline, of_kind(timeline, kind)) for kind in LinkKind)
    assert np.array_equal(total, np.diff(timeline.step_start))


def test_a_run_that_ended_early_is_drawn_to_its_end_only(sample_run: SampleRun) -> None:
    """Cut at 100.4 s, steps 0 to 100 are left, each with the links that it had."""
    timeline = until(sample_run.timeline, 100.4)
    assert len(timeline.t_s) == 101
    assert timeline.r_ecef_m.shape[1] == timeline.illumination_ratio.shape[1] == 101
    assert np.array_equal(timeline.sky(100).delay_us, sample_run.timeline.sky(100).delay_us)
    assert len(timeline.link) == timeline.step_start[-1]


def test_footprint_is_where_the_elevation_equals_the_mask() -> None:
    """Seen from the station, a satellite over any point of the circle stands just at the mask."""
    ground_m, satellite_m, mask_deg = 6_371_000.0, 7_158_000.0, 10.0
    longitude_deg, latitude_deg = footprint_deg(64.15, -21.94, ground_m, satellite_m, mask_deg)

    def unit(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        lat, lon = np.radians(latitude), np.radians(longitude)
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)

    up = unit(np.array(64.15), np.array(-21.94))
    sight_m = satellite_m * unit(latitude_deg, longitude_deg) - ground_m * up
    elevation_deg = np.degrees(np.arcsin(sight_m @ up / np.linalg.norm(sight_m, axis=-1)))
    assert elevation_deg == pytest.approx(np.full(181, mask_deg), abs=1e-6)


def test_the_coastline_is_a_map_of_the_land() -> None:
    """Rings stay on the map, none jumps over the antimeridian, and the land is where it is known to be."""
    longitudes, latitudes = coastline()
    rings: list[list[tuple[float, float]]] = [[]]
    for longitude, latitude in zip(longitudes, latitudes, strict=True):
        if longitude is None or latitude is None:
            rings.append([])
        else:
            rings[-1].append((longitude, latitude))
    rings = [ring for ring in rings if ring]
    assert all(-180 <= x <= 180 and -90 <= y <= 90 for ring in rings for x, y in ring)
    assert all(abs(p[0] - q[0]) < 180 or p[1] == q[1] == -90 for ring in rings for p, q in pairwise(ring))

    def on_land(x: float, y: float) -> bool:
        inside = False
        for ring in rings:
            for (x0, y0), (x1, y1) in pairwise(ring):
                if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
                    inside = not inside
        return inside

    assert on_land(116.6, 40.1)  # Beijing
    assert on_land(36.8, -1.3)  # Nairobi
    assert on_land(0.0, -80.0)  # Antarctica
    assert on_land(-178.0, 66.5)  # Chukotka, beyond the antimeridian
    assert not on_land(-30.0, 30.0)  # the Atlantic
    assert not on_land(51.0, 42.0)  # the Caspian, a hole in the land
