"""Objects between a store and the wire: chunks with checksums, read ahead, resumed, given up when they are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import Final, TypeAlias

import google_crc32c
import grpc

from node_agent.blocking import uninterrupted
from node_agent.errors import DataLoss, InvalidArgument, NotFound
from node_agent.objects.catalog import PUT
from node_agent.objects.chunks import Chunk, Streams
from node_agent.objects.partial import BATCH_BYTES
from node_agent.objects.store import ObjectStore
from node_agent.objects.stored_file import StoredFile
from node_agent.objects.terms import Terms
from node_agent.security import wire
from protos.skyrack.v1 import objects_pb2

SMALL_CHUNK_BYTES: Final = 64 * 1024
LARGE_CHUNK_BYTES: Final = 512 * 1024
CHUNK_S: Final = 0.02
"""A chunk is what is sent in so long, within these bounds: one is what a break costs at most, and on a fast link each
costs as much as its bytes do."""

MAX_CHUNK_BYTES: Final = 1024 * 1024
"""The largest that is taken from others."""

# What gRPC raises for a call that has its answer: from `write`, and from `done_writing`, before it knows itself.
_ANSWERED_EARLY: Final = (asyncio.InvalidStateError, grpc.aio.InternalError)

OnReceived: TypeAlias = Callable[[int, int, int], None]


class ChecksumError(Exception):
    """Checksums cannot be counted at a useful speed. Says what is missing."""


def check_checksums() -> None:
    """Raises ChecksumError where checksums would be counted in Python, a thousand times slower than a disk."""
    if google_crc32c.implementation != "c":
        raise ChecksumError(
            "google-crc32c has no compiled part on this machine: install a wheel of it that fits, "
            "or build it where the C library crc32c is installed"
        )


def well_sized(chunk: Chunk) -> Chunk:
    """A chunk as it came. Raises InvalidArgument for one that is empty or too large."""
    if not 0 < len(chunk.content) <= MAX_CHUNK_BYTES:
        raise InvalidArgument(f"a chunk of {len(chunk.content)} bytes: it must have 1 to {MAX_CHUNK_BYTES}")
    return chunk


def fitting_bytes(sent_bytes: int, took_s: float) -> int:
    """How large chunks are to be where so much was sent in so long."""
    sent_in_time = sent_bytes * CHUNK_S / max(took_s, 1e-9)
    return round(min(max(sent_in_time // SMALL_CHUNK_BYTES * SMALL_CHUNK_BYTES, SMALL_CHUNK_BYTES), LARGE_CHUNK_BYTES))


async def chunks_of(file: StoredFile, offset_bytes: int, end_bytes: int) -> AsyncGenerator[Chunk, None]:
    """A range of an object, a batch of it read ahead. To be closed (`aclosing`) while its file is open.

    Raises DataLoss where the file does not have it.
    """
    loop = asyncio.get_running_loop()
    reading: asyncio.Future[list[Chunk]] | None = None
    chunk_bytes = SMALL_CHUNK_BYTES
    try:
        while offset_bytes < end_bytes or reading is not None:
            batch = [] if reading is None else await asyncio.shield(reading)
            reading = None
            if offset_bytes < end_bytes:
                length_bytes = min(BATCH_BYTES, end_bytes - offset_bytes)
                reading = loop.run_in_executor(None, _read, file, offset_bytes, length_bytes, chunk_bytes)
                offset_bytes += length_bytes
            began_mono_s = loop.time()
            for chunk in batch:
                yield chunk
            if batch:
                chunk_bytes = fitting_bytes(sum(len(each.content) for each in batch), loop.time() - began_mono_s)
    finally:
        if reading is not None:
            await uninterrupted(_ended(reading))


async def put(
    streams: Streams,
    store: ObjectStore,
    name: str,
    offset_bytes: int,
    on_sent: Callable[[int], None],
    terms: Terms | None = None,
    for_job: str = "",
) -> None:
    """Send an object from an offset, under its own residency or other terms. on_sent hears how far it is.

    After: the peer has all of it on disk. Raises NotFound, DataLoss, and gRPC's errors.
    """
    row = store.row(name)
    with store.reading(name) as file:
        if row is None:
            raise NotFound(f"{name} is not here")
        header = objects_pb2.PutRequest.Header(
            object=name,
            size_bytes=row.size_bytes,
            offset_bytes=offset_bytes,
            terms=(terms or row.terms.residency).told(),
            for_job=for_job,
        )
        call = streams.put(timeout=wire.STREAM_DEADLINE_S)
        try:
            await call.write(objects_pb2.PutRequest(header=header))
            # A full node is to refuse before bytes are wasted. One that has taken some takes the rest, as a rule, and
            # to ask again would cost each blackout a round trip.
            if offset_bytes or wire.PUT_ACCEPTED in dict(await call.initial_metadata()):
                with suppress(*_ANSWERED_EARLY):  # the answer says why
                    async with aclosing(chunks_of(file, offset_bytes, row.size_bytes)) as chunks:
                        async for chunk in chunks:
                            await call.write(chunk)
                            offset_bytes += len(chunk.content)
                            on_sent(offset_bytes)
                    await call.done_writing()
            await call
        finally:
            call.cancel()


async def fetch(
    streams: Streams,
    store: ObjectStore,
    name: str,
    on_received: OnReceived,
    terms: Terms | None = None,
    why: str | None = PUT,
) -> None:
    """Bring an object into the store, from where an earlier contact left it, under its residency or other terms.

    on_received hears the new chunk's bytes, how many are here, and of how many. After: it is whole, on disk. Raises
    DataLoss, Exhausted, PermissionDenied, AlreadyExists, and gRPC's errors.
    """
    offset_bytes = store.committed_bytes(name)
    try:
        await _fetch(streams, store, name, offset_bytes, on_received, terms, why)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.OUT_OF_RANGE or not offset_bytes:
            raise
        # Somebody has sent more here than the object has: what came of it is of no use.
        await _fetch(streams, store, name, 0, on_received, terms, why)


async def read(streams: Streams, name: str, offset_bytes: int) -> AsyncGenerator[bytes, None]:
    """An object from an offset to its end, in chunks that match their checksums. To be closed (`aclosing`).

    Raises DataLoss, InvalidArgument, and gRPC's errors.
    """
    call = streams.get(objects_pb2.GetRequest(object=name, offset_bytes=offset_bytes), timeout=wire.STREAM_DEADLINE_S)
    try:
        async for part in call:
            if isinstance(part, Chunk):
                content, crc32c = well_sized(part)
                if google_crc32c.value(content) != crc32c:
                    raise DataLoss(f"a chunk of {name} does not match its checksum")
                yield content
    finally:
        call.cancel()


async def _fetch(
    streams: Streams,
    store: ObjectStore,
    name: str,
    offset_bytes: int,
    on_received: OnReceived,
    terms: Terms | None,
    why: str | None,
) -> None:
    call = streams.get(objects_pb2.GetRequest(object=name, offset_bytes=offset_bytes), timeout=wire.STREAM_DEADLINE_S)
    try:
        parts = aiter(call)
        first = await anext(parts, None)
        info = first.info if isinstance(first, objects_pb2.GetResponse) else objects_pb2.ObjectInfo()
        async with store.receiving(name, info.size_bytes, terms or Terms.of(info.terms).residency, why) as part:
            if part is None:
                return
            if offset_bytes > part.committed_bytes:
                raise DataLoss(f"what had come of {name} has gone from this node; it must come again")
            async with part.taking(offset_bytes) as intake:
                async for each in parts:
                    content, crc32c = well_sized(each if isinstance(each, Chunk) else Chunk(b"", 0))
                    await intake.take(content, crc32c)
                    offset_bytes += len(content)
                    on_received(len(content), offset_bytes, part.size_bytes)
                await intake.drained()
            await store.finish(part, name)
    finally:
        call.cancel()


async def _ended(reading: asyncio.Future[list[Chunk]]) -> None:
    """Wait for what nobody wants any more, whatever it came to."""
    await asyncio.wait({reading})
    reading.exception()


def _read(file: StoredFile, offset_bytes: int, length_bytes: int, chunk_bytes: int) -> list[Chunk]:
    """A batch of chunks. Blocks."""
    chunks = []
    for start_bytes in range(offset_bytes, offset_bytes + length_bytes, chunk_bytes):
        content = file.read(start_bytes, min(chunk_bytes, offset_bytes + length_bytes - start_bytes))
        chunks.append(Chunk(content, google_crc32c.value(content)))
    return chunks
