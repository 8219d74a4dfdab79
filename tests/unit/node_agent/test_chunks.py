"""Chunks on the wire, held against the classes that protobuf generates from the .proto."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from google.protobuf.message import DecodeError

from node_agent.objects import chunks
from node_agent.objects.chunks import Chunk, GetPart, PutPart
from protos.skyrack.v1 import objects_pb2

SIZES_BYTES = (0, 1, 2, 9, 127, 128, 129, 16_383, 16_384, 65_536, 2**20, 2**21, 2**21 + 1)
CRCS32C = (0, 1, 0x1D, 0x12345678, 0xFFFFFFFF)
FUZZED = 20_000


def by_protobuf(kind: type[objects_pb2.PutRequest] | type[objects_pb2.GetResponse], message: bytes) -> object:
    """What the generated class reads: a chunk, a message, or that it cannot."""
    try:
        part = kind.FromString(message)
    except DecodeError:
        return DecodeError
    return Chunk(part.chunk, part.crc32c) if part.WhichOneof("part") == "chunk" else part


def here(read: Callable[[bytes], PutPart | GetPart], message: bytes) -> object:
    """What is read here."""
    try:
        return read(message)
    except DecodeError:
        return DecodeError


def spoilt(rng: random.Random, message: bytes) -> bytes:
    """A message that something has happened to, near its ends above all, where its tags and lengths are."""
    bytes_ = bytearray(message)
    for _ in range(rng.randint(0, 3)):
        near = rng.choice((0, len(bytes_) - 8, rng.randint(0, len(bytes_))))
        at = min(max(near + rng.randint(0, 8), 0), len(bytes_))
        match rng.randint(0, 3):
            case 0:
                bytes_[at : at + 1] = rng.randbytes(1)
            case 1:
                del bytes_[at : at + rng.randint(1, 5)]
            case 2:
                bytes_[at:at] = rng.choice((rng.randbytes(rng.randint(1, 5)), b"\x12", b"\x1d", b"\x80", b"\x00"))
            case _:
                bytes_ += message
    return bytes(bytes_)


@pytest.mark.parametrize("size_bytes", SIZES_BYTES)
@pytest.mark.parametrize("crc32c", CRCS32C)
def test_a_chunk_is_written_as_protobuf_writes_it(size_bytes: int, crc32c: int) -> None:
    """The wire is the .proto's, to the byte, in both directions, for every form that a length can have."""
    content = random.Random(size_bytes).randbytes(size_bytes)
    message = chunks.written(Chunk(content, crc32c))
    assert message == objects_pb2.PutRequest(chunk=content, crc32c=crc32c).SerializeToString()
    assert message == objects_pb2.GetResponse(chunk=content, crc32c=crc32c).SerializeToString()
    assert chunks.read_put(message) == chunks.read_get(message) == Chunk(content, crc32c)


def test_what_is_no_chunk_goes_as_it_is() -> None:
    """Headers and infos are protobuf's own, there and back."""
    header = objects_pb2.PutRequest(header=objects_pb2.PutRequest.Header(object="sha256:0", size_bytes=7, for_job="j"))
    info = objects_pb2.GetResponse(info=objects_pb2.ObjectInfo(object="sha256:0", size_bytes=7))
    assert chunks.read_put(chunks.written(header)) == header
    assert chunks.read_get(chunks.written(info)) == info
    assert chunks.read_put(b"") == objects_pb2.PutRequest()


def test_whatever_comes_is_read_as_protobuf_reads_it() -> None:
    """20,000 messages, whole, spoilt and of noise: the same chunk, the same message, or the same refusal."""
    rng = random.Random(1)
    whole = [
        *(chunks.written(Chunk(rng.randbytes(n), rng.getrandbits(32))) for n in (1, 3, 120, 127, 128, 300, 16_384)),
        objects_pb2.PutRequest(header=objects_pb2.PutRequest.Header(object="sha256:0")).SerializeToString(),
        objects_pb2.GetResponse(info=objects_pb2.ObjectInfo(object="sha256:0")).SerializeToString(),
        objects_pb2.PutRequest(crc32c=7).SerializeToString(),
    ]  # fmt: skip
    for _ in range(FUZZED):
        message = spoilt(rng, rng.choice(whole)) if rng.random() < 0.9 else rng.randbytes(rng.randint(0, 20))
        assert here(chunks.read_put, message) == by_protobuf(objects_pb2.PutRequest, message), message.hex()
        assert here(chunks.read_get, message) == by_protobuf(objects_pb2.GetResponse, message), message.hex()


def test_chunks_of_a_transfer_do_not_pass_through_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of the usual form is read and written without the generated classes, whose copies it is spared."""
    monkeypatch.setattr(chunks, "objects_pb2", SimpleNamespace())
    chunk = Chunk(bytes(256 * 1024), 0x12345678)
    message = chunks.written(chunk)
    assert chunks.read_put(message) == chunks.read_get(message) == chunk
