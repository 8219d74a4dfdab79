"""What an agent answers to requests that nobody who means well sends: one clear error, and nothing of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from node_agent.security.access import NO_METHOD
from node_agent.security.audit import TOLD_APART
from protos.skyrack.v1 import jobs_pb2, node_pb2, objects_pb2
from protos.skyrack.v1.jobs_pb2 import JobSpec
from tests.agent.fleet import Fleet, object_name, refused, until
from tests.fuzz.raw import END_HEADERS, HEADERS, PREFACE, SETTINGS, field, frame

INVALID = grpc.StatusCode.INVALID_ARGUMENT
CALL_S = 10.0
SUCCEEDED = jobs_pb2.JOB_STATE_SUCCEEDED
ABSENT = "sha256:" + "0" * 64
LARGE_BYTES = 4 * 2**20 - 2_000  # a message may have 4 MiB


def command(job_id: str, **fields: Any) -> JobSpec:
    """A job that does nothing."""
    return JobSpec(id=job_id, command=JobSpec.Command(argv=["true"]), **fields)


def ended(job_id: str, **fields: Any) -> jobs_pb2.Job:
    """A job that has ended elsewhere."""
    given: dict[str, Any] = {"spec": command(job_id), "state": SUCCEEDED, "attempt": 1}
    return jobs_pb2.Job(**(given | fields))


def called(channel: grpc.aio.Channel, path: str, *messages: bytes) -> Any:
    """A call that sends these bytes as its messages, and is done."""

    async def requests() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    stream: Any = channel.stream_unary
    return stream(path)(requests(), timeout=CALL_S)


# --- what is no message ---


@pytest.mark.parametrize(
    "method", ["skyrack.v1.Jobs/Get", "skyrack.v1.Jobs/Watch", "skyrack.v1.Objects/Put", "grpc.health.v1.Health/Check"]
)
async def test_bytes_that_are_no_message_are_refused_in_words(fleet: Fleet, method: str) -> None:
    """Whatever a method takes and gives, it says that it cannot read it; the log has no traceback."""
    await fleet.launch("gw")
    channel = (await fleet.data_plane("gw")).channel
    with refused(INVALID, "cannot be read"):
        await called(channel, f"/{method}", b"\xff\xff\xff")
    assert "Traceback" not in fleet["gw"].log.read_text()


async def test_a_later_message_of_a_stream_that_is_none_ends_it_in_words(fleet: Fleet) -> None:
    """Reflection and puts read many: the first that cannot be read is told."""
    await fleet.launch("gw")
    channel = (await fleet.data_plane("gw")).channel
    header = objects_pb2.PutRequest.Header(object=object_name(b"ab"), size_bytes=2)
    put = objects_pb2.PutRequest(header=header).SerializeToString()
    with refused(INVALID, "cannot be read"):
        await called(channel, "/skyrack.v1.Objects/Put", put, b"\xff\xff\xff")
    with refused(INVALID, "cannot be read"):
        await called(channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"\xff\xff\xff")


async def test_a_call_that_brings_no_request_is_answered(fleet: Fleet) -> None:
    """Who is done before he has said anything is told so, and not left to wait."""
    await fleet.launch("gw")
    channel = (await fleet.data_plane("gw")).channel
    with refused(INVALID, "without its request"):
        await called(channel, "/skyrack.v1.Jobs/Get")


# --- what cannot be meant ---


@pytest.mark.parametrize(
    ("request_message", "words"),
    [
        (jobs_pb2.ReturnJobRequest(job=ended("x", state=99)), "in a state unknown here, 99"),
        (jobs_pb2.ReturnJobRequest(job=ended("x", stdout=bytes(LARGE_BYTES))), "are taken back"),
        (
            jobs_pb2.ReturnJobRequest(
                job=ended("x", spec=command("x", keep_outputs_on_node=True), outputs=[jobs_pb2.JobOutput()] * 5_000)
            ),
            "5000 outputs",
        ),
        (jobs_pb2.ReturnJobRequest(job=ended("x", spec=command("x", return_to="atlantis"))), "'atlantis'"),
        (jobs_pb2.SubmitRequest(spec=command("x", return_to="atlantis")), "'atlantis'"),
        (jobs_pb2.SubmitRequest(spec=command("x", on_node="long" * 9_000)), "longlong"),
        (
            jobs_pb2.SubmitRequest(
                spec=JobSpec(
                    id="x",
                    inputs=[jobs_pb2.JobInput(object=ABSENT)],
                    keep=objects_pb2.ObjectTerms(jurisdictions=["nowhere"]),
                )
            ),
            "'nowhere'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_jobs_that_cannot_be_are_refused(fleet: Fleet, request_message: Message, words: str) -> None:
    """What would fail later, be told to nobody or sent to nobody is refused at once; nothing of it is kept."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    is_return = isinstance(request_message, jobs_pb2.ReturnJobRequest)
    with refused(INVALID, words):
        await called(
            gw.channel, f"/skyrack.v1.Jobs/{'Return' if is_return else 'Submit'}", request_message.SerializeToString()
        )
    assert not (await gw.jobs.List(jobs_pb2.ListJobsRequest(), timeout=CALL_S)).jobs


