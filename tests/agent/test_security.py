"""The data plane against who has no business there: whom TLS turns away, whom the table, and what is told of it."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller import certificates as certificates_module
from controller.authority import Authority
from controller.certificates import Certificates
from controller.errors import InputError, SkyrackError
from controller.runs import Roots, RunPlace
from node_agent.security.access import EMULATOR, TABLE, Right
from node_agent.security.identity import ROLES
from node_agent.security.wire import DATA_PORT
from protos.skyrack.v1 import jobs_pb2, node_pb2, node_pb2_grpc, objects_pb2
from protos.skyrack.v1.jobs_pb2 import JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED, JOB_STATE_WAITING_CONTACT, JobSpec
from tests.agent.fleet import DataPlane, Fleet, object_name, until
from tests.agent.identities import RUN_ID, ClientIdentity, identity
from tests.agent.methods import METHODS, NOBODYS_METHOD, Method
from tests.agent.test_courier import seen, shell, states

CALL_S = 10.0
SCENE_BYTES = 3_000_000  # 3 s at 8 Mbit/s
DAY = datetime.timedelta(days=1)
NOBODY = 65534
TLS_ALERT = b"\x15"  # RFC 8446, 5.1


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


async def is_served(fleet: Fleet, name: str) -> bool:
    """Whether the agent lives and serves who may be served."""
    return await (await fleet.data_plane(name)).committed_bytes("sha256:" + "0" * 64) == 0


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
    assert await is_served(fleet, "gw")


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


# --- what TLS turns away ---


def tls_handshake(address: str, who: ClientIdentity | None, folder: Path, newest: ssl.TLSVersion) -> tuple[str, bytes]:
    """Shake hands with an agent, as `who`. The version agreed on, and the first bytes it sends. Blocks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    context.set_alpn_protocols(["h2"])
    if who is not None:
        (folder / "who.pem").write_bytes(who.key_pem + who.certificate_pem)
        context.load_cert_chain(folder / "who.pem")
    with socket.create_connection((address, DATA_PORT), CALL_S) as raw, context.wrap_socket(raw) as secure:
        return str(secure.version()), secure.recv(9)


async def serial_of(fleet: Fleet, name: str) -> int:
    """The serial number of the certificate that an agent shows to who connects now."""

    def seen_certificate() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with (
            socket.create_connection((fleet[name].address, DATA_PORT), CALL_S) as raw,
            context.wrap_socket(raw) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""

    return x509.load_der_x509_certificate(await asyncio.to_thread(seen_certificate)).serial_number


def key_of(fleet: Fleet, name: str) -> bytes:
    """The key that an agent has in use."""
    pem = (fleet[name].store / "identity" / "credentials.pem").read_bytes()
    return pem[: pem.index(b"-----END PRIVATE KEY")]


def self_signed(folder: Path, fleet: Fleet) -> ClientIdentity:
    """Somebody with a certificate of the run who signs another one with it, as if it were an authority's."""
    own = identity(folder / "own", fleet.authority, "gw-own")
    key: Any = serialization.load_pem_private_key(own.key_pem, password=None)
    signer = x509.load_pem_x509_certificate(own.certificate_pem)
    made = identity(folder / "made", fleet.authority, "gw-made")
    there = x509.load_pem_x509_certificate(made.certificate_pem)
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gw-own")]), there.subject, there.public_key(),
        there.serial_number, there.not_valid_before_utc, there.not_valid_after_utc, list(there.extensions),
    )  # fmt: skip
    forged = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    chain = forged + signer.public_bytes(serialization.Encoding.PEM)
    return ClientIdentity(made.key_pem, chain, fleet.authority.pem)


