"""Runs programs here: attempt after attempt, each in the slot that it was given, stopped and let go on as wished."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from node_agent.blocking import to_its_end
from node_agent.errors import Exhausted
from node_agent.executor import Ended, Execution, Scratch, collect_outputs, start
from node_agent.ledger import Ledger, Record
from node_agent.logs import JobLogs
from node_agent.proctree import Orphans
from node_agent.states import max_starts, tries_again
from node_agent.store import ObjectStore
from node_agent.turns import Turn
from node_agent.waiting import first_of
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_SUSPENDED,
)

_MAX_RESULT_BYTES: Final = 2**20
"""Of the names of its outputs and what else is told of an end: a message must hold it, and the job's history too."""


class Runner:
    """The programs of one node's jobs."""

    def __init__(self, node: str, scratch_dir: Path, store: ObjectStore, ledger: Ledger, logs: JobLogs) -> None:
        self._node = node
        self._scratch_dir = scratch_dir
        self._store = store
        self._ledger = ledger
        self._logs = logs
        self.orphans = Orphans()

    async def clear(self) -> set[str]:
        """Remove what an earlier agent left of its programs. The jobs that they may have run for."""
        self._scratch_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        begun = set()
        for folder in self._scratch_dir.iterdir():
            begun.add(folder.name)
            await to_its_end(Scratch(folder).clear)
        return begun

    def interrupted(self, record: Record) -> None:
        """Have another attempt follow one under which the agent ended, or be this the end."""
        job = record.job
        ended = f"the agent ended during {_attempt(job)}"
        if tries_again(job, interrupted=True):
            self._again(record, f"{ended}; waiting for its turn again", jobs_pb2.Job())
        else:
            self._ledger.advance(job.spec.id, JOB_STATE_FAILED, f"{ended}, and no other is allowed")

    async def run(self, record: Record, turn: Turn) -> None:
        """Make an attempt. Before: the turn holds a slot. After: the job is final, or QUEUED for another attempt, or
        nothing was started, since it is to be suspended. Raises Refusal, OSError.

        Cancelled, it kills what runs first.
        """
        if record.suspend_requested:
            return
        spec, scratch = record.job.spec, Scratch(self._scratch_dir / record.job.spec.id)
        record.begun = True
        # The program need not wait for the disk to know of it: its scratch folder tells that it may have been started,
        # too. But for one that may be started once, that must be true even after a loss of power.
        written = self._ledger.advance(spec.id, JOB_STATE_RUNNING, _attempt(record.job))
        if max_starts(spec) == 1:
            await written
        result = jobs_pb2.Job()
        try:
            ended = await self._to_its_end(
                record, turn, await start(spec, scratch, self._store, self._node, self.orphans)
            )
            again = ended.exit_status != 0 and tries_again(record.job, interrupted=False)
            result.MergeFrom(_result(ended))
            if not again:
                result.outputs.extend(await collect_outputs(scratch, self._store, self._node))
            await written
        finally:
            await to_its_end(scratch.clear)
            turn.give_back()
        if result.ByteSize() > _MAX_RESULT_BYTES:
            raise Exhausted(f"{len(result.outputs)} outputs: their names take more than {_MAX_RESULT_BYTES} bytes")
        if again:
            self._again(record, f"{_attempt(record.job)} failed: {ended.reason}; waiting for its turn again", result)
            return
        state = JOB_STATE_SUCCEEDED if ended.exit_status == 0 else JOB_STATE_FAILED
        await self._ledger.advance(spec.id, state, _told(record.job, ended.reason), result=result)

    def _again(self, record: Record, reason: str, result: jobs_pb2.Job) -> None:
        result.attempt = record.job.attempt + 1
        record.begun = False
        self._ledger.advance(record.job.spec.id, JOB_STATE_QUEUED, reason, result=result)

    async def _to_its_end(self, record: Record, turn: Turn, execution: Execution) -> Ended:
        """Stop the program and let it go on as wished, until it ends."""
        job_id = record.job.spec.id
        ending = asyncio.create_task(execution.ended())
        stopped = False
        try:
            while not ending.done():
                wished = record.wished
                if record.suspend_requested:
                    if not stopped:
                        await execution.suspend()
                        stopped = True
                    turn.give_back()
                    if record.job.state != JOB_STATE_SUSPENDED and not ending.done():
                        await self._ledger.advance(
                            job_id, JOB_STATE_SUSPENDED, f"suspended during {_attempt(record.job)}"
                        )
                        continue  # the wish may have changed meanwhile
                    await first_of(asyncio.shield(ending), wished.wait())
                elif stopped and not turn.is_held:
                    if record.job.state != JOB_STATE_QUEUED:
                        await self._ledger.advance(job_id, JOB_STATE_QUEUED, "waiting for its turn to go on")
                        continue
                    await first_of(asyncio.shield(ending), wished.wait(), turn.take())
                elif stopped:
                    await execution.resume()
                    stopped = False
                    await self._ledger.advance(job_id, JOB_STATE_RUNNING, f"{_attempt(record.job)} goes on")
                else:
                    await first_of(asyncio.shield(ending), wished.wait())
            return ending.result()
        finally:
            ending.cancel()
            await asyncio.wait({ending})


def _attempt(job: jobs_pb2.Job) -> str:
    return f"attempt {job.attempt}" + (f" of {job.spec.max_attempts}" if job.spec.max_attempts > 1 else "")


def _told(job: jobs_pb2.Job, reason: str) -> str:
    """Why it has ended, and in which attempt if there was more than one."""
    return reason if job.attempt == 1 else f"{_attempt(job)}: {reason}"


def _result(ended: Ended) -> jobs_pb2.Job:
    return jobs_pb2.Job(exit_status=ended.exit_status, stdout=ended.stdout, stderr=ended.stderr)
