"""`skyrack plan`, `contacts` and `eclipses`, through the command line's own entry point."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from controller.cli.main import skyrack as skyrack_group
from controller.errors import InputError
from controller.planner import plan
from controller.scenario import Source
from controller.timeline_file import TimelineWriter, open_timeline
from tests.unit.conftest import Skyrack
from tests.unit.scenario.text import GOOD, WALKER, changed, parsed

# From the documentation of two-line element sets on CelesTrak.
VANGUARD = """\
VANGUARD 1
1 00005U 58002B   00179.78495062  .00000023  00000-0  28098-4 0  4753
2 00005  34.2682 348.7242 1859667 331.7664  19.3264 10.82419157413667
"""

ROOT = Path(__file__).parents[2]
INTERPOLATED_WITHIN_M = 0.01


def run(*arguments: str | Path) -> Result:
    """The command in this process; errors of ours pass through."""
    return CliRunner().invoke(skyrack_group, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """A small scenario's file."""
    path = tmp_path / "trial.toml"
    path.write_text(GOOD)
    return path


def test_all_that_plan_writes_is_one_sky(scenario: Path, tmp_path: Path) -> None:
    """--save, --out and --plot in one go; the saved timeline gives the same lines, contacts and eclipses."""
    saved, lines, page = tmp_path / "sky.npz", tmp_path / "sky.jsonl", tmp_path / "sky.html"
    done = run("plan", scenario, "--save", saved, "--out", lines, "--plot", page, "--between", "beijing", "suva")
    assert (done.exit_code, done.output) == (0, "")
    assert run("plan", scenario).stdout == run("plan", saved).stdout == lines.read_text()
    assert "beijing – suva" in page.read_text()
    for command in ("contacts", "eclipses"):
        for form in ("table", "csv", "json"):
            assert run(command, saved, "--format", form).stdout == run(command, scenario, "--format", form).stdout
    again = tmp_path / "again.npz"
    run("plan", saved, "--save", again)
    assert again.read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.npz", "sky.html", "sky.jsonl", "sky.npz", "trial.toml",
    ]  # fmt: skip


def test_start_and_duration_move_the_sky(scenario: Path, tmp_path: Path) -> None:
    """A plan from 30 s for 20 s has the places of the whole plan between; its file tells what it covers."""
    whole, part = (
        [json.loads(line) for line in run("plan", scenario, *options).stdout.splitlines()]
        for options in ((), ("--start", "30", "--duration", "20"))
    )
    assert [line["utc"] for line in part] == [line["utc"] for line in whole[3:6]]
    for name, node in part[1]["nodes"].items():
        assert node["r_ecef_m"] == pytest.approx(whole[4]["nodes"][name]["r_ecef_m"], abs=INTERPOLATED_WITHIN_M)
    saved = tmp_path / "part.npz"
    run("plan", scenario, "--start", "30", "--duration", "20", "--save", saved)
    with open_timeline(saved, verify=True) as opened:
        assert opened.timeline.t_s.tolist() == [30.0, 40.0, 50.0]
        assert (opened.scenario().start_s, opened.scenario().duration_s) == (30.0, 20.0)
    with pytest.raises(InputError, match="as it is"):
        run("contacts", saved, "--duration", "10")


def test_a_moved_file_still_finds_its_scenario(scenario: Path, tmp_path: Path) -> None:
    """The scenario's text is in the file: without the scenario's own file all works as before."""
    saved = tmp_path / "sky.npz"
    run("plan", scenario, "--save", saved)
    before = run("plan", saved).stdout
    scenario.unlink()
    (tmp_path / "elsewhere").mkdir()
    assert run("plan", saved.rename(tmp_path / "elsewhere" / "x.npz")).stdout == before


def test_a_saved_timeline_brings_its_element_sets(tmp_path: Path) -> None:
    """A scenario of an element file: its timeline is asked in full after the file has gone."""
    (tmp_path / "one.tle").write_text(VANGUARD)
    (tmp_path / "trial.toml").write_text(
        changed(f"walker = {{ {WALKER} }}", 'tle = "one.tle"').replace("2026-01-01", "2000-06-28")
    )
    saved = tmp_path / "sky.npz"
    run("plan", tmp_path / "trial.toml", "--save", saved)
    before = run("plan", saved).stdout
    assert "vanguard" in before
    (tmp_path / "one.tle").unlink()
    assert run("plan", saved).stdout == before
    with pytest.raises(InputError, match=r"one\.tle"):
        run("plan", tmp_path / "trial.toml")


def test_a_runs_folder_stands_for_its_timeline(scenario: Path, tmp_path: Path) -> None:
    """Every command about a sky takes the folder of a run; one that holds no timeline is told so."""
    folder = tmp_path / "a-run"
    folder.mkdir()
    with pytest.raises(InputError, match=r"a-run holds no timeline\.npz"):
        run("contacts", folder)
    run("plan", scenario, "--save", folder / "timeline.npz")
    assert run("contacts", folder).stdout == run("contacts", scenario).stdout
    assert run("plan", folder).stdout == run("plan", scenario).stdout


