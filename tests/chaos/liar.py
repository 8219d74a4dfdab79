"""A node that lies: with the key of a real one, in its place in the network, to another node's agent.

    python -m tests.chaos.liar CREDENTIALS_PEM NODE ADDRESS LIE

What the other should do is refuse, and go on as if nothing had been. Exit status 0 if it did, or could not be reached:
then nothing was told; 1 with what it did instead, on standard error. "scrub" is no lie: it has the other node hold all
that it has against its names, as a gateway may.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import grpc

from protos.skyrack.v1 import jobs_pb2, jobs_pb2_grpc, objects_pb2, objects_pb2_grpc

PORT = 7070
CALL_S, SCRUB_S = 20.0, 60.0
ENDLESS_S = 5.0
CHUNK_BYTES = 64 * 1024
HEADERS = 1000
OVERSIZED_BYTES = 8 * 1024 * 1024
LEFT = "left "
UNREACHABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class Liar:
    """One node's way to another."""

    def __init__(self, credentials_pem: bytes, node: str, address: str) -> None:
        key, certificate, authority = _blocks(credentials_pem)
        self.role = "satellite" if b"/satellite/" in _uris(certificate) else "ground"
        proof = grpc.ssl_channel_credentials(authority, key, certificate)
        options = (("grpc.ssl_target_name_override", node), ("grpc.enable_http_proxy", 0))
        channel = grpc.secure_channel(f"ipv4:{address}:{PORT}", proof, options=options)
        self._objects, self._jobs = objects_pb2_grpc.ObjectsStub(channel), jobs_pb2_grpc.JobsStub(channel)
        self._node = node

    def tell(self, what: str) -> str:
        """Tell one lie, or "scrub". What came of it. Raises AssertionError where it was believed."""
        try:
            return str(getattr(self, what.replace("-", "_"))())
        except grpc.RpcError as error:
            if error.code() in UNREACHABLE:
                return f"not reached ({error.code().name})"
            return f"{error.code().name}: {error.details()}"

    # --- objects ---

    def wrong_hash(self) -> str:
        """Other bytes than the name says."""
        name, content = _object(300_000)
        return self._refused(name, len(content), [os.urandom(len(content))], {grpc.StatusCode.DATA_LOSS})

    def wrong_size(self) -> str:
        """More bytes than were announced."""
        name, content = _object(300_000)
        return self._refused(name, 1000, _split(content), {grpc.StatusCode.INVALID_ARGUMENT})

    def wrong_crc(self) -> str:
        """Chunks that have changed on the way."""
        name, content = _object(300_000)
        codes = {grpc.StatusCode.DATA_LOSS}
        return self._refused(name, len(content), _split(content), codes, wrong_crc=True)

    def endless(self) -> str:
        """A stream that goes on and on, of an object that was said to be small."""
        name, _ = _object(10)
        until_mono_s = time.monotonic() + ENDLESS_S

        def chunks() -> Iterator[bytes]:
            while time.monotonic() < until_mono_s:
                yield os.urandom(CHUNK_BYTES)

        return self._refused(name, 100_000, chunks(), {grpc.StatusCode.INVALID_ARGUMENT})

    def oversized(self) -> str:
        """A message that is larger than any may be."""
        name, content = _object(OVERSIZED_BYTES)
        codes = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}
        return self._refused(name, len(content), [content], codes)

    def headers(self) -> str:
        """Header after header, and nothing else."""
        name, _ = _object(10)
        header = objects_pb2.PutRequest(header=objects_pb2.PutRequest.Header(object=name, size_bytes=1000))
        return self._rejected(iter([header] * HEADERS), {grpc.StatusCode.INVALID_ARGUMENT})

    def empty_chunks(self) -> str:
        """Chunks with nothing in them."""
        name, _ = _object(10)
        return self._refused(name, 1000, [b""] * HEADERS, {grpc.StatusCode.INVALID_ARGUMENT})

    def no_header(self) -> str:
        """A chunk that belongs to nothing."""
        return self._rejected(iter([_chunk(b"x")]), {grpc.StatusCode.INVALID_ARGUMENT})

    def garbage(self) -> str:
        """A header that says nonsense."""
        terms = objects_pb2.ObjectTerms(jurisdictions=["XYZ"])
        for header in (
            objects_pb2.PutRequest.Header(object="../../journal.db", size_bytes=1),
            objects_pb2.PutRequest.Header(object="sha256:" + "A" * 64, size_bytes=1),
            objects_pb2.PutRequest.Header(object=_object(1)[0], size_bytes=-1),
            objects_pb2.PutRequest.Header(object=_object(1)[0], size_bytes=1, terms=terms),
        ):
            told = self._rejected(iter([objects_pb2.PutRequest(header=header)]), {grpc.StatusCode.INVALID_ARGUMENT})
        return told

    # --- results ---

    def false_result(self) -> str:
        """The end of a job that others have, by one that never had it: other outputs, and success."""
        told = []
        for number in range(0, 200, 7):
            job = _ended(f"j{number:03d}", self._node)
            told.append(self._return(job))
            if told[-1] == "not reached":
                break
        return ", ".join(sorted(set(told)))

    def unknown_result(self) -> str:
        """The end of a job that nobody has handed in, at the node where it is said to have been."""
        return self._return(_ended(f"never-{os.urandom(4).hex()}", self._node))

    def planted_result(self) -> str:
        """The end of a job that nobody has handed in, to be carried to where it is said to have been."""
        job = _ended(f"never-{os.urandom(4).hex()}", "quito" if self._node != "quito" else "nairobi")
        self._jobs.Return(jobs_pb2.ReturnJobRequest(job=job), timeout=CALL_S)
        return "carried on, to where nobody wants it"

    def _return(self, job: jobs_pb2.Job) -> str:
        try:
            self._jobs.Return(jobs_pb2.ReturnJobRequest(job=job), timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() in UNREACHABLE:
                return "not reached"
            return str(error.code().name)
        known = self._jobs.Get(jobs_pb2.GetJobRequest(id=job.spec.id), timeout=CALL_S)
        assert known.spec != job.spec or known.exit_status != job.exit_status, f"{job.spec.id}: it was believed"
        return "passed over"  # it has a result, or makes it itself

    # --- not a lie ---

    def scrub(self) -> str:
        """Have all objects there looked at."""
        report = self._objects.Scrub(objects_pb2.ScrubRequest(), timeout=SCRUB_S)
        if {*report.damaged} - {*report.repaired}:
            return f"{report.objects} objects, not repaired yet: {list(report.damaged)}"
        return f"{report.objects} objects, damaged and repaired {list(report.repaired)}"

    # --- how ---

    def _refused(
        self,
        name: str,
        size_bytes: int,
        chunks: Iterator[bytes] | list[bytes],
        codes: set[grpc.StatusCode],
        *,
        wrong_crc: bool = False,
    ) -> str:
        """Put these chunks, which must come to one of these, and leave nothing there."""

        def requests() -> Iterator[objects_pb2.PutRequest]:
            yield objects_pb2.PutRequest(header=objects_pb2.PutRequest.Header(object=name, size_bytes=size_bytes))
            for chunk in chunks:
                yield _chunk(chunk, wrong_crc=wrong_crc)

        told = self._rejected(requests(), codes)
        info = self._objects.Stat(objects_pb2.StatRequest(object=name), timeout=CALL_S)
        assert info.committed_bytes < max(info.size_bytes, 1), f"it has {name} now, whole"
        if info.committed_bytes and self.role != "satellite":
            self._objects.Delete(objects_pb2.DeleteObjectRequest(object=name), timeout=CALL_S)
        elif info.committed_bytes:
            told += f", {LEFT}{name}"  # a satellite may not remove what has come of its lie
        return told

    def _rejected(self, requests: Iterator[objects_pb2.PutRequest], codes: set[grpc.StatusCode]) -> str:
        try:
            info = self._objects.Put(requests, timeout=CALL_S)
        except grpc.RpcError as error:
            if error.code() in codes | UNREACHABLE:
                return str(error.code().name)
            raise AssertionError(f"{error.code().name}, not one of {codes}: {error.details()}") from error
        raise AssertionError(f"it was believed: {info}")


def _object(size_bytes: int) -> tuple[str, bytes]:
    content = os.urandom(size_bytes)
    return f"sha256:{hashlib.sha256(content).hexdigest()}", content


def _split(content: bytes) -> list[bytes]:
    return [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]


def _chunk(content: bytes, *, wrong_crc: bool = False) -> objects_pb2.PutRequest:
    return objects_pb2.PutRequest(chunk=content, crc32c=google_crc32c.value(content) ^ wrong_crc)


def _ended(job_id: str, node: str) -> jobs_pb2.Job:
    job = jobs_pb2.Job(state=jobs_pb2.JOB_STATE_SUCCEEDED, reason="exit status 0", attempt=1, revision=3)
    job.spec.id, job.spec.return_to, job.spec.on_node = job_id, node, "leo-p00s00"
    job.spec.command.argv.append("true")
    job.exit_status = 77
    job.history.add(state=job.state, reason=job.reason, at_unix_ns=time.time_ns())
    return job


def _blocks(pem: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, own certificate, the authority's."""
    (key,) = re.findall(rb"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", pem, re.DOTALL)
    own, authority = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", pem, re.DOTALL)
    return key, own, authority


def _uris(certificate_pem: bytes) -> bytes:
    import ssl

    return ssl.PEM_cert_to_DER_cert(certificate_pem.decode())


def main() -> None:
    """The program."""
    path, node, address, what = sys.argv[1:5]
    try:
        print(Liar(Path(path).read_bytes(), node, address).tell(what))
    except AssertionError as believed:
        sys.exit(str(believed))


if __name__ == "__main__":
    main()
