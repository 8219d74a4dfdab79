"""A constellation under load and faults keeps its promises: short runs of the chaos test, by their seeds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.commands import SOURCE

RUN_S = 900.0


@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_acknowledged_is_kept(seed: int) -> None:
    """Whatever befalls a run within half a minute, what it has acknowledged has come to an end with a reason, once, and
    nothing is damaged, lost or left over. (Long runs: `python -m tests.chaos.run --seed N --seconds S`.)"""
    argv = [sys.executable, "-m", "tests.chaos.run", "--seed", str(seed), "--seconds", "30", "--plan"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S, check=False, cwd=SOURCE)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert f"seed {seed}: 0 wrong" in done.stdout
