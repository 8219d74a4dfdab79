"""What the controller must know after a kill -9: which jobs it took and why they are where they are, where objects lie,
and what it denied. One SQLite file in the run's own folder; what a call has written is on disk when it returns.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from controller.errors import SkyrackError
from protos.skyrack.v1 import controller_pb2, jobs_pb2, node_pb2, objects_pb2

FILE: Final = "controller.db"
_BUSY_S: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    request BLOB NOT NULL,      -- ViaSubmitRequest, as the client made it
    spec BLOB NOT NULL,         -- JobSpec, as it was handed over
    policy TEXT NOT NULL,       -- empty: the client named the node
    explanation BLOB NOT NULL,  -- Explanation, without its job
    stands TEXT NOT NULL        -- refused: no node was feasible | placed: it may be handed over | taken: acknowledged
                                -- | ended: final
) STRICT;
CREATE TABLE IF NOT EXISTS objects (
    object TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    terms BLOB NOT NULL         -- ObjectTerms
) STRICT;
CREATE TABLE IF NOT EXISTS holders (
    object TEXT NOT NULL,
    node TEXT NOT NULL,
    PRIMARY KEY (object, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS coded (
    object TEXT PRIMARY KEY,
    coded BLOB NOT NULL,        -- CodedObject, without how its fragments stand
    stands TEXT NOT NULL        -- placing: fragments are on their way | kept: all are kept | removing: they shall go
) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    number INTEGER PRIMARY KEY,
    event BLOB NOT NULL         -- AuditEvent
) STRICT;
"""
_KNOW_OBJECT: Final = """
INSERT INTO objects VALUES (?, ?, ?) ON CONFLICT (object) DO UPDATE SET terms = excluded.terms
"""
_Statement: TypeAlias = tuple[str, Sequence[Any]]


@dataclass(frozen=True)
class Entry:
    """A job that was handed in, and what was decided."""

    request: controller_pb2.ViaSubmitRequest
    spec: jobs_pb2.JobSpec
    explanation: controller_pb2.Explanation
    stands: str


@dataclass(frozen=True)
class KnownObject:
    """An object that the controller has seen, and where it lay when it was last heard of."""

    object: str
    size_bytes: int
    terms: objects_pb2.ObjectTerms
    at_nodes: tuple[str, ...]


@dataclass(frozen=True)
class Fragments:
    """An object that is kept as fragments."""

    coded: controller_pb2.CodedObject
    stands: str


