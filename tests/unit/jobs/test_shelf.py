"""Objects that go through a node on the ground: where they may lie, where they are kept, how they come back.

Agents are a notebook; what they do about a `keep` is held by their own tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from controller.agents import AgentClient
from controller.errors import InputError
from controller.faults import FaultSchedule
from controller.jobs.office import Office
from controller.planner import plan
from controller.scenario import Source, parse_scenario
from controller.schedule import Commanded, Schedule
from protos.skyrack.v1 import controller_pb2, jobs_pb2, node_pb2, objects_pb2
from protos.skyrack.v1.objects_pb2 import ObjectInfo, ObjectTerms, PutRequest

DATA = b"some bytes"
NAME = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
CN = ObjectTerms(jurisdictions=["CN"])
SCENARIO = """
name = "six"
epoch = 2026-01-01T00:00:00Z
duration_s = 30.0

[[constellation]]
name = "cn"
walker = { pattern = "star", total = 6, planes = 3, phasing = 0, altitude_m = 20_000_000, inclination_deg = 90.0 }
isl = { topology = "nearest-k", k = 4 }
jurisdiction = "CN"

[[ground]]
name = "beijing"
role = "gateway"
latitude_deg = 40.0
longitude_deg = 116.0
min_elevation_deg = 0.0
antennas = 4
jurisdiction = "CN"

[[ground]]
name = "suva"
role = "terminal"
latitude_deg = -18.0
longitude_deg = 178.0
min_elevation_deg = 0.0
antennas = 4
"""


class Node:
    """One agent, as far as the controller sees of it. Its jobs are done at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: dict[str, ObjectTerms] = {}
        self.jobs_taken: list[jobs_pb2.JobSpec] = []

    async def info(self) -> node_pb2.NodeInfo:
        """An idle one."""
        return node_pb2.NodeInfo(name=self.name, store_quota_bytes=1_000, job_slots=1)

    async def put(self, requests: AsyncIterator[PutRequest]) -> ObjectInfo:
        """Take it with its terms."""
        parts = [part async for part in requests]
        self.held[parts[0].header.object] = parts[0].header.terms
        return ObjectInfo(object=parts[0].header.object, size_bytes=parts[0].header.size_bytes)

    async def stat(self, name: str) -> ObjectInfo:
        """Whether it is here."""
        size_bytes = len(DATA) if name in self.held else 0
        return ObjectInfo(object=name, size_bytes=size_bytes, committed_bytes=size_bytes, terms=self.held.get(name))

    async def get_responses(self, request: objects_pb2.GetRequest) -> AsyncIterator[objects_pb2.GetResponse]:
        """What is here."""
        assert request.object in self.held
        yield objects_pb2.GetResponse(chunk=DATA)

    async def set_terms(self, request: objects_pb2.SetTermsRequest) -> ObjectInfo:
        """As asked."""
        self.held[request.object] = request.terms
        return await self.stat(request.object)

    async def delete(self, name: str) -> objects_pb2.DeleteObjectResponse:
        """Gone."""
        return objects_pb2.DeleteObjectResponse(was_here=self.held.pop(name, None) is not None)

    async def objects(self) -> list[ObjectInfo]:
        """All."""
        return [await self.stat(name) for name in self.held]

    async def submit(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.Job:
        """Keep what is to be kept here."""
        self.jobs_taken.append(spec)
        if not spec.on_node:
            self.held |= {each.object: spec.keep for each in spec.inputs}
        return await self.job(spec.id)

    async def job(self, job_id: str) -> jobs_pb2.Job:
        """It has succeeded."""
        (spec,) = (spec for spec in self.jobs_taken if spec.id == job_id)
        return jobs_pb2.Job(spec=spec, state=jobs_pb2.JOB_STATE_SUCCEEDED, revision=1)

    async def watch(self, job_id: str, after_revision: int = 0) -> AsyncIterator[jobs_pb2.Job]:
        """Once."""
        yield await self.job(job_id)


@dataclass
class NotebookRun:
    """A run whose agents are notebooks."""

    scenario: Any
    schedule: Schedule
    nodes: dict[str, Node]
    t_s: float = 0.0

    @property
    def agents(self) -> dict[str, AgentClient]:
        """They are no clients, and answer as such."""
        return {name: cast(AgentClient, node) for name, node in self.nodes.items()}

    @property
    def state(self) -> Commanded:
        """The first step."""
        return self.schedule.at(0)

    def down_of(self, node: str) -> str:
        """Nobody."""
        return ""

    def blackout_of(self, node: str) -> str:
        """Nobody."""
        return ""


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Office, dict[str, Node]]]:
    """The desks of six satellites, a gateway and a terminal; its nodes."""
    scenario = parse_scenario(Source("six.toml", SCENARIO, folder))
    sky = plan(scenario)
    nodes = {node.name: Node(node.name) for node in sky.nodes}
    run = NotebookRun(scenario, Schedule.of(sky, FaultSchedule.from_scenario(scenario, sky)), nodes)
    office = await Office.open(run, folder / "controller.db", lambda entry: None)
    try:
        yield office, nodes
    finally:
        await office.close()


