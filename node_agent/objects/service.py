"""Objects, on the wire: each call a verb of the store's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc

from node_agent.errors import DataLoss, InvalidArgument, OutOfRange
from node_agent.objects.catalog import PUT, Row, for_job
from node_agent.objects.chunks import Chunk, GetPart, PutPart
from node_agent.objects.scrub import Scrubber
from node_agent.objects.store import ObjectStore
from node_agent.objects.terms import Terms
from node_agent.objects.transfer import chunks_of, well_sized
from node_agent.security import wire
from node_agent.services import Context, answer, answers
from protos.skyrack.v1 import objects_pb2, objects_pb2_grpc

SILENCE_S: Final = 300.0
"""A put that brings nothing for so long is ended: it holds room. (A vanished link is noticed much sooner.)"""


class Objects(objects_pb2_grpc.ObjectsServicer):
    """The store's service on one plane."""

    def __init__(self, store: ObjectStore, scrubber: Scrubber, asker_lies_in: Callable[[], str]) -> None:
        """`asker_lies_in` tells the jurisdiction of whoever makes the call; empty: none."""
        self._store = store
        self._scrubber = scrubber
        self._asker_lies_in = asker_lies_in

    async def Stat(self, request: objects_pb2.StatRequest, context: Context) -> objects_pb2.ObjectInfo:  # noqa: N802
        """What is here of an object."""
        return await answer(context, self._stat(request.object))

    async def Put(  # noqa: N802
        self, request_iterator: AsyncIterator[PutPart], context: Context
    ) -> objects_pb2.ObjectInfo:
        """Receive an object, or the rest of one."""
        return await answer(context, self._put(aiter(request_iterator), context))

    async def Get(  # noqa: N802
        self, request: objects_pb2.GetRequest, context: Context
    ) -> AsyncIterator[Any]:
        """Send an object, or a range of one: each is a GetPart, of which the generated code does not know."""
        async with aclosing(self._get(request)) as responses:
            async for response in answers(context, responses):
                yield response

    async def List(  # noqa: N802
        self, request: objects_pb2.ListObjectsRequest, context: Context
    ) -> AsyncIterator[objects_pb2.ObjectInfo]:
        """All objects that are here or on their way in."""
        for row in self._store.rows():
            if not row.damaged:
                yield self._info(row)

    async def SetTerms(self, request: objects_pb2.SetTermsRequest, context: Context) -> objects_pb2.ObjectInfo:  # noqa: N802
        """Other holders, pinned or not."""
        return await answer(context, self._set_terms(request))

    async def Delete(  # noqa: N802
        self, request: objects_pb2.DeleteObjectRequest, context: Context
    ) -> objects_pb2.DeleteObjectResponse:
        """Remove an object."""
        was_here = await answer(context, self._store.delete(request.object))
        return objects_pb2.DeleteObjectResponse(was_here=was_here)

    async def Scrub(self, request: objects_pb2.ScrubRequest, context: Context) -> objects_pb2.ScrubReport:  # noqa: N802
        """Hold objects against their names."""
        report = await answer(context, self._scrubber.scrub(request.object))
        return objects_pb2.ScrubReport(
            objects=report.objects, bytes=report.read_bytes, damaged=report.damaged, repaired=report.repaired
        )

    async def _stat(self, name: str) -> objects_pb2.ObjectInfo:
        row = self._store.row(name)
        return objects_pb2.ObjectInfo(object=name) if row is None else self._info(row)

    def _info(self, row: Row) -> objects_pb2.ObjectInfo:
        return objects_pb2.ObjectInfo(
            object=row.name,
            size_bytes=row.size_bytes,
            committed_bytes=self._store.committed_bytes(row.name),
            terms=row.terms.told(),
        )

    async def _put(self, parts: AsyncIterator[PutPart], context: Context) -> objects_pb2.ObjectInfo:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SILENCE_S) as silence:
                first = await anext(parts, None)
                if not isinstance(first, objects_pb2.PutRequest) or not first.HasField("header"):
                    raise InvalidArgument("the first message of a put must carry its header")
                header = first.header
                terms = Terms.of(header.terms)
                why = for_job(header.for_job) if header.for_job else PUT
                async with self._store.receiving(header.object, header.size_bytes, terms, why) as partial:
                    if partial is None:
                        return await self._stat(header.object)
                    async with partial.taking(header.offset_bytes) as intake:
                        await context.send_initial_metadata(((wire.PUT_ACCEPTED, "1"),))
                        async for part in parts:
                            if not isinstance(part, Chunk):
                                raise InvalidArgument("after its header, each message of a put must carry a chunk")
                            await intake.take(*well_sized(part))
                            silence.reschedule(loop.time() + SILENCE_S)
                        await intake.drained()
                    silence.reschedule(None)
                    await self._store.finish(partial, header.object)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing came for {SILENCE_S:.0f} s")
        return await self._stat(header.object)

    async def _get(self, request: objects_pb2.GetRequest) -> AsyncGenerator[GetPart, None]:
        name, offset_bytes, length_bytes = request.object, request.offset_bytes, request.length_bytes
        row = self._store.row(name)
        if row is not None:
            row.terms.check_lies_in(self._asker_lies_in(), "who asks")
        if length_bytes < 0:
            raise InvalidArgument(f"a range of {length_bytes} bytes")
        try:
            with self._store.reading(name) as file:
                assert row is not None, f"{name} is here"
                end_bytes = offset_bytes + length_bytes if length_bytes else row.size_bytes
                if not 0 <= offset_bytes <= end_bytes <= row.size_bytes:
                    raise OutOfRange(
                        f"bytes {offset_bytes} to {end_bytes} lie outside the object, which has {row.size_bytes}"
                    )
                yield objects_pb2.GetResponse(info=self._info(row))
                async with aclosing(chunks_of(file, offset_bytes, end_bytes)) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except DataLoss:
            if not self._store.is_damaged(name):
                self._scrubber.suspect(name)
            raise

    async def _set_terms(self, request: objects_pb2.SetTermsRequest) -> objects_pb2.ObjectInfo:
        await self._store.set_terms(request.object, Terms.of(request.terms))
        return await self._stat(request.object)
