"""Chunks on the wire: the messages of Put and Get, made and read with one copy where protobuf's classes make three.

A chunk is the same two fields in PutRequest and in GetResponse. What is made here is what the generated classes would
make of it; of what comes, that form alone is read here, and all else is left to them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import grpc

from protos.skyrack.v1 import objects_pb2, objects_pb2_grpc

_SERVICE: Final = "skyrack.v1.Objects"
_CHUNK_TAG: Final = 2 << 3 | 2  # field 2, length-delimited
_CRC32C_TAG: Final = bytes((3 << 3 | 5,))  # field 3, four bytes
_CRC32C_BYTES: Final = 4
_HEAD_BYTES: Final = (4, 3, 2)
"""The chunk's tag and length: up to 2 MiB, and none so large is taken."""


class Chunk(NamedTuple):
    """A piece of an object, and its CRC-32C."""

    content: bytes
    crc32c: int


PutPart: TypeAlias = objects_pb2.PutRequest | Chunk
GetPart: TypeAlias = objects_pb2.GetResponse | Chunk


class Streams:
    """Puts to a node and gets from it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.put = channel.stream_unary(f"/{_SERVICE}/Put", written, objects_pb2.ObjectInfo.FromString)
        self.get = channel.unary_stream(f"/{_SERVICE}/Get", objects_pb2.GetRequest.SerializeToString, read_get)


def serve(objects: objects_pb2_grpc.ObjectsServicer, server: grpc.aio.Server) -> None:
    """Add the service to a server: as the generated code has it, and then these two in the place of its own."""
    objects_pb2_grpc.add_ObjectsServicer_to_server(objects, server)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Put": grpc.stream_unary_rpc_method_handler(objects.Put, read_put, objects_pb2.ObjectInfo.SerializeToString),
        "Get": grpc.unary_stream_rpc_method_handler(objects.Get, objects_pb2.GetRequest.FromString, written),
    }
    server.add_registered_method_handlers(_SERVICE, handlers)


def written(part: PutPart | GetPart) -> bytes:
    """A message for the wire."""
    if not isinstance(part, Chunk):
        return part.SerializeToString()
    content, crc32c = part
    if not content or not crc32c:  # zero is left out on the wire
        return objects_pb2.PutRequest(chunk=content, crc32c=crc32c).SerializeToString()
    return b"".join((_head(len(content)), content, _CRC32C_TAG, crc32c.to_bytes(_CRC32C_BYTES, "little")))


def read_put(message: bytes) -> PutPart:
    """A message to a put; a chunk is always a Chunk. Raises protobuf's DecodeError."""
    if chunk := _plain(message):
        return chunk
    part = objects_pb2.PutRequest.FromString(message)
    return Chunk(part.chunk, part.crc32c) if part.WhichOneof("part") == "chunk" else part


def read_get(message: bytes) -> GetPart:
    """A message from a get; a chunk is always a Chunk. Raises protobuf's DecodeError."""
    if chunk := _plain(message):
        return chunk
    part = objects_pb2.GetResponse.FromString(message)
    return Chunk(part.chunk, part.crc32c) if part.WhichOneof("part") == "chunk" else part


def _plain(message: bytes) -> Chunk | None:
    """A message that is a chunk and its checksum, written as `written` does."""
    end = len(message) - len(_CRC32C_TAG) - _CRC32C_BYTES
    if not message.startswith(_CRC32C_TAG, max(end, 0)):
        return None
    for head_bytes in _HEAD_BYTES:
        head = _head(end - head_bytes) if end > head_bytes else b""
        if len(head) == head_bytes and message.startswith(head):
            return Chunk(message[head_bytes:end], int.from_bytes(message[-_CRC32C_BYTES:], "little"))
    return None


@lru_cache(maxsize=16)
def _head(length_bytes: int) -> bytes:
    """The tag of a chunk, and its length as a varint."""
    head = bytearray((_CHUNK_TAG,))
    while length_bytes > 0x7F:
        head.append(length_bytes & 0x7F | 0x80)
        length_bytes >>= 7
    head.append(length_bytes)
    return bytes(head)
