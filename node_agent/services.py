"""The wire's services, each call a verb of the room behind it; refusals become statuses."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from node_agent import __version__
from node_agent.engine import Engine
from node_agent.errors import (
    AlreadyExists,
    DataLoss,
    Exhausted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Refusal,
)
from node_agent.sky import Sky
from node_agent.store import ObjectStore
from protos.skyrack.v1 import jobs_pb2, jobs_pb2_grpc, node_pb2, node_pb2_grpc

T = TypeVar("T")
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_STATUS: Final[dict[type[Refusal], grpc.StatusCode]] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    DataLoss: grpc.StatusCode.DATA_LOSS,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def answer(context: Context, work: Awaitable[T]) -> T:
    """What the work comes to; a refusal as its status."""
    try:
        return await work
    except Refusal as refusal:
        await context.abort(_STATUS[type(refusal)], str(refusal))


async def answers(context: Context, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """What the work comes to, one after the other; a refusal as its status."""
    try:
        async for item in items:
            yield item
    except Refusal as refusal:
        await context.abort(_STATUS[type(refusal)], str(refusal))


class Jobs(jobs_pb2_grpc.JobsServicer):
    """The engine, on the wire."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Submit(self, request: jobs_pb2.SubmitRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """Take charge of a job."""
        return await answer(context, self._engine.submit(request.spec))

    async def Get(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """One job."""
        return await answer(context, self._engine.job(request.id))

    async def List(self, request: jobs_pb2.ListJobsRequest, context: Context) -> jobs_pb2.ListJobsResponse:  # noqa: N802
        """All jobs."""
        return jobs_pb2.ListJobsResponse(jobs=self._engine.jobs())

    async def Watch(self, request: jobs_pb2.WatchJobRequest, context: Context) -> AsyncIterator[jobs_pb2.Job]:  # noqa: N802
        """A job now and at every change."""
        async for job in answers(context, self._engine.watch(request.id, request.after_revision)):
            yield job

    async def Cancel(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """End a job."""
        return await answer(context, self._engine.cancel(request.id))


@dataclass(frozen=True)
class Identity:
    """Who this node is."""

    name: str
    role: str
    address: str


class Node(node_pb2_grpc.NodeServicer):
    """The emulator's hand on this node."""

    def __init__(self, identity: Identity, store: ObjectStore, engine: Engine, sky: Sky) -> None:
        self._identity = identity
        self._store = store
        self._engine = engine
        self._sky = sky
        self._started_mono_s = time.monotonic()

    async def GetInfo(self, request: node_pb2.GetNodeRequest, context: Context) -> node_pb2.NodeInfo:  # noqa: N802
        """Who and how this node is."""
        return node_pb2.NodeInfo(
            name=self._identity.name,
            role=self._identity.role,
            address=self._identity.address,
            agent_version=__version__,
            uptime_s=time.monotonic() - self._started_mono_s,
            resident_bytes=_resident_bytes(),
            cpu_s=time.process_time(),
            store_bytes=self._store.used_bytes,
            store_quota_bytes=self._store.quota_bytes,
            jurisdiction=self._store.jurisdiction,
            open_jobs=self._engine.open_jobs,
        )

    async def SetSky(self, request: node_pb2.Sky, context: Context) -> node_pb2.SetSkyResponse:  # noqa: N802
        """Know this of the sky."""
        self._sky.tell(request)
        return node_pb2.SetSkyResponse()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
