"""Objects on disk, named by their content.

What is known of an object is a row of the catalog, durable before its first byte is taken; how much of it is here, its
file says. It arrives as `<digest>.part`, appended to in order by whoever sends it; when it is whole and hashes to its
name, it is synced and renamed to `<digest>`. Killed anywhere between, the agent finds a whole object with its terms, or
a part of one that a transfer goes on with. Bytes that were found damaged lie in `damaged/`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from node_agent.blocking import to_its_end, uninterrupted
from node_agent.errors import AlreadyExists, DataLoss, Exhausted, FailedPrecondition, InvalidArgument, NotFound
from node_agent.objects.catalog import JOB, NOBODYS, PUT, Row, for_job
from node_agent.objects.holdings import Holdings
from node_agent.objects.names import digest_of
from node_agent.objects.partial import Partial
from node_agent.objects.stored_file import READ_BYTES, full_disk_is_exhausted
from node_agent.objects.terms import Terms

ANY_TERMS = Terms()


class ObjectStore(Holdings):
    """The objects of one node: how they come, are kept, and go. Each object's steps are taken one after the other."""

    @asynccontextmanager
    async def receiving(
        self, name: str, size_bytes: int, terms: Terms = ANY_TERMS, why: str | None = PUT
    ) -> AsyncIterator[Partial | None]:
        """A place to append the object's bytes to; what has arrived stays when the block ends early. None: it is here.

        Raises InvalidArgument for a size that cannot be, PermissionDenied where the terms do not let it lie here,
        AlreadyExists if it is here under terms of other jurisdictions, Exhausted when the whole of it has no room.
        """
        digest_of(name)
        if size_bytes < 0:
            raise InvalidArgument(f"size {size_bytes} of {name} is negative")
        sender = object()
        try:
            yield await uninterrupted(self._join(name, size_bytes, terms, why, sender))
        finally:
            await uninterrupted(self._leave(name, sender))

    async def finish(self, part: Partial, name: str) -> None:
        """Make a partial that has all its bytes an object. Raises DataLoss, and drops the bytes, if it is another."""
        await uninterrupted(self._finish(part, name))

    async def adopt_fd(self, fd: int, what: str, terms: Terms = ANY_TERMS, why: str | None = PUT) -> tuple[str, int]:
        """Copy a file's bytes, from its start, into the store. Its name as an object, and its size.

        Raises Exhausted, which names `what`; PermissionDenied, AlreadyExists, DataLoss if it changes meanwhile.
        """
        digest, size_bytes = await to_its_end(_digest_of_file, fd)
        name = f"sha256:{digest}"
        try:
            await uninterrupted(self._adopt(fd, name, size_bytes, terms, why))
        except Exhausted as full:
            raise Exhausted(str(full).replace(name, what)) from None  # nobody knows it by that name yet
        return name, size_bytes

    async def refer(self, name: str, why: str) -> None:
        """Have one more reason to keep an object. After: on disk. Raises NotFound."""
        async with self._turn(name):
            row = self._known(name)
            await self._catalog.keep(replace(row, reasons=row.reasons | {why}))

    async def release(self, job_id: str) -> None:
        """Let go of what a job needed or made: what nobody else needs, and is not pinned, is removed."""
        why = for_job(job_id)
        for known in self._catalog.rows_for(why):
            async with self._turn(known.name):
                if row := self._catalog.find(known.name):
                    await self._catalog.keep(replace(row, reasons=row.reasons - {why}))
        await self.collect()

    def jobs(self) -> set[str]:
        """The jobs that objects are kept for, but those for which more of one is on its way in."""
        arriving = {reason for name in self._partials if (row := self._catalog.find(name)) for reason in row.reasons}
        return {reason.removeprefix(JOB) for reason in self._catalog.reasons() - arriving if reason.startswith(JOB)}

    async def collect(self) -> None:
        """Remove what nobody has a reason to keep. (A job that was in need of it may have ended since.)"""
        for known in self._catalog.rows_for(NOBODYS):
            async with self._turn(known.name):
                row = self._catalog.find(known.name)
                if row is not None and not row.reasons and self._stays(row) is None:
                    await uninterrupted(self._remove(row.name))

    async def set_terms(self, name: str, terms: Terms) -> None:
        """Change who shall hold it and whether it is pinned. Raises NotFound, FailedPrecondition."""
        async with self._turn(name):
            row = self._known(name)
            if row.terms.residency != terms.residency:
                raise FailedPrecondition(f"{name} is kept for {row.terms.where}, for good; not for {terms.where}")
            await self._catalog.keep(replace(row, terms=terms))

    async def delete(self, name: str) -> bool:
        """Remove an object, or what has arrived of one. Whether it was here. Raises FailedPrecondition."""
        digest_of(name)
        async with self._turn(name):
            row = self._catalog.find(name)
            if row is None:
                return False
            if stays := self._stays(row):
                raise FailedPrecondition(f"{name} {stays}")
            await uninterrupted(self._remove(name))
            return True

    async def set_aside(self, name: str) -> None:
        """Keep a damaged object's bytes where nobody reads them. After: it is not here, and a row tells why."""
        await uninterrupted(self._set_aside(name))

    async def _join(self, name: str, size_bytes: int, terms: Terms, why: str | None, sender: object) -> Partial | None:
        async with self._turn(name):
            terms.check_lies_in(self.jurisdiction, "this node")
            row = self._catalog.find(name)
            part = self._partials.get(name)
            if row is not None and (name in self._whole or part is not None or row.damaged):
                if row.terms.residency != terms.residency:
                    raise AlreadyExists(f"{name} is kept for {row.terms.where} here, not for {terms.where}")
                if size_bytes != row.size_bytes:
                    raise InvalidArgument(f"{name} has {row.size_bytes} bytes, not {size_bytes}")
            elif row is not None and (row.size_bytes, row.terms.residency) != (size_bytes, terms.residency):
                await self._remove_part(name)  # of another attempt, that nobody goes on with
                row = None
            if row is None:
                row = Row(name, size_bytes, terms, sealed_with=await self._key_for_new())
            row = replace(row, terms=row.terms.joined(terms), reasons=row.reasons | ({why} if why else set()))
            if name in self._whole or part is not None:
                await self._catalog.keep(row)
            if name in self._whole:
                return None
            part = part or await self._open(row)
            part.senders.add(sender)
            return part

    async def _leave(self, name: str, sender: object) -> None:
        async with self._turn(name):
            part = self._partials.get(name)
            if part is not None and sender in part.senders:
                part.senders.discard(sender)
                if not part.senders:
                    await self._close(name, part)

    async def _finish(self, part: Partial, name: str) -> None:
        async with self._turn(name):
            if self._partials.get(name) is not part:
                if name not in self._whole:
                    raise DataLoss(f"what another sender brought of {name} was wrong and is dropped; send it again")
                return  # another sender has finished it
            if part.committed_bytes != part.size_bytes:
                raise InvalidArgument(
                    f"{name} ended after {part.committed_bytes} of {part.size_bytes} bytes; continue from there"
                )
            found = part.hexdigest()
            if found != digest_of(name):
                del self._partials[name]
                part.abandon()
                await self._remove_part(name)
                raise DataLoss(f"the bytes sent as {name} hash to sha256:{found}; they are dropped")
            with full_disk_is_exhausted():
                await to_its_end(self._shelf.keep, part, found)
            part.abandon()
            await self._is_whole(name)

    async def _adopt(self, fd: int, name: str, size_bytes: int, terms: Terms, why: str | None) -> None:
        async with self.receiving(name, size_bytes, terms, why) as part:
            if part is None:
                return
            async with part.taking(0) as intake:
                for offset_bytes in range(0, size_bytes, READ_BYTES):
                    length_bytes = min(READ_BYTES, size_bytes - offset_bytes)
                    await intake.take(await to_its_end(os.pread, fd, length_bytes, offset_bytes))
                await intake.drained()
            await self.finish(part, name)

    async def _set_aside(self, name: str) -> None:
        async with self._turn(name):
            row = self._catalog.find(name)
            if row is not None and name in self._whole:
                aside_bytes = await to_its_end(self._shelf.set_aside, digest_of(name))
                self._room.hold(name, 0)
                self._room.hold(digest_of(name), aside_bytes)
                await self._catalog.keep(replace(row, damaged=True))
                self._whole.discard(name)

    async def _key_for_new(self) -> str:
        return await to_its_end(self._keys.made, self.jurisdiction) if self._encrypt else ""

    def _stays(self, row: Row) -> str | None:
        """Why an object must not go now, if so."""
        if row.terms.pinned:
            return "is pinned"
        if row.name in self._partials:
            return "is on its way in"
        reason = self.in_use(row.name)
        return f"is needed: {reason}" if reason else None

    def _known(self, name: str) -> Row:
        row = self.row(name)
        if row is None or not (name in self._whole or row.damaged):
            raise NotFound(f"{name} is not (or not wholly) here")
        return row


def _digest_of_file(fd: int) -> tuple[str, int]:
    """Of as many bytes as a file has now, and how many those are."""
    digest, at_bytes = hashlib.sha256(), 0
    while piece := os.pread(fd, READ_BYTES, at_bytes):
        digest.update(piece)
        at_bytes += len(piece)
    return digest.hexdigest(), at_bytes
