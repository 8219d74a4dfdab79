"""What placement sees of a run: its nodes, what their agents tell of themselves, and the contacts to come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from controller.agents import AgentClient
from controller.errors import SkyrackError
from controller.jobs.contact_graph import ContactGraph
from controller.jobs.placement import Candidate, Decision, Facts, Load, Order, Policy, decide, promising
from controller.scenario import Scenario
from controller.schedule import ALL_TO_ALL_NODES, Commanded, Schedule
from controller.timeline import Role
from protos.skyrack.v1 import node_pb2

FRESH_S = 1.0
"""So long what an agent has told of itself holds."""

ANSWER_S = 3.0
AT_ONCE = 64


class Run(Protocol):
    """What is looked at."""

    @property
    def scenario(self) -> Scenario:
        """Who is there."""

    @property
    def schedule(self) -> Schedule:
        """The sky, and the faults over it."""

    @property
    def agents(self) -> Mapping[str, AgentClient]:
        """The way to each node."""

    @property
    def state(self) -> Commanded:
        """What the newest step commands."""

    @property
    def t_s(self) -> float:
        """The sky's time."""

    def down_of(self, node: str) -> str:
        """Since when and why a node is down, in words; else empty."""

    def blackout_of(self, node: str) -> str:
        """Which blackout takes all links of a node, in words; else empty."""


class Sight:
    """One run, seen when it is asked for. Of one event loop."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plane_of = {name: plane for plane, row in run.scenario.planes.items() for name in row}
        self.jurisdiction_of: Mapping[str, str] = run.scenario.jurisdictions
        self._told: dict[str, tuple[float, node_pb2.NodeInfo | None]] = {}

    @property
    def now_s(self) -> float:
        """The sky's time."""
        return self._run.t_s

    @property
    def nodes(self) -> Mapping[str, int]:
        """All nodes, by name."""
        return self._run.schedule.index_of

    async def decided(self, order: Order, policy: Policy, open_at: Mapping[str, int]) -> tuple[Decision, Facts]:
        """Where it goes, and by which facts. `open_at`: how many jobs were sent to a node, that it may not know of."""
        facts = await self._facts(order.via)
        names = [candidate.name for candidate in facts.candidates]
        if len(names) > ALL_TO_ALL_NODES:
            names = await asyncio.to_thread(promising, order, facts, policy)
        told = await self._infos(names)
        candidates = tuple(
            self._loaded(candidate, told[candidate.name], open_at.get(candidate.name, 0))
            if candidate.name in told
            else candidate
            for candidate in facts.candidates
        )
        facts = replace(facts, candidates=candidates)
        return await asyncio.to_thread(decide, order, facts, policy), facts

    async def nearest(self, nodes: Sequence[str], to_node: str, size_bytes: int) -> str:
        """From which of some nodes so much can be at another soonest; the first, where that cannot be foreseen."""
        facts = await self._facts(to_node)
        lacks = {candidate.name for candidate in facts.candidates if candidate.lack}

        def arrives_s(node: str) -> float:
            return facts.graph.search(node, facts.now_s, size_bytes, to_node=to_node).arrives_s(to_node)

        return min(nodes, key=lambda node: (node in lacks, arrives_s(node), node))

    async def away(self, nodes: Sequence[str]) -> Mapping[str, str]:
        """Those of some nodes that can give nothing now: since when and why they are down, or that they are mute."""
        told = await self._infos(list(dict.fromkeys(nodes)), fresh_s=0.0)
        why = {node: self._run.down_of(node) or f"the agent of {node} does not answer" for node in told}
        return {node: why[node] for node, info in told.items() if info is None or self._run.down_of(node)}

    def blackout_of(self, node: str) -> str:
        """Which blackout takes all links of a node, in words; else empty."""
        return self._run.blackout_of(node)

    async def damaged_at(self, nodes: Sequence[str]) -> Mapping[tuple[str, str], str]:
        """By node and object what its agent has found damaged, and not repaired so far, with what was wrong."""
        found: dict[tuple[str, str], str] = {}

        async def ask(node: str) -> None:
            with suppress(TimeoutError, SkyrackError):  # who is mute is away
                async with asyncio.timeout(ANSWER_S):
                    events = await self._run.agents[node].audit()
                for event in events:
                    if event.kind == "damaged":
                        found[node, event.of] = event.reason
                    elif event.kind == "repaired":
                        found.pop((node, event.of), None)

        await asyncio.gather(*map(ask, dict.fromkeys(nodes)))
        return found

    async def _facts(self, via: str) -> Facts:
        """All but what agents tell. Where a job is handed in is taken to be linked as planned: a blackout there keeps
        it from every node alike, and passes."""
        run, state, now_s = self._run, self._run.state, self._run.t_s
        timeline, scale = run.schedule.timeline, run.scenario.time_scale
        of_via = (timeline.links.a[state.sky.link] == self.nodes[via]) | (
            timeline.links.b[state.sky.link] == self.nodes[via]
        )
        planned = replace(state, usable=state.usable | of_via)
        candidates = tuple(
            Candidate(
                name=node.name,
                is_ground=node.role is not Role.SATELLITE,
                memory_bytes=run.scenario.resources_of(node.name).memory_bytes,
                cpu_cores=run.scenario.resources_of(node.name).cpu_limit,
                jurisdiction=self.jurisdiction_of.get(node.name, ""),
                plane=self._plane_of.get(node.name, ""),
                lack=run.down_of(node.name) or run.blackout_of(node.name),
            )
            for node in timeline.nodes
        )
        graph = await asyncio.to_thread(ContactGraph.of, timeline, now_s, planned, scale)
        return Facts(now_s, graph, candidates, scale)

    def _loaded(self, candidate: Candidate, info: node_pb2.NodeInfo | None, open_jobs: int) -> Candidate:
        if info is None:
            nothing = Load(store_free_bytes=0, open_jobs=0, job_slots=1)
            lack = candidate.lack or f"the agent of {candidate.name} does not answer"
            return replace(candidate, lack=lack, load=nothing)
        quota_bytes = info.store_quota_bytes or self._run.scenario.resources.store_bytes
        free_bytes = max(0, quota_bytes - info.store_bytes)
        return replace(candidate, load=Load(free_bytes, max(info.open_jobs, open_jobs), info.job_slots or 1))

    async def _infos(self, names: Sequence[str], fresh_s: float = FRESH_S) -> dict[str, node_pb2.NodeInfo | None]:
        """What agents tell of themselves, not older than that; None of one that does not answer."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(name: str) -> node_pb2.NodeInfo | None:
            at_mono_s, info = self._told.get(name, (-FRESH_S, None))
            if info is None or time.monotonic() - at_mono_s > fresh_s:
                async with gate:
                    try:
                        async with asyncio.timeout(ANSWER_S):
                            info = await self._run.agents[name].info()
                    except (TimeoutError, SkyrackError):
                        info = None
                self._told[name] = time.monotonic(), info
            return info

        return dict(zip(names, await asyncio.gather(*(ask(name) for name in names)), strict=True))
