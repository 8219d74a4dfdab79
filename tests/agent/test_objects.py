"""Objects: stored by content, checked, resumed, bounded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import google_crc32c
import grpc
import pytest
from grpc import StatusCode

from controller.agents import AgentClient
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import objects_pb2
from tests.agent.fleet import Fleet, object_name, put_requests, refused, until

INVALID_ARGUMENT = StatusCode.INVALID_ARGUMENT
NOT_FOUND = StatusCode.NOT_FOUND
OUT_OF_RANGE = StatusCode.OUT_OF_RANGE
DATA_LOSS = StatusCode.DATA_LOSS
RESOURCE_EXHAUSTED = StatusCode.RESOURCE_EXHAUSTED
EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4, of no bytes


def header_of(
    content: bytes, size_bytes: int | None = None, terms: objects_pb2.ObjectTerms | None = None
) -> objects_pb2.PutRequest:
    """The first message of a put."""
    size_bytes = len(content) if size_bytes is None else size_bytes
    header = objects_pb2.PutRequest.Header(object=object_name(content), size_bytes=size_bytes, terms=terms)
    return objects_pb2.PutRequest(header=header)


def chunk_of(content: bytes) -> objects_pb2.PutRequest:
    """A further message."""
    return objects_pb2.PutRequest(chunk=content, crc32c=google_crc32c.value(content))


async def iterated(requests: list[objects_pb2.PutRequest]) -> AsyncIterator[objects_pb2.PutRequest]:
    """One after the other."""
    for request in requests:
        yield request


async def enumerated(
    requests: AsyncIterator[objects_pb2.PutRequest],
) -> AsyncIterator[tuple[int, objects_pb2.PutRequest]]:
    """With numbers, from 0."""
    number = 0
    async for request in requests:
        yield number, request
        number += 1


async def test_gateway_takes_and_gives_objects_over_its_control_plane(fleet: Fleet, tmp_path: Path) -> None:
    """What is put at a gateway is got back unchanged, as bytes and as a file."""
    await fleet.launch("gw")
    client = await fleet.client("gw")
    content = os.urandom(3_000_001)
    (tmp_path / "in").write_bytes(content)

    assert (await client.put_bytes(content)).object == object_name(content)
    info = await client.put_file(tmp_path / "in")

    assert (info.object, info.size_bytes, info.committed_bytes) == (object_name(content), len(content), len(content))
    assert b"".join([chunk async for chunk in client.get(info.object)]) == content
    assert await client.get_file(info.object, tmp_path / "out") == len(content)
    assert (tmp_path / "out").read_bytes() == content


async def test_empty_object_is_an_object(fleet: Fleet) -> None:
    """An object of no bytes can be put and got."""
    await fleet.launch("gw")
    client = await fleet.client("gw")
    assert (await client.put_bytes(b"")).object == EMPTY
    assert [chunk async for chunk in client.get(EMPTY)] == []


async def test_missing_object_or_file_is_a_clear_input_error(fleet: Fleet, tmp_path: Path) -> None:
    """Asking for what is not there names it, and leaves no file behind."""
    await fleet.launch("gw")
    client = await fleet.client("gw")
    with pytest.raises(InputError, match=EMPTY):
        await client.get_file(EMPTY, tmp_path / "out")
    with pytest.raises(InputError, match="cannot read"):
        await client.put_file(tmp_path / "absent")
    assert os.listdir(tmp_path) == []


async def test_silent_agent_is_a_clear_error(tmp_path: Path) -> None:
    """An agent that never comes up is named, with the time waited."""
    async with AgentClient(tmp_path / "none.sock", "beijing") as client:
        with pytest.raises(SkyrackError, match=r"beijing was not ready after 0\.3 s"):
            await client.wait_ready(0.3)
        with pytest.raises(SkyrackError, match="beijing does not answer"):
            await client.info()


async def test_broken_put_continues_at_the_last_committed_byte(fleet: Fleet) -> None:
    """What arrived before a break stays; a put from there makes the object whole; one past it is refused."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    content = os.urandom(1_000_000)
    name = object_name(content)
    half = put_requests(name, content[:600_000], size_bytes=len(content))
    call = sat.objects.Put(half, timeout=60)
    with refused(INVALID_ARGUMENT, "continue from there"):
        await call  # a stream that ends too early is told, and what it brought is kept
    assert await sat.committed_bytes(name) == 600_000

    with refused(NOT_FOUND):
        await sat.get(name)
    with refused(OUT_OF_RANGE):
        await sat.put(name, content, offset_bytes=600_001)

    await sat.put(name, content, offset_bytes=600_000)
    assert await sat.get(name) == content
    assert await sat.get(name, 999_990) == content[-10:]


