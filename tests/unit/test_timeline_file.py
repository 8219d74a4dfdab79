from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from controller.errors import InputError
from controller.scenario.source import Source
from controller.timeline import Block, ContactTable, EclipseTable, LinkTable, NodeEnd, Timeline
from controller.timeline_file import TimelineWriter, is_timeline_file, open_timeline
from controller.timeline_format import BLOCK_MEMBERS, HEAD_MEMBERS
from tests.unit.hand_made import timeline

SOURCE = Source("ring.toml", 'name = "ring"\n', Path("/somewhere"))
END = NodeEnd(2, 333.25, "its orbit has decayed")


def written(path: Path, **shape: int | float) -> Timeline:
    """A timeline by hand, written block by block into `path`; the same in memory."""
    with TimelineWriter(path, SOURCE) as writer:
        timeline_of_file = timeline(node_ends=(END,), store=writer, **shape)  # type: ignore[arg-type]
        writer.finish(replace(timeline_of_file, warnings=("the Sun is bright",))).close()
    return timeline(node_ends=(END,), **shape)  # type: ignore[arg-type]


def same(a: object, b: object) -> bool:
    """Whether two tables or blocks hold the same arrays, of the same types; NaN equals NaN."""
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]  # type: ignore[arg-type]
    return all(np.array_equal(p, q, equal_nan=True) and np.asarray(p).dtype == np.asarray(q).dtype for p, q in pairs)


def test_what_was_written_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    """Nodes, dates, tables, blocks and hash are equal; the scenario's text comes along."""
    path = tmp_path / "ring.npz"
    made = written(path)
    with open_timeline(path, verify=True) as saved:
        read = saved.timeline
        assert (read.epoch_utc, read.step_s, read.nodes, read.node_ends) == (
            made.epoch_utc, made.step_s, made.nodes, made.node_ends,
        )  # fmt: skip
        assert (read.content_hash, read.warnings) == (made.content_hash, ("the Sun is bright",))
        assert np.array_equal(read.t_s, made.t_s)
        assert all(same(getattr(read, name), getattr(made, name)) for name in ("links", "contacts", "eclipses"))
        assert len(read.blocks) == len(made.blocks) == 4
        assert all(same(read.blocks[i], made.blocks[i]) for i in (2, 0, 3, 1))
        assert same(read.sky(59), made.sky(59))
        assert saved.source == SOURCE
    assert is_timeline_file(path)
    assert not list(tmp_path.glob("*.part"))


def test_numpy_alone_reads_the_file(tmp_path: Path) -> None:
    """The README's own example works in a Python that has numpy and no skyrack."""
    path = tmp_path / "timeline.npz"
    made = written(path)
    with zipfile.ZipFile(path) as archive:
        readme = archive.read("README.txt").decode()
    program = "\n".join(line[4:] for line in readme.splitlines() if line.startswith("    ")).replace("1000", "21")
    program += "\nimport sys; assert not [m for m in sys.modules if m.startswith('controller')]\n"
    program += "print(json.dumps([positions_m.tolist(), [names[i] for i in a], delay_us.tolist(), about['epoch_utc']]))"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    positions_m, a, delay_us, epoch_utc = json.loads(done.stdout)
    sky = made.sky(21)
    assert np.array_equal(positions_m, sky.r_ecef_m)
    assert a == [made.nodes[i].name for i in made.links.a[sky.link]]
    assert delay_us == sky.delay_us.tolist()
    assert epoch_utc == "2026-01-01T00:00:00.250000+00:00"


def test_every_array_is_documented_in_the_file(tmp_path: Path) -> None:
    """timeline.json tells type, shape, unit and meaning of each member that there is, and of none that there is not."""
    path = tmp_path / "ring.npz"
    written(path)
    with zipfile.ZipFile(path) as archive:
        document = json.loads(archive.read("timeline.json"))
        arrays = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
    assert {name.replace("block-00000", "block-NNNNN") for name in arrays if "block-0000" not in name[:10]} <= set(
        document["members"]
    )
    assert {name.replace("block-NNNNN", "block-00000") for name in document["members"]} <= arrays
    assert all(set(about) == {"dtype", "shape", "unit", "meaning"} for about in document["members"].values())
    for table, kind in (("links", LinkTable), ("contacts", ContactTable), ("eclipses", EclipseTable)):
        assert {m.name for m in HEAD_MEMBERS if m.name.startswith(table)} == {f"{table}/{f.name}" for f in fields(kind)}
    assert {m.name for m in BLOCK_MEMBERS} == {f"block/{f.name}" for f in fields(Block) if f.name != "first_step"}


