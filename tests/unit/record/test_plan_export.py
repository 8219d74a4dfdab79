from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from controller.errors import InputError
from controller.faults import FaultSchedule
from controller.orbit.frames import ecef_to_geodetic
from controller.planner import plan
from controller.record.passing import pass_through
from controller.record.plan_export import block_lines, plan_lines
from controller.scenario.model import Fault
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
    found = steps(timeline, FaultSchedule((fault,), ((1,),)))
    for line in found:
        is_dark = 100.0 <= line["t_s"] < 150.0
        assert any("ring-p00s01" in (link["a"], link["b"]) for link in line["links"]) != is_dark


def test_blocks_do_not_show() -> None:
    """However the timeline is cut, the lines are the same."""
    assert list(plan_lines(hand_made(block_steps=7), NO_FAULTS)) == list(
        plan_lines(hand_made(block_steps=60), NO_FAULTS)
    )


def test_a_plan_passes_through_without_being_kept() -> None:
    """Lines made while the sky is computed are those of the whole timeline; its blocks are gone afterwards."""
    scenario = parsed(GOOD)
    whole = plan(scenario)
    faults = FaultSchedule.from_scenario(scenario, whole)
    lines: list[str] = []
    passed = pass_through(scenario, lambda sky: [lambda block: lines.extend(block_lines(sky, block, faults))])
    assert lines == list(plan_lines(whole, faults))
    assert passed.content_hash == whole.content_hash
    again: list[str] = []
    assert pass_through(whole, lambda sky: [lambda block: again.extend(block_lines(sky, block, faults))]) is whole
    assert again == lines


def test_a_block_that_has_passed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plan that passes, only the block at hand can be asked for."""
    monkeypatch.setattr("controller.expand._BLOCK_CELLS", 3 * 68 * 2)  # two steps a block
    seen: list[int] = []

    def look(sky: Timeline) -> list[Any]:
        def read(block: Any) -> None:
            assert np.array_equal(sky.sky(block.first_step).r_ecef_m, block.r_ecef_m[0], equal_nan=True)
            with pytest.raises(IndexError, match="still to come"):
                sky.sky(min(block.first_step + 2, 6) if block.first_step < 6 else 0)
            seen.append(block.first_step)

        return [read]

    pass_through(parsed(GOOD), look)
    assert seen == [0, 2, 4, 6]


def test_an_impossible_sky_is_an_input_error() -> None:
    """What planning refuses, passing through refuses too, before anything is read."""
    text = GOOD + '\n[[fault]]\nkind = "blackout"\ntarget = "sat-p00s00~sat-p03s00"\nat_s = 1.0\nduration_s = 2.0\n'
    with pytest.raises(InputError, match="fault"):
        pass_through(parsed(text), lambda sky: [lambda block: pytest.fail(str(block))])
