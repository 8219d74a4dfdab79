"""A lacking fragment computed from k others, piece by piece. For a helper that ends soon: `pyeclib` would stay in the
agent's memory. What goes over the socket to the agent, all numbers big-endian:

    asked     uint32 length of a piece, then k times: uint32 index of a fragment, its piece of that length
    answered  uint32 0, then the lacking piece, of the same length; or the number, from 1, of a piece that is damaged
"""

from __future__ import annotations

import signal
import socket
import struct
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pyeclib.ec_iface import ECDriver

NUMBER: Final = struct.Struct(">I")
_HEADER_BYTES: Final = 80  # liberasurecode's own, of each piece
_MAX_PIECE_BYTES: Final = 2 * 1024 * 1024


def serve(asker: socket.socket, k: int, m: int, index: int, patience_s: int) -> None:
    """Compute pieces of a fragment until the asker has closed; who asks nothing for so long finds the process ended.

    Raises OSError, and ValueError for a code that cannot be.
    """
    from pyeclib.ec_iface import ECDriver, ECDriverError

    try:
        code = ECDriver(k=k, m=m, ec_type="liberasurecode_rs_vand", chksum_type="inline_crc32")
        with asker, asker.makefile("rb") as asked:
            while number := asked.read(NUMBER.size):
                signal.alarm(patience_s)
                asker.sendall(_answer(code, asked, k, index, *NUMBER.unpack(number)))
    except (ECDriverError, struct.error) as error:
        raise ValueError(f"fragment {index} of {k} + {m}: {error}") from error


def _answer(code: ECDriver, asked: BinaryIO, k: int, index: int, piece_bytes: int) -> bytes:
    """The lacking piece, or which one is damaged. Raises ValueError, ECDriverError."""
    if not _HEADER_BYTES < piece_bytes <= _MAX_PIECE_BYTES:
        raise ValueError(f"pieces of {piece_bytes} bytes")
    pieces = []
    damaged = 0
    for number in range(1, k + 1):
        (of_fragment,) = NUMBER.unpack(asked.read(NUMBER.size))
        pieces.append(asked.read(piece_bytes))
        if not damaged and not _is_sound(code, pieces[-1], of_fragment):
            damaged = number
    if damaged:
        return NUMBER.pack(damaged)
    return NUMBER.pack(0) + code.reconstruct(pieces, [index])[0]


def _is_sound(code: ECDriver, piece: bytes, of_fragment: int) -> bool:
    """Whether a piece is that of the fragment, as it was written, as far as its own header and checksum tell."""
    from pyeclib.ec_iface import ECDriverError

    try:
        found = code.get_metadata(piece, 1)
    except ECDriverError:
        return False
    assert not isinstance(found, bytes)
    told = found["index"], found["size"] + _HEADER_BYTES, found["chksum_mismatch"]
    return told == (of_fragment, len(piece), 0)
