"""Work a file system as a busy store does, check every byte, and leave `manifest.json`.

Usage: churn_files.py SEED FILES. In the manner of PostMark (J. Katcher, "PostMark: a new file system benchmark",
Network Appliance TR-3022, 1997): many small files, of 512 bytes to 64 KiB, are written; then as many transactions each
read one and append to it, or delete it and write another in its place. Every read is held against what was written.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEAST_BYTES = 512
DOUBLINGS = 7  # sizes are spread evenly over their logarithm
APPENDED_BYTES = 1024


@dataclass(frozen=True)
class Transaction:
    """One step of the work."""

    number: int  # whose content is drawn from the seed
    file: int
    appends: bool  # or takes the file's place by a new one
    size_bytes: int


def plan(seed: int, files: int) -> Iterator[Transaction]:
    """Every file once, then as many transactions."""
    words = np.random.PCG64([seed, 1]).random_raw(8 * files).reshape(2 * files, 4)
    for number, (which, what, magnitude, rest) in enumerate(words.tolist()):
        appends = number >= files and what % 2 == 0
        least_bytes = LEAST_BYTES << magnitude % DOUBLINGS
        size_bytes = APPENDED_BYTES if appends else least_bytes + rest % least_bytes
        yield Transaction(number, number if number < files else which % files, appends, size_bytes)


def content(seed: int, transaction: Transaction) -> bytes:
    """What a transaction writes."""
    words = np.random.PCG64([seed, 2, transaction.number]).random_raw(-(-transaction.size_bytes // 8))
    return words.astype("<u8").tobytes()[: transaction.size_bytes]


def manifest(digests: dict[int, str], written_bytes: int, read_bytes: int) -> dict[str, object]:
    """What is left at the end, by the numbers of the files."""
    whole = hashlib.sha256("".join(digests[file] for file in sorted(digests)).encode()).hexdigest()
    return {"files": len(digests), "written_bytes": written_bytes, "read_bytes": read_bytes, "sha256": whole}


def churn(seed: int, files: int, folder: Path) -> dict[str, object]:
    """Do the work in a folder. Raises ValueError where a file is not what was written."""
    digests: dict[int, str] = {}
    written_bytes = read_bytes = 0
    for transaction in plan(seed, files):
        path = folder / f"{transaction.file:06d}"
        kept = b""
        if transaction.file in digests:
            kept = path.read_bytes()
            read_bytes += len(kept)
            if hashlib.sha256(kept).hexdigest() != digests[transaction.file]:
                raise ValueError(f"{path} is not what was written")
            if not transaction.appends:
                path.unlink()
                kept = b""
        fresh = content(seed, transaction)
        with path.open("ab") as file:
            file.write(fresh)
        written_bytes += len(fresh)
        digests[transaction.file] = hashlib.sha256(kept + fresh).hexdigest()
    for number, digest in digests.items():
        last = (folder / f"{number:06d}").read_bytes()
        read_bytes += len(last)
        if hashlib.sha256(last).hexdigest() != digest:
            raise ValueError(f"file {number} is not what was written")
    return manifest(digests, written_bytes, read_bytes)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        result = churn(int(sys.argv[1]), int(sys.argv[2]), Path(scratch))
    with open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "manifest.json"), "w") as file:
        json.dump(result, file)
    print(json.dumps(result))
