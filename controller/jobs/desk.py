"""The controller's desk for jobs: hands them to gateways, follows each to its end, and tells the record."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from controller.agents import FINAL_STATES, AgentClient
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import jobs_pb2

REWATCH_S = 1.0


def state_name(state: jobs_pb2.JobState.ValueType) -> str:
    """The word of DESIGN for a state: WAITING_CONTACT, RUNNING, …"""
    return jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_")


@dataclass(frozen=True)
class GatewayJob:
    """A job and the gateway that has charge of it."""

    via: str
    job: jobs_pb2.Job


class JobDesk:
    """Speaks to every gateway of a run. One watcher a job tells `on_change` of each new state or reason."""

    def __init__(self, gateways: Mapping[str, AgentClient], on_change: Callable[[GatewayJob], None]) -> None:
        self._gateways = gateways
        self._on_change = on_change
        self._watchers: dict[str, asyncio.Task[None]] = {}

    def gateway(self, name: str) -> AgentClient:
        """The client of a gateway. Raises InputError if no gateway has the name."""
        try:
            return self._gateways[name]
        except KeyError:
            known = ", ".join(sorted(self._gateways)) or "none in this scenario"
            raise InputError(f"{name!r} is no gateway of this run (gateways: {known})") from None

    async def submit(self, via: str, spec: jobs_pb2.JobSpec) -> GatewayJob:
        """Hand a job to a gateway; it is journalled there when this returns."""
        taken = GatewayJob(via, await self.gateway(via).submit(spec))
        if spec.id not in self._watchers:
            self._watchers[spec.id] = asyncio.create_task(self._follow(via, spec.id), name=f"watch {spec.id}")
        return taken

    async def list(self) -> list[GatewayJob]:
        """The jobs of all gateways, by gateway and age."""
        answers = await asyncio.gather(*(client.jobs() for client in self._gateways.values()))
        return [GatewayJob(via, job) for via, jobs in zip(self._gateways, answers, strict=True) for job in jobs]

    async def find(self, job_id: str) -> GatewayJob:
        """One job, whichever gateway has it. Raises InputError if none has."""
        for entry in await self.list():
            if entry.job.spec.id == job_id:
                return entry
        raise InputError(f"no gateway of this run has a job {job_id!r} (`skyrack jobs` lists them)")

    async def watch(self, job_id: str, after_revision: int = 0) -> AsyncIterator[GatewayJob]:
        """The job now and at every change, until it is final."""
        entry = await self.find(job_id)
        async for job in self.gateway(entry.via).watch(job_id, after_revision):
            yield GatewayJob(entry.via, job)

    async def finished(self, job_id: str) -> GatewayJob:
        """The job, once it is final."""
        async for entry in self.watch(job_id):
            if entry.job.state in FINAL_STATES:
                return entry
        raise SkyrackError(f"the gateway stopped telling of job {job_id!r} before it was final")

    async def cancel(self, job_id: str) -> GatewayJob:
        """Ask for the job's end."""
        entry = await self.find(job_id)
        return GatewayJob(entry.via, await self.gateway(entry.via).cancel(job_id))

    async def close(self) -> None:
        """Stop following."""
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)

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
                        return
            except SkyrackError as error:
                if told != (jobs_pb2.JOB_STATE_UNSPECIFIED, str(error)):
                    told = jobs_pb2.JOB_STATE_UNSPECIFIED, str(error)
                    self._on_change(GatewayJob(via, jobs_pb2.Job(spec=jobs_pb2.JobSpec(id=job_id), reason=str(error))))
            await asyncio.sleep(REWATCH_S)
