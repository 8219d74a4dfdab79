"""Finds silent corruption: reads objects from the disk, holds them against their names, has damaged ones made whole.

A thread of the lowest priority reads a few megabytes at a time. In the background it rests between them for so long
that it takes a small share of a core; all objects are looked at about once an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from node_agent.errors import Break, DataLoss, NotFound, Refusal
from node_agent.objects.catalog import Row
from node_agent.objects.store import ObjectStore
from node_agent.objects.stored_file import StoredFile

_log = logging.getLogger(__name__)

Heal: TypeAlias = Callable[[Row], Awaitable[str]]
"""Have a damaged object in the store again; from where, for people. Raises Break, Refusal, OSError."""

EVERY_S: Final = 3600.0
BACKGROUND_SHARE: Final = 0.02  # of a core
REPAIR_WAIT_S: Final = 10.0
"""How long a report waits for repairs. They go on after it."""

_PIECE_BYTES: Final = 4 * 1024 * 1024
_LOWEST_PRIORITY: Final = 19


class Audit(Protocol):
    """Where events go that who answers for the data must know of."""

    async def record(self, kind: str, who: str, what: str, of: str, reason: str) -> None:
        """Keep an event. After: it is on disk."""
        ...


class LoggedAudit:
    """Where the agent's log is all that events go to."""

    async def record(self, kind: str, who: str, what: str, of: str, reason: str) -> None:
        """Say it in the log."""
        _log.warning("%s: %s by %s: %s: %s", kind, of, who, what, reason)


@dataclass
class Report:
    """What a scrub has come to."""

    objects: int = 0
    read_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


class Scrubber:
    """Looks after the bytes of one store. Of one event loop."""

    def __init__(self, node: str, store: ObjectStore, audit: Audit, heal: Heal) -> None:
        self._node = node
        self._store = store
        self._audit = audit
        self._heal = heal
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="scrub", initializer=_step_back)
        self._repairs: dict[str, asyncio.Task[None]] = {}
        self._suspects: set[asyncio.Task[Report]] = set()

    async def run(self, every_s: float = EVERY_S) -> None:
        """Scrub in the background until cancelled. What is known to be damaged is tried again each time."""
        while True:
            for row in self._store.rows():
                if row.damaged:
                    self._repair(row.name)
            await asyncio.sleep(every_s * random.uniform(0.9, 1.1))  # noqa: S311 — jitter, no secret
            try:
                await self.scrub(share=BACKGROUND_SHARE)
            except (Refusal, OSError) as error:
                _log.error("scrubbing ended early: %s", error)

    async def scrub(self, name: str = "", share: float = 1.0) -> Report:
        """Hold one object, or all, against their names, and have repaired what is damaged. Raises NotFound, Exhausted.

        `share`: of a core, at most.
        """
        rows = [self._named(name)] if name else self._store.rows()
        report = Report()
        for row in rows:
            if not row.damaged and self._store.size_bytes(row.name) is not None:
                report.objects += 1
                wrong = await self._look_at(row.name, row.size_bytes, share, report)
                if wrong:
                    _log.error("%s is damaged: %s", row.name, wrong)
                    await self._store.set_aside(row.name)
                    await self._audit.record("damaged", self._node, "scrub", row.name, wrong)
            if self._store.is_damaged(row.name):
                report.damaged.append(row.name)
                self._repair(row.name)
        repairs = {task for name, task in self._repairs.items() if name in report.damaged}
        if repairs:
            await asyncio.wait(repairs, timeout=REPAIR_WAIT_S)
        report.repaired = [name for name in report.damaged if self._store.size_bytes(name) is not None]
        return report

    def suspect(self, name: str) -> None:
        """Look at an object soon: reading it went wrong."""
        task = asyncio.create_task(self.scrub(name), name=f"scrub {name}")
        self._suspects.add(task)
        task.add_done_callback(self._looked_at)

    async def close(self) -> None:
        """End what is under way."""
        tasks = [*self._repairs.values(), *self._suspects]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def _look_at(self, name: str, size_bytes: int, share: float, report: Report) -> str:
        """Read an object. What is wrong with its bytes; empty if nothing is."""
        sha256 = hashlib.sha256()
        loop = asyncio.get_running_loop()
        try:
            with self._store.reading(name) as file:
                for offset_bytes in range(0, size_bytes, _PIECE_BYTES):
                    length_bytes = min(_PIECE_BYTES, size_bytes - offset_bytes)
                    reading = loop.run_in_executor(self._reader, _read_piece, file, offset_bytes, length_bytes, sha256)
                    try:
                        took_s = await asyncio.shield(reading)
                    except asyncio.CancelledError:
                        await asyncio.wait({reading})  # it still has the file
                        raise
                    report.read_bytes += length_bytes
                    await asyncio.sleep(took_s * (1 / share - 1))
        except NotFound:
            return ""  # deleted since
        except (DataLoss, OSError) as error:
            return str(error)
        found = f"sha256:{sha256.hexdigest()}"
        return "" if found == name else f"its bytes hash to {found}"

    def _repair(self, name: str) -> None:
        """Have an object made whole from others, unless that is under way."""
        if name not in self._repairs:
            task = asyncio.create_task(self._mend(name), name=f"repair {name}")
            self._repairs[name] = task
            task.add_done_callback(lambda _: self._repairs.pop(name, None))

    async def _mend(self, name: str) -> None:
        row = self._store.row(name)
        if row is None:
            return  # deleted since
        try:
            source = await self._heal(row)
        except (Break, Refusal, OSError) as error:
            _log.warning("%s is damaged, and cannot be repaired now: %s", name, error)
            return
        if self._store.size_bytes(name) is not None:
            await self._audit.record("repaired", self._node, "scrub", name, source)

    def _named(self, name: str) -> Row:
        row = self._store.row(name)
        if row is None or not (row.damaged or self._store.size_bytes(name) is not None):
            raise NotFound(f"{name} is not (or not wholly) here")
        return row

    def _looked_at(self, task: asyncio.Task[Report]) -> None:
        self._suspects.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("%s: %s", task.get_name(), error)


def _step_back() -> None:
    """Everybody else goes first: on Linux, each thread has a priority of its own."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


def _read_piece(file: StoredFile, offset_bytes: int, length_bytes: int, sha256: hashlib._Hash) -> float:
    """Hash a piece as it is on the disk. How long it took, in seconds. Blocks."""
    started_s = time.monotonic()
    file.forget()
    sha256.update(file.read(offset_bytes, length_bytes))
    return time.monotonic() - started_s
