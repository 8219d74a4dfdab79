"""From a job's spec to what placement goes by, and from its decision to what `explain` tells; who may have what."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping

from controller.agents import AgentClient
from controller.errors import InputError
from controller.jobs.journal import Journal
from controller.jobs.placement import Decision, Facts, Item, Order, Policy
from controller.jobs.sight import Sight
from protos.skyrack.v1 import controller_pb2, jobs_pb2

NS = 1_000_000_000
_CODE = re.compile(r"[A-Z]{2}")
_EMULATOR = "emulator"


class Orders:
    """What is known of a run's jobs before they are placed."""

    def __init__(self, sight: Sight, journal: Journal, grounds: Mapping[str, AgentClient]) -> None:
        self._sight, self._journal, self._grounds = sight, journal, grounds

    @property
    def now_s(self) -> float:
        """The sky's time."""
        return self._sight.now_s

    async def restrict(self, via: str, spec: jobs_pb2.JobSpec) -> None:
        """Leave the spec the jurisdictions that its objects admit, too. Raises InputError where none is left or a node
        that it names lies outside, which are audit events; where there is no such node, or no node has an object whole.
        """
        named = [via, *filter(None, (spec.on_node, *(each.at_node for each in spec.inputs)))]
        self.check_nodes(named)
        check_codes(spec.jurisdictions)
        allowed = list(spec.jurisdictions)
        for name in dict.fromkeys(objects_of(spec)):
            known = await asyncio.to_thread(self._journal.known, name)
            if known is None or not known.at_nodes:
                await self._check_not_coded(via, spec.id, name)
            if known is None or not known.terms.jurisdictions:
                continue
            of_object = list(known.terms.jurisdictions)
            left = [code for code in allowed or of_object if code in of_object]
            if not left:
                reason = f"{name} may lie in {', '.join(of_object)} alone, and the job is for {', '.join(allowed)}"
                await self.deny("submit", spec.id, reason)
                raise InputError(f"job {spec.id}: {reason}")
            spec.transit = known.terms.transit and (spec.transit or not allowed)
            allowed = left
        del spec.jurisdictions[:]
        spec.jurisdictions.extend(allowed)
        await self.check_residency("submit", spec.id, named, allowed)

    async def _check_not_coded(self, via: str, job_id: str, name: str) -> None:
        """Raise InputError for what is kept as fragments; before: no node is known to have it whole."""
        known = await asyncio.to_thread(self._journal.coded, name)
        if known is not None:
            raise InputError(
                f"job {job_id}: {name} is kept as {known.coded.k}+{known.coded.m} fragments, and whole nowhere: "
                f"`skyrack get` it to a file, and `skyrack put` that via {via}"
            )

    async def check_residency(self, what: str, of: str, nodes: Iterable[str], jurisdictions: Iterable[str]) -> None:
        """Raise InputError for the first of some nodes that lies outside, which is an audit event."""
        allowed = tuple(jurisdictions)
        for node in nodes:
            code = self._sight.jurisdiction_of.get(node, "")
            if allowed and code not in allowed:
                where = f"lies in {code}" if code else "has no jurisdiction"
                reason = f"{node} {where}, outside {', '.join(allowed)}"
                await self.deny(what, of, reason)
                raise InputError(f"{of}: {reason}")

    async def deny(self, what: str, of: str, reason: str) -> None:
        """Write down that something was denied."""
        await asyncio.to_thread(self._journal.denied, _EMULATOR, what, of, reason)

    def check_nodes(self, names: Iterable[str]) -> None:
        """Raise InputError for a name that no node has."""
        for name in names:
            if name not in self._sight.nodes:
                raise InputError(f"there is no node {name!r} in this run (`skyrack status` lists them)")

    async def order(self, via: str, spec: jobs_pb2.JobSpec, pinned_to: tuple[str, ...] = ()) -> Order:
        """What placement is asked for. Raises InputError for a deadline that has passed, or an unknown node."""
        self.check_nodes(pinned_to)
        deadline_s = spec.deadline_emu_ns / NS if spec.deadline_emu_ns else None
        if deadline_s is not None and deadline_s <= self.now_s:
            raise InputError(f"job {spec.id}: its deadline, t = {deadline_s:.1f} s, has passed: t = {self.now_s:.1f} s")
        at_node = {each.object: each.at_node or via for each in spec.inputs}
        items = [await self._item(via, name, at_node.get(name, via)) for name in dict.fromkeys(objects_of(spec))]
        return Order(
            via=via,
            items=tuple(items),
            memory_bytes=spec.limits.memory_bytes,
            disk_bytes=spec.limits.disk_bytes,
            cpu_s=spec.limits.cpu_s,
            wall_s=spec.limits.wall_s,
            deadline_s=deadline_s,
            jurisdictions=tuple(spec.jurisdictions),
            transit=spec.transit,
            pinned_to=pinned_to,
            is_keep=spec.WhichOneof("program") == "keep",
        )

    async def decided(self, order: Order, policy: Policy, open_at: Mapping[str, int]) -> tuple[Decision, Facts]:
        """Where it goes, and by which facts."""
        return await self._sight.decided(order, policy, open_at)

    async def _item(self, via: str, name: str, at_node: str) -> Item:
        """An object, with its size as far as it is known: what nobody has told of counts as nothing."""
        known = await asyncio.to_thread(self._journal.known, name)
        at_nodes = dict.fromkeys((at_node, *(known.at_nodes if known is not None else ())))
        size_bytes = known.size_bytes if known is not None else 0
        if known is None and at_node == via:
            size_bytes = (await self._grounds[via].stat(name)).size_bytes
        return Item(name, size_bytes, tuple(at_nodes))


def objects_of(spec: jobs_pb2.JobSpec) -> list[str]:
    """What has to be at its node before it begins: program, inputs, checkpoint."""
    return [name for name in (spec.script_object, spec.wasm_object, spec.checkpoint_object) if name] + [
        each.object for each in spec.inputs
    ]


def check_codes(jurisdictions: Iterable[str]) -> None:
    """Raise InputError for what is no code of a country."""
    for code in jurisdictions:
        if not _CODE.fullmatch(code):
            raise InputError(f"jurisdiction {code!r} is no code of ISO 3166-1 alpha-2, such as CN")


def explanation_of(
    spec: jobs_pb2.JobSpec, via: str, at_s: float, decision: Decision | None = None
) -> controller_pb2.Explanation:
    """What is told of a decision; without one, of a node that was named."""
    if decision is None:
        reason = (
            "the job names it" if spec.on_node else "the job names no node and no policy: it stays where it is given"
        )
        chosen = spec.on_node or via
        told = controller_pb2.Explanation(chosen=chosen, at_s=at_s)
        told.verdicts.add(node=chosen, feasible=True, reason=reason)
        return told
    told = controller_pb2.Explanation(policy=decision.policy, chosen=decision.chosen, at_s=decision.at_s)
    for verdict in decision.verdicts:
        told.verdicts.add(
            node=verdict.node,
            feasible=verdict.bar is None,
            reason=verdict.reason,
            score=verdict.score,
            result_at_s=verdict.result_at_s,
        )
    return told
