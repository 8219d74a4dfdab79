"""What the fuzzed agents hold, and what clients say to them: the ground from which messages grow.

All names are fixed, so that the seed and the number of a message name its bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import google_crc32c
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from protos.skyrack.v1 import jobs_pb2, node_pb2, objects_pb2
from tests.agent.fleet import object_name
from tests.fuzz.generator import Known

ENDPOINT_PORT: Final = 8000
GATEWAY, SATELLITE, NOBODY = "gw", "sat", "nobody-there"
NODES: Final = (GATEWAY, SATELLITE)
ALLOWED: Final = (["/bin/true"], ["/bin/echo", "said"], ["/bin/false"], ["/bin/sleep", "0.2"])
"""All that a fuzzed job may execute. Whatever arguments follow, none of them does any harm."""

SCRIPT: Final = b"print('ran')\n"
ALLOWED_VARIABLE: Final = "GREETING"

JOBS: Final = tuple(f"job-{number}" for number in range(24))
_SIZES_BYTES: Final = (0, 1, 100, 4_095, 70_000, 300_000)
# A file that is not to be a Python script, whoever asks for that, begins with a NUL.
CONTENTS: Final = {
    object_name(content): content
    for content in (
        b"",
        *(b"\0" + random.Random(number).randbytes(_SIZES_BYTES[number % 6]) for number in range(18)),
        SCRIPT,
    )
}
KNOWN: Final = Known(JOBS, tuple(CONTENTS), (*NODES, NOBODY, ""))
SWEEP_EVERY: Final = 1_000
_SLEEPERS: Final = 6
_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class World:
    """What clients know. The certificates are not the same in each campaign, and no part of what a seed names."""

    known: Known = KNOWN
    certificate_pem: bytes = b""
    authority_pem: bytes = b""

    @classmethod
    def at(cls, number: int, pems: tuple[bytes, bytes] = (b"", b"")) -> World:
        """As it is when the case of a number is made: with jobs that are running then, unless a case has ended them."""
        return cls(replace(KNOWN, jobs=(*JOBS, *sleepers(number))), *pems)


def sleepers(number: int) -> tuple[str, ...]:
    """The jobs that a campaign starts so that some are running, anew after each sweep."""
    return tuple(f"sleeper-{number // SWEEP_EVERY}-{each}" for each in range(_SLEEPERS))


def valid(method: str, draw: random.Random, world: World) -> list[Message]:
    """What a client that means well sends to a method; an empty message to one that is not known here yet."""
    said = _VALID.get(method)
    return said(draw, world) if said else []


def _spec(draw: random.Random) -> jobs_pb2.JobSpec:
    job_id = draw.choice(JOBS) if draw.random() < 0.5 else f"one-more-{draw.randrange(10**9)}"
    spec = jobs_pb2.JobSpec(id=job_id, on_node=draw.choice(("", "", GATEWAY, SATELLITE)))
    match draw.randrange(6):
        case 0:
            spec.script_object = object_name(SCRIPT)
        case 1:
            spec.keep.pinned = draw.random() < 0.2
            spec.inputs.add(object=draw.choice(KNOWN.objects))
        case _:
            spec.command.argv.extend(draw.choice(ALLOWED))
    if draw.random() < 0.5:
        spec.limits.wall_s, spec.limits.memory_bytes = 5.0, 256 * 2**20
    if draw.random() < 0.3:
        spec.inputs.add(object=draw.choice(KNOWN.objects), at_node=draw.choice(("", "", *NODES)))
    if draw.random() < 0.2:
        spec.environment[ALLOWED_VARIABLE] = "hello"
        spec.priority, spec.max_attempts = 3, 2
    if draw.random() < 0.2:
        spec.jurisdictions.append("CN")
    if draw.random() < 0.1:
        spec.return_to = draw.choice(NODES)
    return spec


def _job(draw: random.Random) -> jobs_pb2.Job:
    job = jobs_pb2.Job(spec=_spec(draw), reason="it ended", attempt=1, revision=5, stdout=b"ran\n")
    job.state = draw.choice((jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED))
    job.outputs.add(name="out.bin", object=draw.choice(KNOWN.objects), size_bytes=4, at_node=draw.choice(NODES))
    job.history.add(state=jobs_pb2.JOB_STATE_RUNNING, reason="it runs", at_unix_ns=1)
    return job


def _put(draw: random.Random, _: World) -> list[Message]:
    name, content = draw.choice([*CONTENTS.items()])
    terms = objects_pb2.ObjectTerms(
        jurisdictions=draw.choice(([], [], [], ["CN"])), holders=draw.choice(([], [NOBODY]))
    )
    header = objects_pb2.PutRequest.Header(object=name, size_bytes=len(content), terms=terms)
    header.for_job = draw.choice(("", "", draw.choice(JOBS)))
    messages: list[Message] = [objects_pb2.PutRequest(header=header)]
    for start in range(0, len(content), _CHUNK_BYTES):
        chunk = content[start : start + _CHUNK_BYTES]
        messages.append(objects_pb2.PutRequest(chunk=chunk, crc32c=google_crc32c.value(chunk)))
    return messages


def _sky(draw: random.Random, _: World) -> list[Message]:
    sky = node_pb2.Sky(clock=node_pb2.NodeClock(emu_ns=0, at_mono_ns=0, scale=draw.choice((0.0, 1.0, 8.0))))
    sky.contacts.add(peer=SATELLITE, start_emu_ns=0, end_emu_ns=2**63 - 1, delay_us=2_000, rate_bps=10**7)
    sky.forwards.add(to_node=SATELLITE, via_node=SATELLITE, until_emu_ns=2**63 - 1)
    for second in range(8):
        sky.places.add(at_emu_ns=second * 10**10, r_ecef_m=(7e6, second * 1e4, 1e3), illumination_ratio=1.0)
    return [sky]


def _of_job(kind: Callable[..., Message]) -> Callable[..., list[Message]]:
    return lambda draw, world: [kind(id=draw.choice(world.known.jobs))]


def _named(kind: Callable[..., Message], names: tuple[str, ...], field: str) -> Callable[..., list[Message]]:
    return lambda draw, _: [kind(**{field: draw.choice(names)})]


def _log(draw: random.Random, world: World) -> list[Message]:
    request = jobs_pb2.ReadLogRequest(id=draw.choice(world.known.jobs), follow=draw.random() < 0.3)
    request.stream = draw.choice((jobs_pb2.LOG_STREAM_STDOUT, jobs_pb2.LOG_STREAM_STDERR))
    return [request]


def _reflection(draw: random.Random, _: World) -> list[Message]:
    asked: tuple[dict[str, Any], ...] = (
        {"list_services": ""},
        {"file_containing_symbol": "skyrack.v1.Jobs"},
        {"file_by_filename": "protos/skyrack/v1/jobs.proto"},
        {"all_extension_numbers_of_type": "skyrack.v1.Job"},
        {"file_containing_extension": {"containing_type": "skyrack.v1.Job", "extension_number": 1}},
    )
    return [reflection_pb2.ServerReflectionRequest(**draw.choice(asked)) for _ in range(draw.randrange(1, 4))]


_J, _O = "skyrack.v1.Jobs/", "skyrack.v1.Objects/"
_VALID: Final[dict[str, Callable[[random.Random, World], list[Message]]]] = {
    f"{_J}Submit": lambda draw, _: [jobs_pb2.SubmitRequest(spec=_spec(draw))],
    f"{_J}Return": lambda draw, _: [jobs_pb2.ReturnJobRequest(job=_job(draw))],
    f"{_J}Get": _of_job(jobs_pb2.GetJobRequest),
    f"{_J}List": _named(jobs_pb2.ListJobsRequest, ("", *JOBS), "after_id"),
    f"{_J}Watch": _of_job(jobs_pb2.WatchJobRequest),
    f"{_J}Cancel": _of_job(jobs_pb2.CancelJobRequest),
    f"{_J}Suspend": _of_job(jobs_pb2.SuspendJobRequest),
    f"{_J}Resume": _of_job(jobs_pb2.ResumeJobRequest),
    f"{_J}Release": _of_job(jobs_pb2.ReleaseJobRequest),
    f"{_J}ReadLog": _log,
    f"{_O}Put": _put,
    f"{_O}Stat": _named(objects_pb2.StatRequest, KNOWN.objects, "object"),
    f"{_O}Get": _named(objects_pb2.GetRequest, KNOWN.objects, "object"),
    f"{_O}SetTerms": _named(objects_pb2.SetTermsRequest, KNOWN.objects, "object"),
    f"{_O}Delete": _named(objects_pb2.DeleteObjectRequest, KNOWN.objects, "object"),
    f"{_O}Scrub": _named(objects_pb2.ScrubRequest, ("", *KNOWN.objects), "object"),
    "skyrack.v1.Node/SetSky": _sky,
    "skyrack.v1.Node/SetCertificate": lambda _, world: [
        node_pb2.Certificate(certificate_pem=world.certificate_pem, authority_pem=world.authority_pem)
    ],
    "skyrack.v1.Node/Audit": lambda draw, _: [node_pb2.AuditRequest(after=draw.choice((0, 0, 10**6)))],
    "grpc.health.v1.Health/Check": _named(health_pb2.HealthCheckRequest, ("", "skyrack.v1.Jobs"), "service"),
    "grpc.health.v1.Health/Watch": _named(health_pb2.HealthCheckRequest, ("", "skyrack.v1.Jobs"), "service"),
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _reflection,
}
