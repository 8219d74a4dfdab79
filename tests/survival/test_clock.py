"""A step of the clock, in User-Mode Linux: the only clock that a test may set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 150


def test_a_run_does_not_notice_that_the_clock_is_set() -> None:
    """Pacing, delays, round trips and the record are as if nothing had happened; see clock_steps.py."""
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/survival/clock_steps.py"]
    guest = subprocess.run(
        ["deploy/uml-run", "--timeout", str(TIMEOUT_S), *suite],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=TIMEOUT_S + 60,
    )  # fmt: skip
    assert guest.returncode == 0, guest.stdout
    assert "skipped" not in guest.stdout
