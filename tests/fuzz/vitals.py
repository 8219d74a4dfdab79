"""How an agent is: what it has open, and what it takes. Before and after, nothing of it may have grown by the calls."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.agent.fleet import Agent

ANSWERS_WITHIN_S: Final = 1.0
MORE_DESCRIPTORS: Final = 16
"""Connections of the callers themselves, and the journal's."""

MORE_THREADS: Final = 12
"""asyncio's pool and gRPC's make threads as they need them, and keep them."""

MORE_RESIDENT_BYTES: Final = 48 * 2**20
"""What the allocator keeps of the largest messages of several callers at once, besides what rows take in memory."""

_QUESTIONS: Final = 3
_ROW_BYTES: Final = 2_048  # of an object or a partial, in memory
_TROUBLE: Final = re.compile(r"Traceback|Exception ignored|was never awaited|was never retrieved|Fatal Python error")


@dataclass(frozen=True)
class Vitals:
    """Of one agent, at one moment."""

    pid: int
    descriptors: int
    kinds: str  # of descriptors: how many are sockets, pipes, …
    threads: int
    children: int
    resident_bytes: int
    folders: dict[str, int]  # how many files lie in each of its store's

    @classmethod
    def of(cls, agent: Agent) -> Vitals:
        """As they are now."""
        pid = agent.pid()
        process = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return cls(
            pid=pid,
            descriptors=len(os.listdir(process / "fd")),
            kinds=_kinds(process / "fd"),
            threads=int(status["Threads"]),
            children=_descendants(agent),
            resident_bytes=int(status["VmRSS"].split()[0]) * 1024,
            folders={folder.name: _files(folder) for folder in sorted(agent.store.iterdir()) if folder.is_dir()},
        )

    def grown_since(self, before: Vitals) -> Iterator[str]:
        """What is more than it may be."""
        if self.pid != before.pid:
            yield f"another agent lives: {self.pid}, which was {before.pid}"
        allowed_bytes = MORE_RESIDENT_BYTES + _ROW_BYTES * max(0, self.folders["objects"] - before.folders["objects"])
        bounds = {
            f"descriptors ({self.kinds})": (self.descriptors, before.descriptors + MORE_DESCRIPTORS),
            "threads": (self.threads, before.threads + MORE_THREADS),
            "children": (self.children, before.children),
            "bytes resident": (self.resident_bytes, before.resident_bytes + allowed_bytes),
            "files in scratch": (self.folders["scratch"], before.folders["scratch"]),
            "files in identity": (self.folders["identity"], before.folders["identity"] + 1),  # a key to come
        }
        for what, (now, most) in bounds.items():
            if now > most:
                yield f"{now} {what}, where {most} would be enough"

    def __str__(self) -> str:
        files = ", ".join(f"{name} {count}" for name, count in self.folders.items())
        return (
            f"pid {self.pid}, {self.descriptors} descriptors, {self.threads} threads, {self.children} processes, "
            f"{self.resident_bytes / 2**20:.1f} MiB resident, files: {files}"
        )


async def answers_in_s(agent: Agent) -> float:
    """How long it takes to say that it is well, at best: the machine may be busy. Raises AioRpcError if it does not."""
    took_s = []
    async with grpc.aio.insecure_channel(f"unix:{agent.control_socket}") as channel:
        for _ in range(_QUESTIONS):
            began_mono_s = time.monotonic()
            stub = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(service="skyrack.v1.Jobs"), timeout=20 * ANSWERS_WITHIN_S)
            took_s.append(time.monotonic() - began_mono_s)
    return min(took_s)


def journal_trouble(agent: Agent) -> str:
    """What SQLite finds wrong with an agent's journal; empty when nothing is."""
    with sqlite3.connect(f"file:{agent.store / 'journal.db'}?mode=ro", uri=True) as journal:
        (verdict,) = journal.execute("PRAGMA integrity_check").fetchone()
    journal.close()
    return "" if verdict == "ok" else str(verdict)


def troubles_told(agent: Agent) -> list[str]:
    """Where an agent's log tells of an exception that nobody expected: how often, what led to it, and what it was."""
    lines = agent.log.read_text(errors="replace").splitlines()
    stretches = [_stretch(lines, number) for number, line in enumerate(lines) if _TROUBLE.search(line)]
    counts = Counter(stretch[-1] for stretch in stretches)
    newest = {stretch[-1]: stretch for stretch in stretches}
    return [f"({counts[last]} times)\n" + "\n".join(stretch) for last, stretch in newest.items()]


def _stretch(lines: list[str], number: int) -> list[str]:
    """The line before, and from the line of this number to the last of its traceback."""
    end = number + 1
    while end < len(lines) - 1 and lines[end].startswith("  "):
        end += 1
    return lines[max(0, number - 1) : end + 1]


def _kinds(folder: Path) -> str:
    kinds: Counter[str] = Counter()
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):
            kinds[re.sub(r":?\[?\d+\]?$", "", os.readlink(entry))] += 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))


def _files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _descendants(agent: Agent) -> int:
    """How many processes the first process has started that live, or have not been waited for."""
    assert agent.process is not None
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
    own = Path(f"/proc/{agent.pid()}/task/{agent.pid()}/children").read_text().split()
    return len(children) + len(own)
