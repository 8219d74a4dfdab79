"""The controller's desk for jobs: chooses their nodes, hands them to gateways, follows each to its end, and tells the
record. What it has taken is in its journal before anybody is told so.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from controller.agents import FINAL_STATES, AgentClient
from controller.errors import InputError, SkyrackError
from controller.jobs.journal import Entry, Journal
from controller.jobs.orders import Orders, explanation_of
from controller.jobs.placement import Bar, infeasible
from controller.jobs.policies import policy_named
from protos.skyrack.v1 import controller_pb2, jobs_pb2, objects_pb2

REWATCH_S = 1.0
NS = 1_000_000_000


def state_name(state: jobs_pb2.JobState.ValueType) -> str:
    """The word of DESIGN for a state: WAITING_CONTACT, RUNNING, …"""
    return jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_")


@dataclass(frozen=True)
class GatewayJob:
    """A job and the gateway that has charge of it."""

    via: str
    job: jobs_pb2.Job


class JobDesk:
    """Speaks to every node on the ground. One watcher a job tells `on_change` of each new state or reason."""

    def __init__(
        self,
        grounds: Mapping[str, AgentClient],
        journal: Journal,
        orders: Orders,
        on_change: Callable[[GatewayJob], None],
    ) -> None:
        self._grounds, self.journal, self._orders, self._on_change = grounds, journal, orders, on_change
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._at_node: dict[str, str] = {}  # of jobs that are not final
        self._policies: dict[str, str] = {}

    async def take_up(self) -> None:
        """Go on with what the journal has: jobs that were taken before the controller was killed."""
        self._policies = await asyncio.to_thread(self.journal.policies)
        for entry in await asyncio.to_thread(self.journal.open_jobs):
            job_id, via = entry.spec.id, entry.request.via
            if entry.stands == "placed":
                try:
                    await self.gateway(via).job(job_id)
                except InputError:  # it was never handed over, and nobody was told so
                    await asyncio.to_thread(self.journal.forget, job_id)
                    continue
                await asyncio.to_thread(self.journal.stands, job_id, "taken")
            self._follow_from_now(via, entry.spec)

    def gateway(self, name: str) -> AgentClient:
        """The client of a node on the ground. Raises InputError if none has the name."""
        try:
            return self._grounds[name]
        except KeyError:
            known = ", ".join(sorted(self._grounds)) or "none in this scenario"
            raise InputError(f"{name!r} is no gateway or terminal of this run (there are: {known})") from None

    async def submit(
        self,
        via: str,
        spec: jobs_pb2.JobSpec,
        policy: str = "",
        pinned_to: tuple[str, ...] = (),
        deadline_s: float = 0.0,
    ) -> GatewayJob:
        """Choose a job's node if it names none, and hand it to a gateway; it is journalled here and there when this
        returns. `deadline_s`: of the sky, from now. Raises InputError, which says why no node can take it."""
        request = controller_pb2.ViaSubmitRequest(
            via=via, spec=spec, policy=policy, pinned_to=pinned_to, deadline_s=deadline_s
        )
        self.gateway(via)
        async with self._alone(spec.id):
            entry = await asyncio.to_thread(self.journal.job, spec.id)
            if entry is not None and entry.stands != "refused":
                if entry.request != request:
                    raise InputError(f"job {spec.id!r} exists, with another content or placement: use another id")
            else:
                entry = await self._decided(request)
            return await self._handed_over(entry)

    async def take(self, entry: Entry) -> GatewayJob:
        """Hand over a job that is decided."""
        async with self._alone(entry.spec.id):
            return await self._handed_over(entry)

    async def list(self) -> list[GatewayJob]:
        """The jobs of all gateways, by gateway and age."""
        answers = await asyncio.gather(*(client.jobs() for client in self._grounds.values()))
        return [GatewayJob(via, job) for via, jobs in zip(self._grounds, answers, strict=True) for job in jobs]

    async def find(self, job_id: str) -> GatewayJob:
        """One job. Raises InputError if there is none."""
        entry = await asyncio.to_thread(self.journal.job, job_id)
        if entry is None:
            raise InputError(f"this run has no job {job_id!r} (`skyrack jobs` lists them)")
        via = entry.request.via
        if entry.stands == "refused":
            raise InputError(f"job {job_id!r} was not taken: no node can take it (`skyrack explain {job_id}`)")
        return GatewayJob(via, await self.gateway(via).job(job_id))

    async def explain(self, job_id: str) -> tuple[controller_pb2.Explanation, GatewayJob]:
        """Why a job is where it is, or why no node could take it. Raises InputError if there is none."""
        entry = await asyncio.to_thread(self.journal.job, job_id)
        if entry is not None and entry.stands == "refused":
            return entry.explanation, GatewayJob(entry.request.via, jobs_pb2.Job(spec=entry.spec))
        found = await self.find(job_id)
        return entry.explanation if entry else controller_pb2.Explanation(), found

    def policy_of(self, job_id: str) -> str:
        """How the node of a job was chosen; empty where the client named it."""
        return self._policies.get(job_id, "")

    async def watch(self, job_id: str, after_revision: int = 0) -> AsyncIterator[GatewayJob]:
        """The job now and at every change, until it is final."""
        via = (await self.find(job_id)).via
        async for job in self.gateway(via).watch(job_id, after_revision):
            if job.state in FINAL_STATES:
                await self._ended(job)
            yield GatewayJob(via, job)

    async def finished(self, job_id: str) -> GatewayJob:
        """The job, once it is final."""
        async for entry in self.watch(job_id):
            if entry.job.state in FINAL_STATES:
                return entry
        raise SkyrackError(f"the gateway stopped telling of job {job_id!r} before it was final")

    async def cancel(self, job_id: str) -> GatewayJob:
        """Ask for the job's end."""
        via = (await self.find(job_id)).via
        return GatewayJob(via, await self.gateway(via).cancel(job_id))

    async def suspend(self, job_id: str) -> GatewayJob:
        """Have the job stand still."""
        via = (await self.find(job_id)).via
        return GatewayJob(via, await self.gateway(via).suspend(job_id))

    async def resume(self, job_id: str) -> GatewayJob:
        """Let the job go on."""
        via = (await self.find(job_id)).via
        return GatewayJob(via, await self.gateway(via).resume(job_id))

    async def read_log(self, request: jobs_pb2.ReadLogRequest) -> AsyncIterator[jobs_pb2.LogChunk]:
        """What the job has written."""
        via = (await self.find(request.id)).via
        async for chunk in self.gateway(via).read_log(request):
            yield chunk

    def open_at(self) -> Mapping[str, int]:
        """How many jobs that are not final were sent to each node."""
        return Counter(self._at_node.values())

    async def close(self) -> None:
        """Stop following."""
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

    def _alone(self, job_id: str) -> asyncio.Lock:
        """Held while a job is decided and handed over, so that one that comes twice is decided once."""
        return self._one_at_a_time.setdefault(job_id, asyncio.Lock())

    async def _decided(self, request: controller_pb2.ViaSubmitRequest) -> Entry:
        """A job with its node, by its request. Raises InputError when there is none, which is journalled."""
        spec, orders = jobs_pb2.JobSpec(), self._orders
        spec.CopyFrom(request.spec)
        _check_choice(request)
        if request.deadline_s:
            spec.deadline_emu_ns = round((orders.now_s + request.deadline_s) * NS)
        await orders.restrict(request.via, spec)
        if not request.policy:
            return Entry(request, spec, explanation_of(spec, request.via, orders.now_s), "placed")
        order = await orders.order(request.via, spec, tuple(request.pinned_to))
        decision, _ = await orders.decided(order, policy_named(request.policy), self.open_at())
        entry = Entry(request, spec, explanation_of(spec, request.via, orders.now_s, decision), "placed")
        if not decision.chosen:
            await asyncio.to_thread(self.journal.decide, replace(entry, stands="refused"))
            outside = sum(verdict.bar is Bar.RESIDENCY for verdict in decision.verdicts)
            if outside:
                await orders.deny("submit", spec.id, f"{outside} nodes lie outside {', '.join(order.jurisdictions)}")
            raise InputError(f"job {spec.id}: {infeasible(decision)} (`skyrack explain {spec.id}` tells of every node)")
        spec.on_node = "" if decision.chosen == request.via else decision.chosen
        for each in spec.inputs:  # one that lies there need not be brought
            if each.at_node and any(each.object == i.name and decision.chosen in i.at_nodes for i in order.items):
                each.at_node = decision.chosen
        return entry

    async def _handed_over(self, entry: Entry) -> GatewayJob:
        """The job, journalled at both ends."""
        job_id, via = entry.spec.id, entry.request.via
        await asyncio.to_thread(self.journal.decide, entry)
        self._policies[job_id] = entry.explanation.policy
        try:
            job = await self.gateway(via).submit(entry.spec)
        except InputError:
            if entry.stands == "placed":
                await asyncio.to_thread(self.journal.forget, job_id)
            raise
        if entry.stands == "placed":
            await asyncio.to_thread(self.journal.stands, job_id, "taken")
        if entry.stands != "ended":
            self._follow_from_now(via, entry.spec)
        return GatewayJob(via, job)

    def _follow_from_now(self, via: str, spec: jobs_pb2.JobSpec) -> None:
        if spec.id not in self._watchers:
            self._at_node[spec.id] = spec.on_node or via
            self._watchers[spec.id] = asyncio.create_task(self._follow(via, spec.id), name=f"watch {spec.id}")

    async def _follow(self, via: str, job_id: str) -> None:
        """Tell of every new state or reason, also across a restart of the gateway's agent.

        A reason whose numbers alone have changed (so many per cent, so many seconds) is not new.
        """
        revision, told = 0, (jobs_pb2.JOB_STATE_UNSPECIFIED, "")
        while True:
            try:
                async for job in self.gateway(via).watch(job_id, revision):
                    revision = job.revision
                    now = (job.state, re.sub(r"\d+", "#", job.reason))
                    if now != told:
                        told = now
                        self._on_change(GatewayJob(via, job))
                    if job.state in FINAL_STATES:
                        await self._ended(job)
                        return
            except SkyrackError as error:
                if told != (jobs_pb2.JOB_STATE_UNSPECIFIED, str(error)):
                    told = jobs_pb2.JOB_STATE_UNSPECIFIED, str(error)
                    self._on_change(GatewayJob(via, jobs_pb2.Job(spec=jobs_pb2.JobSpec(id=job_id), reason=str(error))))
            await asyncio.sleep(REWATCH_S)

    async def _ended(self, job: jobs_pb2.Job) -> None:
        """Remember where its outputs lie, or what it was to keep: before anybody is told that it has ended."""
        spec = job.spec
        async with self._alone(spec.id):
            if spec.id not in self._at_node:  # whoever saw it first has written it down
                return
            terms = objects_pb2.ObjectTerms(jurisdictions=spec.jurisdictions, transit=spec.transit)
            for output in job.outputs:
                info = objects_pb2.ObjectInfo(object=output.object, size_bytes=output.size_bytes, terms=terms)
                await asyncio.to_thread(self.journal.holds, output.at_node, [info])
            if job.state == jobs_pb2.JOB_STATE_SUCCEEDED and spec.WhichOneof("program") == "keep":
                known = [await asyncio.to_thread(self.journal.known, each.object) for each in spec.inputs]
                kept = [
                    objects_pb2.ObjectInfo(object=each.object, size_bytes=each.size_bytes, terms=spec.keep)
                    for each in known
                    if each is not None
                ]
                await asyncio.to_thread(self.journal.holds, self._at_node[spec.id], kept)
            await asyncio.to_thread(self.journal.stands, spec.id, "ended")
            del self._at_node[spec.id]


def _check_choice(request: controller_pb2.ViaSubmitRequest) -> None:
    """Raise InputError for a node and a policy that do not go together."""
    if request.spec.on_node and request.policy:
        raise InputError(
            f"a job is either for a node ({request.spec.on_node}) or placed by a policy ({request.policy})"
        )
    if bool(request.pinned_to) != (request.policy == "pinned"):
        raise InputError("policy pinned needs nodes to choose from, and no other policy takes any")
    if request.policy:
        policy_named(request.policy)
