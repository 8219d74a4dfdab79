"""Programs in nodes of either runtime are told of the sky as `plan` has it, jobs with the network among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.commands import HERE, wait_until
from tests.runtimes.test_placement import SCENARIO

ASK = (
    "import sys, urllib.request as r; "
    "print(r.urlopen('http://127.0.0.1:7071' + sys.argv[1], timeout=20).read().decode())"
)
WITHIN_M = 0.05
AT_S = 100.0


@dataclass(frozen=True)
class Run:
    """A run that is up."""

    run_id: str
    scenario: Path

    def document(self, command: str, *arguments: object) -> Any:
        """What a command answers of this run."""
        return HERE.document(command, "--run", self.run_id, *arguments)

    def told(self, node: str, path: str) -> Any:
        """What a program in a node is told."""
        argv = ("python3", "-c", ASK, path)
        return json.loads(HERE.skyrack("exec", "--run", self.run_id, node, "--", *argv).stdout)


@pytest.fixture
def run(kind: str, tmp_path: Path) -> Iterator[Run]:
    """A small sky in nodes of each kind."""
    scenario = tmp_path / "placed.toml"
    scenario.write_text(SCENARIO)
    said = HERE.skyrack("up", scenario, "--runtime", kind, "--out", tmp_path / "record").stdout
    made = Run(said.split()[1], scenario)
    yield made
    HERE.skyrack("down", "--run", made.run_id)


def test_programs_are_told_of_the_sky(run: Run) -> None:
    """Place and links at a moment, on the ground and in orbit, are those of the plan; a turned clock is known soon."""
    run.document("pause")
    run.document("seek", AT_S)
    wait_until("the clock is known", lambda: run.told("ring-p00s02", "/clock") == {"t_s": AT_S, "scale": 0.0})
    plan = HERE.skyrack("plan", run.scenario, "--start", AT_S, "--duration", 1.0).stdout
    line = json.loads(plan.splitlines()[0])
    assert line["t_s"] == AT_S
    for node in ("ring-p00s02", "quito"):
        wait_until("the clock is known", lambda node=node: run.told(node, "/clock")["t_s"] == AT_S)  # type: ignore[misc]
        place, expected = run.told(node, "/place"), line["nodes"][node]
        assert place["r_ecef_m"] == pytest.approx(expected["r_ecef_m"], abs=WITHIN_M)
        for key in ("latitude_deg", "longitude_deg"):
            assert place[key] == pytest.approx(expected[key], abs=1e-6)
        assert place["altitude_m"] == pytest.approx(expected["altitude_m"], abs=WITHIN_M)
        assert place["illumination_ratio"] == pytest.approx(expected["illumination_ratio"], abs=0.08)
        linked = {link["a"] if link["b"] == node else link["b"] for link in line["links"] if node in link.values()}
        assert {peer["peer"] for peer in run.told(node, "/peers")["peers"]} == linked != set()


def test_jobs_with_the_network_are_told_too(run: Run) -> None:
    """One that may use the network asks as any program does; one that may not is kept from this socket as from all."""
    asks = f'python3 -c "{ASK}" /clock'
    submit = ("submit", "--via", "quito", "--on", "ring-p00s01", "--command", asks, "--wait")
    told = json.loads(run.document(*submit, "--network")["stdout"])
    assert 0.0 < told["t_s"] < 600.0
    refused = HERE.skyrack(*submit, "--run", run.run_id, exit_status=1)
    assert "FAILED" in refused.stdout + refused.stderr
