"""Objects as k + m fragments: any k give the whole, any k of the others give a lacking one; what is damaged is told."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.coding import HEAD_BYTES, STRIPE_BYTES, Code, DamagedError, Encoder
from controller.errors import InputError
from node_agent.objects import mending
from node_agent.objects.parts import HEAD_BYTES as AGENTS_HEAD_BYTES

EDGES_BYTES = (1, 2, 79, STRIPE_BYTES - 1, STRIPE_BYTES, STRIPE_BYTES + 1, 2 * STRIPE_BYTES)


def fragments_of(content: bytes, code: Code, chunk_bytes: int = 100_000) -> tuple[list[bytes], int]:
    """All fragments, and how large a piece is."""
    name = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with tempfile.TemporaryDirectory() as folder, Encoder(code, name, Path(folder)) as encoder:
        for start in range(0, len(content), chunk_bytes):
            encoder.take(content[start : start + chunk_bytes])
        made = encoder.finish()
        fragments = [path.read_bytes() for path in made.files]
    assert [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in fragments] == list(made.names)
    assert {each[:HEAD_BYTES] for each in fragments} == {code.head(name)}
    assert {len(each) for each in fragments} == {code.fragment_bytes(len(content))}
    return fragments, made.piece_bytes


def pieces_of(fragments: Mapping[int, bytes], piece_bytes: int) -> Iterator[dict[int, bytes]]:
    """Piece for piece."""
    (length,) = {len(each) for each in fragments.values()}
    for start in range(HEAD_BYTES, length, piece_bytes):
        yield {index: each[start : start + piece_bytes] for index, each in fragments.items()}


def decoded(code: Code, fragments: Mapping[int, bytes], piece_bytes: int) -> bytes:
    """The whole."""
    with code.coder() as coder:
        return b"".join([coder.decoded(pieces) for pieces in pieces_of(fragments, piece_bytes)])


@contextmanager
def helper(code: Code, index: int) -> Iterator[Callable[[Mapping[int, bytes]], bytes | int]]:
    """Asks what mends fragments as the agent does, over a socket: the lacking piece, or which one is damaged."""
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=mending.serve, args=(theirs, code.k, code.m, index, 0))
    serving.start()

    def ask(pieces: Mapping[int, bytes]) -> bytes | int:
        (length,) = {len(piece) for piece in pieces.values()}
        ours.sendall(mending.NUMBER.pack(length))
        for each, piece in pieces.items():
            ours.sendall(mending.NUMBER.pack(each) + piece)
        answer = ours.recv(mending.NUMBER.size, socket.MSG_WAITALL)
        (damaged,) = mending.NUMBER.unpack(answer)
        return [*pieces][damaged - 1] if damaged else ours.recv(length, socket.MSG_WAITALL)

    with ours:
        yield ask
    serving.join(10)
    assert not serving.is_alive()


@pytest.mark.parametrize("size_bytes", [3, 1000, STRIPE_BYTES + 7])
def test_every_choice_of_k_gives_the_whole_and_each_lacking_fragment(size_bytes: int) -> None:
    """All ten of 3+2, for decoding; all that are left for each fragment, for mending: bit for bit."""
    code, content = Code(3, 2), os.urandom(size_bytes)
    fragments, piece_bytes = fragments_of(content, code)
    for chosen in combinations(range(5), 3):
        some = {index: fragments[index] for index in chosen}
        assert decoded(code, some, piece_bytes) == content
        for lacking in set(range(5)) - set(chosen):
            with helper(code, lacking) as ask:
                mended = [ask(pieces) for pieces in pieces_of(some, piece_bytes)]
            assert fragments[lacking][HEAD_BYTES:] == b"".join(each for each in mended if isinstance(each, bytes))


@settings(max_examples=40, deadline=None)
@given(
    size_bytes=st.one_of(st.integers(1, 5000), st.sampled_from(EDGES_BYTES)),
    k=st.integers(1, 20),
    m=st.integers(1, 12),
    seed=st.randoms(use_true_random=False),
    chunk_bytes=st.integers(1000, 2 * STRIPE_BYTES),
)
def test_any_k_fragments_give_any_whole(size_bytes: int, k: int, m: int, seed: random.Random, chunk_bytes: int) -> None:
    """Of all sizes and codes, stripe edges among them, however the bytes come; and any k give any other fragment."""
    code, content = Code(k, m), seed.randbytes(size_bytes)
    fragments, piece_bytes = fragments_of(content, code, chunk_bytes)
    chosen = seed.sample(range(k + m), k)
    some = {index: fragments[index] for index in chosen}
    assert decoded(code, some, piece_bytes) == content
    lacking = seed.choice([index for index in range(k + m) if index not in chosen])
    with helper(code, lacking) as ask:
        for pieces, wanted in zip(
            pieces_of(some, piece_bytes), pieces_of(dict(enumerate(fragments)), piece_bytes), strict=True
        ):
            assert ask(pieces) == wanted[lacking]


def test_the_whole_lies_in_the_first_k_fragments_as_it_is() -> None:
    """Systematic: without a loss nothing has to be computed."""
    content = os.urandom(4000)
    fragments, _ = fragments_of(content, Code(4, 2))
    assert b"".join(each[HEAD_BYTES + 80 :] for each in fragments[:4]) == content


def test_a_damaged_piece_is_told_from_sound_ones() -> None:
    """Wherever the bit is that has flipped, in its header or in its bytes; one that is cut short or another's, too."""
    code = Code(3, 2)
    fragments, piece_bytes = fragments_of(os.urandom(30_000), code)
    for at in (0, 3, 20, 59, 70, 80, 5000, piece_bytes - 1):
        damaged = bytearray(fragments[1])
        damaged[HEAD_BYTES + at] ^= 4
        some = {0: fragments[0], 1: bytes(damaged), 4: fragments[4]}
        with pytest.raises(DamagedError, match="fragment 1 is damaged"):
            decoded(code, some, piece_bytes)
        with helper(code, 2) as ask:
            assert ask(next(pieces_of(some, piece_bytes))) == 1
            sound = {0: fragments[0], 3: fragments[3], 4: fragments[4]}
            assert ask(next(pieces_of(sound, piece_bytes))) == fragments[2][HEAD_BYTES:], "it goes on"
    with pytest.raises(DamagedError, match="fragment 1 is damaged"):
        decoded(code, {0: fragments[0], 1: fragments[2], 4: fragments[4]}, piece_bytes)


