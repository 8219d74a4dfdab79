"""Runs jobs' programs here: each as a user of its own where the node has several, in a folder of its own."""

from __future__ import annotations

import heapq
import logging
import os
import signal
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

from node_agent.blocking import to_its_end, uninterrupted
from node_agent.errors import Exhausted, Refusal
from node_agent.jobs import kinds
from node_agent.jobs.ending import Ended
from node_agent.jobs.execution import Execution, Means, OnCheckpoint, keep_checkpoint, remove
from node_agent.jobs.kinds import Limits
from node_agent.jobs.logs import JobLogs
from node_agent.jobs.scratch import Scratch
from node_agent.objects.store import ObjectStore
from node_agent.processes.first_process import FirstProcess
from node_agent.processes.users import JOB_USERS
from protos.skyrack.v1 import jobs_pb2

__all__ = ["Ended", "Execution", "Executor", "OnCheckpoint"]

_log = logging.getLogger(__name__)


class Executor:
    """Starts the programs of one agent's jobs, and knows which users are free for them."""

    def __init__(self, node: str, store: ObjectStore, folder: Path, logs: JobLogs, first: FirstProcess) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # each job knows the way to its own
        self._means = Means(node, store, logs, first)
        self._folder = folder
        self._users = first.users.of_jobs if first.users else None
        self._free = list(range(JOB_USERS))  # a heap: the lowest first

    async def start(
        self, job: jobs_pb2.Job, on_checkpoint: OnCheckpoint, written: Awaitable[None] | None = None
    ) -> Execution:
        """Start a job's program, from the newest checkpoint that the job names, once it is `written` that it may be.

        Before: all that it needs is whole in the store. After: its `ended`, then its `leave` are to be awaited, once.
        Raises FailedPrecondition if an object has gone, Exhausted if too many jobs have processes, OSError.
        """
        if not self._free:
            raise Exhausted(f"{JOB_USERS} jobs have processes here already, suspended ones among them")
        number = heapq.heappop(self._free)
        scratch = Scratch(self._folder / job.spec.id, self._users[number] if self._users else None)
        limits = Limits.of(job.spec)

        async def leave() -> None:
            await self._leave(scratch, number)

        execution: Execution | None = None
        try:
            if left := self._found(job.spec.id):
                await self._clear(left)
            laid_out = await to_its_end(kinds.lay_out, job, scratch, self._means.store, self._means.node, limits)
            if written is not None:
                await written
            execution = Execution(self._means, job.spec, scratch, limits, laid_out.given_bytes, on_checkpoint, leave)
            await uninterrupted(execution.begin(laid_out.task))
        except BaseException:
            has_begun = execution is not None and execution.has_begun
            await uninterrupted(execution.give_up() if execution and has_begun else self._break_off(scratch, number))
            raise
        return execution

    async def rescue(self, job_id: str) -> str | None:
        """The checkpoint that a job has left whose agent was killed, as an object; None if there is none.

        Before: neither `clear_all` nor `start`. It may be the one that the job was started with.
        """
        scratch = self._found(job_id)
        if scratch is None or scratch.seen_checkpoint() is None:
            return None
        try:
            return await keep_checkpoint(self._means, scratch, job_id)
        except (Refusal, OSError) as error:
            _log.warning("job %s: its checkpoint is lost: %s", job_id, error)
            return None

    async def clear_all(self) -> None:
        """End and remove all that jobs have left whose agent was killed. Before: no `start`. Raises OSError."""
        for name in os.listdir(self._folder):
            if scratch := self._found(name):
                await self._clear(scratch)

    async def _clear(self, scratch: Scratch) -> None:
        """End what runs of a job, and remove what it has left. Raises OSError."""
        await self._means.first.signal(scratch.tree, signal.SIGKILL)
        await remove(self._means.first, scratch)

    async def _break_off(self, scratch: Scratch, number: int) -> None:
        try:
            await self._means.first.signal(scratch.tree, signal.SIGKILL)
        except OSError as error:
            _log.error("job %s: what was begun of it cannot be ended, its user stays: %s", scratch.folder.name, error)
        else:
            await self._leave(scratch, number)

    async def _leave(self, scratch: Scratch, number: int) -> None:
        try:
            await remove(self._means.first, scratch)
        except OSError as error:
            _log.error("job %s: what it has left stays, its user with it: %s", scratch.folder.name, error)
        else:
            heapq.heappush(self._free, number)

    def _found(self, job_id: str) -> Scratch | None:
        with suppress(FileNotFoundError):
            return Scratch.found(self._folder / job_id, self._users or ())
        return None
