"""Processes of this machine, as /proc tells of them: which is which, and whether it still lives."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

PROC = Path("/proc")


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if none of that id lives (proc(5), stat, field 22).

    With its id, it names a process for good: the id alone may be used again.
    """
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def command_line(pid: int) -> list[str]:
    """With which arguments a process was started; empty for one that has ended, and for the kernel's own."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return []
        raise


def all_processes() -> Sequence[int]:
    """The ids of all that are to be seen."""
    return [int(entry) for entry in os.listdir(PROC) if entry.isdecimal()]
