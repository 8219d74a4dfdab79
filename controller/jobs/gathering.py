"""Coded objects read: k fragments brought to a node on the ground, decoded stripe by stripe as they are read there."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from weakref import WeakValueDictionary

import google_crc32c

from controller.agents import CHUNK_BYTES, AgentClient
from controller.coding import HEAD_BYTES, STRIPE_BYTES, Code, DamagedError
from controller.errors import InputError, SkyrackError
from controller.jobs.desk import JobDesk
from controller.jobs.fetching import bring
from controller.jobs.journal import Journal
from controller.jobs.sight import Sight
from protos.skyrack.v1 import controller_pb2, objects_pb2

SLOW_S = 10.0
"""When none of the fragments that are fetched has come for so long, one more is."""


class Gathering:
    """Reads coded objects. Of one event loop."""

    def __init__(self, desk: JobDesk, journal: Journal, sight: Sight) -> None:
        self._desk, self._journal, self._sight = desk, journal, sight
        self._readers: Counter[tuple[str, str]] = Counter()  # by node on the ground and whole
        self._copies: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # fragments that were brought for them
        self._coming_and_going: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def read(
        self, via: str, coded: controller_pb2.CodedObject, request: objects_pb2.GetRequest
    ) -> AsyncGenerator[objects_pb2.GetResponse, None]:
        """The whole, or a range of it, as if it lay at a node on the ground. Raises SkyrackError that names what is
        missing, InputError for a range that it does not have."""
        start_bytes = request.offset_bytes
        end_bytes = start_bytes + request.length_bytes if request.length_bytes else coded.size_bytes
        if not 0 <= start_bytes <= end_bytes <= coded.size_bytes:
            raise InputError(f"bytes {start_bytes} to {end_bytes} lie outside the object, which has {coded.size_bytes}")
        at_bytes = start_bytes // STRIPE_BYTES * STRIPE_BYTES
        async with self._gathered(via, coded, at_bytes) as sources:
            info = objects_pb2.ObjectInfo(
                object=coded.object, size_bytes=coded.size_bytes, committed_bytes=coded.size_bytes
            )
            yield objects_pb2.GetResponse(info=info)
            async with aclosing(_stripes(coded, sources, at_bytes)) as stripes:
                async for stripe in stripes:
                    wanted = memoryview(stripe)[max(start_bytes - at_bytes, 0) : end_bytes - at_bytes]
                    for offset_bytes in range(0, len(wanted), CHUNK_BYTES):
                        chunk = bytes(wanted[offset_bytes : offset_bytes + CHUNK_BYTES])
                        yield objects_pb2.GetResponse(chunk=chunk, crc32c=google_crc32c.value(chunk))
                    at_bytes += len(stripe)
                    if at_bytes >= end_bytes:
                        return

    @asynccontextmanager
    async def _gathered(
        self, via: str, coded: controller_pb2.CodedObject, at_bytes: int
    ) -> AsyncGenerator[Mapping[int, _Source], None]:
        """k fragments, by index, open at a node on the ground from a stripe on: what is open stays readable, even when
        it is removed. Those that are brought there go again with the last who reads them."""
        node, place = self._desk.gateway(via), (via, coded.object)
        lock = self._coming_and_going.setdefault(place, asyncio.Lock())
        async with lock:
            self._readers[place] += 1
        try:
            async with AsyncExitStack() as stack:
                sources: dict[int, _Source] = {}
                for index in range(len(coded.fragments)):
                    if len(sources) < coded.k:
                        with suppress(InputError):  # it is not there
                            sources[index] = await _opened(stack, node, coded, index, at_bytes)
                brought = await self._brought(via, coded, [*sources]) if len(sources) < coded.k else []
                for index in brought:
                    sources[index] = await _opened(stack, node, coded, index, at_bytes)
                yield sources
        finally:
            async with lock:
                self._readers[place] -= 1
                if not self._readers[place]:
                    del self._readers[place]
                    for name in self._copies.pop(place, ()):
                        with suppress(SkyrackError):  # an open job needs it there
                            await node.delete(name)
                            await asyncio.to_thread(self._journal.dropped, via, name)

    async def _brought(self, via: str, coded: controller_pb2.CodedObject, here: Sequence[int]) -> list[int]:
        """Bring as many fragments as are lacking: the whole's own bytes, and others where one cannot be had or is slow.

        Raises SkyrackError that names what is missing.
        """
        away = await self._sight.away([each.node for each in coded.fragments])
        missing = {index: away[each.node] for index, each in enumerate(coded.fragments) if each.node in away}
        spare = [index for index in range(len(coded.fragments)) if index not in (*here, *missing)]
        spare.sort(key=lambda index: bool(self._sight.blackout_of(coded.fragments[index].node)))
        terms = objects_pb2.ObjectTerms(jurisdictions=coded.jurisdictions, transit=coded.transit)
        coming: dict[asyncio.Task[None], int] = {}
        brought: list[int] = []
        at_once = needed = coded.k - len(here)
        try:
            while len(brought) < needed:
                if len(brought) + len(coming) + len(spare) < needed:
                    raise SkyrackError(_lacking(coded, missing))
                while spare and len(brought) + len(coming) < at_once:
                    index = spare.pop(0)
                    each = coded.fragments[index]
                    self._copies[via, coded.object].add(each.object)
                    fetching = bring(self._desk, via, each.object, each.node, terms)
                    coming[asyncio.create_task(fetching, name=f"fragment {index} of {coded.object}")] = index
                done, _ = await asyncio.wait(coming, timeout=SLOW_S, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    index = coming.pop(task)
                    try:
                        task.result()
                    except SkyrackError as error:
                        missing[index] = str(error)
                    else:
                        brought.append(index)
                if not done:
                    at_once += 1
        finally:
            for task in coming:
                task.cancel()
            await asyncio.gather(*coming, return_exceptions=True)
        return brought


class _Source:
    """A fragment as it is read at a node on the ground."""

    def __init__(self, index: int, parts: AsyncIterator[objects_pb2.GetResponse]) -> None:
        self._index, self._parts = index, parts
        self._here = bytearray()

    async def open(self) -> None:
        """Wait for its first message. Raises InputError where it is not there."""
        await anext(self._parts)

    async def piece(self, length_bytes: int) -> bytes:
        """The next bytes. Raises DamagedError where there are fewer."""
        while len(self._here) < length_bytes:
            try:
                self._here += (await anext(self._parts)).chunk
            except StopAsyncIteration:
                raise DamagedError(self._index) from None
        piece = bytes(self._here[:length_bytes])
        del self._here[:length_bytes]
        return piece


async def _opened(
    stack: AsyncExitStack, node: AgentClient, coded: controller_pb2.CodedObject, index: int, at_bytes: int
) -> _Source:
    """A fragment from a stripe of the whole on. Raises InputError where it is not there."""
    offset_bytes = _offset_bytes(coded, at_bytes)
    request = objects_pb2.GetRequest(object=coded.fragments[index].object, offset_bytes=offset_bytes)
    source = _Source(index, await stack.enter_async_context(aclosing(node.get_responses(request))))
    await source.open()
    return source


async def _stripes(
    coded: controller_pb2.CodedObject, sources: Mapping[int, _Source], at_bytes: int
) -> AsyncGenerator[bytes, None]:
    """The whole's stripes from one on. Raises DamagedError."""
    offset_bytes = _offset_bytes(coded, at_bytes)
    with Code(coded.k, coded.m).coder() as coder:
        while offset_bytes < coded.fragment_bytes:
            length_bytes = min(coded.piece_bytes, coded.fragment_bytes - offset_bytes)
            pieces = {index: await source.piece(length_bytes) for index, source in sources.items()}
            yield await asyncio.to_thread(coder.decoded, pieces)
            offset_bytes += length_bytes


def _offset_bytes(coded: controller_pb2.CodedObject, at_bytes: int) -> int:
    """Where in each fragment a stripe is."""
    return HEAD_BYTES + at_bytes // STRIPE_BYTES * coded.piece_bytes


def _lacking(coded: controller_pb2.CodedObject, missing: dict[int, str]) -> str:
    count = len(coded.fragments)
    told = "; ".join(
        f"fragment {index} at {coded.fragments[index].node}: {missing[index]}" for index in sorted(missing)
    )
    return f"{coded.object} needs {coded.k} of its {count} fragments, and {count - len(missing)} can be had: {told}"
