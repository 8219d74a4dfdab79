"""Terms of objects: where they may lie, who holds them, what may go, and what room they take."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from controller.agents import AgentClient
from protos.skyrack.v1 import jobs_pb2, objects_pb2
from tests.agent.fleet import Fleet, object_name, put_requests, refused, until

CN = ("--jurisdiction=CN",)


def said(terms: objects_pb2.ObjectTerms) -> tuple[Sequence[str], bool, Sequence[str], bool]:
    """All of them."""
    return list(terms.jurisdictions), terms.transit, list(terms.holders), terms.pinned


async def test_terms_last_and_grow_when_it_is_put_again(fleet: Fleet) -> None:
    """An object's terms are there after kill -9; a second put adds holders, and pins; the same bytes are not sent."""
    await fleet.launch("sat", options=CN)
    sat = await fleet.data_plane("sat")
    name = await sat.keep(b"scene", jurisdictions=["CN", "DE", "CN"], transit=True, holders=["b", "a"])
    await fleet["sat"].restart()
    sat = await fleet.data_plane("sat")
    assert said((await sat.stat(name)).terms) == (["CN", "DE"], True, ["a", "b"], False)
    await sat.keep(b"scene", jurisdictions=["DE", "CN"], transit=True, holders=["c"], pinned=True)
    assert said((await sat.stat(name)).terms) == (["CN", "DE"], True, ["a", "b", "c"], True)


async def test_a_part_keeps_its_terms(fleet: Fleet) -> None:
    """What has arrived of an object before kill -9 lies there under its terms, and is listed with its size."""
    await fleet.launch("sat", options=CN)
    sat = await fleet.data_plane("sat")
    content = os.urandom(200_000)
    name = object_name(content)
    call = sat.objects.Put(timeout=60)
    terms = objects_pb2.ObjectTerms(jurisdictions=["CN"], holders=["a"])
    async for request in put_requests(name, content[:131_072], size_bytes=len(content), terms=terms):
        await call.write(request)
    part = fleet["sat"].store / "objects" / f"{name.removeprefix('sha256:')}.part"
    await until(lambda: part.exists() and part.stat().st_size == 131_072, "two chunks have arrived")
    await fleet["sat"].restart()
    call.cancel()
    (listed,) = await (await fleet.data_plane("sat")).listed()
    assert (listed.object, listed.size_bytes, listed.committed_bytes) == (name, 200_000, 131_072)
    assert said(listed.terms) == (["CN"], False, ["a"], False)


async def test_no_object_comes_where_it_may_not_lie(fleet: Fleet) -> None:
    """A node outside of the jurisdictions, or with none, refuses the header; nothing of the object is kept."""
    await fleet.launch("nowhere")
    await fleet.launch("there", options=CN)
    for node in ("nowhere", "there"):
        plane = await fleet.data_plane(node)
        with refused(StatusCode.PERMISSION_DENIED, "may lie in DE only"):
            await plane.keep(b"scene", jurisdictions=["DE"])
        assert await plane.listed() == []
        assert await plane.keep(b"anywhere")


async def test_no_object_goes_to_who_lies_outside(fleet: Fleet) -> None:
    """A node that is not known to lie in the jurisdictions cannot read it; the gateway's own user can."""
    await fleet.launch("gw", options=CN)
    gw = await fleet.data_plane("gw")
    name = await gw.keep(b"scene", jurisdictions=["CN"])
    with refused(StatusCode.PERMISSION_DENIED, "who asks has no jurisdiction"):
        await gw.get(name)
    assert await (await fleet.client("gw")).get_bytes(name) == b"scene"


async def test_jurisdictions_are_for_good(fleet: Fleet) -> None:
    """Putting it under others is ALREADY_EXISTS, setting others FAILED_PRECONDITION; holders and pin can be set."""
    await fleet.launch("sat", options=CN)
    sat = await fleet.data_plane("sat")
    name = await sat.keep(b"scene", jurisdictions=["CN"])
    for other in ({}, {"jurisdictions": ["CN", "DE"]}, {"jurisdictions": ["CN"], "transit": True}):
        with refused(StatusCode.ALREADY_EXISTS, "kept for CN here"):
            await sat.keep(b"scene", **other)
        with refused(StatusCode.FAILED_PRECONDITION, "for good"):
            await sat.set_terms(name, **other)
    info = await sat.set_terms(name, jurisdictions=["CN"], holders=["b"], pinned=True)
    assert said(info.terms) == (["CN"], False, ["b"], True)
    with refused(StatusCode.NOT_FOUND):
        await sat.set_terms(object_name(b"another"))
    with refused(StatusCode.INVALID_ARGUMENT):
        await sat.set_terms(name, jurisdictions=["China"])


