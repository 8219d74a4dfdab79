"""A timeline as one file: written block by block while it is computed, read back block by block while it is replayed.

The format is open and described in the file itself (`timeline_format`): a zip of .npy arrays, as numpy.load reads it.
"""

from __future__ import annotations

import json
import os
import struct
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from controller.errors import InputError, SkyrackError
from controller.scenario.load import parse_scenario
from controller.scenario.model import Scenario
from controller.scenario.source import Source
from controller.timeline import (
    Block,
    ContactTable,
    ContentHash,
    EclipseTable,
    Head,
    LinkTable,
    Node,
    NodeEnd,
    Role,
    Timeline,
)
from controller.timeline_checks import check_block, check_head
from controller.timeline_format import (
    BLOCK_MEMBERS,
    DOCUMENT,
    FORMAT,
    FORMAT_VERSION,
    HEAD_MEMBERS,
    README,
    README_TEXT,
    Member,
    block_name,
    member_documents,
)

TIMELINE_FILE = "timeline.npz"
"""What a timeline is called in the folder of a run."""

CACHED_BLOCKS = 2  # a replay looks at a step and at the one before it
_SAMPLE_BYTES = 65_536
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can say: equal timelines are equal files

# What zipfile, numpy and json raise for a file that is not as it should be; a false size may also ask for all memory.
_BROKEN = (
    ValueError, KeyError, IndexError, TypeError, EOFError, OSError, OverflowError, MemoryError, RuntimeError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip

_Table = TypeVar("_Table", LinkTable, ContactTable, EclipseTable)
_Array = npt.NDArray[Any]


class TimelineWriter:
    """A BlockStore that is a file. It holds no more than one block in memory.

    `with TimelineWriter(path, source) as writer: saved = writer.finish(plan(scenario, writer))`. Until `finish` the
    file has a temporary name beside `path`; without it nothing is left. Raises SkyrackError where the disk refuses,
    and InputError where the file cannot be made.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self.block_steps = 0  # set by the planner before the first block
        self._source = source.self_contained()
        self._part = path.with_name(path.name + ".part")
        self._n_block = 0
        self._last: Block | None = None
        try:
            self._archive = zipfile.ZipFile(self._part, "w")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _disk(self.path):  # on a full disk it cannot even be closed
                self._archive.close()
        finally:
            self._part.unlink(missing_ok=True)

    def __len__(self) -> int:
        return self._n_block

    def __getitem__(self, index: int) -> Block:
        if self._last is not None and index == self._n_block - 1:
            return self._last
        if not 0 <= index < self._n_block:
            raise IndexError(f"block {index} of {self._n_block}")
        return _read_block(self._archive, index, self.block_steps)

    def append(self, block: Block) -> None:
        """Write the next block to the disk."""
        with _disk(self.path):
            for member in BLOCK_MEMBERS:
                key = member.name.removeprefix("block/")
                self._write(f"{block_name(self._n_block)}/{key}", getattr(block, key), member.dtype)
        self._last = block
        self._n_block += 1

    def finish(self, timeline: Timeline) -> SavedTimeline:
        """Write all but the blocks, which are in the file already; give it its name; the file, opened for reading."""
        tables = {"links": timeline.links, "contacts": timeline.contacts, "eclipses": timeline.eclipses}
        with _disk(self.path):
            for member in HEAD_MEMBERS:
                table, _, key = member.name.rpartition("/")
                self._write(member.name, getattr(tables[table] if table else timeline, key), member.dtype)
            self._text(DOCUMENT, json.dumps(self._document(timeline), indent=1, ensure_ascii=False) + "\n")
            self._text(README, README_TEXT)
            for _, name, text in self._element_members():
                self._text(name, text)
            self._archive.close()
            with self._part.open("rb") as stream:
                os.fsync(stream.fileno())
            self._part.replace(self.path)
        return open_timeline(self.path)

    def _element_members(self) -> list[tuple[str, str, str]]:
        """The files that the scenario names: path, member and text."""
        files = self._source.element_files.items()
        return [(path, f"element_files/{number:03d}.txt", text) for number, (path, text) in enumerate(files)]

    def _document(self, timeline: Timeline) -> dict[str, object]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "content_hash": timeline.content_hash,
            "epoch_utc": timeline.epoch_utc.astimezone(UTC).isoformat(timespec="microseconds"),
            "step_s": timeline.step_s,
            "n_step": timeline.n_step,
            "block_steps": self.block_steps,
            "n_block": self._n_block,
            "warnings": list(timeline.warnings),
            "node_ends": [{"node": end.node, "at_s": end.at_s, "reason": end.reason} for end in timeline.node_ends],
            "scenario": {
                "label": self._source.label,
                "folder": str(self._source.folder.resolve()),
                "text": self._source.text,
                "element_files": {path: name for path, name, _ in self._element_members()},
            },
            "members": member_documents(),
            "nodes": [{"name": n.name, "role": n.role.value, "ports": list(n.ports)} for n in timeline.nodes],
        }

    def _write(self, name: str, array: _Array, dtype: str) -> None:
        """One array. It is deflated where its beginning shrinks to half or less: digits of noise only cost time."""
        plain = np.ascontiguousarray(array, dtype)
        sample = plain.reshape(-1).view(np.uint8)[:_SAMPLE_BYTES].tobytes()
        shrinks = 2 * len(zlib.compress(sample, 1)) <= len(sample)
        info = zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE)
        info.compress_type = zipfile.ZIP_DEFLATED if shrinks else zipfile.ZIP_STORED
        info._compresslevel = 1  # type: ignore[attr-defined]  # ZipInfo has no public word for it before Python 3.13
        info.file_size = plain.nbytes + 1_024  # tells zipfile early whether 64-bit sizes are needed
        with self._archive.open(info, "w") as stream:
            np.lib.format.write_array(stream, plain, allow_pickle=False)

    def _text(self, name: str, text: str) -> None:
        self._archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), text.encode(), zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class SavedTimeline:
    """A timeline in a file, and the scenario that it was computed from."""

    timeline: Timeline  # its blocks are read from the file as they are asked for
    source: Source
    path: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def scenario(self, time_scale: float | None = None) -> Scenario:
        """The scenario, with the start and duration that the timeline was computed for.

        Raises InputError where what the scenario names is no longer there, or has changed.
        """
        start_s, end_s = float(self.timeline.t_s[0]), float(self.timeline.t_s[-1])
        scenario = parse_scenario(self.source, end_s - start_s or None, start_s=start_s, time_scale=time_scale)
        if scenario.node_names != tuple(node.name for node in self.timeline.nodes):
            raise InputError(f"{self.path}: {scenario.label} names other nodes now; plan it anew")
        return scenario

    def close(self) -> None:
        """Close the file. Blocks can be read no more. Idempotent."""
        if isinstance(self.timeline.blocks, FileBlocks):
            self.timeline.blocks.close()


class FileBlocks:
    """Blocks of a timeline's file, read when they are asked for; the last few are kept. Any thread may ask."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, block_steps: int, n_block: int) -> None:
        self.block_steps = block_steps
        self._archive, self._path, self._n_block = archive, path, n_block
        self._head: Head | None = None
        self._kept: OrderedDict[int, Block] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._n_block

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < self._n_block:
            raise IndexError(f"block {index} of {self._n_block}")
        with self._lock:
            if index not in self._kept:
                if len(self._kept) == CACHED_BLOCKS:
                    self._kept.popitem(last=False)
                with _readable(self._path):
                    block = _read_block(self._archive, index, self.block_steps)
                    if self._head is not None:
                        check_block(block, self._head, self.block_steps)
                self._kept[index] = block
            self._kept.move_to_end(index)
            return self._kept[index]

    def holds_to(self, head: Head) -> None:
        """From now on every block must fit this head."""
        self._head = head

    def close(self) -> None:
        """Close the file."""
        self._archive.close()


def timeline_in(place: str) -> Path | None:
    """The timeline's file that somebody names: the file itself, or the folder of a run; None for anything else.

    Raises InputError for a folder without one.
    """
    path = Path(place)
    if path.is_dir():
        if not (path / TIMELINE_FILE).is_file():
            raise InputError(f"{place} holds no {TIMELINE_FILE}: it is no folder of a run, or the run has not begun")
        return path / TIMELINE_FILE
    return path if is_timeline_file(path) else None


def is_timeline_file(path: Path) -> bool:
    """Whether a path is meant as a timeline's file: a file named .npz, or any zip."""
    if not path.is_file():
        return False
    if path.suffix == ".npz":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    except OSError:
        return False


def open_timeline(path: Path, verify: bool = False) -> SavedTimeline:
    """A saved timeline; its blocks are read later. Raises InputError for a file that is none, or a broken one.

    Every member carries a checksum, which is held as it is read. `verify` reads them all now, and computes the content
    hash anew.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except _BROKEN as error:
        raise InputError(
            f"{path}: is no saved timeline, or one that was cut short; write it again with `skyrack plan --save`"
        ) from error
    try:
        with _readable(path):
            saved = _opened(archive, path)
            if verify:
                _verify(saved)
    except BaseException:
        archive.close()
        raise
    return saved


def _opened(archive: zipfile.ZipFile, path: Path) -> SavedTimeline:
    document = json.loads(archive.read(DOCUMENT))
    if document["format"] != FORMAT:
        raise ValueError(f'{DOCUMENT} says format {document["format"]!r}, not "{FORMAT}"')
    if document["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {document['format_version']}, this skyrack reads {FORMAT_VERSION}; "
            "write it again with `skyrack plan --save`"
        )
    sizes: dict[str, int] = {"n_step": int(document["n_step"])}
    arrays = {member.name: _read(archive, f"{member.name}.npy", member, sizes) for member in HEAD_MEMBERS}
    blocks = FileBlocks(archive, path, int(document["block_steps"]), int(document["n_block"]))
    timeline = Timeline(
        epoch_utc=datetime.fromisoformat(document["epoch_utc"]),
        step_s=float(document["step_s"]),
        t_s=arrays["t_s"],
        nodes=tuple(Node(n["name"], Role(n["role"]), tuple(n["ports"])) for n in document["nodes"]),
        links=_table(LinkTable, "links", arrays),
        contacts=_table(ContactTable, "contacts", arrays),
        eclipses=_table(EclipseTable, "eclipses", arrays),
        node_ends=tuple(NodeEnd(e["node"], float(e["at_s"]), e["reason"]) for e in document["node_ends"]),
        warnings=tuple(document["warnings"]),
        blocks=blocks,
        content_hash=str(document["content_hash"]),
    )
    check_head(timeline)
    blocks.holds_to(timeline)
    scenario = document["scenario"]
    files = {name: archive.read(member).decode() for name, member in scenario["element_files"].items()}
    return SavedTimeline(timeline, Source(scenario["label"], scenario["text"], Path(scenario["folder"]), files), path)


def _table(kind: type[_Table], name: str, arrays: Mapping[str, _Array]) -> _Table:
    return kind(**{field.name: arrays[f"{name}/{field.name}"] for field in fields(kind)})


def _read_block(archive: zipfile.ZipFile, index: int, block_steps: int) -> Block:
    sizes: dict[str, int] = {}
    arrays = {
        key: _read(archive, f"{block_name(index)}/{key}.npy", member, sizes)
        for member in BLOCK_MEMBERS
        for key in (member.name.removeprefix("block/"),)
    }
    return Block(first_step=index * block_steps, **arrays)


def _read(archive: zipfile.ZipFile, name: str, member: Member, sizes: dict[str, int]) -> _Array:
    """One array, of the type and shape that it is documented to have. Raises KeyError, ValueError, BadZipFile."""
    with archive.open(name) as stream:
        array: _Array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError(f"{name} is longer than its array")
    if array.dtype.str != member.dtype or array.ndim != len(member.shape):
        raise ValueError(f"{name} must be {member.dtype} ({', '.join(member.shape)})")
    for size, word in zip(array.shape, member.shape, strict=True):
        must_be = int(word) if word.isdigit() else sizes.setdefault(word, size)
        if size != must_be:
            raise ValueError(f"{name} must have the shape ({', '.join(member.shape)}) with {word} = {must_be}")
    return array


def _verify(saved: SavedTimeline) -> None:
    timeline = saved.timeline
    digest = ContentHash(timeline)
    for index in range(len(timeline.blocks)):
        digest.update(timeline.blocks[index])
    if digest.text() != timeline.content_hash:
        raise InputError(
            f"{saved.path}: its content is {digest.text()}, but it says {timeline.content_hash}: the file was changed"
        )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What can be wrong in a file, as one clear line."""
    try:
        yield
    except _BROKEN as error:
        why = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise InputError(f"{path}: is no readable timeline: {why}") from error


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """A disk that refuses, as one clear line."""
    try:
        yield
    except OSError as error:
        raise SkyrackError(f"cannot write {path}: {error.strerror or error}") from error
