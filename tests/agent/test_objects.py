"""Objects: stored by content, checked, resumed, bounded."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import grpc
import pytest

from controller.agents import AgentClient
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import objects_pb2
from tests.agent.fleet import Fleet, object_name, put_requests, until

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180-4, of no bytes


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
    with pytest.raises(grpc.aio.AioRpcError) as early:
        await call  # a stream that ends too early is told, and what it brought is kept
    assert early.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert await sat.committed_bytes(name) == 600_000

    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await sat.get(name)
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as gap:
        await sat.put(name, content, offset_bytes=600_001)
    assert gap.value.code() == grpc.StatusCode.OUT_OF_RANGE

    await sat.put(name, content, offset_bytes=600_000)
    assert await sat.get(name) == content
    assert await sat.get(name, 999_990) == content[-10:]
    with pytest.raises(grpc.aio.AioRpcError) as beyond:
        await sat.get(name, 1_000_001)
    assert beyond.value.code() == grpc.StatusCode.OUT_OF_RANGE


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
    with pytest.raises(grpc.aio.AioRpcError) as loss:
        await sat.put(name, content[:-1] + bytes([content[-1] ^ 1]))
    assert loss.value.code() == grpc.StatusCode.DATA_LOSS
    assert await sat.committed_bytes(name) == 0
    await sat.put(name, content)
    assert await sat.get(name) == content


async def test_chunk_past_the_size_is_refused(fleet: Fleet) -> None:
    """More bytes than the header said are INVALID_ARGUMENT."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    with pytest.raises(grpc.aio.AioRpcError) as past:
        await sat.put(object_name(b"x"), b"x" * 100, size_bytes=99)
    assert past.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "name", ["", "sha256:", "sha256:../../etc/passwd", EMPTY.upper(), EMPTY[:-1], EMPTY + "\n", "md5:" + "0" * 64]
)
async def test_malformed_names_are_refused(fleet: Fleet, name: str) -> None:
    """No call takes a name that is not sha256: and 64 lower-case hexadecimal digits."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    for call in (sat.committed_bytes(name), sat.get(name), sat.put(name, b"x")):
        with pytest.raises(grpc.aio.AioRpcError) as malformed:
            await call
        assert malformed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


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
    with pytest.raises(grpc.aio.AioRpcError) as full:
        await call
    assert full.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

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
