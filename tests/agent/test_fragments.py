"""Fragments of erasure-coded objects at agents: kept under their terms, computed again from others when damaged."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from grpc import StatusCode

from controller.coding import STRIPE_BYTES, Code, Coded, Encoder
from protos.skyrack.v1 import jobs_pb2, objects_pb2
from tests.agent.fleet import DataPlane, Fleet, object_name, refused, until
from tests.agent.test_scrub import flip_a_bit, stored

NODES = ("a", "b", "c", "d", "e")
CODE = Code(3, 2)


def coded(content: bytes, folder: Path, code: Code = CODE) -> Coded:
    """Its fragments."""
    folder.mkdir()
    with Encoder(code, object_name(content), folder) as encoder:
        encoder.take(content)
        return encoder.finish()


def part(content: bytes, made: Coded, index: int, code: Code = CODE) -> objects_pb2.Part:
    """What a fragment's terms say."""
    fragments = [
        objects_pb2.Part.Fragment(object=name, node=node) for name, node in zip(made.names, NODES, strict=True)
    ]
    return objects_pb2.Part(
        whole=object_name(content), whole_bytes=len(content), k=code.k, m=code.m, index=index,
        piece_bytes=made.piece_bytes, fragments=fragments,
    )  # fmt: skip


def memory_of(pid: int) -> str:
    """What a process has mapped."""
    return Path(f"/proc/{pid}/maps").read_text()