async def status_of_hello(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """What comes of asking for a sign of life."""
    try:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    "stranger",
    ["another authority", "another run", "expired", "not yet valid", "signed by a node", "a key that is not its own"],
)
async def test_who_cannot_prove_to_be_of_the_run_is_turned_away(fleet: Fleet, tmp_path: Path, stranger: str) -> None:
    """No call of his reaches the agent, which goes on serving others."""
    await fleet.launch("sat")
    match stranger:
        case "another authority":  # which calls itself the same
            who = identity(tmp_path / "c", Authority.of(RUN_ID, tmp_path / "a"), "gw")
        case "another run":
            who = identity(tmp_path / "c", Authority.of("otherrun", tmp_path / "a"), "gw")
        case "expired":
            who = identity(tmp_path / "c", fleet.authority, "gw", at=-DAY - datetime.timedelta(seconds=1))
        case "not yet valid":
            who = identity(tmp_path / "c", fleet.authority, "gw", at=DAY)
        case "signed by a node":
            who = self_signed(tmp_path, fleet)
        case _:
            who = identity(tmp_path / "c", fleet.authority, "gw")
            other = identity(tmp_path / "other", fleet.authority, "gw")
            who = replace(who, key_pem=other.key_pem)
    who = replace(who, authority_pem=fleet.authority.pem)  # he knows whom he talks to
    async with who.channel(f"ipv4:{fleet['sat'].address}:{DATA_PORT}", "sat") as channel:
        assert await status_of_hello(channel) == grpc.StatusCode.UNAVAILABLE
    assert await is_served(fleet, "sat")


async def test_who_has_a_certificate_of_the_run_is_heard(fleet: Fleet, tmp_path: Path) -> None:
    """So the refusals above are for what they say: the same with all in order is answered."""
    await fleet.launch("sat")
    who = identity(tmp_path / "c", fleet.authority, "gw")
    async with who.channel(f"ipv4:{fleet['sat'].address}:{DATA_PORT}", "sat") as channel:
        assert await status_of_hello(channel) == grpc.StatusCode.OK


async def test_who_has_no_certificate_is_turned_away(fleet: Fleet, tmp_path: Path) -> None:
    """Neither TLS without one nor plain text comes to an answer, over gRPC or bare."""
    await fleet.launch("sat")
    address = fleet["sat"].address
    target = f"ipv4:{address}:{DATA_PORT}"
    options = (("grpc.ssl_target_name_override", "sat"),)
    nameless = grpc.ssl_channel_credentials(fleet.authority.pem)
    async with grpc.aio.secure_channel(target, nameless, options=options) as channel:
        assert await status_of_hello(channel) == grpc.StatusCode.UNAVAILABLE
    async with grpc.aio.insecure_channel(target) as channel:
        assert await status_of_hello(channel) == grpc.StatusCode.UNAVAILABLE
    try:
        _, heard = await asyncio.to_thread(tls_handshake, address, None, tmp_path, ssl.TLSVersion.TLSv1_3)
    except (ssl.SSLError, ConnectionError):
        heard = b""
    assert heard == b""

    def plain() -> bytes:
        with socket.create_connection((address, DATA_PORT), CALL_S) as raw:
            raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
            return raw.recv(100)

    try:
        answer = await asyncio.to_thread(plain)
    except ConnectionError:
        answer = b""
    assert answer[:1] in (b"", TLS_ALERT)
    assert await is_served(fleet, "sat")


async def test_tls_is_1_3_and_nothing_older(fleet: Fleet, tmp_path: Path) -> None:
    """With the same certificate, a client that goes up to TLS 1.2 is turned away, and one that knows 1.3 is not."""
    await fleet.launch("sat")
    who = identity(tmp_path / "c", fleet.authority, "gw")
    address = fleet["sat"].address
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(tls_handshake, address, who, tmp_path, ssl.TLSVersion.TLSv1_2)
    version, heard = await asyncio.to_thread(tls_handshake, address, who, tmp_path, ssl.TLSVersion.TLSv1_3)
    assert version == "TLSv1.3"
    assert heard[3] == 4  # RFC 9113, 3.4: the first frame is the server's settings
    assert await is_served(fleet, "sat")