def test_equal_timelines_are_equal_files(tmp_path: Path) -> None:
    """No date or order of this moment enters the file."""
    written(tmp_path / "a.npz")
    written(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_blocks_can_be_read_back_while_others_are_written(tmp_path: Path) -> None:
    """The writer is a whole BlockStore: its length, its last block and earlier ones."""
    made = timeline()
    with TimelineWriter(tmp_path / "ring.npz", SOURCE) as writer:
        writer.block_steps = made.blocks.block_steps
        for i in range(3):
            writer.append(made.blocks[i])
            assert len(writer) == i + 1
            assert all(same(writer[k], made.blocks[k]) for k in range(i + 1))
        with pytest.raises(IndexError):
            writer[3]


def test_memory_stays_bounded_however_long_the_timeline(tmp_path: Path) -> None:
    """Writing and replaying 64 blocks takes no more memory at its peak than a few of them."""
    shape = {"n_satellite": 60, "n_step": 64 * 50, "block_steps": 50}
    path = tmp_path / "long.npz"
    tracemalloc.start()
    try:
        with TimelineWriter(path, SOURCE) as writer:
            whole = timeline(store=writer, **shape)  # type: ignore[arg-type]
            block_bytes = writer[0].n_byte
            saved = writer.finish(whole)
        written_peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with saved:
            total_us = sum(int(sky.delay_us.sum()) for sky in saved.timeline.skies())
        read_peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(whole.blocks) == 64
    assert total_us > 0
    assert max(written_peak, read_peak) < 12 * block_bytes, (written_peak / block_bytes, read_peak / block_bytes)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error in the middle removes the temporary file, and what was at the name before stays."""
    path = tmp_path / "ring.npz"
    path.write_text("before")
    with pytest.raises(AttributeError), TimelineWriter(path, SOURCE) as writer:
        writer.finish(replace(timeline(store=writer), links=None))  # type: ignore[arg-type]
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["ring.npz"]


def test_a_writer_that_is_killed_leaves_a_temporary_name_only(tmp_path: Path) -> None:
    """After kill -9 in the middle there is no file of the name that was asked for."""
    path = tmp_path / "ring.npz"
    program = (
        "import sys, pathlib\n"
        "from controller.timeline_file import TimelineWriter\n"
        "from tests.unit.test_timeline_file import SOURCE, timeline\n"
        "writer = TimelineWriter(pathlib.Path(sys.argv[1]), SOURCE); timeline(store=writer)\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert [entry.name for entry in tmp_path.iterdir()] == ["ring.npz.part"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The user's mistake, in one line."""
    with pytest.raises(InputError, match=r"cannot write .*ring\.npz: No such file or directory"):
        TimelineWriter(tmp_path / "absent" / "ring.npz", SOURCE)


def edited(path: Path, out: Path, member: str, content: bytes | None) -> Path:
    """A copy in which one member is another, or is missing."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as copy:
        for name in archive.namelist():
            if name != member:
                copy.writestr(name, archive.read(name))
        if content is not None:
            copy.writestr(member, content)
    return out


def member(path: Path, name: str) -> bytes:
    """The bytes of a member."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def test_broken_files_are_told_in_one_clear_line(tmp_path: Path) -> None:
    """No zip, a cut one, another version or format, a missing or a foreign member: each an InputError with the file."""
    path, out = tmp_path / "ring.npz", tmp_path / "broken.npz"
    written(path)
    whole, document = path.read_bytes(), member(path, "timeline.json")
    b_npy = member(path, "links/b.npy")
    cases: list[tuple[bytes | tuple[str, bytes | None], str]] = [
        (b"", "cut short"),
        (b"\x00" * 500, "no saved timeline"),
        (whole[:-200], "cut short"),
        (whole[: len(whole) // 2], "cut short"),
        (
            ("timeline.json", document.replace(b'"format_version": 2', b'"format_version": 7')),
            "format version 7.*reads 2",
        ),
        (("timeline.json", document.replace(b"skyrack timeline", b"another thing")), "another thing"),
        (("timeline.json", document[:-40]), "no readable timeline"),
        (("timeline.json", b"[]"), "no readable timeline"),
        (("timeline.json", None), "timeline.json"),
        (("links/b.npy", None), "links/b.npy"),
        (("links/b.npy", b_npy[:-8]), "no readable timeline"),
        (("links/b.npy", member(path, "contacts/b.npy")), r"links/b.npy must have the shape \(n_link\)"),
        (("links/b.npy", member(path, "links/loss_ratio.npy")), "links/b.npy must be <i8"),
        (("links/b.npy", b_npy[:-8] + (99).to_bytes(8, "little")), "names node 99 of 8"),
        (("links/mtu_bytes.npy", member(path, "links/a.npy")), "an MTU of . bytes"),
        (("links/port_a.npy", member(path, "links/a.npy")[:-8] + (99).to_bytes(8, "little")), "port"),
    ]
    for content, message in cases:
        if isinstance(content, bytes):
            out.write_bytes(content)
        else:
            edited(path, out, *content)
        with pytest.raises(InputError, match=message) as caught:
            open_timeline(out)
        assert str(out) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        open_timeline(tmp_path / "absent.npz")


def test_a_broken_block_is_told_when_it_is_read(tmp_path: Path) -> None:
    """The head of such a file opens; the step that lies in the broken block is an InputError."""
    path, out = tmp_path / "ring.npz", tmp_path / "broken.npz"
    written(path)
    link = member(path, "block-00001/link.npy")
    for content, message in (
        (None, "block-00001/link.npy"),
        (link[:-4], "no readable timeline"),
        (link[:-4] + (999).to_bytes(4, "little"), "names link 999"),
    ):
        with open_timeline(edited(path, out, "block-00001/link.npy", content)) as saved:
            saved.timeline.sky(0)
            with pytest.raises(InputError, match=message):
                saved.timeline.sky(16)


def test_a_flipped_bit_is_found_when_it_is_read(tmp_path: Path) -> None:
    """Each member carries a checksum."""
    path = tmp_path / "ring.npz"
    written(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("block-00002/r_ecef_m.npy")
    content[info.header_offset + info.compress_size // 2] ^= 1
    path.write_bytes(content)
    with open_timeline(path) as saved, pytest.raises(InputError, match="block-00002/r_ecef_m"):
        saved.timeline.sky(40)


def test_verify_finds_a_file_that_was_changed_with_care(tmp_path: Path) -> None:
    """A changed delay with a right checksum passes unseen, until the content is hashed anew."""
    path, out = tmp_path / "ring.npz", tmp_path / "changed.npz"
    written(path)
    delay_us = bytearray(member(path, "block-00001/delay_us.npy"))
    delay_us[-4] ^= 1
    edited(path, out, "block-00001/delay_us.npy", bytes(delay_us))
    open_timeline(out).close()
    with pytest.raises(InputError, match="the file was changed"):
        open_timeline(out, verify=True)


def test_random_damage_is_never_a_traceback(tmp_path: Path) -> None:
    """500 files with a few bytes changed are either read or refused with an InputError."""
    path, out = tmp_path / "ring.npz", tmp_path / "broken.npz"
    written(path, n_satellite=3, n_step=4, block_steps=2)
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(500):
        content = bytearray(whole)
        for at in random.integers(0, len(content), random.integers(1, 6)):
            content[at] = random.integers(0, 256)
        out.write_bytes(content)
        try:
            open_timeline(out, verify=True).close()
        except InputError:
            refused += 1
    assert refused > 300


def test_a_small_run_is_a_small_file(tmp_path: Path) -> None:
    """What shrinks is deflated: link numbers, rates and sunlight take a fraction of their memory."""
    path = tmp_path / "ring.npz"
    made = written(path, n_satellite=60, n_step=300, block_steps=100)
    in_memory = sum(made.blocks[i].n_byte for i in range(len(made.blocks)))
    assert os.path.getsize(path) < 0.75 * in_memory
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("block-00000/link.npy")
    assert info.compress_size < 0.1 * info.file_size


def test_what_is_a_timeline_file(tmp_path: Path) -> None:
    """A file named .npz, or any zip; a scenario or a folder is none."""
    (tmp_path / "a.npz").write_text("")
    (tmp_path / "b.toml").write_text("name = 1")
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        archive.writestr("x", "y")
    found = [is_timeline_file(tmp_path / name) for name in ("a.npz", "b.toml", "c", ".", "absent.npz")]
    assert found == [True, False, True, False, False]
