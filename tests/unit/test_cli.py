"""The commands that change nothing, through the command line's own entry point, and the examples of the README."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from controller.scenario import Source, parse_scenario
from tests.unit.conftest import Skyrack

ROOT = Path(__file__).parents[2]


def test_plan_prints_a_json_line_a_step() -> None:
    """`skyrack plan` has the fields of the contract, step by step, and says nothing else in a pipe."""
    command = [sys.executable, "-m", "controller", "plan", "iridium-66", "--duration", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert [step["t_s"] for step in steps] == [0.0, 1.0, 2.0]
    assert all(step["utc"].endswith("Z") for step in steps)
    assert len(steps[0]["nodes"]) == 71
    assert steps[0]["nodes"]["beijing"].keys() == {
        "r_ecef_m", "latitude_deg", "longitude_deg", "altitude_m", "illumination_ratio",
    }  # fmt: skip
    for link in steps[0]["links"]:
        assert link.keys() == {"a", "b", "kind", "range_m", "delay_us", "rate_bps", "loss_ratio", "elevation_deg"}
        assert link["a"] < link["b"]
        assert (link["elevation_deg"] is None) == (link["kind"] == "isl")
        assert link["delay_us"] == round(link["range_m"] / 299_792_458 * 1e6)


def test_plan_leaves_no_half_file_where_it_cannot_write(skyrack: Skyrack, tmp_path: Path) -> None:
    """A folder that is not there is the user's mistake, told in one line."""
    done = skyrack("plan", "iridium-66", "--duration", "2", "--out", tmp_path / "absent" / "plan.jsonl", exit_status=2)
    assert re.fullmatch(r"skyrack: cannot write .*plan\.jsonl: No such file or directory\n", done.stderr)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_contacts_have_the_columns_of_the_contract(skyrack: Skyrack, form: str) -> None:
    """`skyrack contacts` names the eight columns first, as CSV and as JSON, then what else a contact is worth."""
    text = skyrack("contacts", "iridium-66", "--duration", "60", "--format", form).stdout
    columns = ["a", "b", "kind", "start_utc", "end_utc", "duration_s", "max_elevation_deg", "min_range_m"]
    found = text.splitlines()[0].split(",") if form == "csv" else list(json.loads(text)[0])
    assert found == [*columns, "max_range_rate_m_s", "max_doppler_hz", "volume_bytes"]


def test_init_writes_a_preset_once(skyrack: Skyrack, tmp_path: Path) -> None:
    """What `init` writes is a scenario; what is there is not overwritten."""
    path = tmp_path / "mine.toml"
    skyrack("init", "iridium-66", "--out", path)
    parse_scenario(Source("mine.toml", path.read_text(), tmp_path))
    assert "exists already" in skyrack("init", "iridium-66", "--out", path, exit_status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "no-such.toml"), "no-such.toml"),
        (("plan", "iridium-66", "--duration", "-1"), "duration_s"),
        (("plan",), "Missing argument"),
        (("fly",), "No such command"),
        (("submit", "--via", "x"), "--script"),
    ],
)
def test_wrong_input_is_one_message_and_status_2(skyrack: Skyrack, arguments: tuple[str, ...], message: str) -> None:
    """No traceback, nothing on standard output."""
    done = skyrack(*arguments, exit_status=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_scenario_of_the_readme_is_valid() -> None:
    """A reader who copies the first scenario gets what the text says: four satellites, a gateway and a terminal."""
    (text,) = re.findall(r"^```toml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    scenario = parse_scenario(Source("four.toml", text, ROOT))
    assert scenario.node_names == ("sat-p00s00", "sat-p00s01", "sat-p00s02", "sat-p00s03", "quito", "mumbai")


def test_the_command_line_is_read_by_one_thread() -> None:
    """Until a command is chosen nothing is imported that starts threads: only then may a user enter namespaces."""
    look = "import os, sys, controller.cli; print('numpy' in sys.modules, len(os.listdir('/proc/self/task')))"
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout == "False 1\n"
