"""Leads every job of this agent through its states, one task a job."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

from node_agent.blocking import to_its_end
from node_agent.courier import Courier
from node_agent.errors import FailedPrecondition, InvalidArgument, Refusal
from node_agent.executor import Scratch, collect_outputs, execute
from node_agent.ledger import Ledger
from node_agent.peer import Break, Resolver
from node_agent.proctree import Orphans
from node_agent.sky import Sky
from node_agent.states import accepted, check_same, check_spec, own_objects, runs_here, without_streams
from node_agent.store import ObjectStore
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
)

_log = logging.getLogger(__name__)

_STOP_DEADLINE_S = 1.5
_CANCEL_DEADLINE_S = 10.0


class Engine:
    """The jobs of one agent."""

    def __init__(
        self,
        node: str,
        role: str,
        store: ObjectStore,
        ledger: Ledger,
        resolver: Resolver,
        scratch_dir: Path,
        slots: int,
        sky: Sky,
    ) -> None:
        self._node = node
        self._role = role
        self._store = store
        self._ledger = ledger
        self._resolver = resolver
        self._scratch_dir = scratch_dir
        self._sky = sky
        self._courier = Courier(node, store, ledger, resolver)
        self.slots = slots
        self._free_slots = asyncio.Semaphore(slots)
        self.orphans = Orphans()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def open_jobs(self) -> int:
        """How many jobs are not final."""
        return sum(not record.is_final for record in self._ledger.records())

    async def recover(self) -> None:
        """Go on where the last agent over this store ended. Before: no call is served yet."""
        self._scratch_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in self._scratch_dir.iterdir():
            await to_its_end(Scratch(folder).clear)
        for record in self._ledger.records():
            job = record.job
            if record.is_final:
                continue
            if runs_here(job.spec, self._node) and job.state == JOB_STATE_RUNNING:
                attempt = jobs_pb2.Job(attempt=job.attempt + 1)
                reason = f"the agent ended during attempt {job.attempt}; waiting for its turn again"
                await self._ledger.advance(job.spec.id, JOB_STATE_QUEUED, reason, result=attempt)
            self._start(job.spec.id)

    async def submit(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.Job:
        """Take charge of a job, as the wire's contract says. Raises Refusal."""
        check_spec(spec, self._node, self._role)
        if known := self._ledger.find(spec.id):
            check_same(known.job, spec)
            return await self._ledger.settled(spec.id)
        for name in own_objects(spec, self._node):
            if self._store.size_bytes(name) is None:
                raise FailedPrecondition(f"job {spec.id}: {name} is not (or not wholly) in the store of {self._node}")
        for node in {spec.on_node, *(each.at_node for each in spec.inputs)} - {"", self._node}:
            try:
                await self._resolver.target(node)
            except Break as unknown:
                raise InvalidArgument(f"job {spec.id}: {unknown}") from None
        if known := self._ledger.find(spec.id):  # while names were looked up
            check_same(known.job, spec)
            return await self._ledger.settled(spec.id)
        await self._ledger.accept(accepted(spec, self._node, time.time_ns()))
        self._start(spec.id)
        return await self._ledger.settled(spec.id)

    async def cancel(self, job_id: str) -> jobs_pb2.Job:
        """End a job. After: it is on disk that it is to end, and nothing of it runs here. Raises NotFound."""
        record = self._ledger.record(job_id)
        await self._ledger.settled(job_id)
        if not record.is_final and not record.cancel_requested:
            await self._ledger.request_cancel(job_id)
            if task := self._tasks.get(job_id):
                task.cancel()
                await asyncio.wait({task}, timeout=_CANCEL_DEADLINE_S)
            if not record.is_final:
                self._start(job_id)
        if runs_here(record.job.spec, self._node) and (task := self._tasks.get(job_id)):
            await asyncio.wait({task}, timeout=_CANCEL_DEADLINE_S)
        return record.told

    async def job(self, job_id: str) -> jobs_pb2.Job:
        """One job. Raises NotFound."""
        return await self._ledger.settled(job_id)

    def jobs(self) -> list[jobs_pb2.Job]:
        """All jobs, oldest first, without what they printed: thousands of them fit one message."""
        return [without_streams(record.told) for record in self._ledger.records() if record.told.revision]

    def watch(self, job_id: str, after_revision: int) -> AsyncIterator[jobs_pb2.Job]:
        """A job now and at every change."""
        return self._ledger.watch(job_id, after_revision)

    async def stop(self) -> None:
        """End what runs; the journal says where to go on."""
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_DEADLINE_S)
        await self._ledger.close()

    def _start(self, job_id: str) -> None:
        task = asyncio.create_task(self._live(job_id), name=f"job {job_id}")
        self._tasks[job_id] = task
        task.add_done_callback(lambda done: self._ended(job_id, done))

    def _ended(self, job_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(job_id) is task:
            del self._tasks[job_id]
        if not task.cancelled() and (error := task.exception()):
            _log.error("job %s: the agent could not lead it on", job_id, exc_info=error)

    async def _live(self, job_id: str) -> None:
        """From wherever the job is to its end."""
        record = self._ledger.record(job_id)
        try:
            if record.cancel_requested:
                how = await self._courier.cancel(job_id) if record.handed_over else "on request"
                await self._ledger.advance(job_id, JOB_STATE_CANCELLED, f"cancelled {how}")
            elif runs_here(record.job.spec, self._node):
                await self._courier.gather(job_id)
                await self._run(job_id)
            else:
                await self._courier.deliver(job_id)
        except (Refusal, OSError) as no:
            await self._ledger.advance(job_id, JOB_STATE_FAILED, str(no))
        except Exception as defect:  # noqa: BLE001 — told and logged: a defect of ours must leave no job open
            _log.exception("job %s: the agent erred", job_id)
            await self._ledger.advance(job_id, JOB_STATE_FAILED, f"the agent erred: {defect!r}")

    async def _run(self, job_id: str) -> None:
        """Run it here, when it is its turn."""
        record = self._ledger.record(job_id)
        spec = record.job.spec
        if record.job.state != JOB_STATE_QUEUED:
            await self._ledger.advance(job_id, JOB_STATE_QUEUED, "waiting for its turn")
        scratch = Scratch(self._scratch_dir / job_id)
        async with self._free_slots:
            await self._ledger.advance(job_id, JOB_STATE_RUNNING, f"attempt {record.job.attempt}")
            try:
                ended = await execute(spec, scratch, self._store, self._node, self.orphans)
                result = jobs_pb2.Job(exit_status=ended.exit_status, stdout=ended.stdout, stderr=ended.stderr)
                result.outputs.extend(await collect_outputs(scratch, self._store, self._node))
            finally:
                await to_its_end(scratch.clear)
        state = JOB_STATE_SUCCEEDED if ended.exit_status == 0 else JOB_STATE_FAILED
        await self._ledger.advance(job_id, state, ended.reason, result=result)
