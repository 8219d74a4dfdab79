"""The disk of a run's record is full: one message names the file and the reason, and the run leaves nothing else."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.record.read import read_record
from tests.survival.machine import Machine
from tests.survival.runs import SCENARIO, foreground

SIZE = "1m"


@pytest.fixture
def small_disk(machine: Machine, tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, which the machine alone has."""
    folder = tmp_path / "disk"
    folder.mkdir()
    machine.commands.run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder)
    yield folder
    machine.commands.run("umount", "--lazy", folder)


def fill(folder: Path) -> None:
    """Leave not a byte."""
    with (folder / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    assert shutil.disk_usage(folder).free == 0


def test_a_disk_that_fills_up_while_the_run_is_up(machine: Machine, tmp_path: Path, small_disk: Path) -> None:
    """The record ends with the last line that fitted whole, and can be read; no file of it is half there."""
    record = small_disk / "record"
    with foreground(machine, tmp_path, record) as run:
        fill(machine.seen(small_disk))
        message = run.fails(exit_status=1)
        files = ("events.jsonl", "samples.jsonl")
        assert message in {f"cannot write {record / name}: No space left on device" for name in files}
        assert machine.commands.leftovers(run.run_id) == []
    seen = machine.seen(record)
    assert {path.name for path in seen.iterdir()} == {"manifest.json", "timeline.npz", *files}
    for name in files:
        text = (seen / name).read_text()
        assert text.endswith("\n") or not text
        assert all(json.loads(line) for line in text.splitlines())
    assert read_record(seen).events[0].kind == "run-started"


def test_a_disk_that_is_full_from_the_start(machine: Machine, tmp_path: Path, small_disk: Path) -> None:
    """Nothing is started, and the folder of the record is not even begun."""
    fill(machine.seen(small_disk))
    scenario, record = tmp_path / "four.toml", small_disk / "record"
    scenario.write_text(SCENARIO)
    done = machine.commands.skyrack("run", scenario, "--out", record, exit_status=1)
    (message,) = done.stderr.splitlines()
    assert message == f"skyrack: cannot write {record / 'timeline.npz'}: No space left on device"
    assert [path.name for path in machine.seen(small_disk).iterdir()] == ["filler"]
    assert machine.runs() == []
