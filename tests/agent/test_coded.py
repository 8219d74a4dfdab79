"""The controller's desk for erasure-coded objects with real agents: put, read, told of, removed; what goes wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from controller.coding import STRIPE_BYTES
from controller.errors import InputError, SkyrackError
from controller.jobs.office import Office
from controller.jobs.placement import short
from protos.skyrack.v1 import controller_pb2, objects_pb2
from tests.agent.fleet import Fleet, object_name, until
from tests.agent.small_run import SmallRun, office, small_run
from tests.agent.test_scrub import flip_a_bit, stored

SIX = """
name = "six"
epoch = 2026-01-01T00:00:00Z
duration_s = 120.0

[[constellation]]
name = "cn"
walker = { pattern = "star", total = 6, planes = 3, phasing = 0, altitude_m = 20_000_000, inclination_deg = 90.0 }
isl = { topology = "nearest-k", k = 4 }
jurisdiction = "CN"

[[ground]]
name = "gw-cn"
role = "gateway"
latitude_deg = 40.0
longitude_deg = 116.0
min_elevation_deg = 0.0
antennas = 4
jurisdiction = "CN"

[[ground]]
name = "gw-us"
role = "gateway"
latitude_deg = 41.0
longitude_deg = 112.0
min_elevation_deg = 0.0
antennas = 4
jurisdiction = "US"
"""


async def put(
    desks: Office, content: bytes, k: int, m: int, *, via: str = "gw-cn", name: str = "", jurisdictions: str = ""
) -> list[controller_pb2.CodedObject]:
    """What is told of a put until its end."""
    header = controller_pb2.PutCodedRequest.Header(
        via=via, object=name or object_name(content), size_bytes=len(content), k=k, m=m,
        jurisdictions=[jurisdictions] if jurisdictions else [],
    )  # fmt: skip

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 300_000):
            yield content[start : start + 300_000]

    return [told async for told in desks.coded.put(header, chunks())]


async def got(desks: Office, content: bytes, via: str = "gw-cn", offset_bytes: int = 0, length_bytes: int = 0) -> bytes:
    """The whole, or a range of it."""
    request = objects_pb2.GetRequest(object=object_name(content), offset_bytes=offset_bytes, length_bytes=length_bytes)
    return b"".join([part.chunk async for part in desks.shelf.get(via, request)])


async def held(fleet: Fleet, node: str) -> list[str]:
    """The objects that a node has."""
    return [info.object for info in await (await fleet.data_plane(node, jurisdiction="CN")).listed()]


async def until_ground_is_clear(fleet: Fleet) -> None:
    """Nothing stays at gateways."""

    async def clear() -> bool:
        return not (await held(fleet, "gw-cn") or await held(fleet, "gw-us"))

    await until(clear, "no gateway has anything")


@pytest.fixture
def content() -> bytes:
    """Several stripes, the last one short."""
    return os.urandom(3 * STRIPE_BYTES + 12_345)


async def test_each_fragment_is_kept_at_a_node_of_its_own(fleet: Fleet, content: bytes) -> None:
    """No plane has more than may be lost; each knows all others; gateways keep nothing, and the whole comes back
    through any of them, ranges of it too."""
    run = await small_run(fleet, SIX)
    async with office(run, fleet, []) as desks:
        last = (await put(desks, content, 4, 2))[-1]
        nodes = [each.node for each in last.fragments]
        assert sorted(nodes) == [f"cn-p0{plane}s0{slot}" for plane in range(3) for slot in range(2)]
        assert ({each.state for each in last.fragments}, last.may_lose) == ({"kept"}, 2)
        for index, each in enumerate(last.fragments):
            (info,) = await (await fleet.data_plane(each.node)).listed()
            assert (info.object, info.size_bytes, info.terms.part.index) == (each.object, last.fragment_bytes, index)
            assert [(one.object, one.node) for one in info.terms.part.fragments] == [
                (one.object, one.node) for one in last.fragments
            ]
        explained, _ = await desks.desk.explain(last.fragments[3].job)
        assert (explained.policy, explained.chosen) == ("spread", nodes[3])
        await until_ground_is_clear(fleet)
        for via in ("gw-cn", "gw-us"):
            assert await got(desks, content, via) == content
            assert await got(desks, content, via, STRIPE_BYTES - 5, 10) == content[STRIPE_BYTES - 5 : STRIPE_BYTES + 5]
        await until_ground_is_clear(fleet)
        assert len(await put(desks, content, 4, 2)) == 1, "the same again changes nothing"
        with pytest.raises(InputError, match=r"is kept as 4\+2 fragments: remove that first"):
            await put(desks, content, 3, 2)
        assert [each.object for each in await desks.coded.told()] == [object_name(content)]
        assert (await desks.shelf.stat(object_name(content))).coded == last


async def test_m_holders_may_be_killed_and_no_more(fleet: Fleet, content: bytes) -> None:
    """kill -9 of two: the whole is read from the others. Of a third: an error names all three. One back: read again."""
    run = await small_run(fleet, SIX)
    async with office(run, fleet, []) as desks:
        fragments = (await put(desks, content, 4, 2))[-1].fragments
        await until_ground_is_clear(fleet)  # what lay there on its way would be read
        for index in (0, 2):
            fleet[fragments[index].node].kill()
        assert await got(desks, content) == content
        (told,) = await desks.coded.told(object_name(content))
        assert [each.state for each in told.fragments] == ["away", "kept", "away", "kept", "kept", "kept"]
        assert (told.may_lose, "does not answer" in told.fragments[0].reason) == (0, True)
        run.downs[fragments[5].node] = "down since t = 1 s: it is lost"
        with pytest.raises(SkyrackError, match="needs 4 of its 6 fragments, and 3 can be had: fragment 0 at ") as error:
            await got(desks, content)
        assert f"fragment 5 at {fragments[5].node}: down since t = 1 s: it is lost" in str(error.value)
        assert (await desks.coded.told(object_name(content)))[0].may_lose == -1
        await until_ground_is_clear(fleet)
        fleet[fragments[0].node].start()
        await fleet[fragments[0].node].ready()

        async def enough() -> bool:
            return (await desks.coded.told(object_name(content)))[0].may_lose == 0

        await until(enough, "the controller hears of it")
        assert await got(desks, content) == content


async def test_what_is_damaged_or_gone_is_read_around(fleet: Fleet, content: bytes) -> None:
    """One fragment removed at its node, one damaged that nobody knew of: others come in. With a third gone, so it is
    told, and which."""
    run = await small_run(fleet, SIX)
    async with office(run, fleet, []) as desks:
        fragments = (await put(desks, content, 4, 2))[-1].fragments
        await until_ground_is_clear(fleet)  # what lay there on its way would be read
        assert await (await fleet.data_plane(fragments[1].node)).delete(fragments[1].object)
        flip_a_bit(stored(fleet[fragments[3].node], fragments[3].object))
        assert await got(desks, content) == content
        assert await (await fleet.data_plane(fragments[4].node)).delete(fragments[4].object)
        with pytest.raises(SkyrackError, match="needs 4 of its 6 fragments, and 3 can be had") as error:
            await got(desks, content)
        assert all(f"fragment {index} at {fragments[index].node}" in str(error.value) for index in (1, 3, 4))


async def test_scrubbing_makes_a_fragment_whole_and_stat_says_how_it_stands(fleet: Fleet, content: bytes) -> None:
    """Damaged and not repaired: so it is told. Repaired from the others by its own node: kept again."""
    run = await small_run(fleet, SIX)
    async with office(run, fleet, []) as desks:
        fragments = (await put(desks, content, 4, 2))[-1].fragments
        damaged, others = fragments[0], fragments[1:4]
        for each in others:
            fleet[each.node].kill()
        flip_a_bit(stored(fleet[damaged.node], damaged.object))
        plane = await fleet.data_plane(damaged.node)
        assert not (await plane.scrub()).repaired
        (told,) = await desks.coded.told(object_name(content))
        assert (told.fragments[0].state, told.may_lose) == ("damaged", -2)
        assert "its bytes hash to" in told.fragments[0].reason
        for each in others:
            fleet[each.node].start()
            await fleet[each.node].ready()
        assert list((await plane.scrub()).repaired) == [damaged.object]

        async def all_kept() -> bool:
            return (await desks.coded.told(object_name(content)))[0].may_lose == 2

        await until(all_kept, "all are kept again")
        assert await got(desks, content) == content


async def test_several_read_at_once_and_one_breaks_off(fleet: Fleet, content: bytes) -> None:
    """Each has the whole; whoever leaves early takes nothing from the others, and nothing stays at the gateway."""
    run = await small_run(fleet, SIX)
    async with office(run, fleet, []) as desks:
        await put(desks, content, 4, 2)
        await until_ground_is_clear(fleet)
        request = objects_pb2.GetRequest(object=object_name(content))
        leaves = desks.shelf.get("gw-cn", request)
        assert (await anext(leaves)).info.size_bytes == len(content)
        stays = asyncio.gather(*(got(desks, content) for _ in range(3)))
        await anext(leaves)
        await leaves.aclose()
        assert set(await stays) == {content}
        await until_ground_is_clear(fleet)


async def test_removal_waits_for_who_is_away(fleet: Fleet, content: bytes) -> None:
    """All nodes remove their fragment at once but the one that is away, which is named; it does when it is back, and is
    asked again by a controller that was killed meanwhile."""
    run = await small_run(fleet, SIX)
    name = object_name(content)
    async with office(run, fleet, []) as desks:
        fragments = (await put(desks, content, 4, 2))[-1].fragments
        fleet[fragments[3].node].kill()
        gone = await desks.shelf.delete("gw-us", name)
        assert (gone.was_here, list(gone.waits_for)) == (True, [fragments[3].node])
        for index in (0, 1, 2, 4, 5):
            assert not await held(fleet, fragments[index].node)
        with pytest.raises(InputError, match="knows of no"):
            await desks.shelf.stat(name)
        with pytest.raises(InputError, match="is being removed"):
            await put(desks, content, 4, 2)
    async with office(run, fleet, []) as desks:
        fleet[fragments[3].node].start()
        await fleet[fragments[3].node].ready()
        await until(lambda: desks.journal.coded(name) is None, "all fragments are gone")
        assert not await held(fleet, fragments[3].node)
        assert not (await desks.shelf.delete("gw-cn", name)).was_here
        assert (await put(desks, content, 4, 2))[-1].may_lose == 2, "it may be put again"


async def test_a_fragment_that_cannot_be_kept_takes_the_others_with_it(fleet: Fleet, content: bytes) -> None:
    """One node refuses: the error says which, and why, and that the others are removed again; and they are."""
    run = await small_run(fleet, SIX, agents_lie_in={"cn-p01s00": "SG"})
    async with office(run, fleet, []) as desks:
        with pytest.raises(SkyrackError, match=r"is not kept at cn-p01s00: FAILED, .* removed again"):
            await put(desks, content, 4, 2, jurisdictions="CN")
        await until(lambda: desks.journal.coded(object_name(content)) is None, "it is forgotten")
        await until_ground_is_clear(fleet)
        for node in fleet.agents:
            assert not await held(fleet, node), node


WRONG: list[tuple[int, int, int, dict[str, str], str]] = [
    (0, 4, 2, {}, "0 bytes are too few for 4 fragments"),
    (3, 4, 2, {}, "3 bytes are too few"),
    (100, 0, 2, {}, r"0\+2 fragments: both must be 1 or more, and 32 together"),
    (100, 4, 0, {}, r"4\+0 fragments: both must be 1 or more"),
    (100, 30, 3, {}, r"30\+3 fragments"),
    (100, 5, 2, {}, r"5\+2 fragments of sha256:[0-9a-f]{12} want 7 nodes: 6 can take one"),
    (100, 4, 2, {"via": "cn-p00s00"}, "no gateway or terminal"),
    (100, 4, 2, {"via": "gw-us", "jurisdictions": "CN"}, "gw-us lies in US, outside CN"),
    (100, 4, 2, {"jurisdictions": "SG"}, "gw-cn lies in CN, outside SG"),
    (100, 4, 2, {"name": "sha256:abc"}, "no object's name"),
    (100, 4, 2, {"name": object_name(b"other")}, "hash to"),
]


async def test_what_cannot_be_is_one_message_and_leaves_nothing(fleet: Fleet) -> None:
    """No job, no object, nothing in the journal, no file."""
    run = await small_run(fleet, SIX)
    async with office(run, fleet, []) as desks:
        for size_bytes, k, m, options, message in WRONG:
            with pytest.raises(InputError, match=message):
                await put(desks, os.urandom(size_bytes), k, m, **options)
            assert not await desks.desk.list()
            assert not desks.journal.all_coded()
            assert not await held(fleet, "gw-cn")
            assert not list(fleet.folder.glob("coded-*"))


async def test_a_gateway_without_room_for_all_fragments_begins_none(fleet: Fleet) -> None:
    """The message says how much there would have to be, and how much there is."""
    run = await small_run(fleet, SIX, options=("--store-bytes=100000",))
    async with office(run, fleet, []) as desks:
        with pytest.raises(SkyrackError, match=r"all fragments together have 1\d\d\.\d kB, and 100\.0 kB of the store"):
            await put(desks, os.urandom(80_000), 4, 2)
        assert not desks.journal.all_coded()


async def test_all_fragments_are_bound_as_the_whole_is(fleet: Fleet, content: bytes) -> None:
    """Jurisdictions go with each fragment, with who reads it, and hold for a whole that was bound before."""
    run = await small_run(fleet, SIX)
    async with office(run, fleet, []) as desks:
        coded = (await put(desks, content, 2, 1, jurisdictions="CN"))[-1]
        for each in coded.fragments:
            (info,) = await (await fleet.data_plane(each.node, jurisdiction="CN")).listed()
            assert list(info.terms.jurisdictions) == ["CN"]
        with pytest.raises(InputError, match="gw-us lies in US, outside CN"):
            await got(desks, content, "gw-us")
        assert await got(desks, content, "gw-cn") == content
        with pytest.raises(InputError, match=f"{short(coded.object)} is kept as 2.1 fragments within CN"):
            await put(desks, content, 2, 1)


async def test_a_controller_that_is_killed_goes_on(fleet: Fleet, content: bytes) -> None:
    """Killed when all was handed over: all are kept, and known. Killed before that: none is, and nothing stays."""
    run: SmallRun = await small_run(fleet, SIX)
    header = controller_pb2.PutCodedRequest.Header(
        via="gw-cn", object=object_name(content), size_bytes=len(content), k=4, m=2
    )

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    async with office(run, fleet, []) as desks:
        (first) = await anext(aiter(desks.coded.put(header, chunks())))
        assert len(first.fragments) == 6
    async with office(run, fleet, []) as desks:

        async def all_kept() -> bool:
            return (await desks.coded.told(first.object))[0].may_lose == 2

        await until(all_kept, "all are kept")
        known = desks.journal.coded(first.object)
        assert known is not None
        await until(lambda: getattr(desks.journal.coded(first.object), "stands", "") == "kept", "it is written down")
        assert await got(desks, content) == content
        for each in known.coded.fragments:
            each.job = f"never-{each.job}"
        desks.journal.keep_coded(known.coded, "placing")
        (fleet.folder / "coded-left").mkdir()
    async with office(run, fleet, []) as desks:
        await until(lambda: desks.journal.coded(first.object) is None, "what was never handed over is forgotten")
        assert not (fleet.folder / "coded-left").exists()