async def put(office: Office, via: str = "beijing", terms: ObjectTerms | None = None) -> ObjectInfo:
    """Store the data."""

    async def requests() -> AsyncIterator[PutRequest]:
        yield PutRequest(header=PutRequest.Header(object=NAME, size_bytes=len(DATA), terms=terms))
        yield PutRequest(chunk=DATA)

    return await office.shelf.put(via, requests())


async def got(office: Office, via: str) -> bytes:
    """Fetch the data."""
    return b"".join([part.chunk async for part in office.shelf.get(via, objects_pb2.GetRequest(object=NAME))])


def asked(*nodes: str, replicas: int = 0, terms: ObjectTerms | None = None) -> controller_pb2.KeepRequest:
    """To have it kept."""
    return controller_pb2.KeepRequest(via="beijing", object=NAME, nodes=nodes, replicas=replicas, terms=terms)


async def test_replicas_are_kept_across_planes(tmp_path: Path) -> None:
    """Three copies, each in a plane of its own; all of the holders know of each other, the gateway too."""
    async with opened(tmp_path) as (office, nodes):
        await put(office)
        taken = await office.shelf.keep(asked(replicas=3))
        chosen = [entry.job.spec.on_node for entry in taken]
        assert len({name.partition("s")[0] for name in chosen}) == 3
        holders = ["beijing", *chosen]
        assert [list(entry.job.spec.keep.holders) for entry in taken] == [holders] * 3
        assert list(nodes["beijing"].held[NAME].holders) == holders
        told, _ = await office.desk.explain(taken[1].job.spec.id)
        assert (told.policy, told.chosen) == ("spread", chosen[1])
        with pytest.raises(InputError, match=r"7 replicas of sha256:[0-9a-f]{12}: 6 nodes can take it"):
            await office.shelf.keep(asked(replicas=7))


async def test_an_object_comes_back_from_where_it_is_kept(tmp_path: Path) -> None:
    """Removed from the gateway it is still known: it is fetched from a holder; that of another ground node, too."""
    async with opened(tmp_path) as (office, nodes):
        await put(office)
        (entry,) = await office.shelf.keep(asked("cn-p01s00"))
        await office.desk.finished(entry.job.spec.id)
        assert (await office.shelf.delete("beijing", NAME)).was_here
        assert await got(office, "beijing") == DATA
        fetched = nodes["beijing"].jobs_taken[-1]
        assert (fetched.on_node, fetched.inputs[0].at_node) == ("", "cn-p01s00")
        assert await got(office, "suva") == DATA
        assert [(node, info.object) for node, info in await office.shelf.list("")] == [
            ("beijing", NAME),
            ("suva", NAME),
        ]


async def test_what_nobody_has_is_one_message(tmp_path: Path) -> None:
    """Neither got nor kept."""
    async with opened(tmp_path) as (office, _):
        with pytest.raises(InputError, match="is not at suva, and this run knows of no other node that has it"):
            await got(office, "suva")
        with pytest.raises(InputError, match="is not at beijing: put it there first"):
            await office.shelf.keep(asked("cn-p00s00"))
        await put(office)
        with pytest.raises(InputError, match="either at nodes that are named, or at a number"):
            await office.shelf.keep(asked())
        with pytest.raises(InputError, match="no node 'sputnik'"):
            await office.shelf.keep(asked("sputnik"))


async def test_an_object_stays_within_its_jurisdictions(tmp_path: Path) -> None:
    """Not put, kept or landed outside, whoever forgets to say so again; each denial is written down."""
    async with opened(tmp_path) as (office, nodes):
        with pytest.raises(InputError, match="suva has no jurisdiction, outside CN"):
            await put(office, "suva", CN)
        await put(office, "beijing", CN)
        with pytest.raises(InputError, match="suva has no jurisdiction, outside CN"):
            await office.shelf.keep(asked("suva"))
        with pytest.raises(InputError, match="suva has no jurisdiction, outside CN"):
            await got(office, "suva")
        (entry,) = await office.shelf.keep(asked("cn-p02s01"))
        assert list(entry.job.spec.jurisdictions) == list(entry.job.spec.keep.jurisdictions) == ["CN"]
        assert list(nodes["beijing"].held[NAME].jurisdictions) == ["CN"]
        assert [(event.kind, event.what) for event in office.journal.audit()] == [
            ("denied", "put"), ("denied", "keep"), ("denied", "get"),
        ]  # fmt: skip
