"""What must outlast the agent: one SQLite file, written by one thread. What was answered is on disk.

What is asked for while a commit is under way goes into the next one together: a sync to disk is shared by all who wait
for it. Each room keeps its own tables here, and says so with `ensure`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeAlias

from node_agent.errors import DataLoss, Exhausted, Refusal

_log = logging.getLogger(__name__)

Statement: TypeAlias = tuple[str, Sequence[Any]]

VERSION: Final = 1
"""Of the tables of all rooms together. A newer file is left alone; an older one would be brought up at the start."""

_CACHE_KIB: Final = 256
_LEFT_OF_LOG_BYTES: Final = 4 * 2**20
_ROOM_DEADLINE_S: Final = 30.0
_ROOM_POLL_S: Final = 0.5
_STOP: Final[list[Statement]] = []
# What the machine does to a file, told apart from what a statement does: an error's lowest byte (sqlite.org/rescode).
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NO_ROOM: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM}
)


class JournalError(Exception):
    """The journal is not for this agent. Says which file and why."""


class Journal:
    """The durable facts of one agent. No other process may have the file."""

    def __init__(self, path: Path) -> None:
        """Open it, or a new one. A damaged one is set aside as `.bad`. Raises JournalError, OSError."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = path
        self.damage = ""
        """What was wrong with the file that was found, if it was set aside."""
        try:
            self._writer = self._opened()
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGE:
                raise OSError(errno.EIO, str(error), str(path)) from error
            self.damage = str(error)
            _log.error("journal %s is damaged (%s); it is set aside as .bad", path, error)
            for suffix in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(path.with_name(f"{path.name}{suffix}.bad"))
            self._writer = self._opened()
        self._reader = _connection(path)
        self._asked: SimpleQueue[tuple[Sequence[Statement], Future[None]]] = SimpleQueue()
        self._thread = Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    def ensure(self, schema_sql: str) -> None:
        """Have these tables (CREATE TABLE IF NOT EXISTS …, one statement after the other). For the start: blocks.

        On a full disk, until there is room. Raises Exhausted when that takes too long, DataLoss.
        """
        statements = [(each, ()) for each in schema_sql.split(";") if each.strip()]
        deadline_mono_s = time.monotonic() + _ROOM_DEADLINE_S
        while True:
            try:
                self._ask(statements).result()
                break
            except Exhausted as full:
                _log.error("%s", full)
                if time.monotonic() > deadline_mono_s:
                    raise
                time.sleep(_ROOM_POLL_S)

    def write(self, *statements: Statement) -> asyncio.Future[None]:
        """Do all of it or nothing; what is asked for first is done first. When it has been waited for, it is on disk.

        A caller that is cancelled, or does not wait, leaves it to be written. Raises, when waited for, Exhausted when
        the disk takes no more, DataLoss when the file is damaged, sqlite3.Error for what is wrong with a statement;
        then nothing was done.
        """
        return asyncio.shield(asyncio.wrap_future(self._ask(statements)))

    def read(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """The rows of a query, among them all that was answered before. Of one thread. Raises DataLoss, Exhausted."""
        try:
            return self._reader.execute(sql, args).fetchall()
        except sqlite3.DatabaseError as error:
            raise _meaning(error) from error

    def close(self) -> None:
        """Write what has been asked for, and end. Blocks. Idempotent."""
        if self._thread.is_alive():
            self._ask(_STOP)
            self._thread.join()
            self._reader.close()
            self._writer.close()

    def _opened(self) -> sqlite3.Connection:
        """The file, looked through. Raises JournalError, sqlite3.DatabaseError."""
        db = _connection(self._path)
        try:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                raise JournalError(
                    f"journal {self._path} is of version {found}, from a newer agent; this one knows up to {VERSION}"
                )
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _damaged(verdict)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA journal_size_limit = {_LEFT_OF_LOG_BYTES}")
            if found != VERSION:
                db.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            db.close()
            raise
        return db

    def _ask(self, statements: Sequence[Statement]) -> Future[None]:
        done: Future[None] = Future()
        self._asked.put((statements, done))
        return done

    def _write_all(self) -> None:
        """The writer's thread: all that has been asked for goes into one commit, then what came meanwhile."""
        stopped = False
        while not stopped:
            group = [self._asked.get()]
            with suppress(Empty):
                while True:
                    group.append(self._asked.get_nowait())
            stopped = any(statements is _STOP for statements, _ in group)
            errors = self._commit([statements for statements, _ in group])
            for (_, done), error in zip(group, errors, strict=True):
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    def _commit(self, group: list[Sequence[Statement]]) -> list[Exception | None]:
        """Bring a group of writes to disk, each by itself all or nothing. What each came to."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            errors = [self._apply(statements) for statements in group]
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            return [_meaning(error)] * len(group)
        return errors

    def _apply(self, statements: Sequence[Statement]) -> Exception | None:
        """Raises sqlite3.Error when the whole group is lost with it."""
        self._writer.execute("SAVEPOINT one")
        try:
            for sql, args in statements:
                self._writer.execute(sql, args)
        except sqlite3.Error as error:
            if not self._writer.in_transaction:
                raise
            self._writer.execute("ROLLBACK TO one")
            self._writer.execute("RELEASE one")
            return _meaning(error)
        self._writer.execute("RELEASE one")
        return None


def _connection(path: Path) -> sqlite3.Connection:
    with suppress(OSError):  # SQLite will say it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # what it makes, all may read
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=32)
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return db


def _damaged(verdict: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _meaning(error: sqlite3.Error) -> Exception:
    """The error for who asked: the machine's refusals as ours, a statement's own as it is."""
    refusals: dict[frozenset[int], type[Refusal]] = {_NO_ROOM: Exhausted, _DAMAGE: DataLoss}
    for codes, refusal in refusals.items():
        if _code(error) in codes:
            return refusal(f"the node's journal cannot be written: {error}")
    return error
