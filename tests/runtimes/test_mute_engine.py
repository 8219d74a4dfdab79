"""Runs in namespaces on a machine whose Docker Engine is not to be spoken to: they need none, to end or to go on."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import HERE

SCENARIO = """
name = "two"
epoch = 2026-01-01T00:00:00Z
duration_s = 300.0

[[constellation]]
name = "sat"
walker = { pattern = "star", total = 2, planes = 1, phasing = 0, altitude_m = 10_000_000, inclination_deg = 90.0 }
isl = { topology = "ring" }
"""
RUNS = Path("/run/skyrack")
DEADLINE_S = 20.0
LEFT = "Docker Engine does not run (nobody answers at {}): run `make setup`, or start it; nodes of it may be left\n"


@pytest.fixture
def run_id(tmp_path: Path) -> Iterator[str]:
    """A run of two nodes, up; nothing of it stays."""
    (tmp_path / "two.toml").write_text(SCENARIO)
    said = HERE.skyrack("up", tmp_path / "two.toml", "--runtime", "namespace", "--out", tmp_path / "record").stdout
    run_id = said.split()[said.split().index("run") + 1]
    yield run_id
    if (RUNS / run_id).exists():
        HERE.skyrack("down", "--run", run_id)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The socket of an engine that has ended."""
    path = tmp_path / "stopped.sock"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
    return path


def kill_controller(run_id: str) -> None:
    """End it without a word, and wait until it has."""
    controller = os.pidfd_open(json.loads((RUNS / run_id / "run.json").read_text())["pid"])
    signal.pidfd_send_signal(controller, signal.SIGKILL)
    assert select.select([controller], [], [], DEADLINE_S)[0]
    os.close(controller)


def test_a_living_run_goes_without_a_word_to_an_engine(
    run_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody knocks at the engine's door."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "mute.sock"))
        door.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/mute.sock")
        assert HERE.skyrack("down", "--run", run_id).stdout == f"removed: {run_id}\n"
        assert not select.select([door], [], [], 0)[0]
    assert HERE.leftovers_but_nodes(run_id) == []


def test_a_killed_run_goes_on_and_goes(run_id: str, monkeypatch: pytest.MonkeyPatch, stopped: Path) -> None:
    """It is resumed, killed again, and removed, while the engine is stopped. Only of a run that nobody knows it
    is told that the engine may have something."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{stopped}")
    kill_controller(run_id)
    HERE.skyrack("up", "--resume", run_id, "--runtime", "namespace")
    assert len(HERE.document("status", "--run", run_id)["nodes"]) == 2
    kill_controller(run_id)
    done = HERE.skyrack("down", "--run", run_id)
    assert (done.stdout, done.stderr) == (f"removed: {run_id}\n", "")
    assert HERE.leftovers_but_nodes(run_id) == []
    unknown = HERE.skyrack("down", "--run", run_id, exit_status=3)
    assert (unknown.stdout, unknown.stderr) == ("", f"skyrack: {LEFT.format(stopped)}")
