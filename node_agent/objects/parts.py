"""What a fragment is of an object that was erasure-coded, as its terms say: enough for any node to find the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from node_agent.errors import InvalidArgument
from node_agent.objects.names import digest_of
from protos.skyrack.v1 import objects_pb2

HEAD_BYTES: Final = 34
"""How many bytes all fragments of a whole begin with: see `Part` in objects.proto."""

MAX_FRAGMENTS: Final = 32
"""As many as liberasurecode has."""

_MAX_PIECE_BYTES: Final = 2 * 1024 * 1024
"""A piece is a k-th of a MiB, and some. It is held in memory."""


@dataclass(frozen=True)
class Fragment:
    """One of them, and who holds it."""

    object: str
    node: str


@dataclass(frozen=True)
class Part:
    """What `Part` of the wire says, checked."""

    whole: str
    whole_bytes: int
    k: int
    m: int
    index: int
    piece_bytes: int
    fragments: tuple[Fragment, ...]

    @classmethod
    def of(cls, said: objects_pb2.Part) -> Self:
        """The part that the wire says. Raises InvalidArgument."""
        count = said.k + said.m
        if said.k < 1 or said.m < 1 or count > MAX_FRAGMENTS or count != len(said.fragments):
            raise InvalidArgument(
                f"a code of {said.k} + {said.m} with {len(said.fragments)} fragments: it must have k + m of them, "
                f"both from 1 on, {MAX_FRAGMENTS} together at most"
            )
        if not 0 <= said.index < count:
            raise InvalidArgument(f"fragment {said.index} of {count}: they count from 0")
        if not 0 < said.piece_bytes <= _MAX_PIECE_BYTES:
            raise InvalidArgument(f"pieces of {said.piece_bytes} bytes: they must have 1 to {_MAX_PIECE_BYTES}")
        for name in (said.whole, *(each.object for each in said.fragments)):
            digest_of(name)
        fragments = tuple(Fragment(each.object, each.node) for each in said.fragments)
        return cls(said.whole, said.whole_bytes, said.k, said.m, said.index, said.piece_bytes, fragments)

    @property
    def head(self) -> bytes:
        """What all fragments of the whole begin with."""
        return bytes.fromhex(digest_of(self.whole)) + bytes((self.k, self.m))

    def told(self) -> objects_pb2.Part:
        """For the wire."""
        return objects_pb2.Part(
            whole=self.whole,
            whole_bytes=self.whole_bytes,
            k=self.k,
            m=self.m,
            index=self.index,
            piece_bytes=self.piece_bytes,
            fragments=[objects_pb2.Part.Fragment(object=each.object, node=each.node) for each in self.fragments],
        )