def test_a_scenario_that_names_other_nodes_now_is_told(tmp_path: Path) -> None:
    """What a saved timeline was computed from must still say the same."""
    path = tmp_path / "sky.npz"
    with TimelineWriter(path, Source("trial.toml", GOOD.replace("beijing", "peking"), tmp_path)) as writer:
        writer.finish(plan(parsed(GOOD), writer)).close()
    with pytest.raises(InputError, match=r"trial\.toml names other nodes now"):
        run("plan", path)


def test_contacts_are_chosen(scenario: Path) -> None:
    """By kind and by node; the table shows passes, and links between satellites when asked."""
    everything = json.loads(run("contacts", scenario, "--format", "json").stdout)
    assert {row["kind"] for row in everything} == {"isl", "gsl"}
    only = list(csv.DictReader(run("contacts", scenario, "--format", "csv", "--kind", "gsl").stdout.splitlines()))
    assert len(only) == sum(row["kind"] == "gsl" for row in everything)
    own = json.loads(run("contacts", scenario, "--format", "json", "--node", "suva").stdout)
    assert own == [row for row in everything if "suva" in (row["a"], row["b"])] != []
    assert "Ground" in run("contacts", scenario).stdout
    assert "suva" not in run("contacts", scenario, "--node", "beijing").stdout
    assert "sat-p00s01" in run("contacts", scenario, "--kind", "isl", "--node", "sat-p00s00").stdout
    assert run("contacts", scenario, "--kind", "isl", "--format", "ics").exit_code == 2
    with pytest.raises(InputError, match="did you mean 'beijing'"):
        run("contacts", scenario, "--node", "bejing")


def test_the_calendar_keeps_its_line_ends(scenario: Path) -> None:
    """CRLF reaches standard output as it is."""
    calendar = run("contacts", scenario, "--format", "ics").stdout_bytes
    assert calendar.startswith(b"BEGIN:VCALENDAR\r\n")
    assert calendar.count(b"\n") == calendar.count(b"\r\n")
    assert b"sat-p" in calendar


def test_eclipses_are_printed(scenario: Path) -> None:
    """Rows of one satellite, and none of a ground node."""
    rows = json.loads(run("eclipses", scenario, "--format", "json").stdout)
    assert rows
    name = rows[0]["node"]
    assert {
        row["node"] for row in json.loads(run("eclipses", scenario, "--format", "json", "--node", name).stdout)
    } == {name}
    assert json.loads(run("eclipses", scenario, "--format", "json", "--node", "suva").stdout) == []


def test_between_needs_a_plot(scenario: Path) -> None:
    """An option that would do nothing is refused."""
    assert run("plan", scenario, "--between", "beijing", "suva").exit_code == 2
    with pytest.raises(InputError, match="no node is called"):
        run("plan", scenario, "--plot", scenario.with_name("x.html"), "--between", "beijing", "nowhere")
    assert not list(scenario.parent.glob("x.html*"))


def test_a_file_that_cannot_be_written_is_named(scenario: Path, tmp_path: Path) -> None:
    """Each of the three, in one line."""
    for option in ("--out", "--save", "--plot"):
        with pytest.raises(InputError, match=r"cannot write .*absent.*: No such file or directory"):
            run("plan", scenario, option, tmp_path / "absent" / "file")


def test_a_broken_saved_timeline_is_one_message(skyrack: Skyrack, scenario: Path, tmp_path: Path) -> None:
    """Exit status 2, no traceback."""
    saved = tmp_path / "sky.npz"
    run("plan", scenario, "--save", saved)
    saved.write_bytes(saved.read_bytes()[:-100])
    done = skyrack("contacts", saved, exit_status=2)
    assert done.stdout == ""
    assert "cut short" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_enough_ends_the_plan_quietly(scenario: Path) -> None:
    """`skyrack plan … | head -1` says nothing and leaves no error."""
    scenario.write_text(GOOD.replace("step_s = 10.0", "step_s = 0.5"))
    command = f"set -o pipefail; {sys.executable} -m controller plan {scenario} | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["t_s"] == 0.0


def test_warnings_go_to_standard_error(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line each, beside and not in what is printed."""
    from controller import planner

    def with_warning(*arguments: object) -> tuple[str, ...]:
        return ("the elements are old", "a pass is shorter than a step")

    monkeypatch.setattr(planner, "_warnings", with_warning)
    for command in (("plan", scenario), ("contacts", scenario, "--format", "json")):
        done = run(*command)
        assert done.stderr.splitlines() == ["warning: the elements are old", "warning: a pass is shorter than a step"]
        assert np.all([json.loads(line) for line in done.stdout.splitlines()] if command[0] == "plan" else [True])