async def test_a_rest_under_other_terms_is_begun_anew(fleet: Fleet) -> None:
    """What one sender left unfinished is not completed by another, under terms of other jurisdictions."""
    await fleet.launch("sat", options=CN)
    sat = await fleet.data_plane("sat")
    content = os.urandom(100_000)
    name = object_name(content)
    with refused(StatusCode.INVALID_ARGUMENT):
        await sat.put(name, content[:-1], size_bytes=len(content), terms=objects_pb2.ObjectTerms(jurisdictions=["CN"]))
    with refused(StatusCode.OUT_OF_RANGE):
        await sat.put(name, content, offset_bytes=99_999)
    await sat.put(name, content)
    assert said((await sat.stat(name)).terms)[0] == []


async def test_what_is_needed_is_not_deleted(fleet: Fleet) -> None:
    """Pinned, on its way in, or an open job's: FAILED_PRECONDITION. Else it goes, its room with it, once."""
    await fleet.launch("gw")
    gw, client = await fleet.data_plane("gw"), await fleet.client("gw")
    pinned = await gw.keep(b"pinned", pinned=True)
    with refused(StatusCode.FAILED_PRECONDITION, "is pinned"):
        await gw.delete(pinned)
    await gw.set_terms(pinned)
    assert [await gw.delete(pinned), await gw.delete(pinned)] == [True, False]

    arriving = object_name(bytes(100))
    call = gw.objects.Put(timeout=60)
    await call.write(await anext(put_requests(arriving, bytes(100))))
    await call.initial_metadata()
    with refused(StatusCode.FAILED_PRECONDITION, "on its way in"):
        await gw.delete(arriving)
    call.cancel()

    needed = await gw.keep(b"needed")
    sleep = jobs_pb2.JobSpec.Command(argv=["sleep", "60"])
    spec = jobs_pb2.JobSpec(id="sleeps", command=sleep, inputs=[jobs_pb2.JobInput(object=needed)])
    await client.submit(spec)
    with refused(StatusCode.FAILED_PRECONDITION, "job sleeps"):
        await gw.delete(needed)
    await client.cancel("sleeps")
    assert await gw.delete(needed)
    with refused(StatusCode.NOT_FOUND):
        await gw.get(needed)
    await holds_bytes(client, 0)


async def holds_bytes(client: AgentClient, size_bytes: int) -> None:
    """Wait until a gateway counts so many bytes as taken."""

    async def so_many() -> bool:
        return (await client.info()).store_bytes == size_bytes

    await until(so_many, f"{size_bytes} bytes are taken")


async def test_transfers_under_way_hold_their_room(fleet: Fleet) -> None:
    """Of two that fit one by one and not together, the second is refused at its header; what breaks is still counted,
    and given back when it is deleted."""
    await fleet.launch("gw", options=("--store-bytes=1000000",))
    gw, client = await fleet.data_plane("gw"), await fleet.client("gw")
    first, second = os.urandom(600_000), os.urandom(600_000)
    call = gw.objects.Put(timeout=60)
    requests = put_requests(object_name(first), first)
    await call.write(await anext(requests))
    await call.initial_metadata()
    with refused(StatusCode.RESOURCE_EXHAUSTED, "200000 are lacking"):
        await gw.put(object_name(second), second)
    for _ in range(7):
        await call.write(await anext(requests))
    part = fleet["gw"].store / "objects" / f"{object_name(first).removeprefix('sha256:')}.part"
    await until(lambda: part.exists() and part.stat().st_size == 7 * 65536, "seven chunks have arrived")
    call.cancel()
    await holds_bytes(client, 7 * 65536)
    with refused(StatusCode.RESOURCE_EXHAUSTED, "no room for"):
        await gw.put(object_name(second), second)
    await gw.delete(object_name(first))
    await gw.put(object_name(second), second)
    await gw.delete(object_name(second))
    await holds_bytes(client, 0)


async def test_stale_parts_make_room_the_oldest_first(fleet: Fleet) -> None:
    """Parts that nobody has sent more of for an hour go when their room is needed, no more of them than that takes; a
    fresh one stays."""
    await fleet.launch("gw", options=("--store-bytes=1000000",))
    gw = await fleet.data_plane("gw")
    ages_s = {"oldest": 9000, "old": 5000, "fresh": 60}
    names = {}
    for which, age_s in ages_s.items():
        content = os.urandom(300_000)
        names[which] = object_name(content)
        with refused(StatusCode.INVALID_ARGUMENT):
            await gw.put(names[which], content[:250_000], size_bytes=300_000)
        part = fleet["gw"].store / "objects" / f"{names[which].removeprefix('sha256:')}.part"
        os.utime(part, (time.time() - age_s,) * 2)

    async def left() -> set[str]:
        return {which for which, name in names.items() if await gw.committed_bytes(name)}

    await gw.keep(os.urandom(400_000))
    assert await left() == {"old", "fresh"}
    await gw.keep(os.urandom(200_000))
    assert await left() == {"fresh"}
    with refused(StatusCode.RESOURCE_EXHAUSTED):
        await gw.keep(os.urandom(200_000))
    assert await left() == {"fresh"}


