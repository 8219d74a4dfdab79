from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controller.faults import FaultSchedule
from controller.links.coverage import Grid, coverage
from controller.planner import plan, survey
from controller.record.look import plot_json
from controller.record.map_plot import sky_map, tracks_drawn
from controller.record.sky_page import SkyPage
from controller.record.sky_plots import contact_gantt, contacts_left_out
from controller.scenario import Scenario, load_scenario
from controller.schedule import Schedule
from controller.timeline import ContactTable
from tests.unit.hand_made import timeline as hand_made
from tests.unit.record.test_report import LOADERS, Page, parsed
from tests.unit.scenario.text import GOOD
from tests.unit.scenario.text import parsed as scenario_of

PAIRS = [("beijing", "nairobi"), ("iridium-p00s00", "suva")]
PLOT_LIMIT_BYTES = 3_000_000


def drawn(scenario: Scenario, pairs: list[tuple[str, str]], path: Path, warnings: tuple[str, ...] = ()) -> Page:
    """The page of a scenario, parsed."""
    sky = replace(survey(scenario), warnings=warnings)
    drawing = SkyPage(scenario, sky, FaultSchedule.from_scenario(scenario, sky), pairs)
    for block in sky.each_block():
        drawing.take(block)
    path.write_text(drawing.html(), encoding="utf-8")
    return parsed(path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of two minutes of the preset, with its blackout."""
    scenario = load_scenario("iridium-66", 120.0)
    return drawn(scenario, PAIRS, tmp_path_factory.mktemp("plan") / "plan.html", ("mind the <rain>",))


def test_the_page_has_its_plots_and_loads_nothing(page: Page) -> None:
    """Coverage, round trips, contacts and warnings, each plot with its place; no element that loads anything."""
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == ["coverage", "round-trips", "contacts", "warnings"]
    assert set(page.plots) == {"plot-coverage-share", "plot-coverage-mean", "plot-rtt", "plot-contacts"}
    assert {attributes["id"] for _, attributes in page.elements if attributes.get("class") == "plot"} == set(page.plots)
    assert not [tag for tag, _ in page.elements if tag in LOADERS]
    assert "mind the <rain>" in page.words


def test_round_trips_are_those_that_a_run_commands(page: Page) -> None:
    """Every point is the schedule's own round trip; in the blackout of an end there is none."""
    scenario = load_scenario("iridium-66", 120.0)
    timeline = plan(scenario)
    schedule = Schedule.of(timeline, FaultSchedule.from_scenario(scenario, timeline), PAIRS)
    traces = page.plots["plot-rtt"]["data"]
    assert [trace["name"] for trace in traces] == ["beijing – nairobi", "iridium-p00s00 – suva"]
    a, b = (np.array([schedule.index_of[pair[end]] for pair in PAIRS]) for end in (0, 1))
    for step in range(0, timeline.n_step, 5):
        expected = schedule.round_trips(schedule.at(step), a, b)
        for i, trace in enumerate(traces):
            assert trace["x"][step] == timeline.t_s[step]
            value = trace["y"][step]
            assert value == (None if expected.rtt_us[i] < 0 else pytest.approx(expected.rtt_us[i] / 1e3, abs=1e-3))
    dark = [y is None for x, y in zip(traces[0]["x"], traces[0]["y"], strict=True) if 60.0 <= x < 90.0]
    assert all(dark)
    assert page.plots["plot-rtt"]["layout"]["shapes"][0]["x0"] == 60.0


def test_the_map_shows_the_coverage_of_instants_over_the_whole_plan(page: Page) -> None:
    """Each cell's share and mean are those of 60 instants from the first to the last, above the lowest mask."""
    scenario = load_scenario("iridium-66", 120.0)
    timeline = plan(scenario)
    steps = np.unique(np.linspace(0, 120, 60).astype(int))
    r_ecef_m = np.stack([timeline.sky(step).r_ecef_m[:, :66] for step in steps])
    expected = coverage(Grid.of(2.0), min(g.min_elevation_deg for g in scenario.grounds), r_ecef_m)
    share, mean = (page.plots[f"plot-coverage-{name}"]["data"][0] for name in ("share", "mean"))
    assert np.allclose(share["z"], expected.share_ratio * 100, atol=1e-3)
    assert np.allclose(mean["z"], expected.mean_satellites, atol=1e-3)
    assert (share["x"], share["y"]) == (list(np.arange(-179.0, 180.0, 2.0)), list(np.arange(-89.0, 90.0, 2.0)))


def test_what_there_is_not_is_said(tmp_path: Path) -> None:
    """Without ground nodes there is neither a round trip nor a contact to draw, and words say so."""
    lonely = drawn(scenario_of(GOOD.split("[[ground]]")[0]), [], tmp_path / "plan.html")
    text = " ".join(lonely.words)
    assert "No two nodes to look at" in text
    assert "No ground node has a satellite above its mask" in text
    assert set(lonely.plots) == {"plot-coverage-share", "plot-coverage-mean"}


def test_plots_of_a_large_and_long_run_stay_bounded() -> None:
    """Many satellites, days and thousands of contacts make a map and a contacts' plot that a browser can hold."""
    timeline = hand_made(n_satellite=200, n_step=200, step_s=1_000.0, block_steps=50)
    table = vars(timeline.contacts)
    gsl = np.flatnonzero(timeline.contacts.kind == 1)
    many = np.concatenate((np.arange(len(table["a"])), np.tile(gsl, 3)))
    timeline = replace(timeline, contacts=ContactTable(**{name: column[many] for name, column in table.items()}))
    assert len(many) > 5_000
    figure = sky_map(timeline, {"quito": 10.0}, [])
    assert len(plot_json(figure)) < PLOT_LIMIT_BYTES
    assert 2 <= len(figure.frames) <= 31
    assert tracks_drawn(timeline) <= 150
    assert len(plot_json(contact_gantt(timeline, []))) < PLOT_LIMIT_BYTES
    assert "2,000 of" in contacts_left_out(timeline)
    assert contacts_left_out(hand_made()) == ""
