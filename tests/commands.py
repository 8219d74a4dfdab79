"""The real command line, on this machine or on one of a test's own, and what a run leaves where it ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT_S = 90.0
COMMAND_S = 240.0
SOURCE = Path(__file__).parents[1]


@dataclass(frozen=True)
class CommandLine:
    """Where commands run: through which command one gets there, and where its files are seen from here."""

    enter: tuple[str, ...] = ()
    root: Path = Path("/")

    def argv(self, *arguments: object) -> list[str]:
        """The command line of `skyrack …`."""
        source = ["env", f"PYTHONPATH={SOURCE}"]
        return [*self.enter, *source, sys.executable, "-m", "controller", *map(str, arguments)]

    def skyrack(
        self, *arguments: object, exit_status: int = 0, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, and hold its exit status to what is expected."""
        done = subprocess.run(
            self.argv(*arguments), capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd=cwd
        )
        assert done.returncode == exit_status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def document(self, *arguments: object) -> Any:
        """What a command answers as JSON."""
        return json.loads(self.skyrack(*arguments, "--json").stdout)

    def run(self, *argv: object) -> str:
        """What any other command prints there; it must succeed."""
        return subprocess.run(
            [*self.enter, *map(str, argv)], capture_output=True, text=True, timeout=COMMAND_S, check=True
        ).stdout

    def leftovers(self, run_id: str) -> list[str]:
        """Everything there that carries a run's id."""
        containers = self.run("docker", "ps", "-aq", "--filter", f"label=skyrack.run={run_id}").split()
        return containers + self.leftovers_but_nodes(run_id)

    def leftovers_but_nodes(self, run_id: str) -> list[str]:
        """Everything there that carries a run's id, and that no engine needs to be asked for."""
        run = self.root / "run"
        namespaces = [path.name for path in (run / "netns").glob(f"skyrack-{run_id}*")]
        folders = [
            str(path) for root in (run / "skyrack", self.root / "var/lib/skyrack") for path in root.glob(f"{run_id}*")
        ]
        processes = []
        for entry in (self.root / "proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended while we looked
            if run_id.encode() in command:
                processes.append(command.decode(errors="replace"))
        return namespaces + folders + processes

    def nothing_is_left(self, run_id: str) -> bool:
        """Whether nothing of a run is there."""
        return self.leftovers(run_id) == []


HERE = CommandLine()
"""This machine."""


def wait_until(what: str, condition: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Ask until it is so, or fail at the deadline."""
    deadline_mono_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline_mono_s, f"not within {wait_s} s: {what}"
        time.sleep(0.2)  # between two looks at a condition that has a deadline


def environment() -> dict[str, str]:
    """What a command that a test starts by itself needs to find this source."""
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


@contextmanager
def up(folder: Path, scenario: str) -> Iterator[str]:
    """A run of a scenario in nodes without an engine, by its id; it is taken down. `folder` has its record."""
    path = folder / "scenario.toml"
    path.write_text(scenario)
    said = HERE.skyrack("up", path, "--runtime", "namespace", "--out", folder / "record").stdout
    run_id = said.split()[1]
    try:
        yield run_id
    finally:
        HERE.skyrack("down", "--run", run_id)