async def launch_on_small_disk(fleet: Fleet, size_bytes: int) -> Path:
    """An agent whose store lies on a disk of its own. That disk, as seen from outside."""
    store = fleet.folder / "sat"
    store.mkdir()
    mount = f'mount -t tmpfs -o size={size_bytes} tmpfs {store} && exec "$@"'
    await fleet.launch("sat", within=("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"))
    process = fleet["sat"].process
    assert process is not None
    return Path(f"/proc/{process.pid}/root{store}")


async def test_a_disk_smaller_than_the_quota_is_told_before_bytes_are_sent(fleet: Fleet) -> None:
    """RESOURCE_EXHAUSTED upon the header where the disk has no room, what is promised to others being counted."""
    await launch_on_small_disk(fleet, 12_000_000)
    sat = await fleet.data_plane("sat")
    with refused(StatusCode.RESOURCE_EXHAUSTED, "the node's disk has"):
        await sat.keep(bytes(14_000_000))
    promised = bytes(7_000_000)
    call = sat.objects.Put(timeout=60)
    await call.write(await anext(put_requests(object_name(promised), promised)))
    await call.initial_metadata()
    with refused(StatusCode.RESOURCE_EXHAUSTED, "7000000 are promised"):
        await sat.keep(bytes(7_000_001))
    assert await sat.keep(bytes(1_000_000))
    call.cancel()


async def test_a_disk_that_others_fill_is_survived(fleet: Fleet) -> None:
    """A put that runs into a full disk ends, what arrived stays and can be read or deleted; with room again it is
    completed."""
    disk = await launch_on_small_disk(fleet, 24_000_000)
    sat = await fleet.data_plane("sat")
    kept = await sat.keep(b"little")
    content = os.urandom(12_000_000)
    call = sat.objects.Put(timeout=60)
    requests = put_requests(object_name(content), content)
    await call.write(await anext(requests))
    await call.initial_metadata()
    (disk / "filler").write_bytes(bytes(18_000_000))
    with suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):
        async for request in requests:
            await call.write(request)
    # INTERNAL is gRPC's own, when the answer comes amid a write.
    assert await call.code() in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.INTERNAL)
    assert await sat.get(kept) == b"little"
    with refused(StatusCode.RESOURCE_EXHAUSTED, "the node's disk has"):
        await sat.put(object_name(content), content, offset_bytes=await sat.committed_bytes(object_name(content)))
    (disk / "filler").unlink()
    arrived_bytes = await sat.committed_bytes(object_name(content))
    assert 1_000_000 < arrived_bytes < 6_000_000
    await sat.put(object_name(content), content, offset_bytes=arrived_bytes)
    assert await sat.get(object_name(content)) == content


async def test_a_liar_does_not_keep_an_honest_sender_from_it(fleet: Fleet) -> None:
    """Wrong bytes under a name, sent before or at the same time, cost the honest sender one more try, no more."""
    await fleet.launch("sat")
    sat = await fleet.data_plane("sat")
    content = os.urandom(500_000)
    name, lie = object_name(content), bytes(500_000)
    with refused(StatusCode.INVALID_ARGUMENT):
        await sat.put(name, lie[:400_000], size_bytes=len(content))
    with refused(StatusCode.DATA_LOSS, "dropped"):
        await sat.put(name, content, offset_bytes=await sat.committed_bytes(name))
    answers = await asyncio.gather(*(sat.put(name, each) for each in (lie, content)), return_exceptions=True)
    if all(isinstance(answer, BaseException) for answer in answers):
        await sat.put(name, content)
    assert await sat.get(name) == content


@pytest.mark.parametrize("option", [(), ("--encrypt-at-rest",)], ids=["plain", "encrypted"])
async def test_a_job_s_output_becomes_an_object(fleet: Fleet, option: tuple[str, ...]) -> None:
    """What a job leaves is read back as it was, from either kind of store."""
    await fleet.launch("gw", options=option)
    gw, client = await fleet.data_plane("gw"), await fleet.client("gw")
    command = "head -c 300000 /dev/zero > $SKYRACK_OUTPUT_DIR/zeros; cat $SKYRACK_INPUTS > $SKYRACK_OUTPUT_DIR/same"
    needed = await gw.keep(b"input")
    shell = jobs_pb2.JobSpec.Command(argv=["sh", "-c", command])
    spec = jobs_pb2.JobSpec(id="copies", command=shell, inputs=[jobs_pb2.JobInput(object=needed)])
    await client.submit(spec)
    job = await client.wait_final("copies", 60)
    assert {output.name: await client.get_bytes(output.object) for output in job.outputs} == {
        "zeros": bytes(300_000),
        "same": b"input",
    }