class Journal:
    """One run's. Calls block until the disk has it; they may come from any thread."""

    def __init__(self, path: Path) -> None:
        """Open it, or a new one. Raises SkyrackError when that is not possible."""
        self._path, self._lock = path, threading.Lock()
        try:
            # Python 3.11 knows no autocommit mode: without an isolation level, transactions are begun by hand.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise SkyrackError(f"the journal {path} cannot be opened: {error}") from error

    def close(self) -> None:
        """Be done with it."""
        with self._lock:
            self._db.close()

    # --- jobs ---

    def job(self, job_id: str) -> Entry | None:
        """What is known of a job."""
        rows = self._rows("SELECT request, spec, explanation, stands FROM jobs WHERE id = ?", job_id)
        return _entry(rows[0]) if rows else None

    def open_jobs(self) -> list[Entry]:
        """Jobs that may be at a node and were not seen to end, oldest first."""
        rows = self._rows(
            "SELECT request, spec, explanation, stands FROM jobs WHERE stands IN ('placed', 'taken') ORDER BY rowid"
        )
        return [_entry(row) for row in rows]

    def policies(self) -> dict[str, str]:
        """How the nodes of jobs were chosen, where a policy did it."""
        return dict(self._rows("SELECT id, policy FROM jobs WHERE policy != ''"))

    def decide(self, entry: Entry) -> None:
        """Write down a job and its placement, in place of what an earlier one under its id was refused for."""
        row = (
            entry.spec.id,
            entry.request.SerializeToString(deterministic=True),
            entry.spec.SerializeToString(deterministic=True),
            entry.explanation.policy,
            entry.explanation.SerializeToString(),
            entry.stands,
        )
        self._write(("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?)", row))

    def stands(self, job_id: str, stands: str) -> None:
        """How a job stands from now on."""
        self._write(("UPDATE jobs SET stands = ? WHERE id = ?", (stands, job_id)))

    def forget(self, job_id: str) -> None:
        """Drop a job that its gateway did not take."""
        self._write(("DELETE FROM jobs WHERE id = ?", (job_id,)))

    # --- objects ---

    def known(self, name: str) -> KnownObject | None:
        """What is known of an object."""
        rows = self._rows("SELECT size_bytes, terms FROM objects WHERE object = ?", name)
        if not rows:
            return None
        ((size_bytes, terms),) = rows
        nodes = tuple(node for (node,) in self._rows("SELECT node FROM holders WHERE object = ? ORDER BY node", name))
        return KnownObject(name, size_bytes, objects_pb2.ObjectTerms.FromString(terms), nodes)

    def holds(self, node: str, objects: Iterable[objects_pb2.ObjectInfo]) -> None:
        """A node has these, whole. Where they may lie is not forgotten when the same bytes come without terms."""
        statements: list[_Statement] = []
        for info in objects:
            known = self.known(info.object)
            if known is not None and known.terms.jurisdictions and not info.terms.jurisdictions:
                info.terms.CopyFrom(known.terms)
            terms = info.terms.SerializeToString(deterministic=True)
            statements.append((_KNOW_OBJECT, (info.object, info.size_bytes, terms)))
            statements.append(("INSERT OR IGNORE INTO holders VALUES (?, ?)", (info.object, node)))
        self._write(*statements)

    def dropped(self, node: str, name: str) -> None:
        """A node has an object no more."""
        self._write(("DELETE FROM holders WHERE object = ? AND node = ?", (name, node)))

    # --- objects that are kept as fragments ---

    def coded(self, name: str) -> Fragments | None:
        """What is known of an object's fragments."""
        rows = self._rows("SELECT coded, stands FROM coded WHERE object = ?", name)
        return _fragments(rows[0]) if rows else None

    def all_coded(self) -> list[Fragments]:
        """All of which there are fragments, oldest first."""
        return [_fragments(row) for row in self._rows("SELECT coded, stands FROM coded ORDER BY rowid")]

    def keep_coded(self, coded: controller_pb2.CodedObject, stands: str) -> None:
        """How an object's fragments stand from now on."""
        row = (coded.object, coded.SerializeToString(deterministic=True), stands)
        self._write(("INSERT OR REPLACE INTO coded VALUES (?, ?, ?)", row))

    def forget_coded(self, name: str) -> None:
        """An object has no fragments any more."""
        self._write(("DELETE FROM coded WHERE object = ?", (name,)))

    # --- audit ---

    def denied(self, who: str, what: str, of: str, reason: str) -> None:
        """Write down that something was denied."""
        event = node_pb2.AuditEvent(at_unix_ns=time.time_ns(), kind="denied", who=who, what=what, of=of, reason=reason)
        self._write(("INSERT INTO audit (event) VALUES (?)", (event.SerializeToString(),)))

    def audit(self) -> list[node_pb2.AuditEvent]:
        """All that was denied, oldest first."""
        events = []
        for number, blob in self._rows("SELECT number, event FROM audit ORDER BY number"):
            events.append(node_pb2.AuditEvent.FromString(blob))
            events[-1].number = number
        return events

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._meaning():
            return self._db.execute(sql, values).fetchall()

    def _write(self, *statements: _Statement) -> None:
        """All of it, or nothing."""
        with self._lock, self._meaning():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    self._db.execute(sql, values)
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SkyrackError(f"the journal {self._path} cannot be used: {error}") from error


def _entry(row: tuple[Any, ...]) -> Entry:
    request, spec, explanation, stands = row
    return Entry(
        controller_pb2.ViaSubmitRequest.FromString(request),
        jobs_pb2.JobSpec.FromString(spec),
        controller_pb2.Explanation.FromString(explanation),
        stands,
    )


def _fragments(row: tuple[Any, ...]) -> Fragments:
    coded, stands = row
    return Fragments(controller_pb2.CodedObject.FromString(coded), stands)
