"""What programs in a node are told of the sky, over HTTP, by real agents; and that no client can harm the agent."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from node_agent.sky.endpoint import MAX_CLIENTS, MAX_REQUEST_BYTES, REQUEST_DEADLINE_S
from protos.skyrack.v1 import node_pb2, node_pb2_grpc
from tests.agent.fleet import DONE_DEADLINE_S, Fleet

PORT = 7071
S = 1_000_000_000
NO_END = 2**63 - 1
RADIUS_M = 6_378_137.0


async def node(fleet: Fleet, name: str = "sat") -> str:
    """An agent that tells programs of the sky at its own address, for all of a fleet share one loopback."""
    await fleet.launch(name, options=(f"--endpoint={fleet.address(1)}:{PORT}",))
    return fleet.address(1)


async def tell(fleet: Fleet, sky: node_pb2.Sky, t_s: float, name: str = "sat", scale: float = 0.0) -> None:
    """Tell an agent of the sky, as the emulator does; its clock stands unless a scale is given."""
    sky.clock.CopyFrom(node_pb2.NodeClock(emu_ns=round(t_s * S), at_mono_ns=time.monotonic_ns(), scale=scale))
    async with grpc.aio.insecure_channel(f"unix:{fleet[name].control_socket}") as channel:
        await node_pb2_grpc.NodeStub(channel).SetSky(sky, timeout=20)


def some_sky() -> node_pb2.Sky:
    """Along the equator for two minutes, from light into shadow; one link, one to come, one that was."""
    sky = node_pb2.Sky()
    for t_s, x, y, ratio in ((0, RADIUS_M + 500_000, 0, 1.0), (120, 0, RADIUS_M + 500_000, 0.0)):
        sky.places.add(at_emu_ns=t_s * S, r_ecef_m=(x, y, 0), illumination_ratio=ratio)
    for peer, start_s, end_s in (("was", 0, 10), ("is", 0, 50), ("stays", 5, 0), ("comes", 40, 60)):
        end_emu_ns = end_s * S if end_s else NO_END
        sky.contacts.add(peer=peer, start_emu_ns=start_s * S, end_emu_ns=end_emu_ns, delay_us=9_000, rate_bps=10**8)
    return sky


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """To an endpoint."""
    reader, writer = await asyncio.open_connection(address, PORT)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(address: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, and read the answer to its end: status, headers, body."""
    async with asyncio.timeout(DONE_DEADLINE_S), connection(address) as (reader, writer):
        writer.write(request)
        return parsed(await reader.read())


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1"
    return int(status), dict(line.split(": ", 1) for line in lines), body


