"""Tells the nodes what they may know of the sky: its clock, their own track and contacts to come, and whom to hand over
what is bound for another node.

A node is told anew whenever something changes for it, whole each time; one that does not answer is told later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import NamedTuple, NoReturn

import numpy as np

from controller.agents import FINAL_STATES, AgentClient
from controller.errors import SkyrackError
from controller.jobs.contact_graph import Forward
from controller.jobs.desk import GatewayJob
from controller.jobs.forecast import Forecast
from controller.orbit.frames import ecef_to_geodetic
from controller.outlook import Outlook, OwnSky
from controller.schedule import Pace
from protos.skyrack.v1 import node_pb2

LOOK_S = 1.0
ANSWER_S = 3.0
AT_ONCE = 32
NS = 1_000_000_000
NO_END_EMU_NS = 2**63 - 1


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


class _Telling(NamedTuple):
    """All that a node is told now, by what makes it differ from what it was told before."""

    turn: int  # of the clock
    window: int  # of its outlook
    forwards: tuple[Forward, ...]


class SkyFeed:
    """One run's. Of one event loop."""

    def __init__(self, agents: Mapping[str, AgentClient], forecast: Forecast, outlook: Outlook) -> None:
        """`agents` are all of the run's nodes, in their order."""
        self._agents, self._forecast, self._outlook = agents, forecast, outlook
        self._clock, self._turn = node_pb2.NodeClock(), 0
        self._bound: dict[str, Collection[tuple[str, str]]] = {}
        self._told: dict[str, _Telling] = {}
        # What nodes have custody of, far from its gateway, they alone know: those that may have some are asked.
        self._sought: dict[str, Collection[str]] = dict.fromkeys(agents, ())
        self._asked_mono_s = 0.0
        self._woken = asyncio.Event()

    def turn(self, pace: Pace) -> None:
        """The sky's clock goes like this from now on."""
        self._clock = node_pb2.NodeClock(
            emu_ns=round(pace.start_s * NS), at_mono_ns=round(pace.started_mono_s * NS), scale=pace.time_scale
        )
        self._turn += 1
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
            tellings = self._tellings(t_s())
            due = [(node, name) for node, name in enumerate(self._agents) if self._told.get(name) != tellings[name]]
            await asyncio.gather(*(self._tell(node, name, tellings[name], gate) for node, name in due))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # not wait_for, which may lose a cancellation
                    await self._woken.wait()

    async def _tell(self, node: int, name: str, telling: _Telling, gate: asyncio.Semaphore) -> None:
        async with gate:
            sky = sky_message(self._clock, self._outlook.of(node, telling.window), telling.forwards)
            try:
                await self._agents[name].set_sky(sky)
            except SkyrackError:
                self._told.pop(name, None)  # it may have ended, or be starting again: next time
            else:
                self._told[name] = telling

    async def _ask(self, name: str, gate: asyncio.Semaphore) -> None:
        """For which nodes something is at this one; of one that does not answer, what it said before."""
        async with gate:
            with suppress(SkyrackError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    self._sought[name] = tuple((await self._agents[name].info()).bound_for)

    def _tellings(self, t_s: float) -> dict[str, _Telling]:
        pairs = [pair for of_job in self._bound.values() for pair in of_job]
        pairs += [(name, to) for name, sought in self._sought.items() for to in sought if to in self._agents]
        forwards: dict[str, list[Forward]] = {}
        for (holder, _), forward in self._forecast.forwards(pairs, t_s).items():
            forwards.setdefault(holder, []).append(forward)
        between = {forward.via_node for of_holder in forwards.values() for forward in of_holder}
        involved = {name for pair in pairs for name in pair} | between
        self._sought = {name: self._sought.get(name, ()) for name in involved}
        return {
            name: _Telling(self._turn, self._outlook.window(node, t_s), tuple(forwards.get(name, ())))
            for node, name in enumerate(self._agents)
        }


def sky_message(clock: node_pb2.NodeClock, own: OwnSky, forwards: Collection[Forward]) -> node_pb2.Sky:
    """What a node is told, as the wire has it."""
    sky = node_pb2.Sky(clock=clock)
    for forward in forwards:
        sky.forwards.add(
            to_node=forward.to_node,
            via_node=forward.via_node,
            not_before_emu_ns=round(forward.not_before_s * NS),
            until_emu_ns=round(forward.until_s * NS),
        )
    for contact in own.contacts:
        sky.contacts.add(
            peer=contact.peer,
            start_emu_ns=round(contact.start_s * NS),
            end_emu_ns=NO_END_EMU_NS if contact.end_s is None else round(contact.end_s * NS),
            delay_us=contact.delay_us,
            rate_bps=contact.rate_bps,
        )
    places = own.places
    place = ecef_to_geodetic(places.r_ecef_m)
    columns = (
        np.rint(places.t_s * NS).astype(np.int64), places.r_ecef_m, place.latitude_deg, place.longitude_deg,
        place.altitude_m, places.illumination_ratio,
    )  # fmt: skip
    for at_emu_ns, r_ecef_m, latitude_deg, longitude_deg, altitude_m, ratio in zip(
        *(column.tolist() for column in columns), strict=True
    ):
        sky.places.add(
            at_emu_ns=at_emu_ns,
            r_ecef_m=r_ecef_m,
            latitude_deg=latitude_deg,
            longitude_deg=longitude_deg,
            altitude_m=altitude_m,
            illumination_ratio=ratio,
        )
    for edge in own.edges:
        sky.places.add(at_emu_ns=round(edge.t_s * NS), illumination_ratio=edge.illumination_ratio)
    sky.places.sort(key=lambda each: each.at_emu_ns)
    return sky
