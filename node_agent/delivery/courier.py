"""Gets a job done at another node, through any number of breaks: a blackout is a state of the network, never a failure.

A job goes straight to its node where a path leads there, and otherwise into the custody of the node that the contact
plan names, which carries it on: store, carry and forward, as in RFC 9171 and in contact-graph routing (CCSDS
734.3-B-1), without their formats. Its result is fetched by whoever handed it on, or brought by a node between where
that is sooner. Every step may be broken at any point and is done again: what is committed at either end is not sent a
second time, and the job's id makes handing it over, and giving its result back, idempotent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn, TypeVar

from node_agent.delivery.cargo import Cargo
from node_agent.delivery.contact import Contacts
from node_agent.delivery.patience import Patience
from node_agent.delivery.peer import Peer
from node_agent.delivery.way_back import ASK_AGAIN_S, WayBack
from node_agent.errors import Break, DataLoss, Exhausted, FailedPrecondition, NotFound, OutOfRange
from node_agent.jobs.ledger import Ledger
from node_agent.jobs.logs import STREAMS, JobLogs, Stream
from node_agent.jobs.outputs import why_kept
from node_agent.jobs.states import AT_NODE, FINAL, away_inputs, label, own_inputs, program_objects
from node_agent.objects.catalog import PUT, for_job
from node_agent.objects.store import ObjectStore
from node_agent.sky.sky import Sky
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_IN_TRANSIT,
    JOB_STATE_RETURNING,
    JOB_STATE_WAITING_CONTACT,
)

T = TypeVar("T")
_log = logging.getLogger(__name__)

MAX_CORRUPTED = 5
"""How often an object may arrive corrupted before that is the store's fault and not the way's."""
NOT_YET_S = 2.0
"""Between two questions to the node that runs it while another has custody."""


class _LostThereError(Exception):
    """Who was given the job does not know it any more."""


class _UnderRepairError(DataLoss):
    """What the job needs lies at its node, damaged, and is to come again from another."""


class _NotYetError(Exception):
    """The job has not reached its node yet."""


class _GoneOnError(Exception):
    """Its result has left there already: others are charged with it."""


class Courier:
    """Carries jobs between this agent and others."""

    def __init__(
        self,
        node: str,
        store: ObjectStore,
        ledger: Ledger,
        logs: JobLogs,
        contacts: Contacts,
        sky: Sky,
        way_back: WayBack,
        cargo: Cargo,
    ) -> None:
        self._node = node
        self._store = store
        self._ledger = ledger
        self._logs = logs
        self._contacts = contacts
        self._sky = sky
        self._way_back = way_back
        self._cargo = cargo

    # --- to the node ---

    async def gather(self, job_id: str) -> None:
        """Bring here the inputs that lie elsewhere; the job runs here. Raises Refusal."""
        for each in away_inputs(self._job(job_id).spec, self._node):
            if self._store.size_bytes(each.object) is None:
                await self._through_breaks(job_id, each.at_node, partial(self._fetch_input, job_id, each.object))

    async def drop(self, job_id: str) -> None:
        """Have the inputs kept no more where they lie. Raises Refusal."""
        for each in self._job(job_id).spec.inputs:
            await self._through_breaks(job_id, each.at_node, partial(self._drop_input, job_id, each.object))

    async def deliver(self, job_id: str) -> None:
        """Have the job run at its node and bring back its result. After: it is final. Raises Refusal."""
        while True:
            job = self._job(job_id)
            if not job.custodian:
                await self._through_breaks(job_id, job.spec.on_node, partial(self._hand_over, job_id), between=True)
            try:
                ended = await self._first_to_tell(job_id)
            except _LostThereError:
                await self._take_back(job_id)
                continue
            except _GoneOnError:
                await self._ledger.let_go(job_id)
                return
            await self.conclude(job_id, ended)
            await self._way_back.release(self._job(job_id))
            return

    async def conclude(self, job_id: str, ended: jobs_pb2.Job) -> None:
        """Take over how the job ended; its outputs are here. After: it is final, on disk."""
        await self._mirror(job_id, ended)
        result = jobs_pb2.Job(
            exit_status=ended.exit_status,
            stdout=ended.stdout,
            stderr=ended.stderr,
            outputs=ended.outputs,
            signal=ended.signal,
            usage=ended.usage,
            checkpoint_object=ended.checkpoint_object,
        )
        if not ended.spec.keep_outputs_on_node and why_kept(self._job(job_id).spec, self._node) == PUT:
            for output in ended.outputs:
                await self._store.refer(output.object, PUT)
        await self._ledger.advance(job_id, ended.state, ended.reason, result=result)

    async def cancel(self, job_id: str) -> str:
        """See to it that its node will not run it any more. How that went, for people. Raises Refusal."""
        job = self._job(job_id)
        for node in dict.fromkeys((job.custodian, job.spec.on_node)):
            ended = await self._through_breaks(job_id, node, lambda peer: peer.cancel(job_id))
            if ended is not None:
                return f"at {node}: {label(ended.state)}, {ended.reason}"
        return f"before {job.custodian} had accepted it"

    # --- through breaks ---

    def _job(self, job_id: str) -> jobs_pb2.Job:
        return self._ledger.record(job_id).job

    async def _through_breaks(
        self, job_id: str, to: str, action: Callable[[Peer], Awaitable[T]], *, between: bool = False
    ) -> T:
        """Try an action in one contact after the other, until one holds. `between`: with who has custody then."""
        with self._sky.seeking(to):
            return await self._in_contacts(job_id, to, action, between=between)

    async def _in_contacts(self, job_id: str, to: str, action: Callable[[Peer], Awaitable[T]], *, between: bool) -> T:
        patience = Patience(self._sky)
        corrupted = 0
        while True:
            node = await patience.until_contact(to, partial(self._waits, job_id), between=between)
            try:
                return await self._contacts.do(node, action, patience.heard)
            except Break as gap:
                silence_s = patience.silence_s
                await self._wait_for_contact(job_id, f"{gap} for {silence_s:.0f} s" if silence_s >= 1 else str(gap))
            except (Exhausted, _UnderRepairError) as no:
                what = "room" if isinstance(no, Exhausted) else "a repair"
                self._ledger.note(job_id, f"waiting for {what}: {no}")
                if not await patience.after_refusal_for_now():
                    raise
                continue
            except DataLoss as damage:
                corrupted += 1
                if corrupted == MAX_CORRUPTED:
                    raise
                self._ledger.note(job_id, str(damage))
                await patience.after_refusal_for_now()  # where it lies it may be under repair
                continue
            await patience.after_break()

    def _waits(self, job_id: str, reason: str) -> None:
        state = self._job(job_id).state
        self._ledger.note(job_id, reason if state == JOB_STATE_WAITING_CONTACT else f"waiting for contact: {reason}")

    async def _wait_for_contact(self, job_id: str, reason: str) -> None:
        if self._job(job_id).state == JOB_STATE_IN_TRANSIT and not self._job(job_id).custodian:
            await self._ledger.advance(job_id, JOB_STATE_WAITING_CONTACT, reason)
        else:
            self._waits(job_id, reason)

    async def _in_transit(self, job_id: str, reason: str) -> None:
        if self._job(job_id).state == JOB_STATE_IN_TRANSIT:
            self._ledger.note(job_id, reason)
        else:
            await self._ledger.advance(job_id, JOB_STATE_IN_TRANSIT, reason)

    # --- inputs that lie elsewhere ---

    async def _drop_input(self, job_id: str, name: str, peer: Peer) -> None:
        await self._in_transit(job_id, f"having an object removed at {peer.node}")
        await peer.delete(name)

    async def _fetch_input(self, job_id: str, name: str, peer: Peer) -> None:
        what = f"fetching an input from {peer.node}"
        await self._in_transit(job_id, what)
        await self._cargo.fetch(peer, job_id, name, what, for_job(job_id))

    # --- handing over ---

    async def _hand_over(self, job_id: str, peer: Peer) -> None:
        """Give a node everything that the job needs, then the job itself."""
        spec = self._job(job_id).spec
        inputs = own_inputs(spec, self._node)
        names = [*inputs, *program_objects(spec)]
        # All in one round trip: it counts after each blackout.
        stats = asyncio.gather(*map(peer.committed_bytes, names))
        known, committed_bytes = await asyncio.gather(peer.job(job_id), stats)
        custody = "" if peer.node == spec.on_node else f", which takes it on to {spec.on_node}"
        await self._in_transit(job_id, f"handing over to {peer.node}{custody}")
        if known is None:
            for number, (name, there_bytes) in enumerate(zip(names, committed_bytes, strict=True), 1):
                what = f"input {number} of {len(inputs)}" if number <= len(inputs) else "the program"
                await self._cargo.send(peer, job_id, name, what, there_bytes)
        await self._ledger.hand_over(job_id, peer.node)
        try:
            taken = await peer.submit(self._as_handed_over(spec))
        except FailedPrecondition as lacks:  # what was there is not any more: it was found damaged, for one
            raise DataLoss(str(lacks)) from None
        except DataLoss as damaged:
            raise _UnderRepairError(str(damaged)) from None
        await self._mirror(job_id, taken)

    def _as_handed_over(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.JobSpec:
        """The job as another node is given it: what lay here lies there."""
        there = jobs_pb2.JobSpec()
        there.CopyFrom(spec)
        for each in there.inputs:
            if each.at_node == self._node:
                each.at_node = ""
        there.return_to = spec.return_to or self._node
        return there

    async def _take_back(self, job_id: str) -> None:
        """Have charge of it again: who was given it does not know it any more."""
        job = self._job(job_id)
        attempt = jobs_pb2.Job(attempt=job.attempt + (job.state in AT_NODE))
        reason = f"{job.custodian} has lost the job; sending it again"
        await self._ledger.take_back(job_id)
        if job.state == JOB_STATE_IN_TRANSIT:
            self._ledger.note(job_id, reason)
        else:
            await self._ledger.advance(job_id, JOB_STATE_IN_TRANSIT, reason, result=attempt)

    # --- following ---

    async def _first_to_tell(self, job_id: str) -> jobs_pb2.Job:
        """How the job ended, from whoever tells first: the one it was given to, or the one that runs it.

        Its outputs are here then. Raises _LostThereError, Refusal; _GoneOnError also when who is to have the result has
        it: that one is met more often than the others.
        """
        job = self._job(job_id)
        asked = [
            asyncio.create_task(self._hear_from(job_id, node))
            for node in dict.fromkeys((job.custodian, job.spec.on_node))
        ]
        if job.spec.return_to not in ("", self._node):
            asked.append(asyncio.create_task(self._gone_home(job)))
        try:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _gone_home(self, job: jobs_pb2.Job) -> NoReturn:
        await self._way_back.until_home(job)
        raise _GoneOnError

    async def _hear_from(self, job_id: str, node: str) -> jobs_pb2.Job:
        """Ask a node until it tells: the one that has custody, and the one that runs it, which may be met sooner."""
        while True:
            try:
                return await self._through_breaks(job_id, node, partial(self._hear, job_id))
            except _NotYetError:
                await asyncio.sleep(NOT_YET_S)
            except _GoneOnError:
                if self._job(job_id).spec.return_to not in ("", self._node):
                    raise
                self._ledger.note(job_id, f"its result has left {node} already, and is on its way by others")
                await asyncio.sleep(ASK_AGAIN_S)

    async def _hear(self, job_id: str, peer: Peer) -> jobs_pb2.Job:
        """Watch the job to its end there, and bring its outputs here. The job as it ended."""
        ended: jobs_pb2.Job | None = None
        beside = [asyncio.create_task(self._tell_wishes(job_id, peer))]
        self._logs.resume(job_id)
        try:
            async for seen in peer.watch(job_id):
                if seen.let_go:
                    raise _GoneOnError
                await self._mirror(job_id, seen)
                if seen.state in AT_NODE | FINAL and len(beside) == 1:
                    beside += [asyncio.create_task(self._follow_log(job_id, stream, peer)) for stream in STREAMS]
                ended = seen
            if ended is None or ended.state not in FINAL:
                raise Break(f"{peer.node} is shutting down")
            await asyncio.gather(*beside[1:])
            await self._logs.finish(job_id)
        except NotFound:
            raise (_LostThereError if peer.node == self._job(job_id).custodian else _NotYetError) from None
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        if not self._job(job_id).spec.keep_outputs_on_node:
            for number, output in enumerate(ended.outputs, 1):
                if self._store.size_bytes(output.object) is None:
                    what = f"fetching output {number} of {len(ended.outputs)} ({output.size_bytes / 1e6:.1f} MB)"
                    why = why_kept(self._job(job_id).spec, self._node)
                    try:
                        await self._cargo.fetch(peer, job_id, output.object, f"{what} from {peer.node}", why)
                    except NotFound:
                        raise _GoneOnError from None
                output.at_node = self._node
        return ended

    async def _tell_wishes(self, job_id: str, peer: Peer) -> None:
        """Tell the node that it be suspended, or go on, whenever that is wished here."""
        record = self._ledger.record(job_id)
        while True:
            wished, suspend = record.wished, record.suspend_requested
            if record.suspend_untold:
                try:
                    await peer.suspend(job_id, suspend=suspend)
                except FailedPrecondition:
                    return  # it has ended
                await self._ledger.wish_told(job_id, suspend)
            await wished.wait()

    async def _follow_log(self, job_id: str, stream: Stream, peer: Peer) -> None:
        """Have what it prints there here too."""
        number = jobs_pb2.LOG_STREAM_STDOUT if stream == "stdout" else jobs_pb2.LOG_STREAM_STDERR
        while True:
            try:
                async for chunk in peer.log(job_id, number, self._logs.size_bytes(job_id, stream)):
                    self._logs.append(job_id, stream, chunk.data, chunk.offset_bytes)
            except OutOfRange:  # a new attempt has begun it anew
                self._logs.append(job_id, stream, b"", 0)
            else:
                return

    async def _mirror(self, job_id: str, seen: jobs_pb2.Job) -> None:
        """Follow the job's states there, those too that passed unseen, at that node's own times."""
        job = self._job(job_id)
        if seen.history[-1].at_unix_ns < job.history[-1].at_unix_ns and seen.state not in FINAL:
            return  # another node has told of more
        attempt = jobs_pb2.Job(attempt=max(job.attempt, seen.attempt))
        for step in seen.history:
            if step.at_unix_ns > self._job(job_id).history[-1].at_unix_ns:
                await self._mirror_step(job_id, step.state, step.reason, attempt, step.at_unix_ns)
        await self._mirror_step(job_id, seen.state, seen.reason, attempt, None)

    async def _mirror_step(
        self,
        job_id: str,
        state: jobs_pb2.JobState.ValueType,
        reason: str,
        attempt: jobs_pb2.Job,
        at_unix_ns: int | None,
    ) -> None:
        if state in FINAL:
            state, reason = JOB_STATE_RETURNING, f"it has ended ({reason}); its result is on the way"
        elif state == JOB_STATE_WAITING_CONTACT:  # at who has custody of it
            state, reason = JOB_STATE_IN_TRANSIT, f"in custody of {self._job(job_id).custodian}: {reason}"
        if self._job(job_id).state == state:
            self._ledger.note(job_id, reason)
        else:
            await self._ledger.advance(job_id, state, reason, result=attempt, at_unix_ns=at_unix_ns)
