"""What was denied, damaged or repaired here: a bounded list on disk, for who answers for the data.

    await audit.record(kind, who, what, of, reason)

Events that are equal are written as two: the first at once, and after a while how many more there were. Of different
denials of one caller at one call so many are told apart, and the rest counted: who is denied again and again cannot
push older events out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from node_agent.journal import Journal
from protos.skyrack.v1 import node_pb2

DENIED: Final = "denied"
KEPT_EVENTS: Final = 10_000
FLOOD_S: Final = 60.0
TOLD_APART: Final = 20

_PAGE_EVENTS = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY, at_unix_ns INTEGER NOT NULL, kind TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    of_what TEXT NOT NULL, reason TEXT NOT NULL
)
"""


class Audit:
    """The events of one node. Of one event loop."""

    def __init__(self, journal: Journal) -> None:
        journal.ensure(_SCHEMA)
        self._journal = journal
        self._more: dict[
            tuple[str, str, str, str, str], int
        ] = {}  # of newest events: how many that are equal came after
        self._settling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def record(self, kind: str, who: str, what: str, of: str, reason: str) -> None:
        """Keep an event. After: it is on disk, or counted with others that are equal. Raises Exhausted, DataLoss.

        `who` asked: a node's name, "emulator" or "unknown"; `what`: the call or the deed; `of`: the object or job.
        """
        event = (kind, who, what, of, reason)
        is_new = event not in self._more
        if is_new and kind == DENIED and sum(known[:3] == event[:3] for known in self._more) >= TOLD_APART:
            event = (kind, who, what, "", f"more than {TOLD_APART} times within {FLOOD_S:.0f} s")
        if event in self._more:
            self._more[event] += 1
            return
        self._more[event] = 0
        settling = asyncio.create_task(self._settle(event))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        await self._write(*event)

    async def events(self, after: int, *, follow: bool) -> AsyncIterator[node_pb2.AuditEvent]:
        """Those after a number, oldest first; with `follow`, new ones as they come."""
        while True:
            changed = self._changed
            rows = self._journal.read(
                "SELECT number, at_unix_ns, kind, who, what, of_what, reason FROM audit "
                "WHERE number > ? ORDER BY number LIMIT ?",
                (after, _PAGE_EVENTS),
            )
            for row in rows:
                names = ("number", "at_unix_ns", "kind", "who", "what", "of", "reason")
                yield node_pb2.AuditEvent(**dict(zip(names, row, strict=True)))
                after = row[0]
            if rows:
                continue
            if not follow:
                return
            await changed.wait()

    async def close(self) -> None:
        """Write down what has only been counted."""
        for settling in self._settling:
            settling.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)

    async def _settle(self, event: tuple[str, str, str, str, str]) -> None:
        try:
            await asyncio.sleep(FLOOD_S)
        finally:
            more = self._more.pop(event)
            if more:
                *which, reason = event
                await self._write(*which, f"{reason} (and {more} more within {FLOOD_S:.0f} s)")

    async def _write(self, *event: str) -> None:
        await self._journal.write(
            (
                "INSERT INTO audit (at_unix_ns, kind, who, what, of_what, reason) VALUES (?, ?, ?, ?, ?, ?)",
                (time.time_ns(), *event),
            ),
            ("DELETE FROM audit WHERE number <= (SELECT MAX(number) FROM audit) - ?", (KEPT_EVENTS,)),
        )
        self._changed.set()
        self._changed = asyncio.Event()