async def test_a_log_of_neither_stream_is_refused(fleet: Fleet) -> None:
    """A stream that there is not is no other name of stdout."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    await gw.run(command("x"))
    request: Any = jobs_pb2.ReadLogRequest(id="x", stream=2)  # type: ignore[arg-type]
    with refused(INVALID, "stream 2"):
        await gw.jobs.ReadLog(request, timeout=CALL_S).read()


async def test_an_object_for_what_is_no_job_is_refused(fleet: Fleet) -> None:
    """No object is kept for a job that cannot be: nobody would ever let go of it."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    header = objects_pb2.PutRequest.Header(object=object_name(b"a"), size_bytes=1, for_job="no job's id")
    with refused(INVALID, "malformed"):
        await called(gw.channel, "/skyrack.v1.Objects/Put", objects_pb2.PutRequest(header=header).SerializeToString())
    assert not await gw.listed()


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
async def test_a_sky_that_cannot_be_is_refused_and_the_one_before_holds(fleet: Fleet, scale: float) -> None:
    """A clock that goes like no clock stops no work: jobs go on by the sky that was told before."""
    await fleet.launch("gw")
    await fleet.tell_time("gw", 1_000)
    with refused(INVALID, "clock.scale"):
        await fleet.tell_time("gw", 2_000, scale)
    assert (await (await fleet.data_plane("gw")).run(command("x"))).state == SUCCEEDED


# --- what is told of it ---


async def test_calls_to_methods_that_there_are_not_cannot_fill_the_audit(fleet: Fleet) -> None:
    """Whoever makes up names of methods, long ones too, is told of a few times, and then counted."""
    await fleet.launch("gw")
    channel = (await fleet.data_plane("gw")).channel
    for number in range(3 * TOLD_APART):
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            await called(channel, f"/skyrack.v1.Jobs/{number}{'Steal' * 500}", b"")
    events = await (await fleet.client("gw")).audit()
    assert {event.what for event in events} == {NO_METHOD}
    assert len(events) == TOLD_APART + 1
    assert max(event.ByteSize() for event in events) < 500


async def test_a_place_that_is_none_reaches_no_program(fleet: Fleet) -> None:
    """Two positions at one time would have the node's place divided by nothing."""
    await fleet.launch("sat")
    place = node_pb2.Place(at_emu_ns=5, r_ecef_m=(7e6, 0.0, 0.0))
    sky = node_pb2.Sky(places=[place, place])
    async with grpc.aio.insecure_channel(f"unix:{fleet['sat'].control_socket}") as channel:
        with refused(INVALID, "two positions"):
            await called(channel, "/skyrack.v1.Node/SetSky", sky.SerializeToString())


async def test_headers_that_are_no_text_are_a_line_of_the_log(fleet: Fleet) -> None:
    """Nobody fills the log with tracebacks by what he calls himself, nor by leaving before he is answered."""
    await fleet.launch("gw")
    names = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/skyrack.v1.Jobs/Get",
        ":authority": "gw",
        "te": "trailers",
    }
    headers = b"".join(field(name, value) for name, value in names.items()) + b"\0\x01x\x03a\xffb"
    content = field("content-type", "application/grpc")
    call = frame(HEADERS, END_HEADERS, 1, headers + content) + frame(0, 1, 1, b"\0\0\0\0\0")
    _, writer = await asyncio.open_unix_connection(str(fleet["gw"].control_socket))
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + call)
    await until(lambda: "gRPC, of a caller" in fleet["gw"].log.read_text(), "it is told")
    writer.close()
    assert "Traceback" not in fleet["gw"].log.read_text()


async def test_a_path_that_is_no_text_costs_a_start_and_no_plane(fleet: Fleet) -> None:
    """gRPC ends its server at such a call, and says so to nobody: the agent starts again, and serves on both planes."""
    await fleet.launch("gw")
    pid = fleet["gw"].pid()
    names = {":method": "POST", ":scheme": "http", ":authority": "gw", "te": "trailers"}
    headers = b"".join(field(name, value) for name, value in names.items()) + b"\0\x05:path\x03/\x80/"
    call = frame(HEADERS, END_HEADERS, 1, headers + field("content-type", "application/grpc"))
    _, writer = await asyncio.open_unix_connection(str(fleet["gw"].control_socket))
    writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + call + frame(0, 1, 1, b"\0\0\0\0\0"))
    await until(lambda: fleet["gw"].pids() not in ([], [pid]), "another agent lives")
    writer.close()
    await fleet["gw"].ready()
    assert (await (await fleet.data_plane("gw")).run(command("x"))).state == SUCCEEDED
