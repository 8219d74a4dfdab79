"""What jobs print, on disk: `<job>.stdout` and `<job>.stderr`, the first KEPT_BYTES of each.

Of a job that runs here they are written as it prints; at an agent that follows a job elsewhere they are mirrors, to be
appended to at an offset. A new attempt begins them anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from node_agent.blocking import to_its_end
from node_agent.errors import OutOfRange

KEPT_BYTES = 16 * 1024**2
TAIL_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024

Stream = Literal["stdout", "stderr"]
STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")


@dataclass
class _Open:
    """A log that is being written."""

    fd: int
    size_bytes: int
    dropped_bytes: int = 0
    last: bytes = b""  # of what is dropped, as much as a tail takes
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wake who follows it."""
        self.changed.set()
        self.changed = asyncio.Event()


class JobLogs:
    """The logs of one agent's jobs, in a folder of its own. One writer a job."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._open: dict[tuple[str, Stream], _Open] = {}

    def begin(self, job_id: str) -> None:
        """A new attempt, with nothing printed yet. Who follows goes on with it. Raises OSError."""
        self.close(job_id)
        for stream in STREAMS:
            self._opened(job_id, stream, os.O_TRUNC)

    def resume(self, job_id: str) -> None:
        """Be about to append to what is kept, so that those who follow wait for it. Idempotent. Raises OSError."""
        for stream in STREAMS:
            if (job_id, stream) not in self._open:
                self._opened(job_id, stream)

    def append(self, job_id: str, stream: Stream, data: bytes, offset_bytes: int | None = None) -> None:
        """Take what was printed; of a mirror, what belongs at an offset: what is there from it on gives way.

        Past KEPT_BYTES, or on a full disk, it is dropped, and counted. Raises OutOfRange for a gap.
        """
        log = self._open.get((job_id, stream)) or self._opened(job_id, stream)
        if offset_bytes is not None and offset_bytes != log.size_bytes:
            if not 0 <= offset_bytes < log.size_bytes:
                raise _gap(job_id, stream, offset_bytes, log.size_bytes)
            os.ftruncate(log.fd, offset_bytes)
            log.size_bytes = offset_bytes
        kept = b"" if log.dropped_bytes else data[: KEPT_BYTES - log.size_bytes]
        with suppress(OSError):  # a full disk ends no job
            while kept:
                written = os.pwrite(log.fd, kept, log.size_bytes)
                log.size_bytes += written
                kept, data = kept[written:], data[written:]
        if data:
            log.dropped_bytes += len(data)
            log.last = (log.last + data)[-TAIL_BYTES:]
        log.tell()

    async def finish(self, job_id: str) -> None:
        """Make what was printed last, and let those who follow end. Idempotent."""
        for stream in STREAMS:
            if log := self._open.get((job_id, stream)):
                if log.size_bytes:
                    await to_its_end(os.fsync, log.fd)
                else:
                    self._path(job_id, stream).unlink(missing_ok=True)
        self.close(job_id)

    def close(self, job_id: str) -> None:
        """Write to it no more. Idempotent."""
        for stream in STREAMS:
            if log := self._open.pop((job_id, stream), None):
                os.close(log.fd)
                log.tell()

    def tail(self, job_id: str, stream: Stream) -> bytes:
        """The last TAIL_BYTES that were printed, of those too that were dropped, while it is being written."""
        log = self._open.get((job_id, stream))
        last = log.last if log else b""
        size_bytes = self.size_bytes(job_id, stream)
        start_bytes = max(0, size_bytes - TAIL_BYTES + len(last))
        try:
            with self._path(job_id, stream).open("rb") as file:
                return os.pread(file.fileno(), size_bytes - start_bytes, start_bytes) + last
        except FileNotFoundError:
            return last

    def size_bytes(self, job_id: str, stream: Stream) -> int:
        """How much is kept."""
        if log := self._open.get((job_id, stream)):
            return log.size_bytes
        try:
            return self._path(job_id, stream).stat().st_size
        except FileNotFoundError:
            return 0

    def dropped_bytes(self, job_id: str, stream: Stream) -> int:
        """How much was not, while it is being written."""
        log = self._open.get((job_id, stream))
        return log.dropped_bytes if log else 0

    async def read(
        self, job_id: str, stream: Stream, offset_bytes: int = 0, *, follow: bool = False
    ) -> AsyncIterator[tuple[int, bytes]]:
        """What is kept, from an offset: where each piece belongs, and the piece. With `follow`, until it is finished.

        Raises OutOfRange for an offset past what is kept: at once, or when a new attempt began before it was read.
        """
        while True:
            log = self._open.get((job_id, stream))
            changed = log.changed if log else None
            size_bytes = self.size_bytes(job_id, stream)
            if not 0 <= offset_bytes <= size_bytes:
                raise _gap(job_id, stream, offset_bytes, size_bytes)
            while offset_bytes < size_bytes:
                piece = await to_its_end(self._piece, job_id, stream, offset_bytes)
                if not piece:
                    break  # removed, or begun anew
                yield offset_bytes, piece
                offset_bytes += len(piece)
            else:
                if not follow or changed is None:
                    return
                await changed.wait()

    def remove(self, job_id: str) -> None:
        """Forget what it printed. Idempotent."""
        self.close(job_id)
        for stream in STREAMS:
            self._path(job_id, stream).unlink(missing_ok=True)

    def job_ids(self) -> set[str]:
        """The jobs of which there is a log."""
        return {path.stem for path in self._folder.iterdir()}

    def _opened(self, job_id: str, stream: Stream, flags: int = 0) -> _Open:
        fd = os.open(self._path(job_id, stream), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        log = self._open[job_id, stream] = _Open(fd, os.fstat(fd).st_size)
        return log

    def _path(self, job_id: str, stream: Stream) -> Path:
        return self._folder / f"{job_id}.{stream}"

    def _piece(self, job_id: str, stream: Stream, offset_bytes: int) -> bytes:
        try:
            with self._path(job_id, stream).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), CHUNK_BYTES, offset_bytes)
        except FileNotFoundError:
            return b""


def _gap(job_id: str, stream: Stream, offset_bytes: int, size_bytes: int) -> OutOfRange:
    return OutOfRange(
        f"offset {offset_bytes} lies outside the {stream} of job {job_id}, of which {size_bytes} are kept"
    )
