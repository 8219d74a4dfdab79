"""Silent corruption: found by reading, never served, made whole from another holder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.agent.fleet import Agent, Fleet, object_name, refused, until


def stored(agent: Agent, name: str) -> Path:
    """Where the file of an object is."""
    return agent.store / "objects" / name.removeprefix("sha256:")


def flip_a_bit(path: Path) -> None:
    """What radiation does, and nobody notices."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


async def test_a_damaged_copy_is_made_whole_from_its_replica(fleet: Fleet) -> None:
    """Scrub finds it and fetches it from the other holder: the report says so, it is served again, under its terms."""
    await fleet.launch("a", "b")
    a, b = await fleet.data_plane("a"), await fleet.data_plane("b")
    content = os.urandom(3_000_000)
    for plane in (a, b):
        name = await plane.keep(content, holders=["a", "b"], pinned=True)
    await a.keep(b"another")
    flip_a_bit(stored(fleet["a"], name))

    report = await a.scrub()

    assert (report.objects, report.bytes) == (2, len(content) + len(b"another"))
    assert (list(report.damaged), list(report.repaired)) == ([name], [name])
    assert await a.get(name) == content
    info = await a.stat(name)
    assert (info.committed_bytes, list(info.terms.holders), info.terms.pinned) == (len(content), ["a", "b"], True)
    assert not (await a.scrub()).damaged
    assert not (await b.scrub()).damaged


@pytest.mark.parametrize("holders", [[], ["a"], ["a", "gone"]])
async def test_without_a_replica_it_is_reported_and_not_served(fleet: Fleet, holders: list[str]) -> None:
    """The report names it, its bytes are set aside, Get is DATA_LOSS and Stat 0, later too; a new put heals it."""
    await fleet.launch("a")
    a = await fleet.data_plane("a")
    content = os.urandom(100_000)
    name = await a.keep(content, holders=holders)
    flip_a_bit(stored(fleet["a"], name))

    for _ in range(2):
        report = await a.scrub(name)
        assert (list(report.damaged), list(report.repaired)) == ([name], [])
        assert (stored(fleet["a"], "damaged") / name.removeprefix("sha256:")).stat().st_size == len(content)
        with refused(StatusCode.DATA_LOSS, "damaged"):
            await a.get(name)
        info = await a.stat(name)
        assert (info.size_bytes, info.committed_bytes, list(info.terms.holders)) == (len(content), 0, holders)
        await fleet["a"].restart()
        a = await fleet.data_plane("a")

    await a.put(name, content)
    assert await a.get(name) == content
    assert not (await a.scrub(name)).damaged


async def test_a_holder_that_lies_or_is_damaged_itself_is_passed_over(fleet: Fleet) -> None:
    """Of several holders, the one that has it whole makes it whole; bytes that are wrong are not taken."""
    await fleet.launch("a", "b", "c")
    content = os.urandom(500_000)
    for node in "abc":
        name = await (await fleet.data_plane(node)).keep(content, holders=["a", "b", "c"])
    flip_a_bit(stored(fleet["a"], name))
    flip_a_bit(stored(fleet["b"], name))
    a = await fleet.data_plane("a")
    report = await a.scrub(name)
    assert list(report.repaired) == [name]
    assert await a.get(name) == content


async def test_a_file_cut_short_or_gone_is_damage(fleet: Fleet) -> None:
    """Not only flipped bits: what is missing is found, by who reads it at the latest."""
    await fleet.launch("a")
    a = await fleet.data_plane("a")
    short, gone = await a.keep(os.urandom(100_000)), await a.keep(os.urandom(1000))
    os.truncate(stored(fleet["a"], short), 50_000)
    stored(fleet["a"], gone).unlink()
    with refused(StatusCode.DATA_LOSS):
        await a.get(gone)
    assert sorted((await a.scrub()).damaged) == sorted([short, gone])


async def test_it_is_found_in_the_background(fleet: Fleet) -> None:
    """Nobody asks: within a round or two the damaged copy is whole again."""
    await fleet.launch("a", "b", options=("--scrub-every-s=0.5",))
    content = os.urandom(1_000_000)
    for node in ("b", "a"):
        name = await (await fleet.data_plane(node)).keep(content, holders=["a", "b"])
    path = stored(fleet["a"], name)
    flip_a_bit(path)
    await until(lambda: path.exists() and path.read_bytes() == content, "it is whole again", 30)


async def test_a_repair_waits_for_the_holder(fleet: Fleet) -> None:
    """The holder is away when the damage is found; when it is back, a later round repairs it."""
    await fleet.launch("a", "b", options=("--scrub-every-s=0.5",))
    content = os.urandom(100_000)
    for node in ("b", "a"):
        name = await (await fleet.data_plane(node)).keep(content, holders=["a", "b"])
    fleet["b"].kill()
    flip_a_bit(stored(fleet["a"], name))
    a = await fleet.data_plane("a")
    assert list((await a.scrub(name)).repaired) == []
    fleet["b"].start()
    await fleet["b"].ready()

    async def whole() -> bool:
        return await a.committed_bytes(name) == len(content)

    await until(whole, "it is whole again", 30)


async def test_scrubbing_what_is_not_here_says_so(fleet: Fleet) -> None:
    """NOT_FOUND for a name that is not here, INVALID_ARGUMENT for none; an empty store has nothing to report."""
    await fleet.launch("a")
    a = await fleet.data_plane("a")
    with refused(StatusCode.NOT_FOUND):
        await a.scrub(object_name(b"not here"))
    with refused(StatusCode.INVALID_ARGUMENT):
        await a.scrub("not a name")
    report = await a.scrub()
    assert (report.objects, report.bytes, list(report.damaged)) == (0, 0, [])
