"""What a node holds: the catalog's rows, the shelf's files, and the room that they take, in line with each other.

What changes them in steps that belong together is the store (`store.py`), which is built on this.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from node_agent.blocking import to_its_end
from node_agent.errors import DataLoss, Exhausted, NotFound
from node_agent.journal import Journal
from node_agent.objects.catalog import Catalog, Row
from node_agent.objects.names import digest_of
from node_agent.objects.partial import Partial
from node_agent.objects.room import Room
from node_agent.objects.sealing import Keys, SealedFile, sealed_bytes, unsealed_bytes
from node_agent.objects.shelf import Shelf, modified_unix_s
from node_agent.objects.stored_file import READ_BYTES, PlainFile, StoredFile

_log = logging.getLogger(__name__)

STALE_S: Final = 3600.0
"""What nobody has sent more of for so long may go when its room is needed."""

MAX_PARTS = 1_000
"""Of objects that nobody sends to now. Each is a file and a row, however few bytes it takes of the quota: of more than
so many, the one goes of which the least has come."""


class Holdings:
    """The objects of one node, in one folder that no other process writes to. Of one event loop."""

    def __init__(
        self,
        folder: Path,
        quota_bytes: int,
        journal: Journal,
        *,
        jurisdiction: str = "",
        keys: Keys | None = None,
        encrypt: bool = False,
    ) -> None:
        """`jurisdiction`: where the node lies, "" being nowhere in particular. `encrypt`: new objects, with a key of
        `keys`."""
        self._shelf = Shelf(folder)
        self._catalog = Catalog(journal)
        self._jurisdiction = jurisdiction
        self._keys = keys or Keys(folder.parent / "keys")
        self._encrypt = encrypt
        self._room = Room(quota_bytes)
        self._whole: set[str] = set()
        self._arrived_bytes: dict[str, int] = {}  # of parts that nobody sends to now
        self._partials: dict[str, Partial] = {}  # those that somebody does
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.in_use: Callable[[str], str | None] = lambda name: None
        """Why an object must not go now, if so: which open job needs it. Set by who knows the jobs."""
        self._find_files()

    async def recover(self) -> None:
        """Bring the catalog in line with what was found on disk. Before: no call is served yet."""
        for row in self._catalog.rows():
            aside = self._shelf.aside(digest_of(row.name)).exists()
            if row.name in self._whole:
                await self._catalog.keep(replace(row, damaged=False))
            elif aside and not row.damaged:
                await self._catalog.keep(replace(row, damaged=True))
            elif row.name not in self._arrived_bytes and not row.damaged:
                await self._catalog.drop(row.name)

    @property
    def used_bytes(self) -> int:
        """Bytes on disk, and those promised to transfers under way."""
        return self._room.taken_bytes

    @property
    def quota_bytes(self) -> int:
        """How much may be used."""
        return self._room.quota_bytes

    @property
    def jurisdiction(self) -> str:
        """Where the node stands; empty: nowhere in particular."""
        return self._jurisdiction

    def row(self, name: str) -> Row | None:
        """What is known of an object, whole or not. Raises InvalidArgument."""
        digest_of(name)
        return self._catalog.find(name)

    def rows(self) -> list[Row]:
        """All that is here, is arriving, or was damaged; by name."""
        return self._catalog.rows()

    def is_damaged(self, name: str) -> bool:
        """Whether it was found damaged, and has not come again yet."""
        row = self.row(name)
        return row is not None and row.damaged

    def size_bytes(self, name: str) -> int | None:
        """Size of a whole object; None when it is not here or not whole."""
        row = self.row(name)
        return row.size_bytes if row is not None and name in self._whole else None

    def committed_bytes(self, name: str) -> int:
        """How much of the object, whole or not, is kept. Less than its size as long as it is not whole."""
        row = self.row(name)
        if row is None:
            return 0
        if name in self._whole:
            return row.size_bytes
        part = self._partials.get(name)
        arrived_bytes = part.committed_bytes if part else self._arrived_bytes.get(name, 0)
        return max(min(arrived_bytes, row.size_bytes - 1), 0)

    @contextmanager
    def reading(self, name: str) -> Iterator[StoredFile]:
        """A whole object, to be read. Raises NotFound, DataLoss."""
        row = self.row(name)
        if row is not None and row.damaged:
            raise DataLoss(f"{name} was found damaged here, and has not come again yet")
        if row is None or name not in self._whole:
            raise NotFound(f"{name} is not (or not wholly) here")
        try:
            fd = os.open(self._shelf.whole(digest_of(name)), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DataLoss(f"the file of {name} has gone") from None
        try:
            yield self._file(row, fd)
        finally:
            os.close(fd)

    def copy_out(self, name: str, path: Path) -> None:
        """A file with the object's bytes, which hash to its name. Blocks. Raises NotFound, DataLoss, OSError."""
        sha256 = hashlib.sha256()
        with self.reading(name) as file, path.open("wb") as target:
            size_bytes = self.size_bytes(name) or 0
            for offset_bytes in range(0, size_bytes, READ_BYTES):
                piece = file.read(offset_bytes, min(READ_BYTES, size_bytes - offset_bytes))
                target.write(piece)
                sha256.update(piece)
        if sha256.hexdigest() != digest_of(name):
            raise DataLoss(f"{name} is damaged here: its bytes hash to sha256:{sha256.hexdigest()}")

    def _find_files(self) -> None:
        """Hold what lies in the folder against the catalog. A file whose terms nobody knows is set aside."""
        for path in self._shelf.damaged.iterdir():
            self._room.hold(path.name, path.stat().st_size)
        for found in self._shelf.found():
            row = self._catalog.find(f"sha256:{found.digest}")
            if row is None:
                _log.error("%s: nothing is known of this file any more; it is set aside", found.path)
                found.path.replace(self._shelf.aside(found.path.name))
                self._room.hold(found.path.name, found.file_bytes)
            elif row.name in self._whole:
                found.path.unlink()
            else:
                self._room.hold(row.name, found.file_bytes)
                if found.is_part:
                    bytes_in = unsealed_bytes if row.sealed_with else int
                    self._arrived_bytes[row.name] = bytes_in(found.file_bytes)
                else:
                    self._whole.add(row.name)

    async def _open(self, row: Row) -> Partial:
        """Go on with what has arrived of an object, or begin. Before: nobody sends to it. Raises Exhausted."""
        name = row.name
        before_bytes = self._room.held_bytes(name)
        await self._reserve(name, sealed_bytes(row.size_bytes) if row.sealed_with else row.size_bytes)
        part = Partial(self._shelf.part(digest_of(name)), row.size_bytes, lambda fd: self._file(row, fd))
        try:
            await self._catalog.keep(row)
            await part.open()
        except BaseException:
            part.abandon()
            self._room.hold(name, before_bytes)
            raise
        self._arrived_bytes.pop(name, None)
        self._partials[name] = part
        return part

    async def _close(self, name: str, part: Partial) -> None:
        """Leave a part to whoever goes on with it; of a header alone, nothing. Before: nobody sends to it any more."""
        del self._partials[name]
        try:
            await part.close()
        except OSError as error:
            _log.error("%s: what has arrived may be lost: %s", name, error)
        if part.committed_bytes:
            self._arrived_bytes[name] = part.committed_bytes
            self._room.hold(name, part.path.stat().st_size)
            await self._drop_least_beyond_most(name)
        else:
            await self._remove_part(name)

    async def _drop_least_beyond_most(self, but: str) -> None:
        """Have so many parts and no more; of those, what open jobs speak of, and what is being taken up, stays."""
        if len(self._arrived_bytes) <= MAX_PARTS:
            return
        for name, _ in sorted(self._arrived_bytes.items(), key=lambda part: part[1]):
            turn = self._turns.get(name)
            if name != but and not (turn is not None and turn.locked()) and not self.in_use(name):
                _log.info(
                    "%s: there are more than %d parts of objects, and of this one the least has come", name, MAX_PARTS
                )
                async with self._turn(name):
                    await self._remove_part(name)
                return

    async def _is_whole(self, name: str) -> None:
        """Its file is in its place."""
        self._partials.pop(name, None)
        self._whole.add(name)
        self._room.hold(name, self._shelf.file_bytes(digest_of(name)))
        if (row := self._catalog.find(name)) and row.damaged:
            await self._catalog.keep(replace(row, damaged=False))

    async def _remove(self, name: str) -> None:
        """Hold it no longer. Before: nobody sends to it."""
        digest = digest_of(name)
        self._whole.discard(name)
        await to_its_end(self._shelf.remove, self._shelf.whole(digest), self._shelf.aside(digest))
        self._room.hold(digest, 0)
        await self._remove_part(name)
        await self._catalog.drop(name)

    async def _remove_part(self, name: str) -> None:
        """Have no part of it any longer. That it was whole once and is damaged stays known."""
        await to_its_end(self._shelf.remove, self._shelf.part(digest_of(name)))
        self._arrived_bytes.pop(name, None)
        self._room.hold(name, 0)
        row = self._catalog.find(name)
        if row is not None and not row.damaged:
            await self._catalog.drop(name)

    async def _reserve(self, name: str, file_bytes: int) -> None:
        """Hold room for an object. For it go damaged bytes, then stale parts. Raises Exhausted."""
        while (lacking_bytes := self._room.lacking_bytes(name, file_bytes)) > 0:
            if aside := self._shelf.oldest_aside():
                await to_its_end(self._shelf.remove, aside)
                self._room.hold(aside.name, 0)
            elif stale := self._stalest(name):
                _log.info("%s: nobody has sent more of it for long, and its room is needed", stale)
                async with self._turn(stale):
                    await self._remove_part(stale)
            else:
                raise Exhausted(
                    f"no room for {name}: it needs {file_bytes - self._room.held_bytes(name)} bytes more, and "
                    f"{self.used_bytes} of {self._room.quota_bytes} bytes are taken; {lacking_bytes} are lacking"
                )
        self._check_disk(name, file_bytes)
        self._room.hold(name, file_bytes)

    def _check_disk(self, name: str, file_bytes: int) -> None:
        """Raises Exhausted where the disk is smaller than the quota, less what is promised to others."""
        free_bytes = self._shelf.free_bytes()
        promised_bytes = sum(part.size_bytes - part.committed_bytes for part in self._partials.values())
        more_bytes = file_bytes - self._room.held_bytes(name)
        if more_bytes > max(free_bytes - promised_bytes, 0):
            raise Exhausted(
                f"no room for {name}: it needs {more_bytes} bytes more, and the node's disk has {free_bytes} free, of "
                f"which {promised_bytes} are promised"
            )

    def _stalest(self, but: str) -> str | None:
        """The part of an object that has waited longest for a sender, and too long."""
        stale = []
        for name in self._arrived_bytes:
            turn = self._turns.get(name)
            since_unix_s = modified_unix_s(self._shelf.part(digest_of(name)))
            taken_up = turn is not None and turn.locked()
            if name != but and not taken_up and time.time() - since_unix_s > STALE_S and not self.in_use(name):
                stale.append((since_unix_s, name))
        return min(stale)[1] if stale else None

    def _file(self, row: Row, fd: int) -> StoredFile:
        if not row.sealed_with:
            return PlainFile(fd)
        return SealedFile(fd, row.name, row.size_bytes, self._keys.key(row.sealed_with))

    def _turn(self, name: str) -> asyncio.Lock:
        """Whoever changes what is known of an object does so alone."""
        return self._turns.setdefault(name, asyncio.Lock())
