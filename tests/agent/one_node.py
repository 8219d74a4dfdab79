"""One satellite, and what tests of its jobs ask of it over the data plane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    Job,
    JobSpec,
    ResumeJobRequest,
    SuspendJobRequest,
)
from tests.agent.fleet import DataPlane, Fleet

S = 1_000_000_000
WAIT_FOR = "while [ ! -e {} ]; do sleep 0.02; done"


def shell(job_id: str, script: str, **fields: object) -> JobSpec:
    """A job that runs a line of shell."""
    command = JobSpec.Command(argv=["sh", "-c", script])
    return JobSpec(id=job_id, command=command, **fields)  # type: ignore[arg-type]


def states(job: Job) -> list[int]:
    """Its history, as states alone."""
    return [step.state for step in job.history]


class Node:
    """One agent, and what is asked of it in these tests."""

    def __init__(self, fleet: Fleet, name: str, plane: DataPlane) -> None:
        self.fleet, self.name, self.plane = fleet, name, plane

    async def submit(self, spec: JobSpec) -> Job:
        """Hand a job in."""
        return await self.plane.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20)

    async def job(self, job_id: str) -> Job:
        """A job as it is."""
        return await self.plane.jobs.Get(GetJobRequest(id=job_id), timeout=20)

    async def suspend(self, job_id: str) -> Job:
        """Have it stopped."""
        return await self.plane.jobs.Suspend(SuspendJobRequest(id=job_id), timeout=20)

    async def resume(self, job_id: str) -> Job:
        """Let it go on."""
        return await self.plane.jobs.Resume(ResumeJobRequest(id=job_id), timeout=20)

    async def cancel(self, job_id: str) -> Job:
        """End it."""
        return await self.plane.jobs.Cancel(CancelJobRequest(id=job_id), timeout=20)

    async def seen(self, job_id: str, condition: Callable[[Job], bool]) -> Job:
        """The job once it is as told."""
        async with asyncio.timeout(30):
            async for job in self.plane.jobs.Watch(jobs_pb2.WatchJobRequest(id=job_id), timeout=60):
                if condition(job):
                    return job
        raise AssertionError(f"{job_id} ended otherwise")

    async def reaches(self, job_id: str, state: jobs_pb2.JobState.ValueType) -> Job:
        """The job once it is in a state."""
        return await self.seen(job_id, lambda job: job.state == state)

    async def restart(self) -> None:
        """kill -9, and start again."""
        await self.fleet[self.name].restart()
        self.plane = await self.fleet.data_plane(self.name)


async def node(fleet: Fleet, *options: str) -> Node:
    """One satellite."""
    await fleet.launch("sat", options=options)
    return Node(fleet, "sat", await fleet.data_plane("sat"))


async def refused(call: object) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return error.value


def ticks(path: Path) -> int:
    """How far a job that counts has come."""
    return path.stat().st_size if path.exists() else 0
