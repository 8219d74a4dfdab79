"""The command line's way to a run: blocking calls on its Unix socket, with deadlines and skyrack's errors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import google_crc32c
import grpc

from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import controller_pb2, controller_pb2_grpc, jobs_pb2, objects_pb2

CALL_S = 15.0
TRANSFER_S = 600.0
PLACE_S = 60.0  # to look at every node of a whole shell
FETCH_S = 3_600.0  # an object that comes from elsewhere waits for contacts
PROBE_S = 2.5  # a probe that is not answered takes its time-out
CHUNK_BYTES = 256 * 1024


class ControllerClient:
    """One run, reached through its socket. A context manager."""

    def __init__(self, api_socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{api_socket}")
        self._stub = controller_pb2_grpc.ControllerStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def status(self) -> controller_pb2.RunStatus:
        """The run as it stands."""
        with told():
            return self._stub.GetStatus(controller_pb2.GetStatusRequest(), timeout=CALL_S)

    def stop(self) -> None:
        """Ask the run to end."""
        with told():
            self._stub.Stop(controller_pb2.StopRequest(), timeout=CALL_S)

    def pause(self) -> controller_pb2.SkyClock:
        """Let the sky stand."""
        with told():
            return self._stub.Pause(controller_pb2.PauseRequest(), timeout=CALL_S)

    def resume(self) -> controller_pb2.SkyClock:
        """Let the sky go on."""
        with told():
            return self._stub.Resume(controller_pb2.ResumeRequest(), timeout=CALL_S)

    def step(self, steps: int) -> controller_pb2.SkyClock:
        """Go some steps on while the sky is paused."""
        with told():
            return self._stub.Step(controller_pb2.StepRequest(steps=steps), timeout=CALL_S)

    def seek(self, t_s: float) -> controller_pb2.SkyClock:
        """Go to a moment of the sky."""
        with told():
            return self._stub.Seek(controller_pb2.SeekRequest(t_s=t_s), timeout=CALL_S)

    def show_link(self, a: str, b: str) -> controller_pb2.LinkView:
        """A link as it is."""
        with told():
            return self._stub.ShowLink(controller_pb2.LinkRequest(a=a, b=b), timeout=CALL_S)

    def set_link(self, override: controller_pb2.LinkOverride) -> controller_pb2.LinkView:
        """Have a link so until it is cleared."""
        with told():
            return self._stub.SetLink(override, timeout=CALL_S)

    def clear_link(self, a: str, b: str) -> controller_pb2.ClearedLink:
        """Leave a link to geometry and faults again."""
        with told():
            return self._stub.ClearLink(controller_pb2.LinkRequest(a=a, b=b), timeout=CALL_S)

    def inject_fault(self, asked: controller_pb2.InjectFaultRequest) -> controller_pb2.InjectedFault:
        """A fault from now on."""
        with told():
            return self._stub.InjectFault(asked, timeout=CALL_S)

    def clear_fault(self, which: str) -> controller_pb2.ClearedFaults:
        """End faults, by id or target."""
        with told():
            return self._stub.ClearFault(controller_pb2.ClearFaultRequest(which=which), timeout=CALL_S)

    def list_faults(self) -> controller_pb2.ListFaultsResponse:
        """Faults in force or to come."""
        with told():
            return self._stub.ListFaults(controller_pb2.ListFaultsRequest(), timeout=CALL_S)

    def probe(self, a: str, b: str, count: int) -> Iterator[controller_pb2.ProbeStatus]:
        """Round trips measured now, each as it is settled."""
        request = controller_pb2.ProbeRequest(a=a, b=b, count=count)
        with told():
            yield from self._stub.Probe(request, timeout=CALL_S + PROBE_S * count)

    def find_ports(self, target: str) -> list[controller_pb2.PanelPort]:
        """The panel's ports of a node, or of a link "a~b"."""
        with told():
            return list(self._stub.FindPorts(controller_pb2.FindPortsRequest(target=target), timeout=CALL_S).ports)

    def put(self, via: str, path: Path, terms: objects_pb2.ObjectTerms | None = None) -> objects_pb2.ObjectInfo:
        """Store a file at a node on the ground, as an object named by its content."""
        with path.open("rb") as file:
            name = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        with told():
            return self._stub.Put(_put_messages(via, path, name, terms), timeout=TRANSFER_S)

    def put_coded(
        self, via: str, path: Path, k: int, m: int, terms: objects_pb2.ObjectTerms
    ) -> Iterator[controller_pb2.CodedObject]:
        """Have a file kept as k + m fragments: how they stand, at every change until all are."""
        with path.open("rb") as file:
            name = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        header = controller_pb2.PutCodedRequest.Header(
            via=via, object=name, size_bytes=path.stat().st_size, k=k, m=m, jurisdictions=terms.jurisdictions,
            transit=terms.transit,
        )  # fmt: skip
        with told():
            yield from self._stub.PutCoded(_coded_messages(path, header))

    def get(self, via: str, name: str, out: BinaryIO) -> int:
        """Write an object to a file, by way of a node on the ground, checked against its name; its size in bytes."""
        digest = hashlib.sha256()
        size_bytes = 0
        request = controller_pb2.ViaGetRequest(via=via, get=objects_pb2.GetRequest(object=name))
        with told():
            for part in self._stub.Get(request, timeout=FETCH_S):
                size_bytes += out.write(part.chunk)
                digest.update(part.chunk)
        if f"sha256:{digest.hexdigest()}" != name:
            raise SkyrackError(f"what {via} sent for {name} is not that object")
        return size_bytes

    def keep(self, request: controller_pb2.KeepRequest) -> list[controller_pb2.JobAtGateway]:
        """Have an object kept at nodes; a job each."""
        with told():
            return list(self._stub.Keep(request, timeout=PLACE_S).jobs)

    def objects(self, via: str = "") -> controller_pb2.ListObjectsAtResponse:
        """The objects of a node on the ground, or of all, and then those that are kept as fragments, too."""
        with told():
            return self._stub.ListObjects(controller_pb2.ListObjectsAtRequest(via=via), timeout=CALL_S)

    def stat(self, name: str) -> controller_pb2.StatObjectResponse:
        """What the run knows of an object."""
        with told():
            return self._stub.StatObject(controller_pb2.ViaObjectRequest(object=name), timeout=CALL_S)

    def set_terms(self, via: str, name: str, terms: objects_pb2.ObjectTerms) -> objects_pb2.ObjectInfo:
        """Change an object's terms at a node on the ground."""
        request = objects_pb2.SetTermsRequest(object=name, terms=terms)
        with told():
            return self._stub.SetTerms(controller_pb2.ViaTermsRequest(via=via, set=request), timeout=CALL_S)

    def delete(self, via: str, name: str) -> controller_pb2.DropObjectResponse:
        """Remove an object from a node on the ground, and all fragments of it. Whether it was there, and who still has
        one."""
        with told():
            request = controller_pb2.ViaObjectRequest(via=via, object=name)
            return self._stub.DeleteObject(request, timeout=PLACE_S)

    def scrub(self, via: str, name: str) -> objects_pb2.ScrubReport:
        """Hold an object of a node on the ground, or with an empty name all, against their names."""
        with told():
            return self._stub.Scrub(controller_pb2.ViaObjectRequest(via=via, object=name), timeout=TRANSFER_S)

    def submit(self, request: controller_pb2.ViaSubmitRequest) -> controller_pb2.JobAtGateway:
        """Have a job placed and handed to a node on the ground."""
        with told():
            return self._stub.Submit(request, timeout=PLACE_S)

    def jobs(self) -> list[controller_pb2.JobAtGateway]:
        """The jobs of all gateways."""
        with told():
            return list(self._stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=CALL_S).jobs)

    def watch(self, job_id: str) -> Iterator[controller_pb2.JobAtGateway]:
        """A job now and at every change, until it is final: as long as that takes."""
        with told():
            yield from self._stub.WatchJob(controller_pb2.FindJobRequest(id=job_id))

    def cancel(self, job_id: str) -> controller_pb2.JobAtGateway:
        """Ask for a job's end."""
        with told():
            return self._stub.CancelJob(controller_pb2.FindJobRequest(id=job_id), timeout=CALL_S)

    def suspend(self, job_id: str) -> controller_pb2.JobAtGateway:
        """Have a job stand still."""
        with told():
            return self._stub.SuspendJob(controller_pb2.FindJobRequest(id=job_id), timeout=CALL_S)

    def resume_job(self, job_id: str) -> controller_pb2.JobAtGateway:
        """Let it go on."""
        with told():
            return self._stub.ResumeJob(controller_pb2.FindJobRequest(id=job_id), timeout=CALL_S)

    def explain(self, job_id: str) -> controller_pb2.Explanation:
        """Why a job is where it is."""
        with told():
            return self._stub.ExplainJob(controller_pb2.FindJobRequest(id=job_id), timeout=CALL_S)

    def read_log(self, job_id: str, stream: jobs_pb2.LogStream.ValueType, *, follow: bool) -> Iterator[bytes]:
        """What a job has written; with `follow` until it is final, as long as that takes."""
        request = controller_pb2.FindLogRequest(id=job_id, stream=stream, follow=follow)
        with told():
            for chunk in self._stub.ReadLog(request, timeout=None if follow else CALL_S):
                yield chunk.data

    def audit(self) -> list[controller_pb2.NodeAuditEvent]:
        """What was denied, damaged or repaired so far."""
        with told():
            return list(self._stub.Audit(controller_pb2.RunAuditRequest(), timeout=PLACE_S).events)

    def rotate(self, nodes: Sequence[str]) -> int:
        """Give nodes, or with none named all, new keys and certificates; how many have them."""
        with told():
            request = controller_pb2.RotateCertificatesRequest(nodes=nodes)
            return self._stub.RotateCertificates(request, timeout=TRANSFER_S).rotated