async def test_a_range_is_those_bytes_and_no_others(fleet: Fleet) -> None:
    """Any range within the object is answered exactly; one that reaches beyond it is OUT_OF_RANGE."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    content = os.urandom(1_000_000)
    name = await sat.keep(content)
    for offset_bytes, length_bytes in ((0, 1), (0, 262_144), (262_143, 2), (1, 999_998), (999_999, 1), (500, 0)):
        end_bytes = offset_bytes + length_bytes if length_bytes else len(content)
        assert await sat.get(name, offset_bytes, length_bytes) == content[offset_bytes:end_bytes]
    assert await sat.get(name, 1_000_000) == b""
    for offset_bytes, length_bytes in ((1_000_001, 0), (999_999, 2), (-1, 0)):
        with refused(OUT_OF_RANGE):
            await sat.get(name, offset_bytes, length_bytes)
    with refused(INVALID_ARGUMENT):
        await sat.get(name, 0, -1)


async def test_what_arrived_survives_kill_9(fleet: Fleet) -> None:
    """An agent killed amid a put knows after its restart what had arrived, and completes the object with the rest."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    content = os.urandom(1_000_000)
    name = object_name(content)
    call = sat.objects.Put(timeout=60)
    async for request in put_requests(name, content[:500_000], size_bytes=len(content)):
        await call.write(request)
    part = fleet["sat"].store / "objects" / f"{name.removeprefix('sha256:')}.part"
    await until(lambda: part.exists() and part.stat().st_size == 500_000, "half of it has arrived")

    await fleet["sat"].restart()
    call.cancel()

    again = await fleet.data_plane("sat")
    assert await again.committed_bytes(name) == 500_000
    await again.put(name, content, offset_bytes=500_000)
    assert await again.get(name) == content


async def test_bytes_that_hash_to_another_name_are_dropped(fleet: Fleet) -> None:
    """DATA_LOSS, nothing kept, and the true bytes can be put afterwards."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    content = os.urandom(300_000)
    name = object_name(content)
    with refused(DATA_LOSS, "dropped"):
        await sat.put(name, content[:-1] + bytes([content[-1] ^ 1]))
    assert await sat.committed_bytes(name) == 0
    await sat.put(name, content)
    assert await sat.get(name) == content


async def test_a_damaged_chunk_is_not_kept_and_the_put_goes_on_before_it(fleet: Fleet) -> None:
    """A chunk that does not match its checksum is DATA_LOSS; all before it stays, and the rest can follow."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    content = os.urandom(500_000)
    name = object_name(content)
    call = sat.objects.Put(timeout=60)
    async for number, request in enumerated(put_requests(name, content)):
        if number == 4:
            request.chunk = bytes([request.chunk[0] ^ 1]) + request.chunk[1:]
        with suppress(asyncio.InvalidStateError):
            await call.write(request)
    with suppress(asyncio.InvalidStateError):
        await call.done_writing()
    with refused(DATA_LOSS, "CRC-32C"):
        await call
    assert await sat.committed_bytes(name) == 3 * 65536
    await sat.put(name, content, offset_bytes=3 * 65536)
    assert await sat.get(name) == content


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ([chunk_of(b"x")], "header"),
        ([], "header"),
        ([header_of(b"xy"), header_of(b"xy")], "header"),
        ([header_of(b"xy"), objects_pb2.PutRequest()], "header"),
        ([header_of(b"xy"), chunk_of(b"")], "1 to 1048576"),
        ([header_of(bytes(2**21)), chunk_of(bytes(2**20 + 1))], "1 to 1048576"),
        ([header_of(b"xy"), chunk_of(b"xyz")], "byte 3 of an object of 2"),
        ([header_of(b"xy", size_bytes=-1)], "negative"),
        ([header_of(b"xy"), chunk_of(b"x")], "continue from there"),
        ([header_of(b"xy", terms=objects_pb2.ObjectTerms(jurisdictions=["cn"]))], "ISO 3166-1"),
        ([header_of(b"xy", terms=objects_pb2.ObjectTerms(holders=[""]))], "node's name"),
    ],
)
async def test_malformed_put_is_refused_at_once(fleet: Fleet, stream: list[objects_pb2.PutRequest], words: str) -> None:
    """A stream that is none of a put's is INVALID_ARGUMENT, said why, and takes no room beyond what was right of it."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    with refused(INVALID_ARGUMENT, words):
        await gw.objects.Put(iterated(stream), timeout=20)
    assert (await (await fleet.client("gw")).info()).store_bytes <= 1


async def test_an_endless_stream_ends_at_the_size_that_was_said(fleet: Fleet) -> None:
    """Who goes on sending after the last byte is cut off, and keeps nothing but what was announced."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    call = gw.objects.Put(timeout=20)
    await call.write(header_of(bytes(1_000_000)))
    await call.initial_metadata()
    sent_bytes = 0
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        while sent_bytes < 100_000_000:
            await call.write(chunk_of(bytes(65536)))
            sent_bytes += 65536
    assert await call.code() in (INVALID_ARGUMENT, StatusCode.INTERNAL)  # gRPC's own, when it ends amid a write
    assert sent_bytes < 50_000_000
    assert (await (await fleet.client("gw")).info()).store_bytes <= 1_000_000


