"""Objects between a store and the wire: chunks with checksums, read ahead, resumed, given up when they are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import google_crc32c
import grpc

from node_agent.blocking import to_its_end
from node_agent.errors import DataLoss, InvalidArgument, NotFound
from node_agent.objects.catalog import PUT
from node_agent.objects.partial import BATCH_BYTES
from node_agent.objects.store import ObjectStore
from node_agent.objects.stored_file import StoredFile
from node_agent.objects.terms import Terms
from node_agent.security import wire
from protos.skyrack.v1 import objects_pb2

if TYPE_CHECKING:
    from protos.skyrack.v1.objects_pb2_grpc import ObjectsAsyncStub

CHUNK_BYTES: Final = 256 * 1024
"""One message of a transfer, and so what a break can cost at most besides the bytes in flight."""

MAX_CHUNK_BYTES: Final = 1024 * 1024
"""The largest that is taken from others."""

OnReceived: TypeAlias = Callable[[int, int, int], None]


class ChecksumError(Exception):
    """Checksums cannot be counted at a useful speed. Says what is missing."""


class Chunk(NamedTuple):
    """A piece of an object, and its CRC-32C."""

    content: bytes
    crc32c: int


def check_checksums() -> None:
    """Raises ChecksumError where checksums would be counted in Python, a thousand times slower than a disk."""
    if google_crc32c.implementation != "c":
        raise ChecksumError(
            "google-crc32c has no compiled part on this machine: install a wheel of it that fits, "
            "or build it where the C library crc32c is installed"
        )


def well_sized(chunk: bytes) -> bytes:
    """A chunk as it came. Raises InvalidArgument for one that is empty or too large."""
    if not 0 < len(chunk) <= MAX_CHUNK_BYTES:
        raise InvalidArgument(f"a chunk of {len(chunk)} bytes: it must have 1 to {MAX_CHUNK_BYTES}")
    return chunk


async def chunks_of(file: StoredFile, offset_bytes: int, end_bytes: int) -> AsyncGenerator[Chunk, None]:
    """A range of an object, a batch of it read ahead. To be closed (`aclosing`) while its file is open.

    Raises DataLoss where the file does not have it.
    """
    reading: asyncio.Task[list[Chunk]] | None = None
    try:
        while offset_bytes < end_bytes or reading is not None:
            batch = [] if reading is None else await asyncio.shield(reading)
            reading = None
            if offset_bytes < end_bytes:
                length_bytes = min(BATCH_BYTES, end_bytes - offset_bytes)
                reading = asyncio.create_task(to_its_end(_read, file, offset_bytes, length_bytes))
                offset_bytes += length_bytes
            for chunk in batch:
                yield chunk
    finally:
        if reading is not None:
            await asyncio.wait({reading})
            reading.exception()


async def put(
    objects: ObjectsAsyncStub,
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
        call = objects.Put(timeout=wire.STREAM_DEADLINE_S)
        try:
            await call.write(objects_pb2.PutRequest(header=header))
            if wire.PUT_ACCEPTED in dict(await call.initial_metadata()):
                with suppress(asyncio.InvalidStateError):  # it has answered early: the answer says why
                    async with aclosing(chunks_of(file, offset_bytes, row.size_bytes)) as chunks:
                        async for chunk in chunks:
                            await call.write(objects_pb2.PutRequest(chunk=chunk.content, crc32c=chunk.crc32c))
                            offset_bytes += len(chunk.content)
                            on_sent(offset_bytes)
                await call.done_writing()
            await call
        finally:
            call.cancel()


async def fetch(
    objects: ObjectsAsyncStub,
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
        await _fetch(objects, store, name, offset_bytes, on_received, terms, why)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.OUT_OF_RANGE or not offset_bytes:
            raise
        # Somebody has sent more here than the object has: what came of it is of no use.
        await _fetch(objects, store, name, 0, on_received, terms, why)


async def read(objects: ObjectsAsyncStub, name: str, offset_bytes: int) -> AsyncGenerator[bytes, None]:
    """An object from an offset to its end, in chunks that match their checksums. To be closed (`aclosing`).

    Raises DataLoss, InvalidArgument, and gRPC's errors.
    """
    call = objects.Get(objects_pb2.GetRequest(object=name, offset_bytes=offset_bytes), timeout=wire.STREAM_DEADLINE_S)
    try:
        async for response in call:
            if response.WhichOneof("part") == "chunk":
                chunk = well_sized(response.chunk)
                if google_crc32c.value(chunk) != response.crc32c:
                    raise DataLoss(f"a chunk of {name} does not match its checksum")
                yield chunk
    finally:
        call.cancel()


async def _fetch(
    objects: ObjectsAsyncStub,
    store: ObjectStore,
    name: str,
    offset_bytes: int,
    on_received: OnReceived,
    terms: Terms | None,
    why: str | None,
) -> None:
    call = objects.Get(objects_pb2.GetRequest(object=name, offset_bytes=offset_bytes), timeout=wire.STREAM_DEADLINE_S)
    try:
        responses = aiter(call)
        info = (await anext(responses, objects_pb2.GetResponse())).info
        async with store.receiving(name, info.size_bytes, terms or Terms.of(info.terms).residency, why) as part:
            if part is None:
                return
            if offset_bytes > part.committed_bytes:
                raise DataLoss(f"what had come of {name} has gone from this node; it must come again")
            async with part.taking(offset_bytes) as intake:
                async for response in responses:
                    chunk = well_sized(response.chunk)
                    await intake.take(chunk, response.crc32c)
                    offset_bytes += len(chunk)
                    on_received(len(chunk), offset_bytes, part.size_bytes)
                await intake.drained()
            await store.finish(part, name)
    finally:
        call.cancel()


def _read(file: StoredFile, offset_bytes: int, length_bytes: int) -> list[Chunk]:
    """A batch of chunks. Blocks."""
    chunks = []
    for start_bytes in range(offset_bytes, offset_bytes + length_bytes, CHUNK_BYTES):
        content = file.read(start_bytes, min(CHUNK_BYTES, offset_bytes + length_bytes - start_bytes))
        chunks.append(Chunk(content, google_crc32c.value(content)))
    return chunks
