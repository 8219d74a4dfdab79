"""Objects encrypted on the node's disk, by agents that were told to."""

from __future__ import annotations

import os
from pathlib import Path

from grpc import StatusCode

from protos.skyrack.v1 import objects_pb2
from tests.agent.fleet import Fleet, object_name, put_requests, refused, until

ENCRYPTED = ("--encrypt-at-rest", "--jurisdiction=CN")


def stored(fleet: Fleet, name: str, suffix: str = "") -> Path:
    """Where the file of an object is."""
    return fleet["gw"].store / "objects" / f"{name.removeprefix('sha256:')}{suffix}"


async def test_nothing_of_an_object_is_legible_on_disk(fleet: Fleet) -> None:
    """Neither a part nor the whole of it; it is served as it was, by ranges too, after a restart as before."""
    await fleet.launch("gw", options=ENCRYPTED)
    gw = await fleet.data_plane("gw")
    content = b"a secret of sixteen bytes or more " * 20_000
    name = object_name(content)
    with refused(StatusCode.INVALID_ARGUMENT):
        await gw.put(name, content[:300_000], size_bytes=len(content))
    assert b"secret" not in stored(fleet, name, ".part").read_bytes()
    assert await gw.committed_bytes(name) == 300_000
    await gw.put(name, content, offset_bytes=300_000)
    assert b"secret" not in stored(fleet, name).read_bytes()
    for _ in range(2):
        gw = await fleet.data_plane("gw")
        assert await gw.get(name) == content
        assert await gw.get(name, 65_530, 12) == content[65_530:65_542]
        await fleet["gw"].restart()
    key = fleet["gw"].store / "identity" / "keys" / "CN.key"
    assert (key.stat().st_size, key.stat().st_mode & 0o777) == (32, 0o600)


async def test_an_encrypted_part_survives_kill_9(fleet: Fleet) -> None:
    """All segments that were full are there again, and the rest completes it."""
    await fleet.launch("gw", options=ENCRYPTED)
    gw = await fleet.data_plane("gw")
    content = os.urandom(1_000_000)
    name = object_name(content)
    call = gw.objects.Put(timeout=60)
    async for request in put_requests(name, content[:600_000], size_bytes=len(content)):
        await call.write(request)
    part = stored(fleet, name, ".part")
    await until(lambda: part.exists() and part.stat().st_size > 9 * 65536, "nine segments have arrived")
    await fleet["gw"].restart()
    call.cancel()
    gw = await fleet.data_plane("gw")
    assert await gw.committed_bytes(name) == 9 * 65536
    await gw.put(name, content, offset_bytes=9 * 65536)
    assert await gw.get(name) == content


async def test_changed_ciphertext_is_never_served(fleet: Fleet) -> None:
    """A flipped bit is DATA_LOSS to who reads it, and the object is set aside."""
    await fleet.launch("gw", options=ENCRYPTED)
    gw = await fleet.data_plane("gw")
    name = await gw.keep(os.urandom(200_000))
    content = bytearray(stored(fleet, name).read_bytes())
    content[100_000] ^= 1
    stored(fleet, name).write_bytes(content)
    with refused(StatusCode.DATA_LOSS, "not what was written"):
        await gw.get(name)
    aside = fleet["gw"].store / "objects" / "damaged" / name.removeprefix("sha256:")
    await until(aside.exists, "it is set aside")
    with refused(StatusCode.DATA_LOSS):
        await gw.get(name)


async def test_the_option_may_come_and_go(fleet: Fleet) -> None:
    """Objects from before the option was given, or after it was taken away, are read as they lie there."""
    await fleet.launch("gw")
    gw = await fleet.data_plane("gw")
    names = [await gw.keep(b"plain")]
    for options in (ENCRYPTED, ()):
        fleet["gw"].kill()
        await fleet.launch("gw", options=options)
        gw = await fleet.data_plane("gw")
        names.append(await gw.keep(b"with " + repr(options).encode()))
        assert [len(await gw.get(name)) > 0 for name in names] == [True] * len(names)
    assert stored(fleet, names[0]).read_bytes() == b"plain"
    assert b"with" not in stored(fleet, names[1]).read_bytes()


async def test_encrypted_objects_count_with_what_encryption_adds(fleet: Fleet) -> None:
    """The room that is taken is that of the files."""
    await fleet.launch("gw", options=ENCRYPTED)
    gw, client = await fleet.data_plane("gw"), await fleet.client("gw")
    name = await gw.keep(os.urandom(200_000))
    assert (await client.info()).store_bytes == stored(fleet, name).stat().st_size > 200_000
    info = await gw.objects.Stat(objects_pb2.StatRequest(object=name), timeout=20)
    assert info.size_bytes == info.committed_bytes == 200_000
