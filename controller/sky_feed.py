"""Tells the nodes what they may know of the sky: its clock, and whom to hand over what is bound for another node.

A node is told anew whenever something changes for it, whole each time; one that does not answer is told later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NoReturn

from controller.agents import FINAL_STATES, AgentClient
from controller.errors import SkyrackError
from controller.jobs.desk import GatewayJob
from controller.jobs.forecast import Forecast
from controller.schedule import Pace
from protos.skyrack.v1 import node_pb2

LOOK_S = 1.0
ANSWER_S = 3.0
AT_ONCE = 32
NS = 1_000_000_000


def bound_pairs(entry: GatewayJob) -> tuple[tuple[str, str], ...]:
    """What of a job is bound for where: the job, its inputs, its result. Nothing once it is final."""
    job, spec = entry.job, entry.job.spec
    if job.state in FINAL_STATES:
        return ()
    node = spec.on_node or entry.via
    custodian = job.custodian or entry.via
    there = ((entry.via, custodian), (entry.via, node), (custodian, node))
    back = ((node, entry.via), (custodian, entry.via))
    inputs = [(node, each.at_node) for each in spec.inputs if each.at_node]
    return tuple(dict.fromkeys(pair for pair in (*there, *back, *inputs) if pair[0] != pair[1]))


class SkyFeed:
    """One run's. Of one event loop."""

    def __init__(self, agents: Mapping[str, AgentClient], forecast: Forecast) -> None:
        self._agents, self._forecast = agents, forecast
        self._clock = node_pb2.NodeClock()
        self._bound: dict[str, Collection[tuple[str, str]]] = {}
        self._told: dict[str, node_pb2.Sky] = {}
        # What nodes have custody of, far from its gateway, they alone know: those that may have some are asked.
        self._sought: dict[str, Collection[str]] = dict.fromkeys(agents, ())
        self._asked_mono_s = 0.0
        self._woken = asyncio.Event()

    def turn(self, pace: Pace) -> None:
        """The sky's clock goes like this from now on."""
        self._clock = node_pb2.NodeClock(
            emu_ns=round(pace.start_s * NS), at_mono_ns=round(pace.started_mono_s * NS), scale=pace.time_scale
        )
        self._woken.set()

    def bind(self, job_id: str, pairs: Collection[tuple[str, str]]) -> None:
        """Of this job, something at the first node of each pair is bound for the second; for no others."""
        if self._bound.get(job_id, ()) == pairs:
            return
        self._bound[job_id] = pairs
        if not pairs:
            del self._bound[job_id]
        self._woken.set()

    async def run(self, t_s: Callable[[], float]) -> NoReturn:
        """Tell whoever has to be told, until cancelled."""
        gate = asyncio.Semaphore(AT_ONCE)
        while True:
            self._woken.clear()
            if self._sought and time.monotonic() > self._asked_mono_s + LOOK_S:
                await asyncio.gather(*(self._ask(name, gate) for name in list(self._sought)))
                self._asked_mono_s = time.monotonic()
            skies = self._skies(t_s())
            due = [name for name, sky in skies.items() if self._told.get(name) != sky]
            await asyncio.gather(*(self._tell(name, skies[name], gate) for name in due))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # not wait_for, which may lose a cancellation
                    await self._woken.wait()

    async def _tell(self, name: str, sky: node_pb2.Sky, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                await self._agents[name].set_sky(sky)
            except SkyrackError:
                self._told.pop(name, None)  # it may have ended, or be starting again: next time
            else:
                self._told[name] = sky

    async def _ask(self, name: str, gate: asyncio.Semaphore) -> None:
        """For which nodes something is at this one; of one that does not answer, what it said before."""
        async with gate:
            with suppress(SkyrackError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    self._sought[name] = tuple((await self._agents[name].info()).bound_for)

    def _skies(self, t_s: float) -> dict[str, node_pb2.Sky]:
        skies = {name: node_pb2.Sky(clock=self._clock) for name in self._agents}
        pairs = [pair for of_job in self._bound.values() for pair in of_job]
        pairs += [(name, to) for name, sought in self._sought.items() for to in sought if to in self._agents]
        forwards = self._forecast.forwards(pairs, t_s)
        for (holder, to), way in forwards.items():
            skies[holder].forwards.add(
                to_node=to,
                via_node=way.via_node,
                not_before_emu_ns=round(way.not_before_s * NS),
                until_emu_ns=round(way.until_s * NS),
            )
        involved = {name for pair in pairs for name in pair} | {way.via_node for way in forwards.values()}
        self._sought = {name: self._sought.get(name, ()) for name in involved}
        return skies
