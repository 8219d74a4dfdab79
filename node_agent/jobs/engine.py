"""Leads every job of this agent to its end: chooses its way, and hears what is wished of it meanwhile.

A job that has work to be done for it has one task. One that waits for its turn, or is suspended before its program was
started, has none: the queue and the journal know it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from node_agent.blocking import uninterrupted
from node_agent.delivery.courier import Courier
from node_agent.delivery.peer import Resolver
from node_agent.delivery.way_back import WayBack
from node_agent.errors import DataLoss, Exhausted, FailedPrecondition, Refusal
from node_agent.jobs.deadlines import Deadlines
from node_agent.jobs.executor import Executor
from node_agent.jobs.ledger import Ledger, Record
from node_agent.jobs.logs import JobLogs
from node_agent.jobs.results import Results
from node_agent.jobs.runner import Runner
from node_agent.jobs.states import (
    FINAL,
    accepted,
    backoff_s,
    check_jurisdiction,
    check_same,
    check_spec,
    own_inputs,
    program_objects,
    runs_here,
)
from node_agent.jobs.told import Told
from node_agent.jobs.turns import Turn, Turns
from node_agent.jobs.unclaimed import release_unclaimed
from node_agent.objects.catalog import PUT
from node_agent.objects.store import ObjectStore
from node_agent.objects.stored_file import full_disk_is_exhausted
from node_agent.objects.terms import Terms
from node_agent.sky.sky import Sky
from node_agent.waiting import first_of
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_EXPIRED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_SUSPENDED,
)

_log = logging.getLogger(__name__)

Steps: TypeAlias = Callable[[Record], Coroutine[Any, Any, None]]

_STANDS: Final = FINAL | {JOB_STATE_SUSPENDED}
_STOP_DEADLINE_S: Final = 1.5
_INTERRUPT_DEADLINE_S: Final = 10.0


@dataclass(frozen=True)
class Bounds:
    """How much an agent takes on."""

    slots: int  # jobs that run at a time
    open_jobs: int  # jobs that are not final


class Engine:
    """The jobs of one agent."""

    def __init__(
        self,
        node: str,
        jurisdiction: str,
        bounds: Bounds,
        store: ObjectStore,
        ledger: Ledger,
        resolver: Resolver,
        executor: Executor,
        logs: JobLogs,
        courier: Courier,
        way_back: WayBack,
        sky: Sky,
    ) -> None:
        self._node = node
        self._jurisdiction = jurisdiction
        self._bounds = bounds
        self._store = store
        self._ledger = ledger
        self._resolver = resolver
        self._sky = sky
        self._courier = courier
        self._turns = Turns(bounds.slots)
        self.told = Told(ledger, logs)
        self._runner = Runner(ledger, executor, bounds.slots)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deadlines = Deadlines(ledger, sky)
        self.results = Results(node, store, ledger, resolver, way_back, courier, sky, self._interrupt)
        self._watching: list[asyncio.Task[None]] = []

    @property
    def slots(self) -> int:
        """How many jobs run at a time."""
        return self._bounds.slots

    @property
    def open_jobs(self) -> int:
        """How many jobs are not final."""
        return self._ledger.open_jobs

    async def recover(self) -> None:
        """Go on where the last agent over this store ended. Before: no call is served yet."""
        await self._runner.recover()
        for job_id in self._ledger.open_ids():
            record = self._ledger.record(job_id)
            if not record.is_final:
                self._go_on(record)
        for job_id in {*self._ledger.due_back_ids(), *self._store.jobs()}:
            if (known := self._ledger.find(job_id)) and known.is_final:
                self.results.wind_up(job_id)
        self._watching = [
            asyncio.create_task(self._deadlines.watch(self._expire)),
            asyncio.create_task(release_unclaimed(self._ledger, self._store, self._sky)),
        ]

    async def submit(self, spec: jobs_pb2.JobSpec, submitted_by: str = "") -> jobs_pb2.Job:
        """Take charge of a job, as the wire's contract says. Raises Refusal."""
        check_spec(spec)
        check_jurisdiction(spec, self._node, self._jurisdiction)
        if known := self._ledger.find(spec.id):
            check_same(known.job, spec)
            await self._ledger.settled(spec.id)
            if submitted_by and known.job.custodian and not known.is_final:
                await uninterrupted(self._take_back(known))
            return await self._ledger.settled(spec.id)
        for name in (*program_objects(spec), *own_inputs(spec, self._node)):
            if self._store.is_damaged(name):
                raise DataLoss(f"job {spec.id}: {name} was found damaged at {self._node}, and has not come again yet")
            if self._store.size_bytes(name) is None:
                raise FailedPrecondition(f"job {spec.id}: {name} is not (or not wholly) in the store of {self._node}")
        named = {spec.on_node, spec.return_to, *(each.at_node for each in spec.inputs)} - {self._node}
        await self._resolver.check_known(f"job {spec.id}", named)
        return await uninterrupted(self._take_charge(spec, submitted_by))

    async def cancel(self, job_id: str) -> jobs_pb2.Job:
        """End a job. After: it is on disk that it is to end, and nothing of it runs here. Raises Refusal."""
        return await uninterrupted(self._cancel(job_id))

    async def suspend(self, job_id: str) -> jobs_pb2.Job:
        """Stop a job until it is resumed. After: the wish is on disk, and nothing of it runs here. Raises Refusal."""
        return await uninterrupted(self._suspend(job_id))

    async def resume(self, job_id: str) -> jobs_pb2.Job:
        """Let a job go on. After: the wish is on disk. Raises Refusal."""
        return await uninterrupted(self._resume(job_id))

    async def stop(self) -> None:
        """End what runs; the journal says where to go on."""
        self._turns.close()
        tasks = {*self._tasks.values(), *self.results.tasks(), *self._watching}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_DEADLINE_S)
        await self._ledger.close()

    # --- what the verbs do, whoever waits for it ---

    async def _take_charge(self, spec: jobs_pb2.JobSpec, submitted_by: str) -> jobs_pb2.Job:
        if known := self._ledger.find(spec.id):  # while names were looked up
            check_same(known.job, spec)
            return await self._ledger.settled(spec.id)
        if self._ledger.open_jobs >= self._bounds.open_jobs:
            raise Exhausted(f"{self._node} has {self._ledger.open_jobs} open jobs, as many as it takes: later, again")
        job = accepted(spec, self._node, time.time_ns(), self._sky.now_emu_ns)
        job.submitted_by = submitted_by
        is_due_back = job.state not in FINAL and spec.return_to not in ("", self._node)
        turn = self._turns.at_once(spec.id, spec.priority, self._ledger.next_number) if self._only_waits(job) else None
        try:
            # Where a slot is free, one sync is enough to know both of the job and that its program may have started.
            record = await self._ledger.accept(job, due_back=is_due_back, begun=turn is not None)
        except BaseException:
            if turn is not None:
                turn.give_back()
            raise
        self._set_going(record, turn)
        if record.is_final:
            self.results.wind_up(spec.id)  # what was sent ahead for it goes
        elif spec.deadline_emu_ns:
            self._deadlines.added()
        return await self._ledger.settled(spec.id)

    def _set_going(self, record: Record, turn: Turn | None) -> None:
        """Begin with a job that has just been accepted, and has a turn if there was one at once."""
        if turn is not None and not (record.is_final or record.cancel_requested or record.suspend_requested):
            self._on_turn(turn)
            return
        if turn is not None:  # all this was wished while it was being written
            self._runner.not_begun(record)
            turn.give_back()
        if not record.is_final:
            self._go_on(record)

    async def _take_back(self, record: Record) -> None:
        """Who hands in a job that was handed on takes it that it is in charge here; and so it is."""
        job_id = record.job.spec.id
        await self._interrupt(job_id)
        if not record.is_final:
            await self._ledger.take_back(job_id)
            self._start(job_id, self._live)

    async def _cancel(self, job_id: str) -> jobs_pb2.Job:
        record = self._ledger.record(job_id)
        await self._ledger.settled(job_id)
        if not record.is_final and not record.cancel_requested:
            await self._ledger.request_cancel(job_id)
            await self._interrupt(job_id)
            if not record.is_final:
                self._start(job_id, self._live)
        elif record.is_final:
            await self.results.release(job_id)  # who wishes its end does not wait for its result
        if runs_here(record.job.spec, self._node) and (task := self._tasks.get(job_id)):
            await asyncio.wait({task}, timeout=_INTERRUPT_DEADLINE_S)
        return record.told

    async def _suspend(self, job_id: str) -> jobs_pb2.Job:
        record = self._ledger.record(job_id)
        await self._ledger.settled(job_id)
        if record.begun and not record.is_final:
            self._runner.make_room_for_stopped(job_id)
        await self._ledger.request_suspend(job_id, suspend=True)
        if record.begun:
            await self._until_stopped(record)
        elif self._turns.withdraw(job_id):
            await self._ledger.advance(job_id, JOB_STATE_SUSPENDED, "suspended before its turn")
        return record.told

    async def _resume(self, job_id: str) -> jobs_pb2.Job:
        record = self._ledger.record(job_id)
        await self._ledger.settled(job_id)
        await self._ledger.request_suspend(job_id, suspend=False)
        task = self._tasks.get(job_id)
        parked = record.job.state == JOB_STATE_SUSPENDED and (task is None or task.done())
        if runs_here(record.job.spec, self._node) and parked:
            self._start(job_id, self._live)
        return record.told

    async def _until_stopped(self, record: Record) -> None:
        """Wait until its program is stopped or has ended, or it is to go on before that; or for too long."""
        try:
            async with asyncio.timeout(_INTERRUPT_DEADLINE_S):
                while record.begun and record.suspend_requested and record.told.state not in _STANDS:
                    await first_of(record.changed.wait(), record.wished.wait())
        except TimeoutError:
            _log.error("job %s is still not stopped: %s", record.job.spec.id, record.told.reason)

    # --- the way of a job ---

    def _go_on(self, record: Record) -> None:
        """Have the job led on from where it is."""
        if self._only_waits(record.job) and not record.cancel_requested and not record.suspend_requested:
            self._ask_turn(record)
        else:
            self._start(record.job.spec.id, self._live)

    def _only_waits(self, job: jobs_pb2.Job) -> bool:
        """Whether all that the job needs is its turn here. (QUEUED is also told of a job that another node runs.)"""
        is_next = job.state == JOB_STATE_QUEUED and job.attempt == 1 and runs_here(job.spec, self._node)
        return is_next and job.spec.WhichOneof("program") not in ("keep", "drop")

    def _ask_turn(self, record: Record) -> None:
        job_id = record.job.spec.id
        self._turns.ask(job_id, record.job.spec.priority, record.number, self._on_turn)

    def _on_turn(self, turn: Turn) -> None:
        running = self._start(turn.job_id, partial(self._run, turn))
        running.add_done_callback(lambda _: turn.give_back())

    def _start(self, job_id: str, steps: Steps) -> asyncio.Task[None]:
        """Give the job a task, once that of before has ended."""
        before = self._tasks.get(job_id)
        task = asyncio.create_task(self._lead(job_id, steps, before), name=f"job {job_id}")
        self._tasks[job_id] = task
        task.add_done_callback(partial(self._ended, job_id))
        return task

    def _ended(self, job_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(job_id) is task:
            del self._tasks[job_id]
            record = self._ledger.record(job_id)
            if record.is_final:
                self.results.wind_up(job_id)
        if not task.cancelled() and (error := task.exception()):
            _log.error("job %s: the agent could not lead it on", job_id, exc_info=error)

    async def _interrupt(self, job_id: str) -> None:
        """Let nothing be done for the job any more; what runs of it is killed."""
        self._turns.withdraw(job_id)
        if task := self._tasks.get(job_id):
            task.cancel()
            await asyncio.wait({task}, timeout=_INTERRUPT_DEADLINE_S)

    async def _lead(self, job_id: str, steps: Steps, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        record = self._ledger.record(job_id)
        if record.is_final:
            return
        try:
            with full_disk_is_exhausted():
                await steps(record)
        except (Refusal, OSError) as no:
            await self._fail(record, str(no))
        except Exception as defect:  # noqa: BLE001 — told and logged: a defect of ours must leave no job open
            _log.exception("job %s: the agent erred", job_id)
            await self._fail(record, f"the agent erred: {defect!r}")

    async def _fail(self, record: Record, reason: str) -> None:
        if not record.is_final:
            await self._ledger.advance(record.job.spec.id, JOB_STATE_FAILED, reason)

    async def _live(self, record: Record) -> None:
        """From wherever the job is to its end, or to where it waits for its turn."""
        spec = record.job.spec
        if record.cancel_requested:
            how = await self._courier.cancel(spec.id) if record.job.custodian else "on request"
            await self._ledger.advance(spec.id, JOB_STATE_CANCELLED, f"cancelled {how}")
        elif not runs_here(spec, self._node):
            await self._courier.deliver(spec.id)
        elif spec.drop:
            await self._courier.drop(spec.id)
            self._ledger.advance(spec.id, JOB_STATE_QUEUED, "nothing is to be run")
            await self._ledger.advance(spec.id, JOB_STATE_SUCCEEDED, f"{len(spec.inputs)} objects are kept no more")
        else:
            await self._courier.gather(spec.id)
            await self._queue(record)

    async def _run(self, turn: Turn, record: Record) -> None:
        """It is the job's turn, to the end of its attempt; then what follows."""
        await self._runner.run(record, turn)
        turn.give_back()
        if not record.is_final:
            await self._queue(record)

    async def _queue(self, record: Record) -> None:
        """Everything is here: wait for the job's turn, unless it needs none or it is withheld."""
        spec = record.job.spec
        if spec.HasField("keep"):
            await self._keep(record)
            return
        await first_of(asyncio.sleep(backoff_s(record.job)), record.wished.wait())
        while True:  # a wish may come while the one before is written
            if record.suspend_requested:
                if record.job.state == JOB_STATE_SUSPENDED:
                    return
                await self._ledger.advance(spec.id, JOB_STATE_SUSPENDED, "suspended before its turn")
            elif record.job.state == JOB_STATE_QUEUED:
                self._ask_turn(record)
                return
            else:
                await self._ledger.advance(spec.id, JOB_STATE_QUEUED, "waiting for its turn")

    async def _keep(self, record: Record) -> None:
        """No process: the objects are here, and are to stay."""
        spec = record.job.spec
        for each in spec.inputs:
            if self._store.size_bytes(each.object) is None:
                raise FailedPrecondition(f"{each.object} has gone from the store of {self._node}")
        if record.job.state != JOB_STATE_QUEUED:
            self._ledger.advance(spec.id, JOB_STATE_QUEUED, "everything is here")
        terms = Terms.of(spec.keep)
        for each in spec.inputs:
            await self._store.set_terms(each.object, terms)
            await self._store.refer(each.object, PUT)
        await self._ledger.advance(spec.id, JOB_STATE_SUCCEEDED, f"{len(spec.inputs)} objects are kept")

    async def _expire(self, job_id: str) -> None:
        record = self._ledger.record(job_id)
        if not record.is_final:
            await self._interrupt(job_id)
        if not record.is_final:
            record.due_back = False  # who handed it in knows its deadline too
            await self._ledger.advance(job_id, JOB_STATE_EXPIRED, "its deadline has passed")
            self.results.wind_up(job_id)
