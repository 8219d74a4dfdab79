"""What the agent knows of each object besides its bytes: one row, durable before the first byte is taken."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from node_agent.blocking import uninterrupted
from node_agent.errors import InvalidArgument
from node_agent.journal import Journal, Statement
from node_agent.objects.parts import Part
from node_agent.objects.terms import Terms
from protos.skyrack.v1 import objects_pb2

PUT: Final = "put"
"""Why an object is here: a client, or another node, put it."""

NOBODYS: Final = ""
JOB: Final = "job "
JOB_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

_SCHEMA_SQL: Final = """
CREATE TABLE IF NOT EXISTS objects (
    name TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    jurisdictions TEXT NOT NULL,
    transit INTEGER NOT NULL,
    holders TEXT NOT NULL,
    pinned INTEGER NOT NULL,
    reasons TEXT NOT NULL,
    sealed_with TEXT NOT NULL,
    damaged INTEGER NOT NULL,
    part BLOB NOT NULL
) WITHOUT ROWID
"""
_KEEP_SQL: Final = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DROP_SQL: Final = "DELETE FROM objects WHERE name = ?"


def for_job(job_id: str) -> str:
    """Why an object is here: a job needs it, or made it. Raises InvalidArgument for what is no job's id."""
    if not JOB_ID.fullmatch(job_id):
        raise InvalidArgument(f"job id {job_id[:100]!r} is malformed: 1 to 64 of A-Z a-z 0-9 . _ -")
    return f"{JOB}{job_id}"


@dataclass(frozen=True)
class Row:
    """One object."""

    name: str
    size_bytes: int
    terms: Terms
    # PUT, for_job(…); none: nobody needs it any more.
    reasons: frozenset[str] = field(default_factory=frozenset)
    # The name of the key that its file is encrypted with; empty: it is not.
    sealed_with: str = ""
    # Its bytes were found wrong and set aside, and no others have come yet.
    damaged: bool = False


class Catalog:
    """All rows. What is answered is on disk."""

    def __init__(self, journal: Journal) -> None:
        journal.ensure(_SCHEMA_SQL)
        self._journal = journal
        self._rows: dict[str, Row] = {}
        self._of_reason: defaultdict[str, set[str]] = defaultdict(set)  # under NOBODYS those that have none
        for row in map(_row, journal.read("SELECT * FROM objects")):
            self._know(row.name, row)

    def find(self, name: str) -> Row | None:
        """One, if it is known."""
        return self._rows.get(name)

    def rows(self) -> list[Row]:
        """All, by name."""
        return sorted(self._rows.values(), key=lambda row: row.name)

    def rows_for(self, reason: str) -> list[Row]:
        """Those that are kept for a reason, by name; with NOBODYS, those that nobody has one for."""
        return sorted((self._rows[name] for name in self._of_reason.get(reason, ())), key=lambda row: row.name)

    def reasons(self) -> set[str]:
        """All for which an object is kept."""
        return {*self._of_reason} - {NOBODYS}

    async def keep(self, row: Row) -> None:
        """A new row, or another content of one. Raises Exhausted."""
        if row == self._rows.get(row.name):
            return
        terms = row.terms
        values = (
            row.name,
            row.size_bytes,
            json.dumps(terms.jurisdictions),
            terms.transit,
            json.dumps(terms.holders),
            terms.pinned,
            json.dumps(sorted(row.reasons)),
            row.sealed_with,
            row.damaged,
            terms.part.told().SerializeToString(deterministic=True) if terms.part else b"",
        )
        await uninterrupted(self._write(row.name, row, (_KEEP_SQL, values)))

    async def drop(self, name: str) -> None:
        """Know it no more. Idempotent. Raises Exhausted."""
        if name in self._rows:
            await uninterrupted(self._write(name, None, (_DROP_SQL, (name,))))

    async def _write(self, name: str, row: Row | None, statement: Statement) -> None:
        await self._journal.write(statement)
        self._know(name, row)

    def _know(self, name: str, row: Row | None) -> None:
        before = self._rows.pop(name, None)
        for reason in (before.reasons or {NOBODYS}) if before else ():
            self._of_reason[reason].discard(name)
            if not self._of_reason[reason]:
                del self._of_reason[reason]
        if row is not None:
            self._rows[name] = row
            for reason in row.reasons or {NOBODYS}:
                self._of_reason[reason].add(name)


def _row(values: tuple[str, int, str, int, str, int, str, str, int, bytes]) -> Row:
    name, size_bytes, jurisdictions, transit, holders, pinned, reasons, sealed_with, damaged, told = values
    part = Part.of(objects_pb2.Part.FromString(told)) if told else None
    terms = Terms(tuple(json.loads(jurisdictions)), bool(transit), tuple(json.loads(holders)), bool(pinned), part)
    return Row(name, size_bytes, terms, frozenset(json.loads(reasons)), sealed_with, bool(damaged))
