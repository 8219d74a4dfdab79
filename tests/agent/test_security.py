"""The data plane against who has no business there: whom the table turns away, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from node_agent.security.access import EMULATOR, TABLE, Right
from node_agent.security.identity import ROLES
from protos.skyrack.v1 import jobs_pb2, node_pb2, node_pb2_grpc, objects_pb2
from protos.skyrack.v1.jobs_pb2 import JobSpec
from tests.agent.fleet import DataPlane, Fleet, object_name
from tests.agent.methods import METHODS, NOBODYS_METHOD, Method
from tests.agent.test_courier import shell

CALL_S = 10.0


def about(method: Method, job_id: str) -> Any:
    """A request to a method, about a job where it is about one."""
    request: Any = message_factory.GetMessageClass(method.of.input_type)()
    match request:
        case jobs_pb2.SubmitRequest():
            request.spec.CopyFrom(shell(job_id, "true", on_node=""))
        case jobs_pb2.ReturnJobRequest():
            request.job.spec.id = job_id
        case _ if "id" in method.of.input_type.fields_by_name:
            request.id = job_id
    return request


async def code_of(channel: grpc.aio.Channel, method: Method, job_id: str = "nobodys") -> grpc.StatusCode:
    """How a call ends: OK also for a stream that begins."""
    answer_class: Any = message_factory.GetMessageClass(method.of.output_type)
    given = (f"/{method.name}", lambda message: message.SerializeToString(), answer_class.FromString)
    request = about(method, job_id)

    async def requests() -> AsyncIterator[Any]:
        yield request

    call: Any
    match method.of.client_streaming, method.of.server_streaming:
        case False, False:
            call = channel.unary_unary(*given)(request, timeout=CALL_S)
        case True, False:
            call = channel.stream_unary(*given)(requests(), timeout=CALL_S)
        case False, True:
            call = channel.unary_stream(*given)(request, timeout=CALL_S)
        case _:
            call = channel.stream_stream(*given)(requests(), timeout=CALL_S)
    try:
        if method.of.server_streaming:
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        call.cancel()
    return grpc.StatusCode.OK


async def denied(channel: grpc.aio.Channel, job_id: str = "nobodys") -> set[str]:
    """The methods that may not be called, of all that there are."""
    codes = {method.name: await code_of(channel, method, job_id) for method in METHODS}
    return {name for name, code in codes.items() if code == grpc.StatusCode.PERMISSION_DENIED}


def in_table(role: str, *rights: Right) -> set[str]:
    """What the table says."""
    return {method for method, row in TABLE.items() if row[role] in rights}


# --- the table ---


def test_the_table_has_every_method_that_is_served_and_no_other() -> None:
    """A method that somebody adds and forgets to think about is denied, and shows here."""
    assert set(TABLE) == {method.name for method in METHODS}


def test_the_page_on_security_has_the_same_table() -> None:
    """What SECURITY.md says of each method is what holds."""
    page = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    rows = [f"| `{method}` | {' | '.join(right.value for right in row.values())} |" for method, row in TABLE.items()]
    assert "\n".join(rows) in page


@pytest.mark.parametrize("role", ROLES)
async def test_the_table_holds_for_every_method_on_the_data_plane(fleet: Fleet, role: str) -> None:
    """Each role may call what its column says, no more and no less, whoever's certificate else it is."""
    await fleet.launch("gw")
    caller = await fleet.data_plane("gw", as_role=role)
    assert await denied(caller.channel) == in_table(role, Right.NO)
    assert await fleet.is_served("gw")


async def test_a_terminal_has_to_do_with_its_own_jobs_alone(fleet: Fleet) -> None:
    """What it has handed in, what returns to it and what runs on it it may ask for and cancel; others' it may not."""
    await fleet.launch("gw", via={"term": fleet.address(200)})
    term = await fleet.data_plane("gw", as_role="terminal", as_name="term")
    other = await fleet.data_plane("gw", as_role="gateway", as_name="gw-other")
    specs = {"mine": shell("mine", "true", on_node=""), "theirs": shell("theirs", "true", on_node="")}
    specs["returns"] = JobSpec(return_to="term")
    specs["runs-there"] = shell("runs-there", "true", on_node="term")
    specs["returns"].MergeFrom(shell("returns", "true", on_node=""))
    for name, spec in specs.items():
        await (term if name == "mine" else other).jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=CALL_S)
    assert (await term.jobs.Get(jobs_pb2.GetJobRequest(id="mine"), timeout=CALL_S)).submitted_by == "term"
    never = in_table("terminal", Right.NO)
    assert await denied(term.channel, "mine") == never
    assert await denied(term.channel, "returns") == never
    assert await denied(term.channel, "runs-there") == never
    assert await denied(term.channel, "theirs") == never | in_table("terminal", Right.OWN)


