"""Runs programs here: attempt after attempt, each in the slot that it was given, stopped and let go on as wished."""

from __future__ import annotations

import asyncio

from node_agent.blocking import uninterrupted
from node_agent.errors import Exhausted
from node_agent.jobs.executor import Ended, Execution, Executor
from node_agent.jobs.ledger import Ledger, Record
from node_agent.jobs.states import tries_again
from node_agent.jobs.turns import Turn
from node_agent.processes.users import JOB_USERS
from node_agent.waiting import first_of
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_SUSPENDED,
)


class Runner:
    """The programs of one node's jobs."""

    def __init__(self, ledger: Ledger, executor: Executor, slots: int) -> None:
        self._ledger = ledger
        self._executor = executor
        self._most_stopped = JOB_USERS - slots
        self._stopped: set[str] = set()

    async def recover(self) -> None:
        """Remove what the agent before left of its programs, and have another attempt follow where one may.

        Their checkpoints are kept. Before: nothing runs.
        """
        begun = [record for job_id in self._ledger.open_ids() if (record := self._ledger.record(job_id)).begun]
        for record in begun:
            if checkpoint := await self._executor.rescue(record.job.spec.id):
                await self._ledger.checkpoint(record.job.spec.id, checkpoint)
        await self._executor.clear_all()
        for record in begun:
            self._interrupted(record)

    def _interrupted(self, record: Record) -> None:
        job = record.job
        ended = f"the agent ended during {_attempt(job)}"
        if tries_again(job, interrupted=True):
            self._again(record, f"{ended}; waiting for its turn again", jobs_pb2.Job())
        else:
            self._ledger.advance(job.spec.id, JOB_STATE_FAILED, f"{ended}, and no other is allowed")

    def make_room_for_stopped(self, job_id: str) -> None:
        """See to it that one more may be stopped, and the others still have a user to start as. Raises Exhausted."""
        if job_id not in self._stopped and len(self._stopped) >= self._most_stopped:
            raise Exhausted(f"{len(self._stopped)} jobs are suspended here with their processes, as many as can be")
        self._stopped.add(job_id)

    def not_begun(self, record: Record) -> None:
        """Nothing of its program was started, though it might have been."""
        record.begun = False
        self._stopped.discard(record.job.spec.id)

    async def run(self, record: Record, turn: Turn) -> None:
        """Make an attempt. Before: the turn holds a slot. After: the job is final, or QUEUED for another attempt; or
        nothing was started, since it is to be suspended. Raises Refusal, OSError.

        Cancelled, it leaves when nothing of the program runs.
        """
        if record.suspend_requested:
            self.not_begun(record)
            return
        spec = record.job.spec
        is_known_to_disk, record.begun = record.begun, True
        written = self._ledger.advance(spec.id, JOB_STATE_RUNNING, _attempt(record.job))

        async def on_checkpoint(name: str) -> None:
            await self._ledger.checkpoint(spec.id, name)

        try:
            # Its folder is laid out while the disk comes to know that it may have been started; then only it is.
            execution = await self._executor.start(record.job, on_checkpoint, None if is_known_to_disk else written)
            try:
                written = self._conclude(record, await self._to_its_end(record, turn, execution))
            finally:
                await execution.leave()  # while the disk comes to know of its end
        finally:
            self._stopped.discard(spec.id)
            turn.give_back()
        await written

    def _conclude(self, record: Record, ended: Ended) -> asyncio.Future[None]:
        """What follows from the end of an attempt. When it has been waited for, it is on disk."""
        if not ended.succeeded and tries_again(record.job, interrupted=False):
            reason = f"{_attempt(record.job)} failed: {ended.reason}; waiting for its turn again"
            return self._again(record, reason, _result(ended))
        state = JOB_STATE_SUCCEEDED if ended.succeeded else JOB_STATE_FAILED
        reason = ended.reason if record.job.attempt == 1 else f"{_attempt(record.job)}: {ended.reason}"
        result = _result(ended)
        result.outputs.extend(ended.outputs)
        return self._ledger.advance(record.job.spec.id, state, reason, result=result)

    def _again(self, record: Record, reason: str, result: jobs_pb2.Job) -> asyncio.Future[None]:
        result.attempt = record.job.attempt + 1
        record.begun = False
        return self._ledger.advance(record.job.spec.id, JOB_STATE_QUEUED, reason, result=result)

    async def _to_its_end(self, record: Record, turn: Turn, execution: Execution) -> Ended:
        """Stop the program and let it go on as wished, until it ends."""
        ending = asyncio.create_task(execution.ended())
        try:
            await asyncio.sleep(0)  # a task that is cancelled before its first step ends nothing
            while not ending.done():
                await self._follow(record, turn, execution, ending)
            return ending.result()
        finally:
            ending.cancel()
            await uninterrupted(asyncio.wait({ending}))

    async def _follow(self, record: Record, turn: Turn, execution: Execution, ending: asyncio.Task[Ended]) -> None:
        """The next step: what is wished is done, or what comes next is waited for."""
        job_id, wished, stopped = record.job.spec.id, record.wished, execution.is_suspended
        if record.suspend_requested and not stopped:
            await execution.suspend()
            if execution.is_suspended:
                turn.give_back()
            else:
                await asyncio.wait({ending})  # it was faster
        elif record.suspend_requested and record.job.state != JOB_STATE_SUSPENDED:
            await self._ledger.advance(job_id, JOB_STATE_SUSPENDED, f"suspended during {_attempt(record.job)}")
        elif stopped and not record.suspend_requested and turn.is_held:
            await execution.resume()
            if execution.is_suspended:
                await asyncio.wait({ending})
            else:
                self._stopped.discard(job_id)
                await self._ledger.advance(job_id, JOB_STATE_RUNNING, f"{_attempt(record.job)} goes on")
        elif stopped and not record.suspend_requested and record.job.state != JOB_STATE_QUEUED:
            await self._ledger.advance(job_id, JOB_STATE_QUEUED, "waiting for its turn to go on")
        elif stopped and not record.suspend_requested:
            await first_of(asyncio.shield(ending), wished.wait(), turn.take())
        else:
            await first_of(asyncio.shield(ending), wished.wait())


def _attempt(job: jobs_pb2.Job) -> str:
    return f"attempt {job.attempt}" + (f" of {job.spec.max_attempts}" if job.spec.max_attempts > 1 else "")


def _result(ended: Ended) -> jobs_pb2.Job:
    return jobs_pb2.Job(
        exit_status=ended.exit_status,
        signal=ended.signal,
        stdout=ended.stdout,
        stderr=ended.stderr,
        usage=ended.usage,
    )
