"""Makes damaged objects whole again: from a node that holds another copy, or a fragment from k others of its whole.

Those come as k streams side by side, a piece of each at a time: neither memory nor disk ever has more of them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final, Protocol, Self

from node_agent import memory
from node_agent.delivery.contact import Contacts
from node_agent.delivery.peer import Peer
from node_agent.errors import Break, DataLoss, Refusal
from node_agent.objects.catalog import Row
from node_agent.objects.mending import NUMBER
from node_agent.objects.parts import HEAD_BYTES, Part
from node_agent.objects.store import ObjectStore

_ANSWER_S: Final = 30.0


class Helpers(Protocol):
    """Whoever starts the process that computes fragments."""

    def mending(self, k: int, m: int, index: int) -> AbstractAsyncContextManager[socket.socket]:
        """A socket to it for as long as the block lasts; see `mending`. Raises OSError."""
        ...


class Healer:
    """Brings damaged objects into the store again. Of one event loop."""

    def __init__(
        self,
        node: str,
        store: ObjectStore,
        contacts: Contacts,
        helpers: Helpers,
        senders: Callable[[Row], Iterable[str]] = lambda row: (),
    ) -> None:
        """`senders`: who has sent an object for a job, and keeps it until that has ended."""
        self._node, self._store, self._contacts, self._helpers = node, store, contacts, helpers
        self._senders = senders

    def knows_a_way(self, row: Row) -> bool:
        """Whether others are known to have an object, or what it can be computed from."""
        return bool(self._others(row)) or row.terms.part is not None

    def _others(self, row: Row) -> list[str]:
        known = dict.fromkeys((*row.terms.holders, *self._senders(row)))
        return [node for node in known if node not in ("", self._node)]

    async def heal(self, row: Row) -> str:
        """Have a damaged object again; from where, for people. Raises Break, Refusal, OSError."""
        if others := self._others(row):
            return await self._fetched(row.name, others)
        if row.terms.part is not None:
            try:
                return await self._computed(row, row.terms.part)
            finally:
                memory.give_back()
        raise Break("no other node is known to hold it")

    async def _fetched(self, name: str, holders: Sequence[str]) -> str:
        """From the first of the holders that answers and has it whole."""
        heard = []
        for node in holders:
            try:
                await self._contacts.do(node, lambda peer: peer.fetch(self._store, name, lambda *_: None, why=None))
            except (Break, Refusal) as error:
                heard.append(str(error))
            else:
                return f"from {node}"
        raise Break("; ".join(heard))

    async def _computed(self, row: Row, part: Part) -> str:
        """From k of the other fragments."""
        lines = _Lines(part, self._node, self._contacts)
        async with self._store.receiving(row.name, row.size_bytes, row.terms.residency, why=None) as incoming:
            if incoming is None:
                return "it came meanwhile"
            pieces_here = (incoming.committed_bytes - HEAD_BYTES) // part.piece_bytes
            offset_bytes = HEAD_BYTES + pieces_here * part.piece_bytes if pieces_here > 0 else 0
            async with (
                lines,
                incoming.taking(offset_bytes) as intake,
                aclosing(self._lacking(lines, part, offset_bytes, row.size_bytes)) as pieces,
            ):
                async for piece in pieces:
                    await intake.take(piece)
                await intake.drained()
            await self._store.finish(incoming, row.name)
        return f"computed from the fragments at {', '.join(lines.nodes)}"

    async def _lacking(
        self, lines: _Lines, part: Part, offset_bytes: int, end_bytes: int
    ) -> AsyncGenerator[bytes, None]:
        """The fragment from an offset on, a piece at a time. Raises Break where too few others can be had."""
        if not offset_bytes:
            yield part.head
            offset_bytes = HEAD_BYTES
        async with self._helpers.mending(part.k, part.m, part.index) as helper:
            while offset_bytes < end_bytes:
                length_bytes = min(part.piece_bytes, end_bytes - offset_bytes)
                yield await self._piece(lines, helper, offset_bytes, length_bytes)
                offset_bytes += length_bytes

    async def _piece(self, lines: _Lines, helper: socket.socket, offset_bytes: int, length_bytes: int) -> bytes:
        """One piece; lines whose own piece is damaged give way to others."""
        while True:
            pieces = await lines.pieces(offset_bytes, length_bytes)
            async with asyncio.timeout(_ANSWER_S):
                answer = await _asked(helper, pieces, length_bytes)
            if isinstance(answer, bytes):
                lines.go_on()
                return answer
            await lines.give_up(answer, DataLoss("its piece there does not match its checksum"))


class _Line:
    """Another fragment as it comes from its node."""

    def __init__(self, index: int, node: str, name: str, offset_bytes: int, contacts: Contacts) -> None:
        self.index, self.node = index, node
        self._name, self._offset_bytes, self._contacts = name, offset_bytes, contacts
        self._chunks: asyncio.Queue[bytes | Exception] = asyncio.Queue(1)
        self._here = bytearray()
        self._reading = asyncio.create_task(self._read(), name=f"fragment {index} at {node}")

    async def first(self, length_bytes: int) -> bytes:
        """So many bytes, which it stays at. Raises Break, Refusal."""
        while len(self._here) < length_bytes:
            chunk = await self._chunks.get()
            if isinstance(chunk, Exception):
                raise chunk
            self._here += chunk
        return bytes(self._here[:length_bytes])

    def skip(self, length_bytes: int) -> None:
        """Go on behind these."""
        del self._here[:length_bytes]

    async def close(self) -> None:
        """Read no more."""
        self._reading.cancel()
        await asyncio.wait({self._reading})

    async def _read(self) -> None:
        end: Exception = DataLoss(f"{self.node} has fewer bytes of it")
        try:
            await self._contacts.do(self.node, self._pass_on)
        except (Break, Refusal) as error:
            end = error
        await self._chunks.put(end)

    async def _pass_on(self, peer: Peer) -> None:
        async with aclosing(peer.read(self._name, self._offset_bytes)) as chunks:
            async for chunk in chunks:
                await self._chunks.put(chunk)


class _Lines:
    """k of the other fragments side by side, at the same piece; for one that cannot be had comes another."""

    def __init__(self, part: Part, node: str, contacts: Contacts) -> None:
        self._part, self._contacts = part, contacts
        self._spare = [index for index, each in enumerate(part.fragments) if each.node != node and index != part.index]
        self._lines: list[_Line] = []
        self._pieces: dict[int, bytes] = {}
        self._lacks: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(line.close() for line in self._lines))

    @property
    def nodes(self) -> list[str]:
        """Where those lie that were used last."""
        return [line.node for line in self._lines]

    async def pieces(self, offset_bytes: int, length_bytes: int) -> dict[int, bytes]:
        """k pieces at an offset, by index. Raises Break."""
        while len(self._pieces) < self._part.k:
            while len(self._lines) < self._part.k:
                self._begin(offset_bytes)
            waited = [line for line in self._lines if line.index not in self._pieces]
            came = await asyncio.gather(*(line.first(length_bytes) for line in waited), return_exceptions=True)
            for line, piece in zip(waited, came, strict=True):
                if isinstance(piece, bytes):
                    self._pieces[line.index] = piece
                elif isinstance(piece, Break | Refusal):
                    await self.give_up(line.index, piece)
                else:
                    raise piece
        return self._pieces

    def go_on(self) -> None:
        """The pieces have done their service."""
        for line in self._lines:
            line.skip(len(self._pieces[line.index]))
        self._pieces = {}

    async def give_up(self, index: int, why: Exception) -> None:
        """Have no more to do with a fragment."""
        (line,) = (line for line in self._lines if line.index == index)
        self._lines.remove(line)
        self._pieces.pop(index, None)
        self._lacks.append(f"fragment {index} at {line.node}: {why}")
        await line.close()

    def _begin(self, offset_bytes: int) -> None:
        if not self._spare:
            lacks = "; ".join(self._lacks)
            raise Break(f"{self._part.k} other fragments are needed, and only {len(self._lines)} can be had: {lacks}")
        index = self._spare.pop(0)
        fragment = self._part.fragments[index]
        self._lines.append(_Line(index, fragment.node, fragment.object, offset_bytes, self._contacts))


async def _asked(helper: socket.socket, pieces: dict[int, bytes], length_bytes: int) -> bytes | int:
    """The lacking piece, or the index of one that is damaged. Raises OSError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(helper, NUMBER.pack(length_bytes))
    for index, piece in pieces.items():
        await loop.sock_sendall(helper, NUMBER.pack(index))
        await loop.sock_sendall(helper, piece)
    (damaged,) = NUMBER.unpack(await _heard(helper, NUMBER.size))
    return [*pieces][damaged - 1] if damaged else await _heard(helper, length_bytes)


async def _heard(helper: socket.socket, length_bytes: int) -> bytes:
    heard = bytearray()
    while len(heard) < length_bytes:
        more = await asyncio.get_running_loop().sock_recv(helper, length_bytes - len(heard))
        if not more:
            raise ConnectionError("the process that computes fragments has ended")
        heard += more
    return bytes(heard)
