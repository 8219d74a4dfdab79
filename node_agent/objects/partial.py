"""An object on its way in: chunks become bytes on disk, checked and hashed as they are written.

Each sender's chunks go to a thread of their own, which writes all that is there at a time while the next ones arrive:
on a fast link the event loop has little to do with it, on a slow one each chunk is on disk as soon as it is here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Final, TypeAlias

import google_crc32c

from node_agent.blocking import to_its_end, uninterrupted
from node_agent.errors import DataLoss, InvalidArgument, OutOfRange
from node_agent.objects.stored_file import StoredFile, full_disk_is_exhausted

_log = logging.getLogger(__name__)

BATCH_BYTES: Final = 1024 * 1024
"""What is written or read at a time at most."""

_AHEAD_BYTES: Final = 2 * BATCH_BYTES
"""So much of a sender's may wait for its thread; then the sender waits, too."""

OpenFile: TypeAlias = Callable[[int], StoredFile]


class Partial:
    """An object on its way in. Several senders may write at once: each brings the same bytes, the first one counts."""

    def __init__(self, path: Path, size_bytes: int, open_file: OpenFile) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.committed_bytes = 0
        self.senders: set[object] = set()
        self._open_file = open_file
        self._fd = -1
        self._hash = hashlib.sha256()
        self._writing = Lock()

    async def open(self) -> None:
        """Open what an earlier transfer left, and hash it, which takes its time. Raises Exhausted, OSError."""
        with full_disk_is_exhausted():
            await to_its_end(self._open)

    def write(self, offset_bytes: int, chunks: Sequence[bytes]) -> None:
        """Commit chunks that belong at an offset, but for what is committed already. Blocks. Raises Exhausted."""
        with self._writing, full_disk_is_exhausted():
            fresh = _from(chunks, self.committed_bytes - offset_bytes)
            if fresh and not self.is_closed:  # closed, another sender has brought the rest, or something wrong
                self._file.append(fresh)
                for chunk in fresh:
                    self._take(chunk)

    def sync(self) -> None:
        """Have on disk what is committed. Blocks. Raises OSError."""
        self._file.settle()
        os.fsync(self._fd)

    async def close(self) -> None:
        """Sync and close: what is committed stays. Before: nobody sends to it. Raises OSError."""
        if not self.is_closed:
            try:
                await to_its_end(self.sync)
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Close, whatever becomes of the bytes. Before: it has all of them, or nobody sends. Idempotent."""
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
            await uninterrupted(intake.end())

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = self._open_file(self._fd)
        for piece in self._file.kept():
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.committed_bytes += len(piece)


class Intake:
    """One sender's chunks on their way to the disk. Of one event loop, and the thread that writes."""

    def __init__(self, part: Partial, offset_bytes: int) -> None:
        self._part = part
        self._taken_bytes = offset_bytes
        self._written_bytes = offset_bytes  # set by the thread alone
        self._error: Exception | None = None  # set by the thread alone, at its end
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._sender_waits = False
        self._ended = self._loop.create_future()
        self._queue: SimpleQueue[tuple[bytes, int | None] | None] = SimpleQueue()
        Thread(target=self._write_all, name="intake", daemon=True).start()

    async def take(self, chunk: bytes, crc32c: int | None = None) -> None:
        """The next chunk, and its checksum if it has one.

        Raises InvalidArgument past the size; and for one that was taken earlier, DataLoss if it did not match its
        checksum, Exhausted if it had no room, OSError. Such a one is not kept, and none after it.
        """
        if self._error is not None:
            raise self._error
        if self._taken_bytes + len(chunk) > self._part.size_bytes:
            raise InvalidArgument(
                f"a chunk ends at byte {self._taken_bytes + len(chunk)} of an object of {self._part.size_bytes}"
            )
        self._taken_bytes += len(chunk)
        self._queue.put((chunk, crc32c))
        while self._is_far_ahead():
            self._room.clear()
            self._sender_waits = True
            if self._is_far_ahead():  # the thread looks whether the sender waits after it has written
                await self._room.wait()

    async def drained(self) -> None:
        """Wait until all is committed that was taken; nothing is after it. Raises as `take` does."""
        await self.end()
        if self._error is not None:
            raise self._error

    async def end(self) -> None:
        """Wait until nothing is being written any more. Idempotent. `drained` tells how that went."""
        self._queue.put(None)
        await asyncio.shield(self._ended)

    def _is_far_ahead(self) -> bool:
        return self._taken_bytes - self._written_bytes > _AHEAD_BYTES and self._error is None

    def _write_all(self) -> None:
        """The thread: from the first chunk to the end."""
        try:
            while not self._write_next():
                if self._sender_waits:
                    self._sender_waits = False
                    self._loop.call_soon_threadsafe(self._room.set)
        except Exception as error:  # noqa: BLE001 — told to who sends, whatever it is
            self._error = error
        self._loop.call_soon_threadsafe(self._end)

    def _write_next(self) -> bool:
        """Write the chunks that are here, one at least. Whether it is over. Raises as `take` does."""
        batch: list[bytes] = []
        batch_bytes, damage = 0, ""
        item = self._queue.get()
        while item is not None:
            chunk, crc32c = item
            if damage := _damage(chunk, crc32c):
                break
            batch.append(chunk)
            batch_bytes += len(chunk)
            if batch_bytes >= BATCH_BYTES:
                break
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        self._part.write(self._written_bytes, batch)
        self._written_bytes += batch_bytes
        if damage:
            raise DataLoss(damage)
        return item is None

    def _end(self) -> None:
        self._room.set()
        self._ended.set_result(None)


def _damage(chunk: bytes, crc32c: int | None) -> str:
    """How a chunk does not match its checksum (RFC 3720, appendix B.4); empty if it does, or has none."""
    if crc32c is None or (found := google_crc32c.value(chunk)) == crc32c:
        return ""
    return f"a chunk of {len(chunk)} bytes has CRC-32C {found:08x}, not {crc32c:08x}; it is dropped"


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
