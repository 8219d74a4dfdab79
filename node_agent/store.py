"""Objects on disk, named by their content.

An object arrives as `<digest>.part`, appended to in order by whoever sends it; when it is whole and hashes to its name,
it is synced and renamed to `<digest>`. A `.part` stays across breaks and restarts: a transfer continues there.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

from node_agent.blocking import to_its_end
from node_agent.errors import DataLoss, Exhausted, InvalidArgument, NotFound, OutOfRange

CHUNK_BYTES = 256 * 1024
"""One message of a transfer, and so what a break can cost at most besides the bytes in flight."""

_NAME = re.compile(r"sha256:([0-9a-f]{64})")


async def chunks_of(fd: int, offset_bytes: int) -> AsyncIterator[bytes]:
    """An object's bytes from an offset, to be read while its descriptor is open. Raises OutOfRange."""
    size_bytes = os.fstat(fd).st_size
    if not 0 <= offset_bytes <= size_bytes:
        raise OutOfRange(f"offset {offset_bytes} lies outside the object, which has {size_bytes} bytes")
    while chunk := await to_its_end(os.pread, fd, CHUNK_BYTES, offset_bytes):
        offset_bytes += len(chunk)
        yield chunk


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def digest_of(name: str) -> str:
    """The 64 hexadecimal digits of an object's name. Raises InvalidArgument."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidArgument(f"object name {name[:100]!r} is malformed: it must be 'sha256:' and 64 digits 0-9a-f")
    return match.group(1)


class Partial:
    """An object on its way in. Several senders may append at once: each brings the same bytes, the first one counts."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.committed_bytes = 0
        self.senders = 0
        self.lock = asyncio.Lock()
        self._fd = -1
        self._hash: _Hash = hashlib.sha256()

    def open(self) -> None:
        """Open what an earlier transfer left, and hash it. Blocks for the time that reading it takes."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._fd).st_size > self.size_bytes:
            os.ftruncate(self._fd, 0)  # left by a sender that lied about the size
        while chunk := os.pread(self._fd, CHUNK_BYTES, self.committed_bytes):
            self._take(chunk)

    def write(self, chunk: bytes) -> None:
        """Append. Blocks."""
        view = memoryview(chunk)
        while view:
            view = view[os.pwrite(self._fd, view, self.committed_bytes + len(chunk) - len(view)) :]
        self._take(chunk)

    def close(self) -> None:
        """Sync and close: what is committed stays. Blocks. Idempotent."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more bytes: it is whole, or was wrong, or everybody has left."""
        return self._fd < 0

    def hexdigest(self) -> str:
        """Of all bytes committed so far."""
        return self._hash.hexdigest()

    def _take(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.committed_bytes += len(chunk)


class ObjectStore:
    """The objects of one node, in one folder that no other process writes to."""

    def __init__(self, folder: Path, quota_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self.quota_bytes = quota_bytes
        self._partials: dict[str, Partial] = {}
        self._opening = asyncio.Lock()
        self._kept_bytes = sum(path.stat().st_size for path in folder.iterdir())

    @property
    def used_bytes(self) -> int:
        """Bytes on disk, and those promised to transfers under way."""
        return self._kept_bytes + sum(part.size_bytes for part in self._partials.values())

    def size_bytes(self, name: str) -> int | None:
        """Size of a whole object; None when it is not here or not whole."""
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return None

    def committed_bytes(self, name: str) -> int:
        """How much of the object, whole or not, is kept."""
        size_bytes = self.size_bytes(name)
        if size_bytes is not None:
            return size_bytes
        if part := self._partials.get(digest_of(name)):
            return part.committed_bytes
        try:
            return self._part_path(name).stat().st_size
        except FileNotFoundError:
            return 0

    @contextmanager
    def reading(self, name: str) -> Iterator[int]:
        """A descriptor to read a whole object from. Raises NotFound."""
        try:
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"{name} is not (or not wholly) here") from None
        try:
            yield fd
        finally:
            os.close(fd)

    @asynccontextmanager
    async def receiving(self, name: str, size_bytes: int) -> AsyncIterator[Partial]:
        """A place to append the object's bytes to; what has arrived stays when the block ends early.

        Raises InvalidArgument for a size that cannot be, Exhausted when the store has no room for the whole of it.
        """
        digest = digest_of(name)
        async with self._opening:
            part = self._partials.get(digest) or await self._open_partial(name, size_bytes)
        if part.size_bytes != size_bytes:
            raise InvalidArgument(f"{name} is arriving with {part.size_bytes} bytes already, not {size_bytes}")
        part.senders += 1
        try:
            yield part
        finally:
            part.senders -= 1
            if part.senders == 0 and self._partials.get(digest) is part:
                del self._partials[digest]
                self._kept_bytes += part.committed_bytes
                await to_its_end(part.close)

    async def append(self, part: Partial, offset_bytes: int, chunk: bytes) -> None:
        """Commit a chunk that belongs at an offset; what of it is committed already is passed over.

        Raises OutOfRange for a gap, InvalidArgument past the size, Exhausted when the disk is full.
        """
        async with part.lock:
            if offset_bytes > part.committed_bytes:
                raise OutOfRange(f"offset {offset_bytes} leaves a gap: {part.committed_bytes} bytes are committed")
            if offset_bytes + len(chunk) > part.size_bytes:
                raise InvalidArgument(f"a chunk ends at {offset_bytes + len(chunk)}, past {part.size_bytes} bytes")
            if part.is_closed:
                return  # another sender has brought the rest, or something wrong: finish() tells
            fresh = chunk[part.committed_bytes - offset_bytes :]
            if fresh:
                with _full_disk_is_exhausted():
                    await to_its_end(part.write, fresh)

    async def finish(self, part: Partial, name: str) -> None:
        """Make a partial that has all its bytes an object. Raises DataLoss, and drops the bytes, if it is another."""
        digest = digest_of(name)
        async with part.lock:
            if self._partials.get(digest) is not part:
                if self.size_bytes(name) is None:
                    raise DataLoss(f"what another sender brought of {name} was wrong and is dropped; send it again")
                return  # another sender has finished it
            if part.committed_bytes != part.size_bytes:
                raise InvalidArgument(
                    f"{name} ended after {part.committed_bytes} of {part.size_bytes} bytes; continue from there"
                )
            found = part.hexdigest()
            if found == digest:
                with _full_disk_is_exhausted():
                    await to_its_end(self._keep, part, self._path(name))
                self._kept_bytes += part.size_bytes
            else:
                part.path.unlink()
                await to_its_end(part.close)
            del self._partials[digest]
            if found != digest:
                raise DataLoss(f"the bytes sent as {name} hash to sha256:{found}; they are dropped")

    async def adopt_fd(self, fd: int, what: str) -> tuple[str, int]:
        """Copy a file's bytes, from its start, into the store. Its name as an object, and its size.

        Raises Exhausted, which names `what`.
        """
        self._check_room(os.fstat(fd).st_size, what)
        aside = self._folder / f"adopted-{os.urandom(8).hex()}.new"
        try:
            with _full_disk_is_exhausted():
                digest, size_bytes = await to_its_end(_copy_synced, fd, aside)
            name = f"sha256:{digest}"
            if self.size_bytes(name) is None:
                self._check_room(size_bytes, what)
                os.replace(aside, self._path(name))
                await to_its_end(sync_folder, self._folder)
                self._kept_bytes += size_bytes
        finally:
            aside.unlink(missing_ok=True)
        return name, size_bytes

    async def _open_partial(self, name: str, size_bytes: int) -> Partial:
        if size_bytes < 0:
            raise InvalidArgument(f"size {size_bytes} of {name} is negative")
        path = self._part_path(name)
        left_bytes = path.stat().st_size if path.exists() else 0
        self._check_room(size_bytes - left_bytes, name)
        part = Partial(path, size_bytes)
        try:
            with _full_disk_is_exhausted():
                await to_its_end(part.open)
        except BaseException:
            part.close()
            raise
        self._kept_bytes -= left_bytes
        self._partials[digest_of(name)] = part
        return part

    def _check_room(self, more_bytes: int, what: str) -> None:
        if self.used_bytes + more_bytes > self.quota_bytes:
            raise Exhausted(
                f"no room for {what}: it needs {more_bytes} bytes more, and {self.used_bytes} of "
                f"{self.quota_bytes} bytes are taken"
            )

    def _keep(self, part: Partial, path: Path) -> None:
        part.close()
        os.replace(part.path, path)
        sync_folder(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / digest_of(name)

    def _part_path(self, name: str) -> Path:
        return self._folder / f"{digest_of(name)}.part"


@contextmanager
def _full_disk_is_exhausted() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Exhausted(f"the node's disk is full: {error}") from error


def _copy_synced(fd: int, path: Path) -> tuple[str, int]:
    """Copy as many bytes as a file has now; another may still write to it. Their digest, and how many."""
    digest, at_bytes, size_bytes = hashlib.sha256(), 0, os.fstat(fd).st_size
    with path.open("xb", buffering=0) as file:
        while chunk := os.pread(fd, min(CHUNK_BYTES, size_bytes - at_bytes), at_bytes):
            digest.update(chunk)
            at_bytes += len(chunk)
            while chunk:
                chunk = chunk[file.write(chunk) :]
        os.fsync(file.fileno())
    return digest.hexdigest(), at_bytes


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last. Blocks."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
