"""What the services have in common, that of the store, and that of the node itself; refusals become statuses."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from node_agent import __version__
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
from node_agent.jobs.engine import Engine
from node_agent.objects.store import ObjectStore
from node_agent.security.audit import Audit
from node_agent.security.identity import Credentials, Identity
from node_agent.sky.sky import Sky
from protos.skyrack.v1 import node_pb2, node_pb2_grpc

T = TypeVar("T")
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_STATUS: Final[dict[type[Refusal], grpc.StatusCode]] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    DataLoss: grpc.StatusCode.DATA_LOSS,
    Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


async def answer(context: Context, work: Awaitable[T]) -> T:
    """What the work comes to; a refusal as its status, but for a denial, which is the guard's to tell."""
    try:
        return await work
    except PermissionDenied:
        raise
    except Refusal as refusal:
        await context.abort(_STATUS[type(refusal)], str(refusal))


async def answers(context: Context, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """What the work comes to, one after the other; a refusal as its status."""
    try:
        async for item in items:
            yield item
    except PermissionDenied:
        raise
    except Refusal as refusal:
        await context.abort(_STATUS[type(refusal)], str(refusal))


class Node(node_pb2_grpc.NodeServicer):
    """The emulator's hand on this node."""

    def __init__(
        self,
        identity: Identity,
        credentials: Credentials,
        audit: Audit,
        store: ObjectStore,
        engine: Engine,
        sky: Sky,
    ) -> None:
        self._identity = identity
        self._credentials = credentials
        self._audit = audit
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
            open_jobs=self._engine.open_jobs,
            store_quota_bytes=self._store.quota_bytes,
            jurisdiction=self._identity.jurisdiction,
            job_slots=self._engine.slots,
            restarts=self._identity.restarts,
            bound_for=self._sky.sought,
        )

    async def GetSigningRequest(  # noqa: N802
        self, request: node_pb2.SigningRequestRequest, context: Context
    ) -> node_pb2.SigningRequest:
        """A request for a certificate of the node's key, or of a new one."""
        return node_pb2.SigningRequest(
            request_pem=await answer(context, self._credentials.request(renew=request.renew))
        )

    async def SetCertificate(  # noqa: N802
        self, request: node_pb2.Certificate, context: Context
    ) -> node_pb2.SetCertificateResponse:
        """Use a certificate from now on."""
        await answer(context, self._credentials.accept(request.certificate_pem, request.authority_pem))
        return node_pb2.SetCertificateResponse()

    async def SetSky(self, request: node_pb2.Sky, context: Context) -> node_pb2.SetSkyResponse:  # noqa: N802
        """Know this of the sky."""
        self._sky.tell(request)
        return node_pb2.SetSkyResponse()

    async def Audit(  # noqa: N802
        self, request: node_pb2.AuditRequest, context: Context
    ) -> AsyncIterator[node_pb2.AuditEvent]:
        """What was denied, damaged or repaired here."""
        async for event in answers(context, self._audit.events(request.after, follow=request.follow)):
            yield event


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
