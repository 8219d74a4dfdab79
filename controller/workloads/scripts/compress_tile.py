"""Compress a tile, without loss or nearly so, and leave `tile.skw` and `report.json`.

Usage: compress_tile.py [NEAR]. No pixel errs by more than NEAR digital numbers (default 0: none errs). Pixels are
quantised by 2·NEAR + 1, the step of JPEG-LS's near-lossless mode (ITU-T T.87), then transformed by the reversible 5/3
wavelet of JPEG 2000 (ITU-T T.800, annex F; D. Le Gall and A. Tabatabai, "Sub-band coding of digital images using
symmetric short kernel filters and arithmetic coding techniques", Proc. ICASSP 1988), five levels of it, which integers
undo exactly. Each subband is coded by zlib: Huffman's code alone, or with matches where that is shorter. CCSDS
122.0-B-2, the standard for spacecraft, differs in its wavelet (9/7) and codes bit planes.

The ratio is bits a pixel in over bits a pixel out, at the instrument's 12 bits; PSNR is of 4095 (null: no error).
"""

import io
import json
import math
import os
import struct
import sys
import zlib

import numpy as np

LEVELS = 5
DEPTH_BITS = 12
MAGIC = b"SKW1"
HEADER = struct.Struct("<4sIIBB")  # magic, rows, columns, NEAR, levels
LENGTH = struct.Struct("<I")


def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One level along the first axis: the low and the high half. Before: at least 2 rows."""
    even, odd = x[0::2], x[1::2]
    after = even[1:] if len(even) > len(odd) else np.concatenate([even[1:], even[-1:]])  # mirrored at the edge
    high = odd - ((even[: len(odd)] + after) >> 1)
    before = np.concatenate([high[:1], high])
    here = high if len(high) == len(even) else np.concatenate([high, high[-1:]])
    return even + ((before[: len(even)] + here + 2) >> 2), high


def inverse(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Undo `forward`."""
    before = np.concatenate([high[:1], high])
    here = high if len(high) == len(low) else np.concatenate([high, high[-1:]])
    even = low - ((before[: len(low)] + here + 2) >> 2)
    after = even[1:] if len(even) > len(high) else np.concatenate([even[1:], even[-1:]])
    x = np.empty((len(low) + len(high), *low.shape[1:]), low.dtype)
    x[0::2] = even
    x[1::2] = high + ((even[: len(high)] + after) >> 1)
    return x


def subbands(x: np.ndarray, levels: int) -> list[np.ndarray]:
    """The smooth rest first, then from the coarsest level: HL, LH and HH of each."""
    bands: list[np.ndarray] = []
    for _ in range(levels):
        low, high = forward(x)
        (ll, hl), (lh, hh) = ([half.T for half in forward(part.T)] for part in (low, high))
        bands[:0] = [hl, lh, hh]
        x = ll
    return [x, *bands]


def joined(bands: list[np.ndarray]) -> np.ndarray:
    """Undo `subbands`."""
    x, *rest = bands
    for at in range(0, len(rest), 3):
        hl, lh, hh = rest[at : at + 3]
        x = inverse(inverse(x.T, hl.T).T, inverse(lh.T, hh.T).T)
    return x


def shapes(rows: int, columns: int, levels: int) -> list[tuple[int, int]]:
    """The shapes of a tile's subbands, in the order of `subbands`."""
    bands: list[tuple[int, int]] = []
    for _ in range(levels):
        low_rows, low_columns = -(-rows // 2), -(-columns // 2)
        bands[:0] = [(low_rows, columns // 2), (rows // 2, low_columns), (rows // 2, columns // 2)]
        rows, columns = low_rows, low_columns
    return [(rows, columns), *bands]


def deflated(plain: bytes) -> bytes:
    """The shorter of the two codes; both are read by zlib.decompress."""
    codes = []
    for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY):
        coder = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        codes.append(coder.compress(plain) + coder.flush())
    return min(codes, key=len)


def encode(tile: np.ndarray, near: int) -> bytes:
    """The compressed tile. Shape: (rows, columns), uint16."""
    out = io.BytesIO()
    out.write(HEADER.pack(MAGIC, *tile.shape, near, LEVELS))
    for band in subbands((tile.astype(np.int32) + near) // (2 * near + 1), LEVELS):
        folded = np.where(band >= 0, 2 * band, -2 * band - 1).astype("<u2")  # 0, -1, 1, -2 … → 0, 1, 2, 3 …
        for plane in (folded & 255, folded >> 8):
            code = deflated(plane.astype(np.uint8).tobytes())
            out.write(LENGTH.pack(len(code)) + code)
    return out.getvalue()


def decode(code: bytes) -> np.ndarray:
    """The tile, as near as it was asked to be. Raises ValueError for what is none."""
    try:
        magic, rows, columns, near, levels = HEADER.unpack_from(code)
        if magic != MAGIC:
            raise ValueError("it does not begin as a compressed tile does")
        at, bands = HEADER.size, []
        for shape in shapes(rows, columns, levels):
            planes = []
            for _ in range(2):
                (length,) = LENGTH.unpack_from(code, at)
                plane = zlib.decompress(code[at + LENGTH.size : at + LENGTH.size + length])
                planes.append(np.frombuffer(plane, np.uint8).astype(np.int32).reshape(shape))
                at += LENGTH.size + length
            folded = planes[0] + 256 * planes[1]
            bands.append(np.where(folded % 2, -(folded + 1) // 2, folded // 2))
    except (struct.error, zlib.error) as broken:
        raise ValueError(f"it is no compressed tile: {broken}") from None
    tile: np.ndarray = (joined(bands) * (2 * near + 1)).astype(np.uint16)
    return tile


def report(tile: np.ndarray, code: bytes) -> dict[str, float | int | None]:
    """How small it became, and how far off it is."""
    error = decode(code).astype(np.int64) - tile
    mean_square = float((error**2).mean())
    psnr_db = 10 * math.log10((2**DEPTH_BITS - 1) ** 2 / mean_square) if mean_square else None
    return {
        "compressed_bytes": len(code),
        "bits_per_pixel": round(8 * len(code) / tile.size, 3),
        "ratio": round(DEPTH_BITS * tile.size / (8 * len(code)), 3),
        "largest_error": int(np.abs(error).max()),
        "psnr_db": None if psnr_db is None else round(psnr_db, 2),
    }


if __name__ == "__main__":
    pixels = np.load(os.environ["SKYRACK_INPUTS"].split(os.pathsep)[0])
    compressed = encode(pixels, int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    figures = report(pixels, compressed)
    folder = os.environ["SKYRACK_OUTPUT_DIR"]
    with open(os.path.join(folder, "tile.skw"), "wb") as small:
        small.write(compressed)
    with open(os.path.join(folder, "report.json"), "w") as file:
        json.dump(figures, file)
    print(json.dumps(figures))
