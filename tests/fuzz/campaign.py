"""One campaign: a gateway and a satellite, many callers at once, and what is looked at all along and at the end."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import grpc

from node_agent.jobs.states import FINAL
from protos.skyrack.v1 import jobs_pb2, node_pb2, node_pb2_grpc
from tests.agent.fleet import Agent, DataPlane, Fleet, object_name, until
from tests.agent.identities import identity
from tests.agent.methods import METHODS
from tests.fuzz import vitals
from tests.fuzz.caller import Callers
from tests.fuzz.cases import Case, case
from tests.fuzz.raw import Doors, RawCase, raw_case
from tests.fuzz.vitals import Vitals
from tests.fuzz.world import (
    ALLOWED,
    CONTENTS,
    ENDPOINT_PORT,
    GATEWAY,
    JOBS,
    NOBODY,
    NODES,
    SATELLITE,
    SWEEP_EVERY,
    sleepers,
)

CALLERS_AT_ONCE: Final = 16
MOST_FINDINGS: Final = 50
STORE_BYTES: Final = 64 * 2**20
OPTIONS: Final = (f"--store-bytes={STORE_BYTES}", "--max-open-jobs=100", "--job-slots=8")
SLEEPS: Final = ["/bin/sleep", "60"]
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
RAW_EVERY: Final = 20
CALM_DEADLINE_S: Final = 120.0
NOBODYS_HOST: Final = 250


@dataclass
class Report:
    """What a campaign came to."""

    seed: int
    cases: int = 0
    messages: int = 0
    took_s: float = 0.0
    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)  # by method and code
    findings: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def of_method(self, method: str) -> dict[str, int]:
        """How often its calls ended how."""
        return {code: count for (name, code), count in sorted(self.statuses.items()) if name == method}

    def methods_without(self, *labels: str) -> set[str]:
        """The methods of which no call ended in one of these ways."""
        return {each.name for each in METHODS if not any(self.statuses[each.name, label] for label in labels)}

    def found(self, what: str) -> None:
        """Remember what went wrong."""
        self.findings.append(what)


class Campaign:
    """The agents of one fleet under fire. Before: the fleet is empty."""

    def __init__(self, fleet: Fleet, seed: int, say: Callable[[str], None]) -> None:
        self._fleet, self._say = fleet, say
        self.report = Report(seed)
        self._pems: dict[str, tuple[bytes, bytes]] = {}
        self._released: set[tuple[str, str]] = set()
        self._before: dict[str, Vitals] = {}
        self._doors: Doors | None = None
        self._planes: dict[str, DataPlane] = {}

    async def run(self, cases: int, warm_up: int) -> Report:
        """Launch, fire so many cases after some to warm up, and look at what has become of the agents."""
        gone = {NOBODY: self._fleet.address(NOBODYS_HOST)}
        where = dict.fromkeys(NODES, "CN")
        endpoint = f"--endpoint={self._fleet.address(1)}:{ENDPOINT_PORT}"
        both = gone | {SATELLITE: self._fleet.address(2)}
        await self._fleet.launch(GATEWAY, options=(*OPTIONS, endpoint), via=both, jurisdictions=where)
        await self._fleet.launch(SATELLITE, options=OPTIONS, via=gone, jurisdictions=where)
        own = identity(self._fleet.folder / "own", self._fleet.authority, GATEWAY)
        self._doors = Doors(self._fleet, own, self._fleet.folder)
        self._pems = {name: _certificate_of(self._fleet[name]) for name in NODES}
        callers = Callers(self._fleet)
        try:
            await self._fire(callers, range(-warm_up, 0))
            await self._calm()
            self._before = {name: Vitals.of(self._fleet[name]) for name in NODES}
            self._tell_vitals()
            began_mono_s, self.report.cases, self.report.messages = time.monotonic(), 0, 0
            await self._fire(callers, range(cases))
            self.report.took_s = time.monotonic() - began_mono_s
        finally:
            await callers.close()
        try:
            await self._look_back()
        except Exception as error:  # noqa: BLE001 — what was found before is to be told, too
            self.report.found(f"the agents cannot be looked at any more: {error!r}")
        return self.report

    # --- under fire ---

    async def _fire(self, callers: Callers, numbers: range) -> None:
        """Make the calls of these numbers, several at a time, with a sweep now and then."""
        for batch in _batches(numbers, SWEEP_EVERY):
            await self._furnish(batch[0])
            left = iter(batch)
            await asyncio.gather(*(self._one_after_another(callers, left) for _ in range(CALLERS_AT_ONCE)))
            try:
                await self._sweep()
            except grpc.aio.AioRpcError as error:
                self.report.found(f"an agent does not answer after case {batch[-1]}: {error.details()}")
                return
            self._say(f"{batch[-1] + 1} cases, {len(self.report.findings)} findings")

    async def _one_after_another(self, callers: Callers, numbers: Iterator[int]) -> None:
        for number in numbers:
            if len(self.report.findings) >= MOST_FINDINGS:
                return
            if number % RAW_EVERY:
                await self._make(callers, case(self.report.seed, number, self._pems))
            else:
                await self._knock(raw_case(self.report.seed, number))

    async def _make(self, callers: Callers, made: Case) -> None:
        outcome = await callers.make(made)
        report = self.report
        report.cases += 1
        report.messages += max(1, len(made.frames))
        report.statuses[made.method.name, outcome.label] += 1
        report.slowest_s = max(report.slowest_s, outcome.took_s)
        if wrong := outcome.wrong(made):
            report.found(f"{made}: {wrong}")

    async def _knock(self, made: RawCase) -> None:
        assert self._doors is not None
        wrong = await self._doors.knock(made)
        self.report.cases += 1
        self.report.messages += 1
        self.report.statuses[made.door.value, "wrong" if wrong else "well"] += 1
        if wrong:
            self.report.found(f"{made}: {wrong}")

    async def _sweep(self) -> None:
        """What a well-meaning emulator does now and then: the sky is right again, what is open is called off."""
        for name in NODES:
            agent = self._fleet[name]
            async with grpc.aio.insecure_channel(f"unix:{agent.control_socket}") as channel:
                sky = node_pb2.Sky(clock=node_pb2.NodeClock(emu_ns=0, at_mono_ns=time.monotonic_ns(), scale=1.0))
                await node_pb2_grpc.NodeStub(channel).SetSky(sky, timeout=20)
            plane = await self._plane(name)
            for job in await _jobs(plane):
                with suppress(grpc.aio.AioRpcError):
                    if job.state not in FINAL:
                        await plane.jobs.Cancel(jobs_pb2.CancelJobRequest(id=job.spec.id), timeout=30)
                    elif job.spec.return_to not in ("", name) and (name, job.spec.id) not in self._released:
                        await plane.jobs.Release(jobs_pb2.ReleaseJobRequest(id=job.spec.id), timeout=30)
                        self._released.add((name, job.spec.id))
            took_s = await vitals.answers_in_s(agent)
            if took_s > vitals.ANSWERS_WITHIN_S:
                self.report.found(f"{name} took {took_s:.1f} s to say that it is well")

    # --- before and after ---

    async def _furnish(self, number: int) -> None:
        """Have objects and jobs there for messages to speak of; a node that has no room for one goes without."""
        for name in NODES:
            plane = await self._plane(name)
            for content in CONTENTS.values():
                with suppress(grpc.aio.AioRpcError):
                    await plane.put(object_name(content), content)
            programs = dict(zip(JOBS[:8], itertools.cycle(ALLOWED), strict=False))
            for job_id, argv in (programs | dict.fromkeys(sleepers(number), SLEEPS)).items():
                spec = jobs_pb2.JobSpec(id=job_id, command=jobs_pb2.JobSpec.Command(argv=argv))
                with suppress(grpc.aio.AioRpcError):
                    await plane.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20)

    async def _calm(self) -> None:
        """Wait until no job is open any more."""

        async def is_calm() -> bool:
            await self._sweep()
            return not any([_open(await _jobs(await self._plane(name))) for name in NODES])

        await until(is_calm, "no job is open any more", CALM_DEADLINE_S)

    async def _look_back(self) -> None:
        """Hold what the agents are against what they were, and see that they still do their work."""
        report = self.report
        try:
            await self._calm()
        except AssertionError as late:
            for name in NODES:
                report.found(f"{name}: {late}: {_open(await _jobs(await self._plane(name)))}")
        self._tell_vitals()
        for name in NODES:
            agent = self._fleet[name]
            with suppress(AssertionError):
                await until(lambda name=name: not [*self._grown(name)], "it is as it was", CALM_DEADLINE_S / 4)  # type: ignore[misc]
            for what in self._grown(name):
                report.found(f"{name} has {what}")
            report.findings += [f"{name}'s journal: {wrong}" for wrong in [vitals.journal_trouble(agent)] if wrong]
            report.findings += [f"{name} says:\n{trouble}" for trouble in vitals.troubles_told(agent)[:MOST_FINDINGS]]
            await self._still_works(name)

    def _grown(self, name: str) -> list[str]:
        return [*Vitals.of(self._fleet[name]).grown_since(self._before[name])]

    async def _still_works(self, name: str) -> None:
        plane = await self._plane(name)
        spec = jobs_pb2.JobSpec(id="afterwards", command=jobs_pb2.JobSpec.Command(argv=["/bin/echo", "well"]))
        content = b"\0 put and got afterwards"
        try:
            job = await plane.run(spec)
            if (job.state, job.stdout) != (jobs_pb2.JOB_STATE_SUCCEEDED, b"well\n"):
                self.report.found(f"{name}: a job afterwards came to {job}")
            await plane.put(object_name(content), content)
            if await plane.get(object_name(content)) != content:
                self.report.found(f"{name}: an object put afterwards comes back as another")
        except grpc.aio.AioRpcError as error:
            self.report.found(f"{name} does no work afterwards: {error.code()}, {error.details()}")

    def _tell_vitals(self) -> None:
        for name in NODES:
            self._say(f"{name}: {Vitals.of(self._fleet[name])}")

    async def _plane(self, name: str) -> DataPlane:
        if name not in self._planes:
            self._planes[name] = await self._fleet.data_plane(name, jurisdiction="CN")
        return self._planes[name]


def _certificate_of(agent: Agent) -> tuple[bytes, bytes]:
    """An agent's certificate, and its authority's, as they lie in its store."""
    pem = (agent.store / "identity" / "credentials.pem").read_bytes()
    first, second = pem.rindex(_CERTIFICATE, 0, pem.rindex(_CERTIFICATE)), pem.rindex(_CERTIFICATE)
    return pem[first:second], pem[second:]


def _open(jobs: list[jobs_pb2.Job]) -> list[str]:
    """Those that are not final."""
    return [job.spec.id for job in jobs if job.state not in FINAL]


async def _jobs(plane: DataPlane) -> list[jobs_pb2.Job]:
    """All that an agent knows."""
    jobs: list[jobs_pb2.Job] = []
    after_id, more = "", True
    while more:
        page = await plane.jobs.List(jobs_pb2.ListJobsRequest(after_id=after_id), timeout=30)
        jobs += page.jobs
        more = page.more
        after_id = page.jobs[-1].spec.id if page.jobs else ""
    return jobs


def _batches(numbers: range, size: int) -> list[range]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]
