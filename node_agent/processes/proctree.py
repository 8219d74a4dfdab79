"""The processes of a job: those too that left its session or lost their parent.

They are all that its user has; where jobs are no users of their own, those with the job's mark in their environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass

_NOBODY = 65534
_ROUNDS = 400
_ROUND_S = 0.005
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Tree:
    """One job's processes."""

    user: int | None  # theirs alone; None where jobs are no users of their own
    mark: str  # a NAME=value that they were started with

    def pids(self) -> list[int]:
        """Those that live now."""
        belongs = self._is_marked if self.user is None else self._is_the_users
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and belongs(entry)]

    def signal(self, number: int) -> None:
        """Signal all of them, and those that they start meanwhile. Before: the caller is the first process.

        Blocks until none lives (SIGKILL) or none runs (SIGSTOP), two seconds at most: raises TimeoutError if some are
        stuck in the kernel for longer.
        """
        wanted = {signal.SIGKILL: self.pids, signal.SIGSTOP: self._running}.get(signal.Signals(number), list)
        self._signal_once(number)
        for _ in range(_ROUNDS):
            left = wanted()
            if not left:
                return
            time.sleep(_ROUND_S)
            self._signal_once(number)
        raise TimeoutError(f"processes {left[:5]} do not heed {signal.Signals(number).name}")

    def memory_bytes(self) -> int:
        """What all of them have in memory, shared pages counted for each: never too little."""
        return sum(_resident_bytes(pid) for pid in self.pids())

    def proportional_bytes(self) -> int:
        """What all of them have in memory, shared pages counted once. Before: the caller is their user."""
        return sum(_proportional_bytes(pid) for pid in self.pids())

    def _signal_once(self, number: int) -> None:
        if self.user is None:
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return
        # To all at once, so that nobody is missed that is being forked. As their user, or it would reach the agent too;
        # but the real user is nobody, whose processes they cannot signal back.
        os.setresuid(_NOBODY, self.user, 0)
        try:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, number)
        finally:
            os.setresuid(0, 0, 0)

    def _running(self) -> list[int]:
        # One that waits in the kernel (D) stops before it runs again. Who has called vfork(2) waits so for its child,
        # which may be stopped before it lets its parent go.
        return [pid for pid in self.pids() if _state(pid) not in "TtD"]

    def _is_the_users(self, pid: str) -> bool:
        status = _read(f"/proc/{pid}/status")
        return f"\nUid:\t{self.user}\t".encode() in status and b"\nState:\tZ" not in status

    def _is_marked(self, pid: str) -> bool:
        return self.mark.encode() in _read(f"/proc/{pid}/environ").split(b"\0")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""  # ended meanwhile, or another user's: not ours


def _state(pid: int) -> str:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2][1:2].decode() or "T"


def _resident_bytes(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE_BYTES if fields else 0


def _proportional_bytes(pid: int) -> int:
    """As the kernel counts it; of a process that hides that, all that is resident."""
    rollup = _read(f"/proc/{pid}/smaps_rollup")
    found = [line.split()[1] for line in rollup.splitlines() if line.startswith((b"Pss:", b"SwapPss:"))]
    return sum(int(kib) for kib in found) * 1024 if found else _resident_bytes(pid)
