"""The data plane against who has no business there: whom TLS turns away before anything is asked."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller.authority import Authority
from node_agent.security.wire import DATA_PORT
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import JOB_STATE_WAITING_CONTACT
from tests.agent.fleet import Fleet
from tests.agent.identities import RUN_ID, ClientIdentity, identity
from tests.agent.test_courier import seen, shell

CALL_S = 10.0
DAY = datetime.timedelta(days=1)
TLS_ALERT = b"\x15"  # RFC 8446, 5.1


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
    assert await fleet.is_served("sat")


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
    assert await fleet.is_served("sat")


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
    assert await fleet.is_served("sat")


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
                    if error.library:  # and not Python, of somebody who has hung up since
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
