"""The controller's desk for objects: which node on the ground they go through, who shall hold them, who has them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from controller.agents import AgentClient
from controller.errors import InputError
from controller.jobs.coded import CodedDesk
from controller.jobs.desk import GatewayJob, JobDesk
from controller.jobs.fetching import bring, job_id
from controller.jobs.gathering import Gathering
from controller.jobs.journal import Entry, Journal, KnownObject
from controller.jobs.orders import Orders, check_codes, explanation_of
from controller.jobs.placement import Order, across_planes, infeasible, short
from controller.jobs.policies import policy_named
from controller.jobs.sight import Sight
from protos.skyrack.v1 import controller_pb2, jobs_pb2, objects_pb2

MAX_REPLICAS = 64
EMPTY_OBJECT = f"sha256:{hashlib.sha256().hexdigest()}"


class Shelf:
    """One run's objects, as far as the controller has heard of them."""

    def __init__(
        self,
        grounds: Mapping[str, AgentClient],
        desk: JobDesk,
        coded: CodedDesk,
        journal: Journal,
        orders: Orders,
        sight: Sight,
    ) -> None:
        self._grounds, self._desk, self._coded, self._journal = grounds, desk, coded, journal
        self._orders, self._sight = orders, sight
        self._gathering = Gathering(desk, journal, sight)

    async def put(self, via: str, requests: AsyncIterator[objects_pb2.PutRequest]) -> objects_pb2.ObjectInfo:
        """Store an object at a node on the ground. Raises InputError where it may not lie there."""
        node = self._desk.gateway(via)
        first = await anext(requests, objects_pb2.PutRequest())
        terms = first.header.terms
        check_codes(terms.jurisdictions)
        await self._orders.check_residency("put", short(first.header.object), [via], terms.jurisdictions)
        info = await node.put(_after(first, requests))
        told = objects_pb2.ObjectInfo(object=info.object, size_bytes=info.size_bytes, terms=terms)
        await asyncio.to_thread(self._journal.holds, via, [info if info.HasField("terms") else told])
        return info

    async def get(self, via: str, request: objects_pb2.GetRequest) -> AsyncGenerator[objects_pb2.GetResponse, None]:
        """An object at a node on the ground, brought there first if it lies elsewhere only, whole or as fragments."""
        node, name = self._desk.gateway(via), request.object
        known = await asyncio.to_thread(self._journal.known, name)
        fragments = await asyncio.to_thread(self._journal.coded, name)
        if known is not None:
            await self._orders.check_residency("get", short(name), [via], known.terms.jurisdictions)
        info = await node.stat(name)
        if fragments is not None and fragments.stands != "removing" and not _is_whole(info):
            await self._orders.check_residency("get", short(name), [via], fragments.coded.jurisdictions)
            async with aclosing(self._gathering.read(via, fragments.coded, request)) as responses:
                async for response in responses:
                    yield response
            return
        if not _is_whole(info):
            await self._bring(via, name, known)
        async for response in node.get_responses(request):
            yield response

    async def keep(self, request: controller_pb2.KeepRequest) -> list[GatewayJob]:
        """Have an object kept at nodes; a job each, which is final when it is there."""
        via, name, terms = request.via, request.object, request.terms
        node = self._desk.gateway(via)
        if bool(request.nodes) == bool(request.replicas):
            raise InputError("an object is kept either at nodes that are named, or at a number of them")
        if not 0 <= request.replicas <= MAX_REPLICAS:
            raise InputError(f"{request.replicas} replicas: must be from 1 to {MAX_REPLICAS}")
        info = await node.stat(name)
        if not _is_whole(info):
            raise InputError(f"{name} is not at {via}: put it there first")
        spec = jobs_pb2.JobSpec(
            inputs=[jobs_pb2.JobInput(object=name)], jurisdictions=terms.jurisdictions, transit=terms.transit,
            keep=terms, id=job_id("keep", name),
        )  # fmt: skip
        await self._orders.restrict(via, spec)
        spec.keep.jurisdictions[:] = spec.jurisdictions
        spec.keep.transit = spec.transit
        entries = await self._entries(request, spec)
        holders = [via, *(entry.spec.on_node for entry in entries)]
        for entry in entries:
            entry.spec.keep.holders[:] = holders
        taken = [await self._desk.take(entry) for entry in entries]
        kept = objects_pb2.ObjectTerms()
        kept.CopyFrom(spec.keep)
        kept.holders[:] = holders
        await self.set_terms(via, objects_pb2.SetTermsRequest(object=name, terms=kept))
        return taken

    async def list(self, via: str) -> list[tuple[str, objects_pb2.ObjectInfo]]:
        """The objects of a node on the ground, or with an empty name of all of them."""
        nodes = [via] if via else list(self._grounds)
        answers = await asyncio.gather(*(self._desk.gateway(name).objects() for name in nodes))
        return [(node, info) for node, infos in zip(nodes, answers, strict=True) for info in infos]

    async def set_terms(self, via: str, request: objects_pb2.SetTermsRequest) -> objects_pb2.ObjectInfo:
        """Change who shall hold an object, and whether it is pinned."""
        info = await self._desk.gateway(via).set_terms(request)
        await asyncio.to_thread(self._journal.holds, via, [info])
        return info

    async def stat(self, name: str) -> controller_pb2.StatObjectResponse:
        """What the run knows of an object. Raises InputError where that is nothing."""
        known = await asyncio.to_thread(self._journal.known, name)
        coded = await self._coded.told(name)
        if not coded and known is None:
            raise InputError(f"this run knows of no object {name} (`skyrack objects` lists those on the ground)")
        size_bytes = known.size_bytes if known is not None else coded[0].size_bytes
        at_nodes = known.at_nodes if known is not None else ()
        return controller_pb2.StatObjectResponse(
            object=name, size_bytes=size_bytes, at_nodes=at_nodes, coded=coded[0] if coded else None
        )

    async def delete(self, via: str, name: str) -> controller_pb2.DropObjectResponse:
        """Remove an object from a node on the ground, and all fragments of it from wherever they lie."""
        is_coded = await asyncio.to_thread(self._journal.coded, name) is not None
        gone = await self._desk.gateway(via).delete(name)
        await asyncio.to_thread(self._journal.dropped, via, name)
        waits_for = await self._coded.drop(via, name)
        return controller_pb2.DropObjectResponse(was_here=gone.was_here or is_coded, waits_for=waits_for)

    async def scrub(self, via: str, name: str) -> objects_pb2.ScrubReport:
        """Hold an object, or all of a node on the ground, against their names."""
        return await self._desk.gateway(via).scrub(name)

    async def _entries(self, request: controller_pb2.KeepRequest, spec: jobs_pb2.JobSpec) -> Sequence[Entry]:
        """A job for each node. Raises InputError where there are too few, or where it may not lie."""
        via, now_s = request.via, self._orders.now_s
        if request.nodes:
            self._orders.check_nodes(request.nodes)
            await self._orders.check_residency("keep", short(request.object), request.nodes, spec.jurisdictions)
            return [
                _entry(via, spec, number, node, explanation_of(spec, node, now_s))
                for number, node in enumerate(dict.fromkeys(request.nodes))
            ]
        order: Order = await self._orders.order(via, spec)
        decision, facts = await self._orders.decided(order, policy_named("spread"), self._desk.open_at())
        nodes = across_planes(decision, facts, request.replicas)
        if len(nodes) < request.replicas:
            reason = infeasible(decision) if not nodes else f"{len(nodes)} nodes can take it"
            raise InputError(f"{request.replicas} replicas of {short(request.object)}: {reason}")
        return [
            _entry(via, spec, number, node, explanation_of(spec, via, now_s, replace(decision, chosen=node)))
            for number, node in enumerate(nodes)
        ]

    async def _bring(self, via: str, name: str, known: KnownObject | None) -> None:
        """Have an object at a node on the ground, from where it can be there soonest. Raises SkyrackError."""
        elsewhere = [node for node in (known.at_nodes if known is not None else ()) if node != via]
        if known is None or not elsewhere:
            raise InputError(f"{name} is not at {via}, and this run knows of no other node that has it")
        holder = await self._sight.nearest(elsewhere, via, known.size_bytes)
        await bring(self._desk, via, name, holder, known.terms)


def _entry(via: str, spec: jobs_pb2.JobSpec, number: int, node: str, explanation: controller_pb2.Explanation) -> Entry:
    own = jobs_pb2.JobSpec()
    own.CopyFrom(spec)
    own.id, own.on_node = f"{spec.id}-{number}", node
    request = controller_pb2.ViaSubmitRequest(via=via, spec=own, policy=explanation.policy)
    return Entry(request, own, explanation, "placed")


def _is_whole(info: objects_pb2.ObjectInfo) -> bool:
    """Whether a node has all of an object: of the empty one nobody has to ask."""
    return info.object == EMPTY_OBJECT or 0 < info.size_bytes == info.committed_bytes


async def _after(
    first: objects_pb2.PutRequest, rest: AsyncIterator[objects_pb2.PutRequest]
) -> AsyncIterator[objects_pb2.PutRequest]:
    yield first
    async for each in rest:
        yield each
