"""The processes of a job, found by a mark in their environment: those too that left the group or lost their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_ROUNDS = 100
_ROUND_S = 0.01


def marked(mark: bytes) -> list[int]:
    """Ids of living processes that were started with this `NAME=value` in their environment."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and mark in _environment(entry)]


def kill_marked(mark: bytes) -> None:
    """Kill all of them, and those that they start meanwhile. Blocks until none lives, a second at most.

    Raises TimeoutError if some outlive that (stuck in the kernel).
    """
    for _ in range(_ROUNDS):
        pids = marked(mark)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_ROUND_S)
    raise TimeoutError(f"processes {pids} outlive SIGKILL")


def _environment(pid: str) -> list[bytes]:
    try:
        return Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []  # ended meanwhile, or another user's: not ours
