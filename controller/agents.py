"""The controller's way to one node: its agent's control plane, a Unix socket.

Every node answers `info`. Objects and jobs are taken by gateways and terminals alone; what is meant for a satellite
goes on from there over the emulated network.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import google_crc32c
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import (
    jobs_pb2,
    jobs_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    objects_pb2,
    objects_pb2_grpc,
)

if TYPE_CHECKING:  # what it imports is heavy, and most clients certify nobody
    from controller.authority import Authority, Issued, Subject

CHUNK_BYTES: Final = 256 * 1024
FINAL_STATES: Final = frozenset(
    {
        jobs_pb2.JOB_STATE_SUCCEEDED,
        jobs_pb2.JOB_STATE_FAILED,
        jobs_pb2.JOB_STATE_CANCELLED,
        jobs_pb2.JOB_STATE_EXPIRED,
    }
)

# The socket is local: an agent that starts up is tried again often, and a call that hangs is the agent's fault.
_CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
)
_CALL_DEADLINE_S: Final = 20.0
_KEY_DEADLINE_S: Final = 90.0
_STREAM_DEADLINE_S: Final = 3600.0
_DATA_PLANE_SERVICE: Final = "skyrack.v1.Jobs"
_PUT_ACCEPTED: Final = "skyrack-put-accepted"  # see protos/skyrack/v1/objects.proto
# What gRPC raises for a call that has its answer: from `write`, and from `done_writing`, before it knows itself.
_ANSWERED_EARLY: Final = (asyncio.InvalidStateError, grpc.aio.InternalError)
_READY_POLL_S: Final = 0.1

_USER_MISTAKES: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


ChunksFrom: TypeAlias = Callable[[int], AsyncIterator[bytes]]
"""An object's bytes from an offset."""


class _DeadlineError(SkyrackError):
    """A call took longer than it may."""


