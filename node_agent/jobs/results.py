"""Results of jobs that have ended: each gets to where it shall go, and then nothing of its job stays here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from node_agent.blocking import uninterrupted
from node_agent.delivery.courier import Courier
from node_agent.delivery.peer import Resolver
from node_agent.delivery.way_back import WayBack
from node_agent.errors import FailedPrecondition, InvalidArgument
from node_agent.jobs.ledger import Ledger, Record
from node_agent.jobs.states import check_result, check_same_order, runs_here
from node_agent.objects.store import ObjectStore
from node_agent.sky.sky import Sky
from node_agent.waiting import first_of
from protos.skyrack.v1 import jobs_pb2

_log = logging.getLogger(__name__)


class Results:
    """The results that are here, of this node's jobs and of others'."""

    def __init__(
        self,
        node: str,
        store: ObjectStore,
        ledger: Ledger,
        resolver: Resolver,
        way_back: WayBack,
        courier: Courier,
        sky: Sky,
        interrupt: Callable[[str], Awaitable[None]],
    ) -> None:
        """`interrupt`: let nothing be done for a job any more."""
        self._node = node
        self._store = store
        self._ledger = ledger
        self._resolver = resolver
        self._way_back = way_back
        self._courier = courier
        self._sky = sky
        self._interrupt = interrupt
        self._sending: dict[str, asyncio.Task[None]] = {}

    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return list(self._sending.values())

    def wind_up(self, job_id: str) -> None:
        """See to it that the result of a job that has ended gets to where it shall go, and nothing of the job stays."""
        if job_id not in self._sending:
            task = self._sending[job_id] = asyncio.create_task(self._back(job_id), name=f"result of {job_id}")
            task.add_done_callback(lambda done: self._sent(job_id, done))

    async def take(self, job: jobs_pb2.Job) -> None:
        """Take charge of a result on its way back. After: it is on disk. Raises Refusal."""
        check_result(job)
        await self._resolver.check_known(f"job {job.spec.id}", {job.spec.return_to} - {self._node})
        self._check_outputs(job)
        await uninterrupted(self._take(job))

    async def release(self, job_id: str) -> None:
        """The result of a job is safe elsewhere: it need not be brought there, nor waited for. After: on disk."""
        record = self._ledger.find(job_id)
        if record is None:
            return
        await self._ledger.settled(job_id)
        if record.due_back and not record.is_final and not runs_here(record.job.spec, self._node):
            await uninterrupted(self._let_go(job_id))
        await self._ledger.sent_back(job_id)
        if task := self._sending.pop(job_id, None):
            task.cancel()
        if record.is_final:
            self.wind_up(job_id)

    async def _let_go(self, job_id: str) -> None:
        await self._interrupt(job_id)
        await self._ledger.let_go(job_id)

    async def _take(self, job: jobs_pb2.Job) -> None:
        job_id = job.spec.id
        record = self._ledger.find(job_id)
        held = jobs_pb2.Job()
        held.CopyFrom(job)
        for output in () if job.spec.keep_outputs_on_node else held.outputs:
            output.at_node = self._node
        if record is None:
            if job.spec.return_to == self._node:
                raise InvalidArgument(f"job {job_id} was never handed in at {self._node}")
            held.custodian, held.submitted_by, held.moved_bytes, held.revision = "", self._node, 0, 1
            await self._ledger.accept(held, due_back=job.spec.return_to not in ("", self._node))
            self.wind_up(job_id)
            return
        check_same_order(record.job, job.spec)
        await self._ledger.settled(job_id)
        if record.is_final:
            if job.spec.return_to not in ("", self._node):
                await self._take_again(record, held)
            return
        if runs_here(record.job.spec, self._node):
            return
        await self._interrupt(job_id)
        if not record.is_final:
            await self._courier.conclude(job_id, held)
        self.wind_up(job_id)

    async def _take_again(self, record: Record, held: jobs_pb2.Job) -> None:
        """Have charge again of a result that had gone on from here, or been let go of: its best way leads here."""
        job_id = record.job.spec.id
        if going := self._sending.pop(job_id, None):
            going.cancel()
            await asyncio.wait({going})
        self._check_outputs(held)  # they may have gone with the one before
        await self._ledger.due_back_again(job_id, held)
        self.wind_up(job_id)

    def _check_outputs(self, job: jobs_pb2.Job) -> None:
        for output in () if job.spec.keep_outputs_on_node else job.outputs:
            if self._store.size_bytes(output.object) is None:
                raise FailedPrecondition(f"job {job.spec.id}: its output {output.object} is not here")

    async def _back(self, job_id: str) -> None:
        record = self._ledger.record(job_id)
        deadline_emu_ns = record.job.spec.deadline_emu_ns
        # Who has wished its end, or knows that its deadline has passed, does not wait for it.
        if record.due_back and not record.cancel_requested:
            await first_of(
                self._way_back.bring_back(record.job),
                self._sky.until(deadline_emu_ns) if deadline_emu_ns else asyncio.Event().wait(),
            )
        await self._ledger.sent_back(job_id)
        await self._store.release(job_id)

    def _sent(self, job_id: str, task: asyncio.Task[None]) -> None:
        if self._sending.get(job_id) is task:
            del self._sending[job_id]
        if not task.cancelled() and (error := task.exception()):
            _log.error("job %s: its result could not be sent back", job_id, exc_info=error)
