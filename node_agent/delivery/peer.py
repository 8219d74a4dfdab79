"""Another agent, over the data plane: its calls, and what their errors mean.

What the network does is a Break: another contact may do better. What the peer decides is a Refusal: it will not.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Final

import grpc

from node_agent.errors import (
    AlreadyExists,
    Break,
    DataLoss,
    Exhausted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Refusal,
)
from node_agent.objects import transfer
from node_agent.objects.catalog import PUT
from node_agent.objects.chunks import Streams
from node_agent.objects.store import ObjectStore
from node_agent.objects.terms import Terms
from node_agent.security import wire
from node_agent.security.identity import Credentials
from protos.skyrack.v1 import jobs_pb2, jobs_pb2_grpc, objects_pb2, objects_pb2_grpc

_RESOLVE_DEADLINE_S = 2.0

_BREAKS: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,  # what HTTP/2 says of a stream that was cut
    }
)
_REFUSALS: Final[Mapping[grpc.StatusCode, type[Refusal]]] = {
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
}


class Resolver:
    """Where nodes are: those given by name, and all that the machine's resolver (/etc/hosts) knows. And how to know
    that it is them."""

    def __init__(self, peers: Mapping[str, str], port: int, credentials: Credentials) -> None:
        self._peers = dict(peers)
        self._port = port
        self._credentials = credentials

    def channel(self, node: str, target: str, options: wire.Options) -> grpc.aio.Channel:
        """A channel to a node, with this node's newest certificate. Raises Break before there is one."""
        try:
            return wire.open_channel(self._credentials, node, target, options)
        except LookupError:
            raise Break("this node has not been given its certificate yet") from None

    async def address(self, node: str) -> tuple[str, int]:
        """The node's IPv4 address, and its agent's port. Raises Break when no such name is known."""
        address = self._peers.get(node)
        if address is None:
            resolving = asyncio.get_running_loop().getaddrinfo(
                node, self._port, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
            try:
                async with asyncio.timeout(_RESOLVE_DEADLINE_S):
                    found = await resolving
            except (socket.gaierror, UnicodeError, TimeoutError):
                raise Break(f"no node is called {node[:100]!r}") from None
            address = str(found[0][4][0])
        return address, self._port

    async def check_known(self, what: str, nodes: Iterable[str]) -> None:
        """Whether these are nodes; an empty name says that no other is meant. Raises InvalidArgument, which names what
        speaks of them."""
        for node in filter(None, nodes):
            try:
                await self.address(node)
            except Break as unknown:
                raise InvalidArgument(f"{what}: {unknown}") from None


class Peer:
    """The agent of another node, during one contact."""

    def __init__(self, node: str, channel: grpc.aio.Channel) -> None:
        self.node = node
        self._jobs = jobs_pb2_grpc.JobsStub(channel)
        self._objects = objects_pb2_grpc.ObjectsStub(channel)
        self._streams = Streams(channel)

    async def job(self, job_id: str) -> jobs_pb2.Job | None:
        """The job as the node knows it, if it does."""
        try:
            with self._listening():
                return await self._jobs.Get(jobs_pb2.GetJobRequest(id=job_id), timeout=wire.ANSWER_DEADLINE_S)
        except NotFound:
            return None

    async def submit(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.Job:
        """Give it the job; once or again."""
        with self._listening():
            return await self._jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=wire.ANSWER_DEADLINE_S)

    async def cancel(self, job_id: str) -> jobs_pb2.Job | None:
        """End the job there. How it ended, or None if the node does not know it."""
        try:
            with self._listening():
                return await self._jobs.Cancel(jobs_pb2.CancelJobRequest(id=job_id), timeout=wire.ANSWER_DEADLINE_S)
        except NotFound:
            return None

    async def watch(self, job_id: str) -> AsyncIterator[jobs_pb2.Job]:
        """The job there, now and at every change. Raises NotFound."""
        with self._listening():
            request = jobs_pb2.WatchJobRequest(id=job_id)
            async for job in self._jobs.Watch(request, timeout=wire.STREAM_DEADLINE_S):
                yield job

    async def suspend(self, job_id: str, *, suspend: bool) -> None:
        """Have the job stopped there, or let it go on."""
        with self._listening():
            if suspend:
                await self._jobs.Suspend(jobs_pb2.SuspendJobRequest(id=job_id), timeout=wire.ANSWER_DEADLINE_S)
            else:
                await self._jobs.Resume(jobs_pb2.ResumeJobRequest(id=job_id), timeout=wire.ANSWER_DEADLINE_S)

    async def give_back(self, job: jobs_pb2.Job) -> None:
        """Hand it a result on the way back, whose outputs it has. After: it has charge of it."""
        with self._listening():
            await self._jobs.Return(jobs_pb2.ReturnJobRequest(job=job), timeout=wire.ANSWER_DEADLINE_S)

    async def release(self, job_id: str) -> None:
        """Say that the job's result is safe here."""
        with self._listening():
            await self._jobs.Release(jobs_pb2.ReleaseJobRequest(id=job_id), timeout=wire.ANSWER_DEADLINE_S)

    async def log(
        self, job_id: str, stream: jobs_pb2.LogStream.ValueType, offset_bytes: int
    ) -> AsyncIterator[jobs_pb2.LogChunk]:
        """What the job writes, from an offset, until it is final."""
        request = jobs_pb2.ReadLogRequest(id=job_id, stream=stream, offset_bytes=offset_bytes, follow=True)
        with self._listening():
            async for chunk in self._jobs.ReadLog(request, timeout=wire.STREAM_DEADLINE_S):
                yield chunk

    async def committed_bytes(self, name: str) -> int:
        """How much of an object it has."""
        with self._listening():
            info = await self._objects.Stat(objects_pb2.StatRequest(object=name), timeout=wire.ANSWER_DEADLINE_S)
        return info.committed_bytes

    async def put(
        self,
        store: ObjectStore,
        name: str,
        offset_bytes: int,
        on_sent: Callable[[int], None],
        for_job: str = "",
    ) -> None:
        """Send an object from an offset, under its residency, for as long as a job needs it, or for good.

        After: the peer has it on disk.
        """
        with self._listening():
            await transfer.put(self._streams, store, name, offset_bytes, on_sent, for_job=for_job)

    async def fetch(
        self,
        store: ObjectStore,
        name: str,
        on_received: transfer.OnReceived,
        terms: Terms | None = None,
        why: str | None = PUT,
    ) -> None:
        """Bring an object into the store, from where an earlier contact left it. After: it is whole, on disk."""
        with self._listening():
            await transfer.fetch(self._streams, store, name, on_received, terms, why)

    async def read(self, name: str, offset_bytes: int) -> AsyncGenerator[bytes, None]:
        """An object there from an offset to its end, in chunks. To be closed (`aclosing`)."""
        with self._listening():
            async with aclosing(transfer.read(self._streams, name, offset_bytes)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def delete(self, name: str) -> bool:
        """Have it hold an object no more. Whether it did."""
        with self._listening():
            request = objects_pb2.DeleteObjectRequest(object=name)
            return (await self._objects.Delete(request, timeout=wire.ANSWER_DEADLINE_S)).was_here

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Turn gRPC's errors into a Break or a Refusal."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if error.code() in _BREAKS:
                raise Break(meaning(self.node, error)) from error
            said = f"{self.node} says: {error.details()}"
            raise _REFUSALS.get(error.code(), Refusal)(said) from error


def meaning(node: str, error: grpc.aio.AioRpcError) -> str:
    """gRPC's words for a break, for people."""
    details = error.details() or ""
    if "unreachable" in details or "No route to host" in details:
        return f"no route to {node}"
    if "Connection refused" in details:
        return f"nothing listens at {node} yet"
    if "handshake failed" in details or "verification" in details:
        return f"{node} does not prove to be {node}, or does not take this node's certificate"
    return f"no answer from {node}"