def resident_bytes(pid: int) -> int:
    """What a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def kept(fleet: Fleet, content: bytes, **terms: object) -> Coded:
    """A fragment at each node."""
    made = coded(content, fleet.folder / "coded")
    for index, node in enumerate(NODES):
        plane = await fleet.data_plane(node, jurisdiction="CN")
        of_part = part(content, made, index)
        assert made.names[index] == await plane.keep(
            made.files[index].read_bytes(), holders=[node], part=of_part, **terms
        )
    return made


@pytest.mark.parametrize("size_bytes", [3, 1000, STRIPE_BYTES, 3 * STRIPE_BYTES + 7])
async def test_a_damaged_fragment_is_computed_from_others(fleet: Fleet, size_bytes: int) -> None:
    """Data or parity, k of the others are enough: it is what it was, served again under its terms, and the audit says
    from where it came."""
    await fleet.launch(*NODES)
    content = os.urandom(size_bytes)
    made = await kept(fleet, content)
    fleet["c"].kill()
    for index, node in ((0, "a"), (4, "e")):
        plane = await fleet.data_plane(node)
        flip_a_bit(stored(fleet[node], made.names[index]))
        report = await plane.scrub()
        assert (list(report.damaged), list(report.repaired)) == ([made.names[index]], [made.names[index]])
        assert await plane.get(made.names[index]) == made.files[index].read_bytes()
        info = await plane.stat(made.names[index])
        assert (list(info.terms.holders), info.terms.part) == ([node], part(content, made, index))
        events = [(event.kind, event.of) for event in await (await fleet.client(node)).audit()]
        assert events == [("damaged", made.names[index]), ("repaired", made.names[index])]
        (_, repaired) = await (await fleet.client(node)).audit()
        assert repaired.reason.startswith("computed from the fragments at ")
        assert "c" not in repaired.reason.removeprefix("computed from the fragments at ")
        assert not (await plane.scrub()).damaged
        await fleet[node].restart()
        assert (await (await fleet.data_plane(node)).stat(made.names[index])).terms.part == part(content, made, index)


async def test_silent_damage_of_others_gives_way(fleet: Fleet) -> None:
    """One of those that are read first is damaged too, and nobody knows yet: its pieces are told from sound ones."""
    await fleet.launch(*NODES)
    content = os.urandom(2 * STRIPE_BYTES)
    made = await kept(fleet, content)
    a = await fleet.data_plane("a")
    for index, node in ((0, "a"), (2, "c")):
        flip_a_bit(stored(fleet[node], made.names[index]))
    report = await a.scrub()
    assert list(report.repaired) == [made.names[0]]
    assert await a.get(made.names[0]) == made.files[0].read_bytes()


async def test_more_damage_than_the_code_bears_is_told(fleet: Fleet) -> None:
    """m + 1 are damaged: each stays reported and set aside, none is served; when one is put again, the rest follow."""
    await fleet.launch(*NODES, options=("--scrub-every-s=0.5",))
    content = os.urandom(100_000)
    made = await kept(fleet, content)
    for index in (0, 1, 3):
        flip_a_bit(stored(fleet[NODES[index]], made.names[index]))
    for index in (0, 1, 3):
        plane = await fleet.data_plane(NODES[index])
        report = await plane.scrub(made.names[index])
        assert (list(report.damaged), list(report.repaired)) == ([made.names[index]], [])
        with refused(StatusCode.DATA_LOSS, "damaged"):
            await plane.get(made.names[index])
    assert "3 other fragments are needed, and only 2 can be had" in fleet["a"].log.read_text()

    b = await fleet.data_plane("b")
    await b.put(made.names[1], made.files[1].read_bytes())
    for index in (0, 3):
        plane = await fleet.data_plane(NODES[index])

        async def whole(plane: DataPlane = plane, index: int = index) -> bool:
            return await plane.committed_bytes(made.names[index]) == CODE.fragment_bytes(len(content))

        await until(whole, f"fragment {index} is computed in the background", 30)
        assert await plane.get(made.names[index]) == made.files[index].read_bytes()


async def test_what_has_come_of_a_fragment_is_gone_on_with(fleet: Fleet) -> None:
    """A transfer broke off within a piece: what is computed continues with that piece, and it is whole."""
    await fleet.launch(*NODES)
    made = await kept(fleet, os.urandom(4 * STRIPE_BYTES))
    content = made.files[0].read_bytes()
    flip_a_bit(stored(fleet["a"], made.names[0]))
    for node in NODES[2:]:
        fleet[node].kill()
    a = await fleet.data_plane("a")
    assert not (await a.scrub()).repaired
    with refused(StatusCode.INVALID_ARGUMENT, "continue from there"):
        await a.put(made.names[0], content[:500_000], size_bytes=len(content))
    assert await a.committed_bytes(made.names[0]) == 500_000
    for node in NODES[2:]:
        fleet[node].start()
        await fleet[node].ready()
    assert list((await a.scrub(made.names[0])).repaired) == [made.names[0]]
    assert await a.get(made.names[0]) == content


async def test_no_fragment_is_read_or_computed_outside_its_jurisdictions(fleet: Fleet) -> None:
    """Who lies outside gets none; the fragment that is computed is bound as it was."""
    await fleet.launch(*NODES, jurisdictions=dict.fromkeys(NODES, "CN"))
    content = os.urandom(10_000)
    made = await kept(fleet, content, jurisdictions=["CN"])
    outside = await fleet.data_plane("b", as_name="abroad", jurisdiction="US")
    with refused(StatusCode.PERMISSION_DENIED, "lies in US"):
        await outside.get(made.names[1])
    flip_a_bit(stored(fleet["a"], made.names[0]))
    a = await fleet.data_plane("a", jurisdiction="CN")
    assert list((await a.scrub()).repaired) == [made.names[0]]
    assert list((await a.stat(made.names[0])).terms.jurisdictions) == ["CN"]


async def test_computing_takes_no_more_room_than_the_fragment(fleet: Fleet) -> None:
    """A store that holds the fragment and little else: the damaged bytes give way to the computed ones."""
    content = os.urandom(6 * STRIPE_BYTES)
    await fleet.launch(*NODES, options=(f"--store-bytes={CODE.fragment_bytes(len(content)) + 1000}",))
    made = await kept(fleet, content)
    flip_a_bit(stored(fleet["a"], made.names[0]))
    a = await fleet.data_plane("a")
    assert list((await a.scrub()).repaired) == [made.names[0]]
    assert await a.get(made.names[0]) == made.files[0].read_bytes()


async def test_the_agent_keeps_little_of_it_in_memory(fleet: Fleet) -> None:
    """What computes is a process of its own, which has ended when the fragment is there; of three streams of ten
    megabytes each, the agent has few of them left."""
    await fleet.launch(*NODES)
    made = await kept(fleet, os.urandom(30 * STRIPE_BYTES))
    before_bytes = resident_bytes(fleet["a"].pid())
    flip_a_bit(stored(fleet["a"], made.names[0]))
    a = await fleet.data_plane("a")
    assert list((await a.scrub()).repaired) == [made.names[0]]
    assert "pyeclib" not in memory_of(fleet["a"].pid())
    await until(lambda: len(fleet["a"].pids()) == 1, "the helper has ended")
    assert resident_bytes(fleet["a"].pid()) - before_bytes < 12_000_000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"k": 0}, "k + m"),
        ({"m": 3}, "k + m"),
        ({"index": 5}, "count from 0"),
        ({"piece_bytes": 0}, "pieces of 0 bytes"),
        ({"piece_bytes": 2**30}, "pieces of"),
        ({"whole": "sha256:no"}, "malformed"),
    ],
)
async def test_a_part_that_cannot_be_is_refused(fleet: Fleet, wrong: dict[str, object], words: str) -> None:
    """INVALID_ARGUMENT says what is wrong; nothing is kept."""
    await fleet.launch("a")
    a = await fleet.data_plane("a")
    content = b"whole"
    made = coded(content, fleet.folder / "coded")
    said = part(content, made, 0)
    for field, value in wrong.items():
        setattr(said, field, value)
    with refused(StatusCode.INVALID_ARGUMENT, words):
        await a.keep(made.files[0].read_bytes(), part=said)
    assert await a.committed_bytes(made.names[0]) == 0


async def test_a_job_drops_objects_where_they_lie(fleet: Fleet) -> None:
    """A gateway has them removed at satellites, waits for one that is away, and says why where one is pinned."""
    await fleet.launch("gw", "a", "b")
    gw, a, b = [await fleet.data_plane(node) for node in ("gw", "a", "b")]
    names = [await a.keep(b"one"), await b.keep(b"two"), await b.keep(b"three", pinned=True)]
    fleet["b"].kill()
    inputs = [jobs_pb2.JobInput(object=names[0], at_node="a"), jobs_pb2.JobInput(object=names[1], at_node="b")]
    await gw.jobs.Submit(jobs_pb2.SubmitRequest(spec=jobs_pb2.JobSpec(id="drop-1", drop=True, inputs=inputs)))

    async def gone() -> bool:
        return not await a.committed_bytes(names[0])

    await until(gone, "that of a is gone")
    fleet["b"].start()
    await fleet["b"].ready()
    client = await fleet.client("gw")
    assert (await client.wait_final("drop-1", 30)).state == jobs_pb2.JOB_STATE_SUCCEEDED
    b = await fleet.data_plane("b")
    assert await b.committed_bytes(names[1]) == 0
    pinned = [jobs_pb2.JobInput(object=names[2], at_node="b")]
    job = await gw.run(jobs_pb2.JobSpec(id="drop-2", drop=True, inputs=pinned))
    assert (job.state, "is pinned" in job.reason) == (jobs_pb2.JOB_STATE_FAILED, True)
    nowhere = [jobs_pb2.JobInput(object=names[0])]
    for wrong in (
        jobs_pb2.JobSpec(id="wrong", drop=True),
        jobs_pb2.JobSpec(id="wrong", drop=True, inputs=nowhere),
        jobs_pb2.JobSpec(id="wrong", drop=True, inputs=inputs, on_node="a"),
    ):
        with refused(StatusCode.INVALID_ARGUMENT, "each with its node"):
            await gw.run(wrong)


async def test_a_satellite_has_nothing_dropped(fleet: Fleet) -> None:
    """Only gateways may have objects removed elsewhere: the holder denies it to others, who cannot send a gateway."""
    await fleet.launch("a", "b", "gw")
    a, b = await fleet.data_plane("a"), await fleet.data_plane("b")
    name = await b.keep(b"one")
    inputs = [jobs_pb2.JobInput(object=name, at_node="b")]
    job = await a.run(jobs_pb2.JobSpec(id="drop-1", drop=True, inputs=inputs))
    assert (job.state, "no satellite may call" in job.reason) == (jobs_pb2.JOB_STATE_FAILED, True)
    for role in ("satellite", "terminal"):
        sent = await fleet.data_plane("gw", as_role=role)
        with refused(StatusCode.PERMISSION_DENIED, f"no {role} may have objects removed"):
            await sent.run(jobs_pb2.JobSpec(id="drop-2", drop=True, inputs=inputs))
    events = await (await fleet.client("gw")).audit()
    assert [(event.kind, event.of) for event in events] == [("denied", "drop-2")] * 2
    assert await b.get(name) == b"one"


def test_the_whole_is_the_first_bytes_of_each_fragment(tmp_path: Path) -> None:
    """A fragment alone tells of which whole it is, and of which code."""
    made = coded(b"abc", tmp_path / "coded")
    for file, name in zip(made.files, made.names, strict=True):
        assert file.read_bytes()[:34] == hashlib.sha256(b"abc").digest() + bytes((3, 2))
        assert object_name(file.read_bytes()) == name
