"""Hash a stream into a tree, and leave `tree.json`.

Usage: hash_tree.py SEED MEBIBYTES. The stream is the raw words of PCG64 from the seed, little-endian. The tree is the
Merkle tree of RFC 9162, section 2.1.1, over leaves of 64 KiB: SHA-256 with 0x00 before a leaf, 0x01 before two hashes.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence

import numpy as np

LEAF_BYTES = 64 * 1024


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\0" + leaf).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The hash of all, from those of the leaves; of none, the hash of nothing."""
    if not hashes:
        return hashlib.sha256().digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1  # the largest power of two below their number
    return hashlib.sha256(b"\1" + root(hashes[:split]) + root(hashes[split:])).digest()


def tree(seed: int, mebibytes: int) -> dict[str, object]:
    """The root over the stream."""
    stream, leaves = np.random.PCG64(seed), mebibytes * 2**20 // LEAF_BYTES
    hashes = [leaf_hash(stream.random_raw(LEAF_BYTES // 8).astype("<u8").tobytes()) for _ in range(leaves)]
    return {"bytes": leaves * LEAF_BYTES, "leaves": leaves, "root": root(hashes).hex()}


if __name__ == "__main__":
    result = tree(int(sys.argv[1]), int(sys.argv[2]))
    with open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "tree.json"), "w") as file:
        json.dump(result, file)
    print(json.dumps(result))
