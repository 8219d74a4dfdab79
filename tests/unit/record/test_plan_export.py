from __future__ import annotations

import json
from typing import Any

import pytest

from controller.faults import FaultSchedule
from controller.orbit.frames import ecef_to_geodetic
from controller.planner import plan, survey
from controller.record.plan_export import plan_lines
from controller.scenario.fault_model import Fault
from controller.timeline import LinkKind, NodeEnd, Timeline
from tests.unit.hand_made import timeline as hand_made
from tests.unit.scenario.text import GOOD, parsed

NODE_KEYS = {"r_ecef_m", "latitude_deg", "longitude_deg", "altitude_m", "illumination_ratio"}
LINK_KEYS = {
    "a", "b", "kind", "range_m", "delay_us", "rate_bps", "loss_ratio", "elevation_deg",
}  # fmt: skip
NO_FAULTS = FaultSchedule((), ())


def steps(timeline: Timeline, faults: FaultSchedule = NO_FAULTS) -> list[dict[str, Any]]:
    """The lines, read."""
    return [json.loads(line, parse_constant=pytest.fail) for line in plan_lines(timeline, faults)]


def test_a_line_is_a_step_of_the_timeline() -> None:
    """Places, light and links are those of the step, rounded as documented; an ISL has no elevation."""
    timeline = hand_made(start_s=20.0)
    found = steps(timeline)
    assert len(found) == timeline.n_step
    assert (found[0]["t_s"], found[0]["utc"]) == (20.0, "2026-01-01T00:00:20.250Z")
    names = [node.name for node in timeline.nodes]
    for step in (0, 15, 16, 59):
        sky, line = timeline.sky(step), found[step]
        assert list(line["nodes"]) == names
        place = ecef_to_geodetic(sky.r_ecef_m.T)
        for i, node in enumerate(line["nodes"].values()):
            assert node.keys() == NODE_KEYS
            assert node["r_ecef_m"] == pytest.approx(sky.r_ecef_m[:, i], abs=6e-4)
            assert node["latitude_deg"] == pytest.approx(place.latitude_deg[i], abs=6e-9)
            assert node["altitude_m"] == pytest.approx(place.altitude_m[i], abs=6e-4)
            assert node["illumination_ratio"] == sky.illumination_ratio[i]
        assert [(k["a"], k["b"]) for k in line["links"]] == [
            (names[a], names[b])
            for a, b in zip(timeline.links.a[sky.link], timeline.links.b[sky.link], strict=True)
        ]  # fmt: skip
        for i, link in enumerate(line["links"]):
            assert link.keys() == LINK_KEYS
            assert link["a"] < link["b"]
            assert (link["delay_us"], link["rate_bps"]) == (sky.delay_us[i], sky.rate_bps[i])
            assert link["range_m"] == pytest.approx(sky.range_m[i], abs=6e-4)
            is_isl = timeline.links.kind[sky.link[i]] == LinkKind.ISL
            assert link["kind"] == ("isl" if is_isl else "gsl")
            assert link["loss_ratio"] == (0.0 if is_isl else 0.001)
            assert (link["elevation_deg"] is None) == is_isl


def test_a_node_is_absent_after_its_end() -> None:
    """A satellite that has decayed has neither place nor links; the others go on."""
    timeline = hand_made(node_ends=(NodeEnd(2, 333.25, "decayed"),))
    found = steps(timeline)
    gone = timeline.nodes[2].name
    for step, line in enumerate(found):
        assert (gone in line["nodes"]) == (step <= 33)
        assert len(line["nodes"]) == (8 if step <= 33 else 7)
        assert (any(gone in (k["a"], k["b"]) for k in line["links"])) == (step <= 33)


def test_what_a_fault_masks_is_absent() -> None:
    """The plan tells what is commanded: in a blackout of a node it has no links."""
    timeline = hand_made()
    fault = Fault(kind="blackout", target="ring-p00s01", at_s=100.0, duration_s=50.0)
    found = steps(timeline, FaultSchedule((fault,), timeline.nodes))
    for line in found:
        is_dark = 100.0 <= line["t_s"] < 150.0
        assert any("ring-p00s01" in (link["a"], link["b"]) for link in line["links"]) != is_dark


def test_blocks_do_not_show() -> None:
    """However the timeline is cut, the lines are the same."""
    assert list(plan_lines(hand_made(block_steps=7), NO_FAULTS)) == list(
        plan_lines(hand_made(block_steps=60), NO_FAULTS)
    )


def test_lines_of_a_sky_that_is_computed_as_it_is_asked_for() -> None:
    """They are those of the whole timeline that was kept."""
    scenario = parsed(GOOD)
    whole = plan(scenario)
    faults = FaultSchedule.from_scenario(scenario, whole)
    assert list(plan_lines(survey(scenario), faults)) == list(plan_lines(whole, faults))
