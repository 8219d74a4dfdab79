from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from controller.faults import FaultSchedule
from controller.orbit.frames import ecef_to_geodetic
from controller.record.flat_map import coastline, cut_at_antimeridian, footprint_deg
from controller.record.read import FaultWindow
from controller.record.sky_series import blocks, contact_spans, masked, places, series, until
from controller.scenario.fault_model import Fault, Region
from controller.timeline import LinkKind, NodeEnd
from tests.unit.hand_made import timeline as hand_made
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
    """Walked step by step, each ground link lies in exactly one span; spans have their contacts' exact times."""
    timeline = sample_run.timeline
    expected = set()
    for step in range(timeline.n_step):
        link = timeline.sky(step).link
        for a, b, kind in zip(timeline.links.a[link], timeline.links.b[link], timeline.links.kind[link], strict=True):
            if kind == LinkKind.GSL:
                expected.add((max(int(a), int(b)), min(int(a), int(b)), step))
    spans = contact_spans(timeline)
    covered = [(s.ground, s.satellite, step) for s in spans for step in range(s.first, s.last + 1)]
    assert len(covered) == len(set(covered))
    # The last instant belongs to contacts that the end of the run cuts off, which have no length left there.
    assert {row for row in expected if row[2] < timeline.n_step - 1} == set(covered)
    for span in spans:
        assert timeline.t_s[span.first] >= span.start_s - 0.01
        assert timeline.t_s[span.last] < span.end_s


def test_a_fault_masks_the_links_of_its_node_while_it_lasts(sample_run: SampleRun) -> None:
    """In a blackout of beijing just its one ground link is missing, from the start and until the end of the fault."""
    timeline = sample_run.timeline
    found = series(timeline, [FaultWindow("beijing", "blackout", "silent", 60.0, 90.0)])
    assert np.array_equal(found.gsl - found.gsl_usable, ((timeline.t_s >= 60) & (timeline.t_s < 90)).astype(int))
    assert np.array_equal(found.isl, found.isl_usable)


def test_a_fault_of_a_link_masks_that_link_alone(sample_run: SampleRun) -> None:
    """A fault on "a~b" takes the one link between the two."""
    timeline = sample_run.timeline
    link = timeline.sky(0).link
    names = [timeline.nodes[int(ends[link[0]])].name for ends in (timeline.links.a, timeline.links.b)]
    fault = FaultWindow("~".join(names), "blackout", "silent", 0.0, 5.0)
    now, r_ecef_m = np.zeros(len(link), np.int64), timeline.sky(0).r_ecef_m[np.newaxis]
    assert link[masked(timeline, link, now, np.array([0.0]), r_ecef_m, [fault])].tolist() == [link[0]]
    assert not masked(timeline, link, now, np.array([5.0]), r_ecef_m, [fault]).any()
    found = series(timeline, [fault])
    assert (found.isl + found.gsl - found.isl_usable - found.gsl_usable).sum() == 5


@pytest.mark.parametrize(
    "where",
    [
        {"target": "plane:ring-p00"},
        {"region": Region(latitude_deg=0.0, longitude_deg=-78.5, radius_m=2_500_000.0)},
        {"target": "quito"},
    ],
)
def test_the_record_masks_what_the_run_masked(where: dict[str, Any]) -> None:
    """Usable links told from a recorded window are those that the schedule left, step by step, whatever the target."""
    timeline = hand_made()
    fault = Fault(kind="blackout", at_s=100.0, duration_s=400.0, **where)
    planes = {"ring-p00": [node.name for node in timeline.nodes[: timeline.n_satellite]]}
    faults = FaultSchedule((fault,), timeline.nodes, planes)
    found = series(timeline, [FaultWindow(fault.label, fault.kind, "silent", 100.0, 500.0)])
    expected = [
        int(faults.masked(float(t_s), timeline, sky).usable.sum())
        for t_s, sky in zip(timeline.t_s, timeline.skies(), strict=True)
    ]
    assert (found.isl_usable + found.gsl_usable).tolist() == expected
    assert np.count_nonzero(found.isl + found.gsl > expected) > 0


def test_series_count_every_link_and_every_satellite(sample_run: SampleRun) -> None:
    """ISLs and GSLs together are all links of a step; lit, half lit and dark satellites are all satellites."""
    timeline = sample_run.timeline
    found = series(timeline, [])
    assert (found.isl + found.gsl).tolist() == [len(sky.link) for sky in timeline.skies()]
    assert set((found.in_sun + found.in_penumbra + found.in_umbra).tolist()) == {66}
    sky = timeline.sky(200)
    assert found.in_umbra[200] == np.sum(sky.illumination_ratio[:66] <= 0.001)


def test_a_satellite_that_is_gone_is_neither_lit_nor_dark() -> None:
    """After a node's end one satellite less is counted, and it has no place."""
    timeline = hand_made(node_ends=(NodeEnd(2, 333.25, "decayed"),))
    found = series(timeline, [])
    total = found.in_sun + found.in_penumbra + found.in_umbra
    assert total[33] == 6
    assert total[34] == 5
    assert np.isnan(places(timeline, np.array([34]), np.array([2])).latitude_deg).all()


def test_series_do_not_depend_on_blocks() -> None:
    """However a timeline is cut, its series and places are the same."""
    whole, cut = hand_made(block_steps=60), hand_made(block_steps=7)
    for name, values in vars(series(whole, [])).items():
        assert np.array_equal(values, vars(series(cut, []))[name]), name
    step, node = np.array([59, 3, 3, 28, 0]), np.array([0, 7, 1, 5, 2])
    found = places(cut, step, node)
    direct = ecef_to_geodetic(np.array([whole.sky(s).r_ecef_m[:, n] for s, n in zip(step, node, strict=True)]))
    assert np.array_equal(found.longitude_deg, direct.longitude_deg)
    assert np.array_equal(found.latitude_deg, direct.latitude_deg)


def test_a_run_that_ended_early_is_drawn_to_its_end_only() -> None:
    """Cut at 254 s of steps of 10 s, steps 0 to 25 are left in blocks and contacts, each with what it had."""
    whole = hand_made(block_steps=16)
    timeline = until(whole, 254.0)
    assert timeline.n_step == 26
    assert sum(block.n_step for block in blocks(timeline)) == 26
    assert np.array_equal(series(timeline, []).gsl, series(whole, []).gsl[:26])
    assert timeline.contacts.start_s.max() < 254.0
    assert timeline.contacts.end_s.max() == 254.0
    assert until(whole, 1e9) is whole


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
