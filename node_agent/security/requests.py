"""Requests as they come in: bytes that are no message, and calls that bring none, are refused in words.

gRPC by itself answers the first with UNKNOWN and a traceback in the log, and the second never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from node_agent.errors import InvalidArgument

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Read: TypeAlias = Callable[[bytes], Any]


@dataclass(frozen=True)
class _Unreadable:
    """Stands for a message where bytes came that are none."""

    why: str


def reading(read: Read | None) -> Read | None:
    """A deserializer, whose errors `Requests` tells; None has requests be bytes."""
    if read is None:
        return None

    def read_or_tell(data: bytes) -> Any:  # noqa: ANN401 — a message of whichever type the method takes
        try:
            return read(data)
        except DecodeError as error:
            return _Unreadable(str(error))

    return read_or_tell


class Requests:
    """The requests of one call, one after the other. Raise InvalidArgument for what is no message."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401
        request = await self._context.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        if isinstance(request, _Unreadable):
            raise InvalidArgument(f"the request cannot be read: {request.why}")
        return request

    async def first(self) -> Any:  # noqa: ANN401
        """The one request of a call that has one. Raises InvalidArgument."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise InvalidArgument("the call has ended without its request") from None