async def test_a_message_beyond_all_measure_is_refused_by_the_wire(fleet: Fleet) -> None:
    """A chunk larger than any message may be is RESOURCE_EXHAUSTED, and the agent goes on."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    with refused(RESOURCE_EXHAUSTED):
        await gw.objects.Put(iterated([header_of(bytes(2**24)), chunk_of(bytes(2**23))]), timeout=20)
    assert await gw.keep(b"and on") == object_name(b"and on")


async def test_all_bytes_but_no_end_is_not_a_whole_object(fleet: Fleet) -> None:
    """Killed after the last byte and before the hash was held against the name, the agent asks for a byte again."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    content = os.urandom(100_000)
    name = object_name(content)
    call = sat.objects.Put(timeout=60)
    async for request in put_requests(name, content):
        await call.write(request)
    part = fleet["sat"].store / "objects" / f"{name.removeprefix('sha256:')}.part"
    await until(lambda: part.exists() and part.stat().st_size == len(content), "all of it has arrived")
    await fleet["sat"].restart()
    call.cancel()
    sat = await fleet.data_plane("sat")
    info = await sat.stat(name)
    assert (info.size_bytes, info.committed_bytes) == (100_000, 99_999)
    await sat.put(name, content, offset_bytes=99_999)
    assert await sat.get(name) == content


@pytest.mark.parametrize(
    "name", ["", "sha256:", "sha256:../../etc/passwd", EMPTY.upper(), EMPTY[:-1], EMPTY + "\n", "md5:" + "0" * 64]
)
async def test_malformed_names_are_refused(fleet: Fleet, name: str) -> None:
    """No call takes a name that is not sha256: and 64 lower-case hexadecimal digits."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    for call in (sat.stat(name), sat.get(name), sat.put(name, b"x"), sat.delete(name), sat.set_terms(name)):
        with refused(INVALID_ARGUMENT, "malformed"):
            await call


async def test_full_store_says_so_before_bytes_are_sent(fleet: Fleet) -> None:
    """RESOURCE_EXHAUSTED upon the header; a put that fits goes through; the same object again needs no room."""
    await fleet.launch("sat", options=("--store-bytes=1000000",))
    sat = await fleet.data_plane("sat")
    fits, too_large = os.urandom(700_000), os.urandom(400_000)
    await sat.put(object_name(fits), fits)
    assert await sat.committed_bytes(object_name(fits)) == len(fits)

    call = sat.objects.Put(timeout=20)
    header = objects_pb2.PutRequest.Header(object=object_name(too_large), size_bytes=len(too_large))
    await call.write(objects_pb2.PutRequest(header=header))
    with refused(RESOURCE_EXHAUSTED, "no room for"):
        await call

    await sat.put(object_name(fits), fits)
    await sat.put(object_name(too_large[:300_000]), too_large[:300_000])


async def test_many_may_put_one_object_at_once(fleet: Fleet) -> None:
    """Concurrent puts of the same object all end well, and it is right and counted once."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    content = os.urandom(2_000_000)
    name = object_name(content)
    sizes_bytes = (10_000, 65_536, 100_000, 262_144)
    infos = await asyncio.gather(*(gw.put(name, content, chunk_bytes=size_bytes) for size_bytes in sizes_bytes))
    assert [info.committed_bytes for info in infos] == [len(content)] * len(sizes_bytes)
    assert await gw.get(name) == content
    assert (await (await fleet.client("gw")).info()).store_bytes == len(content)


async def test_full_gateway_is_told_to_the_user_in_its_words(fleet: Fleet) -> None:
    """A put that does not fit ends with the store's own message, however large it is."""
    await fleet.launch("gw", options=("--store-bytes=1000000",))
    client = await fleet.client("gw")
    with pytest.raises(SkyrackError, match=r"gw: no room for sha256:.* 20000000 bytes more"):
        await client.put_bytes(bytes(20_000_000))
    fleet["gw"].kill()
    with pytest.raises(SkyrackError, match="gw does not answer"):
        await client.put_bytes(b"x")
