"""Objects as k + m fragments, any k of which give the whole: systematic Reed-Solomon, stripe by stripe.

What a fragment looks like is said of `Part` in protos/skyrack/v1/objects.proto. All of it computes, and blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from pyeclib.ec_iface import ECDriver, ECDriverError

from controller.errors import InputError, SkyrackError

STRIPE_BYTES: Final = 1024 * 1024
"""So much of the whole is coded at a time."""

HEAD_BYTES: Final = 34
MAX_FRAGMENTS: Final = 32  # as many as liberasurecode has
_HEADER_BYTES: Final = 80  # its own, of each piece


class DamagedError(SkyrackError):
    """A piece is not what was written. Says which fragment's."""

    def __init__(self, index: int) -> None:
        super().__init__(f"fragment {index} is damaged")
        self.index = index


@dataclass(frozen=True)
class Code:
    """k fragments with the whole's own bytes, and m more."""

    k: int
    m: int

    def __post_init__(self) -> None:
        if self.k < 1 or self.m < 1 or self.count > MAX_FRAGMENTS:
            raise InputError(
                f"{self} fragments: both must be 1 or more, and {MAX_FRAGMENTS} together at most, as in 4+2"
            )

    def __str__(self) -> str:
        return f"{self.k}+{self.m}"

    @property
    def count(self) -> int:
        """How many fragments there are."""
        return self.k + self.m

    def check_size(self, size_bytes: int) -> None:
        """Raise InputError for a whole that is too small to be cut."""
        if size_bytes < self.k:
            raise InputError(f"{size_bytes} bytes are too few for {self.k} fragments with a byte or more of them each")

    def head(self, whole: str) -> bytes:
        """What all fragments of a whole begin with."""
        return bytes.fromhex(whole.removeprefix("sha256:")) + bytes((self.k, self.m))

    def piece_bytes(self, stripe_bytes: int) -> int:
        """How large the piece of each fragment is that stands for so much of the whole."""
        with self.coder() as coder:
            return len(coder.encoded(bytes(stripe_bytes))[0])

    def fragment_bytes(self, size_bytes: int) -> int:
        """How large each fragment of a whole is."""
        stripes, rest_bytes = divmod(size_bytes, STRIPE_BYTES)
        pieces_bytes = stripes * self.piece_bytes(STRIPE_BYTES) if stripes else 0
        return HEAD_BYTES + pieces_bytes + (self.piece_bytes(rest_bytes) if rest_bytes else 0)

    def coder(self) -> Coder:
        """To code with: a context manager."""
        return Coder(self)


class Coder:
    """One use of the library, which computes for one caller at a time."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._driver = ECDriver(k=code.k, m=code.m, ec_type="liberasurecode_rs_vand", chksum_type="inline_crc32")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._driver.close()

    def encoded(self, stripe: bytes) -> list[bytes]:
        """A piece for each fragment, all of one length. Before: the stripe is not empty."""
        return self._driver.encode(stripe)

    def decoded(self, pieces: Mapping[int, bytes]) -> bytes:
        """The stripe that k pieces, by index, are of. Raises DamagedError."""
        for index, piece in pieces.items():
            if not self._is_sound(index, piece):
                raise DamagedError(index)
        return self._driver.decode([*pieces.values()])

    def _is_sound(self, index: int, piece: bytes) -> bool:
        """Whether a piece is that of the fragment, as it was written, as far as its own header and checksum tell."""
        try:
            found = self._driver.get_metadata(piece, 1)
        except ECDriverError:
            return False
        assert not isinstance(found, bytes)
        told = found["index"], found["size"] + _HEADER_BYTES, found["chksum_mismatch"]
        return told == (index, len(piece), 0)


@dataclass(frozen=True)
class Coded:
    """The fragments of a whole as files, by index."""

    piece_bytes: int
    files: tuple[Path, ...]
    names: tuple[str, ...]  # sha256:…


class Encoder:
    """Writes the fragments of a whole into files of a folder as its bytes come. A context manager."""

    def __init__(self, code: Code, whole: str, folder: Path) -> None:
        self._code, self._whole = code, whole
        self._paths = tuple(folder / str(index) for index in range(code.count))
        self._hashes = [hashlib.sha256() for _ in self._paths]
        self._of_whole = hashlib.sha256()
        self._stripe = bytearray()
        self._piece_bytes = 0
        self._stack = ExitStack()
        self._files: list[BinaryIO] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._coder = stack.enter_context(self._code.coder())
            self._files = [stack.enter_context(path.open("wb", buffering=0)) for path in self._paths]
            self._write([self._code.head(self._whole)] * self._code.count)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def take(self, chunk: bytes) -> None:
        """The next bytes of the whole. Raises OSError."""
        self._of_whole.update(chunk)
        self._stripe += chunk
        while len(self._stripe) >= STRIPE_BYTES:
            self._code_stripe(bytes(self._stripe[:STRIPE_BYTES]))
            del self._stripe[:STRIPE_BYTES]

    def finish(self) -> Coded:
        """All bytes have come. Raises InputError where they are not those of the name, OSError."""
        if self._stripe:
            self._code_stripe(bytes(self._stripe))
        found = f"sha256:{self._of_whole.hexdigest()}"
        if found != self._whole:
            raise InputError(f"the bytes sent as {self._whole} hash to {found}")
        names = tuple(f"sha256:{each.hexdigest()}" for each in self._hashes)
        return Coded(self._piece_bytes, self._paths, names)

    def _code_stripe(self, stripe: bytes) -> None:
        pieces = self._coder.encoded(stripe)
        self._piece_bytes = self._piece_bytes or len(pieces[0])
        self._write(pieces)

    def _write(self, pieces: list[bytes]) -> None:
        for piece, file, sha256 in zip(pieces, self._files, self._hashes, strict=True):
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]
            sha256.update(piece)
