"""What a run is asked for: a scenario, or a saved timeline that holds its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from controller.errors import InputError, MachineError, SkyrackError
from controller.launch import RunErrors, RunOptions, asked_for
from controller.planner import plan
from controller.scenario import load_scenario
from controller.scenario.load import read_source
from controller.timeline_file import TimelineWriter


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """20 s of the default preset, from half a minute after its epoch, as a file."""
    path = tmp_path / "sky.npz"
    scenario = load_scenario("iridium-66", 20.0, start_s=30.0)
    with TimelineWriter(path, read_source("iridium-66")) as writer:
        writer.finish(plan(scenario, writer)).close()
    return path


def test_a_scenario_takes_its_start_pace_and_duration_from_the_command_line() -> None:
    """Where options are given, they take the place of the file's."""
    _, scenario = asked_for(RunOptions("iridium-66", duration_s=20.0, start_s=30.0, time_scale=2.0))
    assert (scenario.duration_s, scenario.start_s, scenario.time_scale) == (20.0, 30.0, 2.0)
    _, scenario = asked_for(RunOptions("iridium-66"))
    assert (scenario.duration_s, scenario.start_s, scenario.time_scale) == (300.0, 0.0, 1.0)


def test_a_saved_timeline_is_enough(saved: Path) -> None:
    """It brings its scenario, with the start and duration that it was planned for; the pace is still to be chosen."""
    source, scenario = asked_for(RunOptions(None, timeline=saved, time_scale=4.0))
    assert source.text == read_source("iridium-66").text
    assert scenario.name == "iridium-66"
    assert (scenario.duration_s, scenario.start_s, scenario.time_scale) == (20.0, 30.0, 4.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scenario": "iridium-66"}, "leave SCENARIO out"),
        ({"duration_s": 10.0}, "leave --duration out"),
        ({"start_s": 10.0}, "leave --start out"),
    ],
)
def test_a_saved_timeline_has_its_own_start_and_duration(
    saved: Path, given: dict[str, float | str], words: str
) -> None:
    """Asking for another scenario or time of it is an error, not something that is passed over."""
    options = dataclasses.replace(RunOptions(None, timeline=saved), **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words):
        asked_for(options)


def test_a_run_of_nothing_is_an_error() -> None:
    """It says what to name."""
    with pytest.raises(InputError, match="--timeline"):
        asked_for(RunOptions(None))


def ended(*failures: tuple[SkyrackError, str], interrupt: bool = False) -> None:
    """A run in which these came one after another, each leaving something or nothing."""
    with RunErrors() as errors:
        for error, left in failures:
            with errors.kept(left):
                raise error
        if interrupt:
            raise KeyboardInterrupt


def test_what_ends_a_run_and_what_it_leaves_are_one_error() -> None:
    """Of the first one's kind; what came of it while the run ended is not told, unless something is left."""
    cause, busy = SkyrackError("the delay line ended"), MachineError("the engine does not answer")
    with pytest.raises(SkyrackError) as told:
        ended((cause, ""), (busy, "`down` removes it"), (SkyrackError("the report cannot be written"), ""))
    assert str(told.value) == "the delay line ended; the engine does not answer; `down` removes it"
    assert told.value.exit_status == 1


def test_an_error_that_comes_again_is_told_once() -> None:
    """As the cause, and as what leaves something; the broken record that ends a run ends its probes too."""
    with pytest.raises(SkyrackError) as told:
        ended(*((MachineError("the engine does not answer"), left) for left in ("", "`down` removes it")))
    assert str(told.value) == "the engine does not answer; `down` removes it"
    assert told.value.exit_status == 3
    full = SkyrackError("no space left")
    with pytest.raises(SkyrackError, match=r"^no space left$"):
        ended((full, ""), (full, "`down` removes it"))


def test_an_interrupted_run_that_leaves_something_says_so() -> None:
    """An interrupt alone stays one."""
    with pytest.raises(KeyboardInterrupt):
        ended(interrupt=True)
    with pytest.raises(SkyrackError, match="busy; `down` removes it"):
        ended((SkyrackError("busy"), "`down` removes it"), interrupt=True)
