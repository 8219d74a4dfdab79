"""What the agent has taken charge of: every job, on disk before anybody is told, and watched.

A job is one file, `<id>.json`, replaced whole at each change of state. Progress within a state is told to watchers and
not written.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import json_format

from node_agent.errors import NotFound
from node_agent.states import FINAL, State, advanced, label, noted
from node_agent.store import sync_folder
from protos.skyrack.v1 import jobs_pb2

_log = logging.getLogger(__name__)

# A restarted agent does not know how many progress notes watchers were told since the last write: more than this many
# they cannot be (one a second for twelve days), so revisions never go back.
_UNWRITTEN_REVISIONS = 1 << 20


@dataclass
class Record:
    """One job and what only its agent knows about it."""

    job: jobs_pb2.Job
    cancel_requested: bool = False
    told: jobs_pb2.Job = field(default_factory=jobs_pb2.Job)  # as on disk, or with progress since: what others see
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.job.state in FINAL


class Ledger:
    """All jobs of one agent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._records: dict[str, Record] = {}
        # One writer: what is asked for first is on disk first.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._writes: set[asyncio.Task[None]] = set()
        for path in folder.glob("*.json"):
            try:
                record = _from_json(path.read_text())
            except (ValueError, KeyError) as error:
                _log.error("journal entry %s is damaged (%s); it is set aside as .bad", path, error)
                path.rename(path.with_suffix(".bad"))
                continue
            record.job.revision += _UNWRITTEN_REVISIONS
            record.told = record.job
            self._records[record.job.spec.id] = record

    def records(self) -> list[Record]:
        """All, oldest first."""
        return sorted(self._records.values(), key=lambda record: record.job.history[0].at_unix_ns)

    def find(self, job_id: str) -> Record | None:
        """One, if it is known."""
        return self._records.get(job_id)

    def record(self, job_id: str) -> Record:
        """One. Raises NotFound."""
        record = self._records.get(job_id)
        if record is None:
            raise NotFound(f"no job {job_id[:100]!r} here")
        return record

    async def accept(self, job: jobs_pb2.Job) -> None:
        """Take charge. After: it is on disk. Raises OSError, and then nothing was accepted."""
        record = Record(job)
        self._records[job.spec.id] = record
        try:
            await self._commit(record)
        except OSError:
            del self._records[job.spec.id]
            record.changed.set()
            raise

    async def settled(self, job_id: str) -> jobs_pb2.Job:
        """The job as it is on disk, once there is one on disk. Raises NotFound."""
        record = self.record(job_id)
        while record.told.revision == 0 and job_id in self._records:
            await record.changed.wait()
        return self.record(job_id).told

    async def advance(
        self,
        job_id: str,
        state: State,
        reason: str,
        *,
        result: jobs_pb2.Job | None = None,
        at_unix_ns: int | None = None,
    ) -> None:
        """The job's next state, with what is newly known of it merged in. After: on disk, and watchers are told."""
        record = self.record(job_id)
        record.job = advanced(record.job, state, reason, time.time_ns() if at_unix_ns is None else at_unix_ns)
        if result is not None:
            record.job.MergeFrom(result)
        _log.info("job %s: %s, %s", job_id, label(state), reason)
        await self._commit(record)

    def note(self, job_id: str, reason: str) -> None:
        """Another reason for the same state: told, not written."""
        record = self.record(job_id)
        if record.job.reason != reason:
            record.job = noted(record.job, reason)
            self._tell(record, record.job)

    def moved(self, job_id: str, more_bytes: int) -> None:
        """Count bytes moved; told and written with the next change."""
        self.record(job_id).job.moved_bytes += more_bytes

    async def request_cancel(self, job_id: str) -> None:
        """Remember that its end was asked for. After: on disk."""
        record = self.record(job_id)
        record.cancel_requested = True
        record.job = noted(record.job, "its end was asked for")
        await self._commit(record)

    async def hand_over(self, job_id: str, node: str) -> None:
        """Remember that from now on this node may have charge of the job. After: on disk."""
        record = self.record(job_id)
        if record.job.custodian != node:
            record.job.custodian = node
            await self._commit(record)

    async def take_back(self, job_id: str) -> None:
        """Have charge of a job again that was handed over. After: on disk."""
        record = self.record(job_id)
        record.job.custodian = ""
        await self._commit(record)

    async def watch(self, job_id: str, after_revision: int) -> AsyncIterator[jobs_pb2.Job]:
        """The job now and at every change, until it is final; only revisions after the one given. Raises NotFound."""
        record = self.record(job_id)
        while True:
            event = record.changed
            told = record.told
            if told.revision > after_revision:
                after_revision = told.revision
                yield told
            if told.state in FINAL:
                return
            await event.wait()

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writes:
            await asyncio.wait(self._writes)
        self._writer.shutdown()

    async def _commit(self, record: Record) -> None:
        task = asyncio.create_task(self._write(record, _copy(record.job), _to_json(record)))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        # Shielded: a job's task that is cancelled in here leaves a record that is written and told all the same.
        await asyncio.shield(task)

    async def _write(self, record: Record, job: jobs_pb2.Job, text: str) -> None:
        path = self._folder / f"{job.spec.id}.json"
        await asyncio.get_running_loop().run_in_executor(self._writer, _replace_synced, path, text)
        self._tell(record, job)

    def _tell(self, record: Record, job: jobs_pb2.Job) -> None:
        if job.revision <= record.told.revision:
            return  # progress since has been told already
        record.told = job
        record.changed.set()
        record.changed = asyncio.Event()


def _copy(job: jobs_pb2.Job) -> jobs_pb2.Job:
    copy = jobs_pb2.Job()
    copy.CopyFrom(job)
    return copy


def _to_json(record: Record) -> str:
    return json.dumps(
        {
            "cancel_requested": record.cancel_requested,
            "job": json_format.MessageToDict(record.job, preserving_proto_field_name=True),
        }
    )


def _from_json(text: str) -> Record:
    entry = json.loads(text)
    job = json_format.ParseDict(entry["job"], jobs_pb2.Job())
    return Record(job, entry["cancel_requested"])


def _replace_synced(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)