@pytest.mark.parametrize("name", ["gw", "term", "sat"])
async def test_the_emulator_has_the_whole_table_and_no_job_reaches_a_satellite_that_way(
    fleet: Fleet, name: str
) -> None:
    """On the control plane nothing is denied; jobs and objects are not even served there by a satellite."""
    await fleet.launch(name)
    async with grpc.aio.insecure_channel(f"unix:{fleet[name].control_socket}") as channel:
        for method in METHODS:
            code = await code_of(channel, method)
            is_work = method.name.startswith(("skyrack.v1.Jobs/", "skyrack.v1.Objects/"))
            assert (code == grpc.StatusCode.PERMISSION_DENIED) == (method.name == NOBODYS_METHOD), method.name
            if is_work and name == "sat":
                assert code == grpc.StatusCode.UNIMPLEMENTED, method.name
    assert in_table(EMULATOR.role, Right.YES) == set(TABLE) - {NOBODYS_METHOD}


async def test_what_is_not_in_the_table_is_denied(fleet: Fleet) -> None:
    """A method that no service has, of a service that there is and of one that there is not."""
    await fleet.launch("sat")
    channel = (await fleet.data_plane("sat")).channel
    bare: Any = channel.unary_unary
    for name in ("/skyrack.v1.Jobs/Steal", "/skyrack.v2.Jobs/Get", "/"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await bare(name)(b"", timeout=CALL_S)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


# --- what is told of it ---


async def test_a_denial_is_told_and_outlives_the_agent(fleet: Fleet) -> None:
    """Who, what and why, once for many; on disk when the caller hears of it."""
    await fleet.launch("gw")
    other = await fleet.data_plane("gw", as_name="gw-other")
    await other.jobs.Submit(jobs_pb2.SubmitRequest(spec=shell("theirs", "true", on_node="")), timeout=CALL_S)
    term: DataPlane = await fleet.data_plane("gw", as_role="terminal", as_name="term")
    for _ in range(5):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await term.jobs.Cancel(jobs_pb2.CancelJobRequest(id="theirs"), timeout=CALL_S)
        assert refused.value.details() == "job theirs is not term's"
    await fleet["gw"].restart()
    events = await (await fleet.client("gw")).audit()
    assert [(event.kind, event.who, event.what, event.of, event.reason) for event in events] == [
        ("denied", "term", "skyrack.v1.Jobs/Cancel", "theirs", "job theirs is not term's")
    ]


async def test_what_a_service_denies_is_told_too(fleet: Fleet) -> None:
    """An object that may not lie here, and one that may not lie where who asks is: the call, the object, and why."""
    await fleet.launch("sat", options=("--jurisdiction=CN",))
    there = await fleet.data_plane("sat", as_name="beijing", jurisdiction="CN")
    outside = await fleet.data_plane("sat", as_name="nairobi", jurisdiction="KE")
    chinese, kenyan = (objects_pb2.ObjectTerms(jurisdictions=[code]) for code in ("CN", "KE"))
    await there.put(object_name(b"here"), b"here", terms=chinese)
    with pytest.raises(grpc.aio.AioRpcError) as not_here:
        await there.put(object_name(b"there"), b"there", terms=kenyan)
    with pytest.raises(grpc.aio.AioRpcError) as not_there:
        await outside.get(object_name(b"here"))
    events = await (await fleet.client("sat")).audit()
    denials = [("beijing", "Put", "", not_here), ("nairobi", "Get", object_name(b"here"), not_there)]
    for event, (who, call, of, refused) in zip(events, denials, strict=True):
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert (event.who, event.what, event.of) == (who, f"skyrack.v1.Objects/{call}", of)
        assert event.reason == refused.value.details()


async def test_who_follows_the_audit_hears_of_a_denial(fleet: Fleet) -> None:
    """While it happens."""
    await fleet.launch("sat")
    satellite = await fleet.data_plane("sat", as_role="satellite", as_name="moon")
    async with grpc.aio.insecure_channel(f"unix:{fleet['sat'].control_socket}") as channel:
        events = node_pb2_grpc.NodeStub(channel).Audit(node_pb2.AuditRequest(follow=True), timeout=CALL_S)
        hearing = asyncio.ensure_future(events.read())
        with pytest.raises(grpc.aio.AioRpcError):
            await satellite.jobs.List(jobs_pb2.ListJobsRequest(), timeout=CALL_S)
        event: Any = await hearing
    assert (event.who, event.what) == ("moon", "skyrack.v1.Jobs/List")
    assert event.reason == "no satellite may call skyrack.v1.Jobs/List"
