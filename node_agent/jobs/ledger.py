"""What the agent has taken charge of: every job, in the journal before anybody is told, and watched.

A job is in memory as long as anybody here has to do with it. Progress within a state is told to watchers and not
written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakValueDictionary

from node_agent.errors import DataLoss, Exhausted, FailedPrecondition, NotFound
from node_agent.jobs.states import FINAL, State, advanced, label, noted, without_streams
from node_agent.journal import Journal, Statement
from node_agent.objects.catalog import JOB
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import JOB_STATE_CANCELLED

_log = logging.getLogger(__name__)

# A restarted agent does not know how many progress notes watchers were told since the last write: more than this many
# they cannot be (one a second for twelve days), so revisions never go back.
_UNWRITTEN_REVISIONS: Final = 1 << 20

_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS job (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    final INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    suspend_requested INTEGER NOT NULL,
    suspend_untold INTEGER NOT NULL,
    due_back INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    deadline_emu_ns INTEGER NOT NULL,
    brief BLOB NOT NULL,
    stdout BLOB NOT NULL,
    stderr BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS job_open ON job (number) WHERE NOT final;
CREATE INDEX IF NOT EXISTS job_due_back ON job (number) WHERE final AND due_back;
CREATE INDEX IF NOT EXISTS job_deadline ON job (deadline_emu_ns) WHERE NOT final AND deadline_emu_ns > 0;
UPDATE job SET revision = revision + {_UNWRITTEN_REVISIONS} WHERE NOT final
"""  # noqa: S608 — a number of ours
_COLUMNS: Final = (
    "number, id, final, revision, cancel_requested, suspend_requested, suspend_untold, due_back, begun, "
    "deadline_emu_ns, brief, stdout, stderr"
)
_UPSERT: Final = f"INSERT OR REPLACE INTO job ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 — no value
_SELECT: Final = f"SELECT {_COLUMNS} FROM job WHERE id = ?"  # noqa: S608 — no value
_PAGE: Final = (
    "SELECT number, id, revision, brief FROM job "
    "WHERE number > (SELECT coalesce(max(number), 0) FROM job WHERE id = ?) ORDER BY number LIMIT 256"
)
_DUE_BACK: Final = "SELECT id FROM job WHERE final AND due_back ORDER BY number"
_FIRST_DEADLINE: Final = "SELECT min(deadline_emu_ns) FROM job WHERE NOT final AND deadline_emu_ns > 0"
_PAST_DEADLINE: Final = (
    "SELECT id FROM job WHERE NOT final AND deadline_emu_ns BETWEEN 1 AND ? ORDER BY deadline_emu_ns LIMIT ?"
)
_FIRST_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0
_CLOSE_DEADLINE_S: Final = 1.0


@dataclass(eq=False)
class Record:
    """One job and what only its agent knows about it."""

    number: int  # in the order in which jobs were accepted
    job: jobs_pb2.Job
    cancel_requested: bool = False
    suspend_requested: bool = False  # the newest wish: that it be suspended, or that it go on
    suspend_untold: bool = False  # the node that has the job does not know that wish yet
    due_back: bool = False  # its result is to go on to another agent, which does not have it yet
    begun: bool = False  # the program of this attempt may have been started here
    told: jobs_pb2.Job = field(default_factory=jobs_pb2.Job)  # as on disk, or with progress since: what others see
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    wished: asyncio.Event = field(default_factory=asyncio.Event)
    writes: int = 0  # how many are under way

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.job.state in FINAL