def _put_messages(
    via: str, path: Path, name: str, terms: objects_pb2.ObjectTerms | None
) -> Iterator[controller_pb2.ViaPutRequest]:
    """A put as a stream: the gateway, the header, the chunks."""
    yield controller_pb2.ViaPutRequest(via=via)
    header = objects_pb2.PutRequest.Header(object=name, size_bytes=path.stat().st_size, terms=terms)
    yield controller_pb2.ViaPutRequest(put=objects_pb2.PutRequest(header=header))
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            put = objects_pb2.PutRequest(chunk=chunk, crc32c=google_crc32c.value(chunk))
            yield controller_pb2.ViaPutRequest(put=put)


def _coded_messages(
    path: Path, header: controller_pb2.PutCodedRequest.Header
) -> Iterator[controller_pb2.PutCodedRequest]:
    """A put as a stream: the header, the chunks."""
    yield controller_pb2.PutCodedRequest(header=header)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield controller_pb2.PutCodedRequest(chunk=chunk)


@contextmanager
def told() -> Iterator[None]:
    """Turn an error of the wire into one of skyrack's."""
    try:
        yield
    except grpc.RpcError as error:
        code, details = error.code(), error.details() or "no details"
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            raise InputError(details) from error
        if code is grpc.StatusCode.UNAVAILABLE:
            raise SkyrackError("the run does not answer: it is starting or ending (`skyrack status`)") from error
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise SkyrackError("the run did not answer in time") from error
        raise SkyrackError(details) from error