async def get(address: str, path: str, status: int = 200) -> Any:
    """The document at a path."""
    answered, headers, body = await ask(address, f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
    assert (answered, headers["Content-Type"]) == (status, "application/json"), body
    assert int(headers["Content-Length"]) == len(body)
    return json.loads(body)


async def test_before_the_sky_is_told(fleet: Fleet) -> None:
    """The node says who it is; all else is 503, with what to do."""
    address = await node(fleet)
    about = await get(address, "/")
    assert (about["node"], about["role"], about["address"]) == ("sat", "satellite", address)
    for path in ("/clock", "/place", "/contacts", "/peers"):
        assert path in about["paths"]
        assert "ask again in a second" in (await get(address, path, status=503))["error"]


async def test_the_sky_as_it_was_told(fleet: Fleet) -> None:
    """Time, place, light, contacts and peers are those of the moment; an agent that is killed knows them again."""
    address = await node(fleet, "gw-1")
    await tell(fleet, some_sky(), 30.0, "gw-1")
    for _ in range(2):
        assert await get(address, "/clock") == {"t_s": 30.0, "scale": 0.0}
        place = await get(address, "/place?x=1")
        assert place["t_s"] == 30.0
        assert place["r_ecef_m"] == pytest.approx([0.75 * (RADIUS_M + 5e5), 0.25 * (RADIUS_M + 5e5), 0.0])
        assert place["illumination_ratio"] == 0.75
        assert (place["latitude_deg"], place["longitude_deg"]) == pytest.approx((0.0, 18.43494882), abs=1e-7)
        contacts = (await get(address, "/contacts"))["contacts"]
        assert [(each["peer"], each["start_s"], each["end_s"], each["is_up"]) for each in contacts] == [
            ("is", 0.0, 50.0, True), ("stays", 5.0, None, True), ("comes", 40.0, 60.0, False),
        ]  # fmt: skip
        assert (contacts[0]["delay_us"], contacts[0]["rate_bps"]) == (9_000, 10**8)
        assert [each["peer"] for each in (await get(address, "/peers"))["peers"]] == ["is", "stays"]
        await fleet["gw-1"].restart()
    await tell(fleet, some_sky(), 45.0, "gw-1")
    assert [each["peer"] for each in (await get(address, "/peers"))["peers"]] == ["is", "stays", "comes"]
    gone = some_sky()
    del gone.places[:]
    await tell(fleet, gone, 45.0, "gw-1")
    assert "left the sky" in (await get(address, "/place", status=503))["error"]


async def test_events_follow_the_links(fleet: Fleet) -> None:
    """A client of /events hears of the links there are, and again at the moment one comes or goes."""
    address = await node(fleet)
    async with asyncio.timeout(DONE_DEADLINE_S), connection(address) as (reader, writer):
        writer.write(b"GET /events HTTP/1.1\r\n\r\n")
        status, headers, _ = parsed(await reader.readuntil(b"\r\n\r\n"))
        assert (status, headers["Content-Type"]) == (200, "text/event-stream")
        await tell(fleet, some_sky(), 39.0, scale=10.0)
        heard: list[list[str]] = []
        while len(heard) < 4:
            event = (await reader.readuntil(b"\n\n")).decode()
            if event.startswith("event: peers\ndata: "):
                document = json.loads(event.removeprefix("event: peers\ndata: "))
                heard.append([each["peer"] for each in document["peers"]])
                assert document["t_s"] == pytest.approx({1: 39, 2: 40, 3: 50, 4: 60}[len(heard)], abs=5.0)
        assert heard == [["is", "stays"], ["is", "stays", "comes"], ["stays", "comes"], ["stays"]]


@pytest.mark.parametrize(
    ("request_bytes", "status", "said"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404, "there is /, /clock"),
        (b"POST /place HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", 405, "only GET and HEAD"),
        (b"GET /place\r\n\r\n", 400, "a request begins with"),
        (b"\x16\x03\x01\x00\xa5\x01\x00 \xff\r\n\r\n", 400, "a request begins with"),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400, "a request begins with"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_REQUEST_BYTES + b"\r\n\r\n", 431, "8192 bytes"),
    ],
)
async def test_a_bad_request_is_told_what_is_right(fleet: Fleet, request_bytes: bytes, status: int, said: str) -> None:
    """One clear answer, and the next client is served."""
    address = await node(fleet)
    answered, headers, body = await ask(address, request_bytes)
    assert (answered, "Allow" in headers) == (status, status == 405)
    assert said in json.loads(body)["error"]
    assert (await get(address, "/"))["node"] == "sat"


async def test_head_has_no_body(fleet: Fleet) -> None:
    """The same head as GET has, and nothing after it."""
    address = await node(fleet)
    status, headers, body = await ask(address, b"HEAD / HTTP/1.1\r\n\r\n")
    _, of_get, whole = await ask(address, b"GET / HTTP/1.1\r\n\r\n")
    assert (status, headers, body) == (200, of_get, b"")
    assert int(headers["Content-Length"]) == len(whole)


async def test_slow_and_many_clients_are_bounded(fleet: Fleet) -> None:
    """Beyond so many at a time one is told to come again; those that say nothing are hung up on, and room is made."""
    address = await node(fleet)
    silent = [socket.create_connection((address, PORT), timeout=DONE_DEADLINE_S) for _ in range(MAX_CLIENTS)]
    try:
        began_mono_s = time.monotonic()
        async with asyncio.timeout(DONE_DEADLINE_S):
            answer = await get(address, "/", status=503)
            assert "are being answered" in answer["error"]
            for each in silent:
                assert await asyncio.to_thread(each.recv, 1) == b""
        assert time.monotonic() - began_mono_s == pytest.approx(REQUEST_DEADLINE_S, abs=5.0)
        assert (await get(address, "/"))["node"] == "sat"
    finally:
        for each in silent:
            each.close()


async def test_a_client_that_leaves_while_it_is_answered_takes_nobody_along(fleet: Fleet) -> None:
    """To write to who has gone is an error of that one write: the agent lives, and answers the next."""
    address = await node(fleet)
    await tell(fleet, some_sky(), 20.0)
    pid = fleet["sat"].pid()
    for _ in range(MAX_CLIENTS // 2):
        with socket.create_connection((address, PORT)) as client:
            client.sendall(b"GET /events HTTP/1.1\r\n\r\n")
    assert (await ask(address, b"GET /peers HTTP/1.1\r\n\r\n"))[0] == 200
    assert fleet["sat"].pid() == pid