class Ledger:
    """All jobs of one agent."""

    def __init__(self, journal: Journal) -> None:
        journal.ensure(_SCHEMA)
        self._journal = journal
        self._records: WeakValueDictionary[str, Record] = WeakValueDictionary()
        self._writes: set[asyncio.Task[None]] = set()
        self._last_number: int = journal.read("SELECT coalesce(max(number), 0) FROM job")[0][0]
        self.open_jobs: int = journal.read("SELECT count(*) FROM job WHERE NOT final")[0][0]
        """How many jobs are not final."""

    @property
    def next_number(self) -> int:
        """Of the job that is accepted next."""
        return self._last_number + 1

    def open_ids(self) -> list[str]:
        """The jobs that are not final, oldest first."""
        return [job_id for (job_id,) in self._journal.read("SELECT id FROM job WHERE NOT final ORDER BY number")]

    def due_back_ids(self) -> list[str]:
        """The jobs that have ended and whose results are to go on to another agent, oldest first."""
        return [job_id for (job_id,) in self._journal.read(_DUE_BACK)]

    def first_deadline_emu_ns(self) -> int | None:
        """When the first deadline of those that are not final passes."""
        first_emu_ns: int | None = self._journal.read(_FIRST_DEADLINE)[0][0]
        return first_emu_ns

    def past_deadline(self, now_emu_ns: int, most: int) -> list[str]:
        """Jobs that are not final at their deadline, so many at most."""
        return [job_id for (job_id,) in self._journal.read(_PAST_DEADLINE, (now_emu_ns, most))]

    def briefs(self, after_id: str) -> Iterator[jobs_pb2.Job]:
        """All jobs after one (or from the first), oldest first, without stdout and stderr."""
        while rows := self._journal.read(_PAGE, (after_id,)):
            for _, after_id, revision, brief in rows:
                record = self._records.get(after_id)
                # One that was written a moment ago has been told to nobody yet.
                yield without_streams(record.told) if record and record.told.revision else _job(brief, revision)

    def need_of(self, name: str) -> str | None:
        """The open job that speaks of this object, if one does."""
        sql = "SELECT id FROM job WHERE NOT final AND instr(brief, ?) LIMIT 1"
        rows = self._journal.read(sql, (name.encode(),))
        return f"job {rows[0][0]} is open" if rows else None

    def senders(self, reasons: Iterable[str]) -> Iterator[str]:
        """Who has handed in the jobs that an object is kept for."""
        for reason in reasons:
            if reason.startswith(JOB) and (record := self.find(reason.removeprefix(JOB))):
                yield record.job.submitted_by

    def find(self, job_id: str) -> Record | None:
        """One, if it is known."""
        record = self._records.get(job_id)
        if record is None and (rows := self._journal.read(_SELECT, (job_id,))):
            record = self._records[job_id] = _record(rows[0])
        return record

    def record(self, job_id: str) -> Record:
        """One. Raises NotFound."""
        record = self.find(job_id)
        if record is None:
            raise NotFound(f"no job {job_id[:100]!r} here")
        return record

    async def accept(self, job: jobs_pb2.Job, *, due_back: bool = False, begun: bool = False) -> Record:
        """Take charge. After: it is on disk. Raises Exhausted, DataLoss, and then nothing was accepted."""
        record = self._records[job.spec.id] = Record(self.next_number, job, due_back=due_back, begun=begun)
        self._last_number += 1
        self.open_jobs += not record.is_final
        try:
            await self._commit(record)
        except (Exhausted, DataLoss):
            del self._records[job.spec.id]
            self.open_jobs -= not record.is_final
            record.changed.set()
            raise
        return record

    async def settled(self, job_id: str) -> jobs_pb2.Job:
        """The job as it is on disk, once there is one on disk. Raises NotFound."""
        record = self.record(job_id)
        while record.told.revision == 0 and job_id in self._records:
            await record.changed.wait()
        return self.record(job_id).told

    def advance(
        self,
        job_id: str,
        state: State,
        reason: str,
        *,
        result: jobs_pb2.Job | None = None,
        at_unix_ns: int | None = None,
    ) -> asyncio.Future[None]:
        """The job's next state, with what is newly known of it, at once for the agent.

        When it has been waited for, it is on disk, and watchers are told. What is advanced first is there first.
        """
        record = self.record(job_id)
        open_before = not record.is_final
        record.job = advanced(record.job, state, reason, time.time_ns() if at_unix_ns is None else at_unix_ns)
        if result is not None:
            record.job.MergeFrom(result)
        self.open_jobs -= open_before and record.is_final
        _log.info("job %s: %s, %s", job_id, label(state), reason)
        return self._commit(record, insist=True)

    def note(self, job_id: str, reason: str) -> None:
        """Another reason for the same state: told, not written."""
        record = self.record(job_id)
        if record.job.reason != reason:
            record.job = noted(record.job, reason)
            if not record.writes:  # otherwise it is told with what is being written, when that is on disk
                self._tell(record, record.job)

    def moved(self, job_id: str, more_bytes: int) -> None:
        """Count bytes moved; told and written with the next change."""
        self.record(job_id).job.moved_bytes += more_bytes

    async def checkpoint(self, job_id: str, name: str) -> None:
        """Remember its newest checkpoint. After: on disk."""
        record = self.record(job_id)
        record.job = noted(record.job, record.job.reason)
        record.job.checkpoint_object = name
        await self._commit(record, insist=True)

    async def request_cancel(self, job_id: str) -> None:
        """Remember that its end was asked for. After: on disk. Raises Exhausted, DataLoss: then it was not."""
        record = self.record(job_id)
        record.job = noted(record.job, "its end was asked for")
        record.cancel_requested = True
        try:
            await self._commit(record)
        except (Exhausted, DataLoss):
            record.cancel_requested = False
            raise

    async def request_suspend(self, job_id: str, suspend: bool) -> None:
        """Remember the wish that it be suspended, or that it go on. After: on disk, and `wished` is set.

        Raises FailedPrecondition if it is final; Exhausted, DataLoss: then nothing was remembered.
        """
        record = self.record(job_id)
        if record.is_final:
            raise FailedPrecondition(
                f"job {job_id} is {label(record.job.state)}: there is nothing to suspend or resume"
            )
        if record.suspend_requested == suspend:
            return
        before = record.suspend_untold
        record.suspend_requested, record.suspend_untold = suspend, True
        try:
            await self._commit(record)
        except (Exhausted, DataLoss):
            record.suspend_requested, record.suspend_untold = not suspend, before
            raise
        record.wished.set()
        record.wished = asyncio.Event()

    async def wish_told(self, job_id: str, suspend: bool) -> None:
        """Remember that who has the job knows this wish. After: on disk."""
        record = self.record(job_id)
        if record.suspend_untold and record.suspend_requested == suspend:
            record.suspend_untold = False
            await self._commit(record, insist=True)

    async def hand_over(self, job_id: str, node: str) -> None:
        """Remember that from now on this node may have charge of the job. After: on disk."""
        record = self.record(job_id)
        if record.job.custodian != node:
            record.job = noted(record.job, record.job.reason)
            record.job.custodian = node
            await self._commit(record, insist=True)

    async def take_back(self, job_id: str) -> None:
        """Have charge of a job again that was handed over. After: on disk."""
        await self.hand_over(job_id, "")

    async def let_go(self, job_id: str) -> None:
        """Others are charged with the result of a job that was handed on. After: on disk."""
        record = self.record(job_id)
        if not record.is_final:
            record.due_back = False
            reason = "let go of here: its result goes another way"
            await self.advance(job_id, JOB_STATE_CANCELLED, reason, result=jobs_pb2.Job(let_go=True))

    async def sent_back(self, job_id: str) -> None:
        """Remember that the agent which its result is to go to has it, or another on the way. After: on disk."""
        record = self.record(job_id)
        if record.due_back:
            record.due_back = False
            await self._commit(record, insist=True)

    async def due_back_again(self, job_id: str, ended: jobs_pb2.Job) -> None:
        """Have charge of a result that has been here before, or how a job ended that was let go of. After: on disk."""
        record = self.record(job_id)
        if record.job.let_go:
            taken = jobs_pb2.Job()
            taken.CopyFrom(ended)
            taken.custodian, taken.submitted_by = record.job.custodian, record.job.submitted_by
            taken.moved_bytes, taken.revision = record.job.moved_bytes, record.job.revision
            record.job = noted(taken, ended.reason)
        record.due_back = True
        await self._commit(record, insist=True)

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
        """Wait for what is being written, as long as it can be."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=_CLOSE_DEADLINE_S)

    def _commit(self, record: Record, *, insist: bool = False) -> asyncio.Future[None]:
        """Write the record as it is now; told when it is on disk."""
        record.writes += 1
        task = asyncio.create_task(self._written(record, record.job, self._journal.write(_row(record)), insist))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        # Shielded: a job's task that is cancelled in here leaves a record that is written and told all the same.
        return asyncio.shield(task)

    async def _written(self, record: Record, job: jobs_pb2.Job, writing: Awaitable[None], insist: bool) -> None:
        try:
            backoff_s = _FIRST_BACKOFF_S
            while True:
                try:
                    await writing
                    break
                except (Exhausted, DataLoss) as trouble:
                    if not insist:
                        raise
                    self._tell_trouble(record, str(trouble))
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                job, writing = record.job, self._journal.write(_row(record))  # what has come since goes along
        finally:
            record.writes -= 1
        self._tell(record, job if record.writes else record.job)

    def _tell(self, record: Record, job: jobs_pb2.Job) -> None:
        if job.revision <= record.told.revision:
            return  # progress since has been told already
        record.told = job
        record.changed.set()
        record.changed = asyncio.Event()

    def _tell_trouble(self, record: Record, reason: str) -> None:
        """Why what has happened to the job is not told: it could not be written."""
        if record.told.reason != reason:
            record.job = noted(record.job, record.job.reason)
            told = noted(record.told, reason)
            told.revision = record.job.revision
            self._tell(record, told)
            record.job.revision += 1


def _row(record: Record) -> Statement:
    job = record.job
    brief = without_streams(job) if job.stdout or job.stderr else job
    flags = (
        record.cancel_requested,
        record.suspend_requested,
        record.suspend_untold,
        record.due_back,
        record.begun,
    )
    content = (job.spec.deadline_emu_ns, brief.SerializeToString(), job.stdout, job.stderr)
    return _UPSERT, (record.number, job.spec.id, record.is_final, job.revision, *flags, *content)


def _record(row: tuple[Any, ...]) -> Record:
    number, _, _, revision, cancel, suspend, untold, due_back, begun, _, brief, stdout, stderr = row
    job = _job(brief, revision)
    job.stdout, job.stderr = stdout, stderr
    return Record(number, job, bool(cancel), bool(suspend), bool(untold), bool(due_back), bool(begun), told=job)


def _job(brief: bytes, revision: int) -> jobs_pb2.Job:
    job = jobs_pb2.Job.FromString(brief)
    job.revision = revision
    return job
