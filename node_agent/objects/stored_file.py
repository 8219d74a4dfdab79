"""How an object's bytes lie in a file: as they are. (Encrypted: `sealing.py`.) All of it blocks: for threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from node_agent.errors import DataLoss, Exhausted

READ_BYTES = 1024 * 1024
"""What is read at a time where nobody waits for the first byte."""

_STEP_BYTES = 8 * 1024 * 1024


class StoredFile(Protocol):
    """An open file with an object in it, or with the first bytes of one."""

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """So many bytes from there. Raises DataLoss if the file does not have them, or has others."""
        ...

    def kept(self) -> Iterator[bytes]:
        """What a transfer that broke has left, from the start. Afterwards `append` goes on there."""
        ...

    def append(self, chunks: Sequence[bytes]) -> None:
        """Go on with these. Raises OSError, and then none of them counts."""
        ...

    def settle(self) -> None:
        """Have all in the file that was appended. Raises OSError."""
        ...

    def forget(self) -> None:
        """Have the machine read from the disk, what it still has of the file in memory notwithstanding."""
        ...


class Stream:
    """Keeps a large object that passes through a file from filling the machine's memory.

    What Linux is told not to keep, it begins to write, so that the sync at the end has little left to wait for; what it
    has written, or was read, makes place for what comes next. New memory would cost more than the copying into it.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._told_bytes = 0

    def passed(self, offset_bytes: int) -> None:
        """All before that offset has been written, or read."""
        if abs(offset_bytes - self._told_bytes) >= _STEP_BYTES:
            self._told_bytes = offset_bytes
            os.posix_fadvise(self._fd, 0, offset_bytes, os.POSIX_FADV_DONTNEED)

    def forget(self) -> None:
        """Have the machine read from the disk, what it still has of the file in memory notwithstanding."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)


class PlainFile:
    """The bytes as they are."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._end_bytes = 0
        self._stream = Stream(fd)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """So many bytes from there. Raises DataLoss."""
        found = os.pread(self._fd, length_bytes, offset_bytes)
        while len(found) < length_bytes:
            more = os.pread(self._fd, length_bytes - len(found), offset_bytes + len(found))
            if not more:
                raise DataLoss(f"the file ends {length_bytes - len(found)} bytes too early")
            found += more
        self._stream.passed(offset_bytes)
        return found

    def kept(self) -> Iterator[bytes]:
        """What a transfer that broke has left, from the start."""
        while piece := os.pread(self._fd, READ_BYTES, self._end_bytes):
            self._stream.passed(self._end_bytes)
            self._end_bytes += len(piece)
            yield piece

    def append(self, chunks: Sequence[bytes]) -> None:
        """Go on with these. Raises OSError."""
        self._end_bytes += write_at(self._fd, chunks, self._end_bytes)
        self._stream.passed(self._end_bytes)

    def settle(self) -> None:
        """Cut off what a write that failed has left."""
        os.ftruncate(self._fd, self._end_bytes)

    def forget(self) -> None:
        """Have the machine read from the disk."""
        self._stream.forget()


def write_at(fd: int, pieces: Sequence[bytes], offset_bytes: int) -> int:
    """Write pieces one after the other from an offset; how many bytes they are. Raises OSError."""
    length_bytes = sum(map(len, pieces))
    done_bytes = os.pwritev(fd, pieces, offset_bytes)
    if done_bytes < length_bytes:  # the disk is about to be full, and says so at the next write
        rest = memoryview(b"".join(pieces))[done_bytes:]
        while rest:
            written_bytes = os.pwrite(fd, rest, offset_bytes + done_bytes)
            done_bytes += written_bytes
            rest = rest[written_bytes:]
    return length_bytes


@contextmanager
def full_disk_is_exhausted() -> Iterator[None]:
    """Turn the kernel's word for a full disk into ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Exhausted(f"the node's disk is full: {error}") from error