def test_fragments_of_one_whole_are_no_others() -> None:
    """Wholes that share their first bytes, and codes that share k, share no fragment: one may be removed alone."""
    first = os.urandom(4000)
    every = [
        *fragments_of(first, Code(4, 2))[0],
        *fragments_of(first[:-1] + b"x", Code(4, 2))[0],
        *fragments_of(first, Code(4, 3))[0],
    ]
    assert len(set(every)) == len(every)
    assert fragments_of(first, Code(4, 2), 7)[0] == fragments_of(first, Code(4, 2))[0], "and are always the same"


@pytest.mark.parametrize(("k", "m"), [(0, 1), (1, 0), (-1, 3), (31, 2), (2**40, 1)])
def test_codes_that_cannot_be(k: int, m: int) -> None:
    """What they may be is said."""
    with pytest.raises(InputError, match="both must be 1 or more, and 32 together at most"):
        Code(k, m)


def test_wholes_that_cannot_be(tmp_path: Path) -> None:
    """Of fewer bytes than fragments, or other bytes than their name says."""
    Code(3, 2).check_size(3)
    for size_bytes in (0, 2):
        with pytest.raises(InputError, match="are too few for 3 fragments"):
            Code(3, 2).check_size(size_bytes)
    with Encoder(Code(3, 2), f"sha256:{'0' * 64}", tmp_path) as encoder:
        encoder.take(b"other")
        with pytest.raises(InputError, match="hash to"):
            encoder.finish()


def test_both_programs_mean_the_same_head() -> None:
    """What precedes the pieces."""
    assert HEAD_BYTES == AGENTS_HEAD_BYTES
