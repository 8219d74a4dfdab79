"""Runs in the foreground of the tests' own machine, each to meet a fault, and what is to be said of it then."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller.record.read import read_record
from tests.commands import wait_until
from tests.survival.machine import Machine

SCENARIO = """
name = "four"
epoch = 2026-01-01T00:00:00Z
duration_s = 900.0
step_s = 1.0

[[constellation]]
name = "ring"
walker = { pattern = "star", total = 4, planes = 1, phasing = 0, altitude_m = 20_000_000, inclination_deg = 86.4 }
isl = { topology = "ring", rate_bps = 100_000_000 }
"""
A, B, C, D = (f"ring-p00s0{slot}" for slot in range(4))
END_S = 40.0
RTT_TOLERANCE_US = 10_000  # of a user-space shaper on a machine that has other things to do


def up(machine: Machine, folder: Path) -> str:
    """Bring four satellites up in the background, with their record in `folder`; the run's id."""
    scenario = folder / "four.toml"
    scenario.write_text(SCENARIO)
    machine.commands.skyrack("up", scenario, "--shaper", "delay-line", "--out", folder / "record")
    run_id: str = machine.commands.document("status")["run_id"]
    return run_id


class Foreground:
    """`skyrack run` of four satellites, from when the sky moves."""

    def __init__(self, machine: Machine, process: subprocess.Popen[str], record: Path) -> None:
        self.machine, self.record, self._process = machine, machine.seen(record), process
        wait_until("the run is up", self._is_up)
        manifest = json.loads((self.record / "manifest.json").read_text())
        self.run_id: str = manifest["run_id"]

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._process.communicate()
        return any(event["kind"] == "run-started" for event in self.events())

    def events(self) -> list[dict[str, Any]]:
        """What the record has so far."""
        path = self.record / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def process_of(self, module: str) -> int:
        """The machine's id of the run's process that runs a module."""
        for entry in (self.machine.commands.root / "proc").glob("[0-9]*"):
            command = (entry / "cmdline").read_bytes()
            if module.encode() in command and self.run_id.encode() in command:
                return int(entry.name)
        raise AssertionError(f"no process of run {self.run_id} runs {module}")

    def fails(self, exit_status: int, within_s: float = END_S) -> str:
        """Wait for its end with this exit status. The one message that it ends with, and there is nothing else."""
        began_mono_s = time.monotonic()
        out, err = self._process.communicate(timeout=within_s + END_S)
        assert (self._process.returncode, out) == (exit_status, ""), err
        assert time.monotonic() - began_mono_s < within_s, "it took its time to end"
        (message,) = err.splitlines()
        assert message.startswith("skyrack: ")
        return message.removeprefix("skyrack: ")

    def recorded(self, message: str) -> None:
        """Hold the record to be whole, and to end with this reason."""
        (end,) = (event for event in read_record(self.record).events if event.kind == "run-ended")
        assert end.fields["reason"] in message
        assert {"summary.json", "report.html"} <= {path.name for path in self.record.iterdir()}


@contextmanager
def foreground(machine: Machine, folder: Path, record: Path | None = None) -> Iterator[Foreground]:
    """A run whose sky moves; ended, and what is left of it removed, whatever happens."""
    scenario, record = folder / "four.toml", record or folder / "record"
    scenario.write_text(SCENARIO)
    with subprocess.Popen(
        machine.commands.argv("run", scenario, "--shaper", "delay-line", "--out", record),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Foreground(machine, process, record)
        finally:
            if process.poll() is None:
                machine.commands.skyrack("down", "--all")
                process.kill()  # the way there, if what it led to has not ended