async def test_an_agent_talks_tls_1_3_and_nothing_older_itself(fleet: Fleet, tmp_path: Path) -> None:
    """Whoever has a satellite's very key and certificate and knows no more than TLS 1.2 is not sent a job."""
    there = identity(tmp_path / "c", fleet.authority, "sat", "satellite")
    (tmp_path / "there.pem").write_bytes(there.key_pem + there.certificate_pem)

    def greet(listener: socket.socket, newest: ssl.TLSVersion) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = newest
        context.load_cert_chain(tmp_path / "there.pem")
        context.set_alpn_protocols(["h2"])
        while True:
            raw, _ = listener.accept()
            with raw:
                raw.settimeout(CALL_S)
                try:
                    with context.wrap_socket(raw, server_side=True) as secure:
                        return str(secure.version())
                except (ssl.SSLEOFError, ConnectionError):
                    continue  # somebody who only knocked
                except ssl.SSLError as error:
                    return str(error.reason)

    with socket.create_server((fleet.address(200), DATA_PORT)) as listener:
        listener.settimeout(CALL_S)
        await fleet.launch("gw", via={"sat": fleet.address(200)})
        await (await fleet.client("gw")).submit(shell("j", "true"))
        assert await asyncio.to_thread(greet, listener, ssl.TLSVersion.TLSv1_2) == "NO_SHARED_CIPHER"
        assert await asyncio.to_thread(greet, listener, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


async def test_a_node_that_answers_for_another_is_not_believed(fleet: Fleet) -> None:
    """Right authority, other node: the job stays at the gateway, which says why, and nothing reaches the impostor."""
    await fleet.launch("gw", "moon", via={"sat": fleet.address(2)})
    gw = await fleet.client("gw")
    await gw.submit(shell("j", "true"))
    job = await seen(gw, "j", lambda job: "does not prove to be sat" in job.reason)
    assert job.state == JOB_STATE_WAITING_CONTACT
    moon = await fleet.data_plane("moon")
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await moon.jobs.Get(jobs_pb2.GetJobRequest(id="j"), timeout=CALL_S)
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


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


# --- keys ---


async def test_a_restarted_agent_serves_others_without_the_controller(fleet: Fleet) -> None:
    """After kill -9 it has the certificate it had; nobody gives it another."""
    await fleet.launch("sat")
    before = await serial_of(fleet, "sat")
    await fleet["sat"].restart()
    assert await serial_of(fleet, "sat") == before
    assert await is_served(fleet, "sat")


async def test_new_keys_break_nothing_that_is_under_way(fleet: Fleet) -> None:
    """Rotated at both ends amid a transfer, and amid the job: neither is broken off; who connects later sees the new
    certificate, and the old key is on no disk."""
    link = await fleet.link(200, fleet.address(2), 8e6)
    await fleet.launch("gw", "sat", via={"sat": link.address})
    gw, sat = await fleet.client("gw"), await fleet.client("sat")
    scene = await gw.put_bytes(os.urandom(SCENE_BYTES))
    before = {name: await serial_of(fleet, name) for name in ("gw", "sat")}
    old_keys = {name: key_of(fleet, name) for name in before}

    async def rotate() -> None:
        for client, name in ((gw, "gw"), (sat, "sat")):
            await client.certify(fleet.authority, fleet[name].subject, renew=True)

    flag = fleet.folder / "go-on"
    spec = shell("j", f"while [ ! -e {flag} ]; do sleep 0.05; done; wc -c < $SKYRACK_INPUTS")
    spec.inputs.add(object=scene.object)
    await gw.submit(spec)
    await until(lambda: link.carried_bytes > SCENE_BYTES / 4, "a quarter of it is up")
    await rotate()
    assert link.carried_bytes < SCENE_BYTES
    await seen(gw, "j", lambda job: job.state == JOB_STATE_RUNNING)
    await rotate()
    flag.touch()
    job = await gw.wait_final("j", 30)
    assert (job.state, int(job.stdout), job.attempt) == (JOB_STATE_SUCCEEDED, SCENE_BYTES, 1)
    assert states(job).count(JOB_STATE_WAITING_CONTACT) == 1  # before it first went
    assert job.moved_bytes == SCENE_BYTES
    for name in before:
        assert await serial_of(fleet, name) != before[name]
        files = [path for path in fleet[name].store.rglob("*") if path.is_file()]
        assert key_of(fleet, name) != old_keys[name]
        assert not any(old_keys[name] in path.read_bytes() for path in files)
    await gw.submit(shell("later", "true"))
    assert (await gw.wait_final("later", 30)).state == JOB_STATE_SUCCEEDED


async def run_certificates(fleet: Fleet, *names: str, lifetime: datetime.timedelta = DAY) -> Certificates:
    """A run's certificates, which these nodes have been given."""
    now_utc = datetime.datetime.now(datetime.UTC)
    certificates = Certificates(RunPlace(RUN_ID, "", fleet.folder, 1, 1, now_utc, roots=Roots(*[fleet.folder] * 2)))
    certificates.authority.lifetime = lifetime
    for name in names:
        await certificates.meet(await fleet.client(name), fleet[name].subject, CALL_S)
    return certificates


async def test_certificates_are_renewed_in_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """With certificates that hold three seconds, nodes serve each other for ten, each time with another key."""
    monkeypatch.setattr(certificates_module, "LOOK_S", 0.2)
    await fleet.launch("gw", "sat")
    certificates = await run_certificates(fleet, "gw", "sat", lifetime=datetime.timedelta(seconds=3))
    gw = await fleet.client("gw")
    keys = [key_of(fleet, "sat")]
    keeping = asyncio.create_task(certificates.keep())
    try:
        while len(keys) < 5:
            await until(lambda: key_of(fleet, "sat") != keys[-1], "another key", 10)
            keys.append(key_of(fleet, "sat"))
            await gw.submit(shell(f"j{len(keys)}", "true"))
            assert (await gw.wait_final(f"j{len(keys)}", 10)).state == JOB_STATE_SUCCEEDED
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert len(set(keys)) == len(keys)


async def test_a_run_gives_new_keys_when_asked_to(fleet: Fleet) -> None:
    """To one node, to all; a name that is none, or a node that does not answer, is told, and the others have theirs."""
    await fleet.launch("gw", "sat")
    certificates = await run_certificates(fleet, "gw", "sat")
    keys = {name: [key_of(fleet, name)] for name in ("gw", "sat")}
    assert await certificates.rotate(["sat"]) == 1
    assert key_of(fleet, "gw") == keys["gw"][-1]
    assert key_of(fleet, "sat") != keys["sat"][-1]
    keys["sat"].append(key_of(fleet, "sat"))
    assert sorted(await asyncio.gather(certificates.rotate(), certificates.rotate(["sat"]))) == [1, 2]
    assert key_of(fleet, "sat") not in keys["sat"]
    assert key_of(fleet, "gw") != keys["gw"][-1]
    with pytest.raises(InputError, match="there is no node 'moon'"):
        await certificates.rotate(["moon"])
    fleet["sat"].kill()
    keys["gw"].append(key_of(fleet, "gw"))
    with pytest.raises(SkyrackError, match="1 of 2 nodes keep their keys: the agent of sat does not answer"):
        await certificates.rotate()
    assert key_of(fleet, "gw") not in keys["gw"]


async def test_the_control_socket_is_its_owners_alone(fleet: Fleet) -> None:
    """Another user of the machine who finds the way to it may not open it; root can try."""
    await fleet.launch("gw")
    path = fleet["gw"].control_socket
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    if os.geteuid() == 0:
        fleet.folder.chmod(0o755)
        connect = f"import os, socket; os.setuid({NOBODY}); socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", connect], capture_output=True, text=True, check=False, timeout=60
        )
        assert "PermissionError: [Errno 13]" in done.stderr
