"""The processes of a job, found by a mark in their environment: those too that left the group or lost their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
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


class Orphans:
    """What lost its parent and ended: the first process of a process namespace inherits it, and must wait for it.

    The agent's own children are left to those who started them: they announce a start before, and name the child after.
    """

    def __init__(self) -> None:
        self._starting = 0
        self._own: set[int] = set()

    @contextlib.contextmanager
    def starting(self) -> Iterator[Callable[[int], None]]:
        """Around the start of a child, which is then named."""
        self._starting += 1
        try:
            yield self._own.add
        finally:
            self._starting -= 1

    def ended(self, pid: int) -> None:
        """One of the agent's own has been waited for."""
        self._own.discard(pid)
        self.reap()

    def reap(self) -> None:
        """Wait for every orphan that has ended, without waiting."""
        if self._starting:  # who of them all is a child of ours is not known yet
            return
        for pid in _zombie_children() - self._own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _zombie_children() -> set[int]:
    """Children of this process that have ended."""
    own, found = str(os.getpid()), set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:2]
            if (state, parent) == ("Z", own):
                found.add(int(entry))
    return found


def _environment(pid: str) -> list[bytes]:
    try:
        return Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []  # ended meanwhile, or another user's: not ours
