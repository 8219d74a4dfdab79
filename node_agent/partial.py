"""An object on its way in: chunks become bytes on disk, hashed as they are written.

A thread writes a batch of chunks while the next ones arrive: on a fast link a batch is a mebibyte, and a change of
threads costs little beside it; on a slow one each chunk is on disk as soon as it is here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

from node_agent.blocking import to_its_end, uninterrupted
from node_agent.errors import InvalidArgument, OutOfRange
from node_agent.stored_file import StoredFile, full_disk_is_exhausted

_log = logging.getLogger(__name__)

BATCH_BYTES: Final = 1024 * 1024
"""So much may wait for the writer's thread, of each sender; then the sender waits, too."""

OpenFile: TypeAlias = Callable[[int], StoredFile]


class Partial:
    """An object on its way in. Several senders may append at once: each brings the same bytes, the first one counts."""

    def __init__(self, path: Path, size_bytes: int, open_file: OpenFile) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.committed_bytes = 0
        self.senders: set[object] = set()
        self.lock = asyncio.Lock()
        self._open_file = open_file
        self._fd = -1
        self._hash = hashlib.sha256()

    async def open(self) -> None:
        """Open what an earlier transfer left, and hash it, which takes its time. Raises Exhausted, OSError."""
        with full_disk_is_exhausted():
            await to_its_end(self._open)

    def sync(self) -> None:
        """Have on disk what is committed. Blocks. Raises OSError."""
        self._file.settle()
        os.fsync(self._fd)

    async def close(self) -> None:
        """Sync and close: what is committed stays. Raises OSError."""
        async with self.lock:
            if not self.is_closed:
                try:
                    await to_its_end(self.sync)
                finally:
                    self.abandon()

    def abandon(self) -> None:
        """Close, whatever becomes of the bytes. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more bytes: it is whole, or was wrong, or everybody has left."""
        return self._fd < 0

    def hexdigest(self) -> str:
        """Of all bytes committed so far."""
        return self._hash.hexdigest()

    async def append(self, offset_bytes: int, chunks: Sequence[bytes]) -> None:
        """Commit chunks that belong at an offset; what is committed already is passed over. Raises Exhausted."""
        async with self.lock:
            fresh = _from(chunks, self.committed_bytes - offset_bytes)
            if fresh and not self.is_closed:  # closed, another sender has brought the rest, or something wrong
                with full_disk_is_exhausted():
                    await to_its_end(self._write, fresh)

    @asynccontextmanager
    async def taking(self, offset_bytes: int) -> AsyncIterator[Intake]:
        """One sender's way in, from an offset on. After: what it took is committed, also when the block ends early.

        Raises OutOfRange for a gap.
        """
        if not 0 <= offset_bytes <= self.committed_bytes:
            raise OutOfRange(f"offset {offset_bytes} is past the {self.committed_bytes} bytes that are committed")
        intake = Intake(self, offset_bytes)
        try:
            yield intake
        finally:
            await intake.end()

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = self._open_file(self._fd)
        for piece in self._file.kept():
            self._take(piece)

    def _write(self, chunks: Sequence[bytes]) -> None:
        self._file.append(chunks)
        for chunk in chunks:
            self._take(chunk)

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.committed_bytes += len(piece)


class Intake:
    """One sender's chunks on their way to the disk, never more than a batch and a chunk ahead of it."""

    def __init__(self, part: Partial, offset_bytes: int) -> None:
        self._part = part
        self._taken_bytes = offset_bytes
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._room = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    async def take(self, chunk: bytes) -> None:
        """The next chunk. Raises InvalidArgument past the size, Exhausted if an earlier one had no room."""
        if self._taken_bytes + len(chunk) > self._part.size_bytes:
            raise InvalidArgument(
                f"a chunk ends at byte {self._taken_bytes + len(chunk)} of an object of {self._part.size_bytes}"
            )
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)
        self._taken_bytes += len(chunk)
        if self._writing is None or self._writing.done():
            await self.drained()
            self._writing = asyncio.create_task(self._write_all())
        while self._batch_bytes >= BATCH_BYTES and not self._writing.done():
            self._room.clear()
            await self._room.wait()

    async def drained(self) -> None:
        """Wait until all is committed that was taken. Raises Exhausted."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def end(self) -> None:
        """Wait until nothing is being written any more. It is too late for errors: `drained` has told them."""
        if self._writing is not None:
            await uninterrupted(self._ended(self._writing))

    async def _ended(self, writing: asyncio.Task[None]) -> None:
        await asyncio.wait({writing})
        if error := writing.exception():
            _log.info("%s: %s", self._part.path.name, error)

    async def _write_all(self) -> None:
        try:
            while self._batch:
                batch, self._batch = self._batch, []
                first_bytes = self._taken_bytes - self._batch_bytes
                self._batch_bytes = 0
                self._room.set()
                await self._part.append(first_bytes, batch)
        finally:
            self._room.set()


def _from(chunks: Sequence[bytes], skip_bytes: int) -> Sequence[bytes]:
    """Chunks without their first bytes."""
    if skip_bytes <= 0:
        return chunks
    fresh = []
    for chunk in chunks:
        if skip_bytes < len(chunk):
            fresh.append(chunk[skip_bytes:])
        skip_bytes = max(skip_bytes - len(chunk), 0)
    return fresh
