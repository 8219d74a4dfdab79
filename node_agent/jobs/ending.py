"""How an attempt has ended: in figures, and in words for people."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from node_agent.jobs.kinds import Limits
from protos.skyrack.v1 import jobs_pb2

_OUT_OF_MEMORY = (b"MemoryError", b"Cannot allocate memory", b"std::bad_alloc")
_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ended:
    """How an attempt ended. Nothing of it stays but this, its outputs in the store, and its log."""

    succeeded: bool
    exit_status: int  # as a shell has it: 128 + signal
    signal: int  # 0 if none ended it
    reason: str
    stdout: bytes  # the end of each
    stderr: bytes
    outputs: list[jobs_pb2.JobOutput]
    usage: jobs_pb2.JobUsage


@dataclass(frozen=True)
class Report:
    """What the runner of modules tells besides an exit status."""

    fuel: int = 0
    reason: str = ""


def report_of(path: Path) -> Report:
    """Blocks. The job's own word: nothing else rests on it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            told = json.loads(file.read(_READ_BYTES))
        return Report(min(2**63 - 1, max(0, int(told["fuel"]))), str(told["reason"])[:4096])
    except (OSError, ValueError, KeyError, TypeError):
        return Report()


def reason_of(returncode: int, stderr: bytes, limits: Limits) -> str:
    """Why a program ended, for people."""
    if returncode < 0:
        name = _signal_name(-returncode)
        match -returncode:
            case signal.SIGXCPU:
                return f"over its limit of {limits.cpu_s} s of CPU"
            case signal.SIGXFSZ:
                return f"over its disk limit of {mib(limits.disk_bytes)}"
            case signal.SIGKILL:
                return "killed by SIGKILL (out of the node's memory?)"
        return f"killed by {name}"
    reason = f"exit status {returncode}"
    if returncode and any(words in stderr[-4096:] for words in _OUT_OF_MEMORY):
        reason += f": out of its memory limit of {mib(limits.memory_bytes)}"
    return reason


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names


def mib(size_bytes: int) -> str:
    """As people read it."""
    return f"{size_bytes / 2**20:.0f} MiB"
