"""Gets a job done at another node, through any number of breaks: a blackout is a state of the network, never a failure.

Every step may be broken at any point and is done again: what is committed at either end is not sent a second time, and
the job's id makes handing it over idempotent.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from node_agent.errors import DataLoss, FailedPrecondition, NotFound
from node_agent.ledger import Ledger
from node_agent.peer import Break, Peer, Resolver, in_contact
from node_agent.states import AT_NODE, FINAL, away_inputs, label, own_inputs, program_objects
from node_agent.store import ObjectStore
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_IN_TRANSIT,
    JOB_STATE_RETURNING,
    JOB_STATE_WAITING_CONTACT,
)

T = TypeVar("T")
_log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 0.5
NOTE_EVERY_S = 1.0
MAX_CORRUPTED = 3
"""How often an object may arrive corrupted before that is the store's fault and not the way's."""


class _LostThereError(Exception):
    """The node does not know the job any more."""


class Progress:
    """Says how far a transfer is, once a second."""

    def __init__(self, ledger: Ledger, job_id: str, what: str) -> None:
        self._ledger = ledger
        self._job_id = job_id
        self._what = what
        self._due_mono_s = time.monotonic() + NOTE_EVERY_S

    def at(self, done_bytes: int, size_bytes: int) -> None:
        """So many bytes of so many."""
        if time.monotonic() >= self._due_mono_s:
            self._due_mono_s = time.monotonic() + NOTE_EVERY_S
            self._ledger.note(self._job_id, f"{self._what}, {100 * done_bytes // max(size_bytes, 1)} %")


class Courier:
    """Carries jobs between this agent and others."""

    def __init__(self, node: str, store: ObjectStore, ledger: Ledger, resolver: Resolver) -> None:
        self._node = node
        self._store = store
        self._ledger = ledger
        self._resolver = resolver
        self._offered: dict[tuple[str, str], int] = {}

    async def gather(self, job_id: str) -> None:
        """Bring here the inputs that lie elsewhere, of a job that runs here. Raises Refusal."""
        for each in away_inputs(self._ledger.record(job_id).job.spec, self._node):
            if self._store.size_bytes(each.object) is None:
                await self._through_breaks(job_id, each.at_node, partial(self._fetch_input, job_id, each.object))

    async def deliver(self, job_id: str) -> None:
        """Have the job run at its node and bring back its result. After: it is final. Raises Refusal."""
        node = self._ledger.record(job_id).job.spec.on_node
        while True:
            try:
                ended = await self._through_breaks(job_id, node, partial(self._carry, job_id))
            except _LostThereError:
                attempt = jobs_pb2.Job(attempt=self._ledger.record(job_id).job.attempt + 1)
                lost = f"{node} has lost the job; sending it again"
                await self._ledger.advance(job_id, JOB_STATE_IN_TRANSIT, lost, result=attempt)
            else:
                result = jobs_pb2.Job(
                    exit_status=ended.exit_status, stdout=ended.stdout, stderr=ended.stderr, outputs=ended.outputs
                )
                await self._ledger.advance(job_id, ended.state, ended.reason, result=result)
                return

    async def cancel(self, job_id: str) -> str:
        """See to it that its node will not run it any more. How that went, for people. Raises Refusal."""
        node = self._ledger.record(job_id).job.spec.on_node
        ended = await self._through_breaks(job_id, node, lambda peer: peer.cancel(job_id))
        if ended is None:
            return f"before {node} had accepted it"
        return f"at {node}: {label(ended.state)}, {ended.reason}"

    async def _through_breaks(self, job_id: str, node: str, action: Callable[[Peer], Awaitable[T]]) -> T:
        """Try an action in one contact after the other, until one holds."""
        heard_mono_s = time.monotonic()
        backoff_s = FIRST_BACKOFF_S
        corrupted = 0

        async def heard(peer: Peer) -> T:
            nonlocal heard_mono_s, backoff_s
            backoff_s = FIRST_BACKOFF_S
            try:
                return await action(peer)
            finally:
                heard_mono_s = time.monotonic()

        while True:
            try:
                return await in_contact(node, self._resolver, heard)
            except Break as gap:
                silence_s = time.monotonic() - heard_mono_s
                await self._wait_for_contact(job_id, f"{gap} for {silence_s:.0f} s" if silence_s >= 1 else str(gap))
            except DataLoss as damage:
                corrupted += 1
                if corrupted == MAX_CORRUPTED:
                    raise
                self._ledger.note(job_id, str(damage))
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 — jitter, no secret
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _wait_for_contact(self, job_id: str, reason: str) -> None:
        state = self._ledger.record(job_id).job.state
        if state == JOB_STATE_IN_TRANSIT:
            await self._ledger.advance(job_id, JOB_STATE_WAITING_CONTACT, reason)
        elif state == JOB_STATE_WAITING_CONTACT:
            self._ledger.note(job_id, reason)
        else:
            self._ledger.note(job_id, f"waiting for contact: {reason}")

    async def _in_transit(self, job_id: str, reason: str) -> None:
        if self._ledger.record(job_id).job.state == JOB_STATE_IN_TRANSIT:
            self._ledger.note(job_id, reason)
        else:
            await self._ledger.advance(job_id, JOB_STATE_IN_TRANSIT, reason)

    async def _fetch_input(self, job_id: str, name: str, peer: Peer) -> None:
        what = f"fetching an input from {peer.node}"
        await self._in_transit(job_id, what)
        await self._fetch(peer, job_id, name, what)

    async def _fetch(self, peer: Peer, job_id: str, name: str, what: str) -> None:
        progress = Progress(self._ledger, job_id, what)

        def on_received(chunk_bytes: int, done_bytes: int, size_bytes: int) -> None:
            self._ledger.moved(job_id, chunk_bytes)
            progress.at(done_bytes, size_bytes)

        await peer.fetch(self._store, name, on_received)

    async def _carry(self, job_id: str, peer: Peer) -> jobs_pb2.Job:
        """Hand the job over, unless an earlier contact did, and see it to its end. The job as it ended."""
        if self._ledger.record(job_id).job.state not in AT_NODE:
            await self._hand_over(job_id, peer)
        return await self._follow(job_id, peer)

    async def _hand_over(self, job_id: str, peer: Peer) -> None:
        """Everything that the node needs, then the job itself."""
        spec = self._ledger.record(job_id).job.spec
        known = await peer.job(job_id)
        await self._in_transit(job_id, f"handing over to {peer.node}")
        if known is None:
            inputs = own_inputs(spec, self._node)
            for number, name in enumerate(inputs, 1):
                await self._send(peer, job_id, name, f"input {number} of {len(inputs)}")
            for name in program_objects(spec):
                await self._send(peer, job_id, name, "the program")
        await self._ledger.hand_over(job_id)
        await self._mirror(job_id, await peer.submit(_at_the_node(spec, self._node)))

    async def _send(self, peer: Peer, job_id: str, name: str, what: str) -> None:
        size_bytes = self._store.size_bytes(name)
        if size_bytes is None:
            raise FailedPrecondition(f"{name} has gone from the store of {self._node}")
        committed_bytes = await peer.committed_bytes(name)
        # Bytes count as moved when they have arrived: an earlier contact's, once this one tells how many they were.
        offered = self._offered.pop((job_id, name), None)
        if offered is not None:
            self._ledger.moved(job_id, max(committed_bytes - offered, 0))
        if size_bytes and committed_bytes == size_bytes:
            return
        self._offered[job_id, name] = committed_bytes
        reason = f"sending {what} ({size_bytes / 1e6:.1f} MB) to {peer.node}"
        self._ledger.note(job_id, reason)
        _log.info("job %s: %s, from byte %d", job_id, reason, committed_bytes)
        progress = Progress(self._ledger, job_id, reason)
        await peer.put(self._store, name, committed_bytes, lambda done_bytes: progress.at(done_bytes, size_bytes))
        self._ledger.moved(job_id, size_bytes - self._offered.pop((job_id, name)))

    async def _follow(self, job_id: str, peer: Peer) -> jobs_pb2.Job:
        """Watch it to its end there, and bring its outputs here. The job as it ended."""
        ended: jobs_pb2.Job | None = None
        try:
            async for seen in peer.watch(job_id):
                await self._mirror(job_id, seen)
                ended = seen
        except NotFound:
            raise _LostThereError from None
        if ended is None or ended.state not in FINAL:
            raise Break(f"{peer.node} is shutting down")
        if not self._ledger.record(job_id).job.spec.keep_outputs_on_node:
            for number, output in enumerate(ended.outputs, 1):
                if self._store.size_bytes(output.object) is None:
                    what = f"fetching output {number} of {len(ended.outputs)} ({output.size_bytes / 1e6:.1f} MB)"
                    await self._fetch(peer, job_id, output.object, f"{what} from {peer.node}")
                output.at_node = self._node
        return ended

    async def _mirror(self, job_id: str, seen: jobs_pb2.Job) -> None:
        """Follow the job's states at its node, those too that passed unseen, at the node's own times."""
        job = self._ledger.record(job_id).job
        attempt = jobs_pb2.Job(attempt=max(job.attempt, seen.attempt))
        for step in seen.history:
            if step.at_unix_ns > self._ledger.record(job_id).job.history[-1].at_unix_ns:
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
        if self._ledger.record(job_id).job.state == state:
            self._ledger.note(job_id, reason)
        else:
            await self._ledger.advance(job_id, state, reason, result=attempt, at_unix_ns=at_unix_ns)


def _at_the_node(spec: jobs_pb2.JobSpec, node: str) -> jobs_pb2.JobSpec:
    """The job as its node is given it by `node`: what lay here lies there, and it fetches what lies elsewhere."""
    there = jobs_pb2.JobSpec()
    there.CopyFrom(spec)
    for each in there.inputs:
        if each.at_node in (node, spec.on_node):
            each.at_node = ""
    there.keep_outputs_on_node = True
    return there
