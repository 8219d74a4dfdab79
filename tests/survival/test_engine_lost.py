"""The engine is killed under a run: within seconds it is told, and what is left then goes once an engine answers."""

from __future__ import annotations

import json
from pathlib import Path

from tests.survival.machine import Machine
from tests.survival.runs import foreground

NO_ENGINE = "Docker Engine does not run (nobody answers at /var/run/docker.sock): run `make setup`, or start it"


def test_a_killed_engine(machine: Machine, tmp_path: Path) -> None:
    """The nodes live on, but nobody can tell, enter or remove them: after some seconds of grace the run ends, and
    removes what needs no engine. `down` does its part, says what is missing, and finishes once the engine is back."""
    commands = machine.commands
    with foreground(machine, tmp_path) as run:
        machine.kill_engine()
        message = run.fails(exit_status=3)
        assert message == f"{NO_ENGINE}; `skyrack down --run {run.run_id}` removes what is left of it"
        assert commands.leftovers_but_nodes(run.run_id) == []
        run.recorded(message)
        assert "runtime-away" in {event["kind"] for event in run.events()}
    for arguments in (("down", "--run", run.run_id), ("down",), ("down", "--all"), ("status",)):
        done = commands.skyrack(*arguments, exit_status=2 if arguments == ("status",) else 3)
        (said,) = done.stderr.splitlines()
        assert said.startswith("skyrack: no run is up" if arguments == ("status",) else f"skyrack: {NO_ENGINE}")
    machine.start_engine()
    assert commands.leftovers(run.run_id) != []
    assert commands.skyrack("down", "--run", run.run_id).stdout == f"removed: {run.run_id}\n"
    assert commands.leftovers(run.run_id) == []


def test_down_while_the_engine_is_away(machine: Machine, tmp_path: Path) -> None:
    """`down` ends a run that has not noticed yet: the controller, delay line and panel are gone, and the record is
    whole. Without an id, it removes the rest once the engine is back."""
    commands = machine.commands
    with foreground(machine, tmp_path) as run:
        machine.kill_engine()
        done = commands.skyrack("down", "--run", run.run_id, exit_status=3)
        (said,) = done.stderr.splitlines()
        assert said.startswith(f"skyrack: {NO_ENGINE}")
        assert run.fails(exit_status=3).startswith(NO_ENGINE)
        assert commands.leftovers_but_nodes(run.run_id) == []
    assert json.loads((run.record / "summary.json").read_text())["run_id"] == run.run_id
    machine.start_engine()
    assert commands.skyrack("down").stdout == f"removed: {run.run_id}\n"
    assert commands.leftovers(run.run_id) == []


def test_an_engine_that_is_started_again_at_once(machine: Machine, tmp_path: Path) -> None:
    """An engine that starts ends the containers that it finds: the run has no node left, says so, and removes all."""
    with foreground(machine, tmp_path) as run:
        machine.kill_engine()
        machine.start_engine()
        message = run.fails(exit_status=1)
        assert message == "no node of the run lives any more: all their agents have ended"
        assert machine.commands.leftovers(run.run_id) == []
        run.recorded(message)