class AgentClient:
    """One node's agent. An async context manager; every call has a deadline.

    Raises InputError where the agent says that the asker is wrong, SkyrackError where it cannot (or does not answer).
    """

    def __init__(self, control_socket: Path, name: str = "") -> None:
        self._name = name or str(control_socket)
        self._target = f"unix:{control_socket}"

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS)
        self._node = node_pb2_grpc.NodeStub(self._channel)
        self._jobs = jobs_pb2_grpc.JobsStub(self._channel)
        self._objects = objects_pb2_grpc.ObjectsStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def wait_ready(self, deadline_s: float, *, data_plane: bool = False) -> None:
        """Return once the agent answers; with data_plane, once other nodes can reach it at its address, too.

        Raises SkyrackError after deadline_s.
        """
        request = health_pb2.HealthCheckRequest(service=_DATA_PLANE_SERVICE if data_plane else "")
        last = "its socket does not answer"
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    try:
                        # The channel dials again by itself while the call waits.
                        answer = await self._health.Check(request, timeout=deadline_s, wait_for_ready=True)
                        if answer.status == health_pb2.HealthCheckResponse.SERVING:
                            return
                        last = "it has not been given its address, or no certificate"
                    except grpc.aio.AioRpcError as error:
                        last = error.details() or last
                    await asyncio.sleep(_READY_POLL_S)
        except TimeoutError:
            raise SkyrackError(f"the agent of {self._name} was not ready after {deadline_s:g} s: {last}") from None

    async def info(self) -> node_pb2.NodeInfo:
        """Who and how the node is."""
        with self._meaning():
            return await self._node.GetInfo(node_pb2.GetNodeRequest(), timeout=_CALL_DEADLINE_S)

    async def set_sky(self, sky: node_pb2.Sky) -> None:
        """Tell the node what it may know of the sky, all of it."""
        with self._meaning():
            await self._node.SetSky(sky, timeout=_CALL_DEADLINE_S)

    async def certify(self, authority: Authority, subject: Subject, *, renew: bool = False) -> Issued:
        """Have the authority certify the node's key, or with `renew` a new one, and the node use it from now on."""
        with self._meaning():
            asked = node_pb2.SigningRequestRequest(renew=renew)
            request = await self._node.GetSigningRequest(asked, timeout=_KEY_DEADLINE_S)
            issued = authority.issue(request.request_pem, subject, datetime.datetime.now(datetime.UTC))
            certificate = node_pb2.Certificate(certificate_pem=issued.certificate_pem, authority_pem=authority.pem)
            await self._node.SetCertificate(certificate, timeout=_CALL_DEADLINE_S)
        return issued

    async def put_bytes(self, content: bytes) -> objects_pb2.ObjectInfo:
        """Store an object at a gateway."""
        digest = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())

        async def chunks(offset_bytes: int) -> AsyncIterator[bytes]:
            for start in range(offset_bytes, len(content), CHUNK_BYTES):
                yield content[start : start + CHUNK_BYTES]

        return await self._put(f"sha256:{digest}", len(content), chunks)

    async def put_file(
        self, path: Path, terms: objects_pb2.ObjectTerms | None = None, for_job: str = ""
    ) -> objects_pb2.ObjectInfo:
        """Store a file as an object at a gateway, for good or for a job. Raises InputError if it cannot be read."""
        try:
            digest, size_bytes = await asyncio.to_thread(_digest_of, path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error

        async def chunks(offset_bytes: int) -> AsyncIterator[bytes]:
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(os.pread, file.fileno(), CHUNK_BYTES, offset_bytes):
                    offset_bytes += len(chunk)
                    yield chunk

        return await self._put(f"sha256:{digest}", size_bytes, chunks, terms, for_job)

    async def put(self, requests: AsyncIterator[objects_pb2.PutRequest]) -> objects_pb2.ObjectInfo:
        """Pass on a put as it comes from a client of the controller's. Asks for chunks only once they are welcome."""
        with self._meaning():
            call = self._objects.Put(timeout=_STREAM_DEADLINE_S)
            try:
                await call.write(await anext(requests, objects_pb2.PutRequest()))
                if _PUT_ACCEPTED in dict(await call.initial_metadata()):
                    with suppress(*_ANSWERED_EARLY):  # the answer says why
                        async for request in requests:
                            await call.write(request)
                        await call.done_writing()
                return await call
            finally:
                call.cancel()

    async def stat(self, name: str) -> objects_pb2.ObjectInfo:
        """What a gateway holds of an object."""
        with self._meaning():
            return await self._objects.Stat(objects_pb2.StatRequest(object=name), timeout=_CALL_DEADLINE_S)

    async def get(self, name: str, offset_bytes: int = 0) -> AsyncIterator[bytes]:
        """An object of a gateway's, in chunks."""
        async for response in self.get_responses(objects_pb2.GetRequest(object=name, offset_bytes=offset_bytes)):
            if response.WhichOneof("part") == "chunk":
                yield response.chunk

    async def get_bytes(self, name: str) -> bytes:
        """A small object of a gateway's, whole. Raises SkyrackError if it is not what its name says."""
        content = b"".join([chunk async for chunk in self.get(name)])
        if name != f"sha256:{hashlib.sha256(content).hexdigest()}":
            raise SkyrackError(f"{self._name} sent other bytes than {name}")
        return content

    async def get_responses(self, request: objects_pb2.GetRequest) -> AsyncGenerator[objects_pb2.GetResponse, None]:
        """An object of a gateway's as the wire has it, to be passed on."""
        with self._meaning():
            call = self._objects.Get(request, timeout=_STREAM_DEADLINE_S)
            try:
                async for response in call:
                    yield response
            finally:
                call.cancel()

    async def get_file(self, name: str, path: Path) -> int:
        """Write an object of a gateway's to a file, which appears when it is whole and right. Its size in bytes."""
        aside = path.with_name(f"{path.name}.part")
        sha256 = hashlib.sha256()
        size_bytes = 0
        try:
            with aside.open("wb") as file:
                async for chunk in self.get(name):
                    await asyncio.to_thread(file.write, chunk)
                    sha256.update(chunk)
                    size_bytes += len(chunk)
            if name != f"sha256:{sha256.hexdigest()}":
                raise SkyrackError(f"{self._name} sent other bytes than {name}; nothing is kept")
            aside.replace(path)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        finally:
            aside.unlink(missing_ok=True)
        return size_bytes

    async def submit(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.Job:
        """Give a gateway a job. After: the gateway has it on disk."""
        with self._meaning():
            return await self._jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=_CALL_DEADLINE_S)

    async def job(self, job_id: str) -> jobs_pb2.Job:
        """One job of a gateway's."""
        with self._meaning():
            return await self._jobs.Get(jobs_pb2.GetJobRequest(id=job_id), timeout=_CALL_DEADLINE_S)

    async def jobs(self) -> list[jobs_pb2.Job]:
        """All jobs of a gateway's, oldest first, without stdout and stderr."""
        with self._meaning():
            jobs: list[jobs_pb2.Job] = []
            more = True
            while more:
                request = jobs_pb2.ListJobsRequest(after_id=jobs[-1].spec.id if jobs else "")
                answer = await self._jobs.List(request, timeout=_CALL_DEADLINE_S)
                jobs.extend(answer.jobs)
                more = answer.more
        return jobs

    async def watch(self, job_id: str, after_revision: int = 0) -> AsyncIterator[jobs_pb2.Job]:
        """A job now and at every change, until it is final."""
        while True:
            request = jobs_pb2.WatchJobRequest(id=job_id, after_revision=after_revision)
            call = self._jobs.Watch(request, timeout=_STREAM_DEADLINE_S)
            try:
                with self._meaning():
                    async for job in call:
                        after_revision = job.revision
                        yield job
                return
            except _DeadlineError:
                continue  # a job may take longer than a call: go on where this one ended
            finally:
                call.cancel()

    async def wait_final(self, job_id: str, deadline_s: float) -> jobs_pb2.Job:
        """The job once it is final. Raises SkyrackError after deadline_s, with the state and reason it was left in."""
        job = await self.job(job_id)
        try:
            async with asyncio.timeout(deadline_s):
                async for job in self.watch(job_id):
                    if job.state in FINAL_STATES:
                        break
        except TimeoutError:
            state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
            raise SkyrackError(f"job {job_id} is {state} after {deadline_s:g} s: {job.reason}") from None
        return job

    async def cancel(self, job_id: str) -> jobs_pb2.Job:
        """Ask for a job's end."""
        with self._meaning():
            return await self._jobs.Cancel(jobs_pb2.CancelJobRequest(id=job_id), timeout=_CALL_DEADLINE_S)

    async def suspend(self, job_id: str) -> jobs_pb2.Job:
        """Stop a job's processes, or withhold its turn."""
        with self._meaning():
            return await self._jobs.Suspend(jobs_pb2.SuspendJobRequest(id=job_id), timeout=_CALL_DEADLINE_S)

    async def resume(self, job_id: str) -> jobs_pb2.Job:
        """Let a suspended job go on."""
        with self._meaning():
            return await self._jobs.Resume(jobs_pb2.ResumeJobRequest(id=job_id), timeout=_CALL_DEADLINE_S)

    async def read_log(self, request: jobs_pb2.ReadLogRequest) -> AsyncIterator[jobs_pb2.LogChunk]:
        """What a job has written; where that is asked for, until it is final."""
        while True:
            call = self._jobs.ReadLog(request, timeout=_STREAM_DEADLINE_S)
            try:
                with self._meaning():
                    async for chunk in call:
                        request.offset_bytes = chunk.offset_bytes + len(chunk.data)
                        yield chunk
                return
            except _DeadlineError:
                continue  # as watch does
            finally:
                call.cancel()

    async def objects(self) -> list[objects_pb2.ObjectInfo]:
        """All objects of a node on the ground, by name."""
        with self._meaning():
            call = self._objects.List(objects_pb2.ListObjectsRequest(), timeout=_CALL_DEADLINE_S)
            return [info async for info in call]

    async def set_terms(self, request: objects_pb2.SetTermsRequest) -> objects_pb2.ObjectInfo:
        """Change who shall hold an object, and whether it is pinned."""
        with self._meaning():
            return await self._objects.SetTerms(request, timeout=_CALL_DEADLINE_S)

    async def delete(self, name: str) -> objects_pb2.DeleteObjectResponse:
        """Remove an object."""
        with self._meaning():
            request = objects_pb2.DeleteObjectRequest(object=name)
            return await self._objects.Delete(request, timeout=_CALL_DEADLINE_S)

    async def scrub(self, name: str) -> objects_pb2.ScrubReport:
        """Hold an object, or with an empty name all, against their names."""
        with self._meaning():
            return await self._objects.Scrub(objects_pb2.ScrubRequest(object=name), timeout=_STREAM_DEADLINE_S)

    async def audit(self) -> list[node_pb2.AuditEvent]:
        """What was denied, damaged or repaired at the node, oldest first."""
        with self._meaning():
            call = self._node.Audit(node_pb2.AuditRequest(), timeout=_CALL_DEADLINE_S)
            return [event async for event in call]

    async def _put(
        self,
        name: str,
        size_bytes: int,
        chunks: ChunksFrom,
        terms: objects_pb2.ObjectTerms | None = None,
        for_job: str = "",
    ) -> objects_pb2.ObjectInfo:
        committed_bytes = (await self.stat(name)).committed_bytes

        async def requests() -> AsyncIterator[objects_pb2.PutRequest]:
            header = objects_pb2.PutRequest.Header(
                object=name, size_bytes=size_bytes, offset_bytes=committed_bytes, terms=terms, for_job=for_job
            )
            yield objects_pb2.PutRequest(header=header)
            async for chunk in chunks(committed_bytes):
                yield objects_pb2.PutRequest(chunk=chunk, crc32c=google_crc32c.value(chunk))

        return await self.put(requests())

    @contextmanager
    def _meaning(self) -> Iterator[None]:
        """Turn gRPC's errors into ours."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            if code in _USER_MISTAKES:
                raise InputError(f"{self._name}: {details}") from error
            if code == grpc.StatusCode.UNIMPLEMENTED:
                raise InputError(f"{self._name} is no gateway: jobs and objects go through the ground") from error
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _DeadlineError(f"the agent of {self._name} did not answer in time") from error
            if code == grpc.StatusCode.UNAVAILABLE:
                raise SkyrackError(f"the agent of {self._name} does not answer: {details}") from error
            raise SkyrackError(f"{self._name}: {details}") from error


def _digest_of(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, os.fstat(file.fileno()).st_size
