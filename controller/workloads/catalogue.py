"""The workloads that ship: what each needs, what runs, and whether what came back is right.

A workload's answer is known from its seed and size: `verify` computes it here, where it can by another way than the
job did, and says what is wrong of a result.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from controller.errors import InputError
from controller.workloads.scripts import (
    capture_chips,
    capture_pair,
    capture_scene,
    capture_tile,
    churn_files,
    classify_chips,
    compress_tile,
    hash_tree,
    multiply_matrices,
)

Outputs = Mapping[str, bytes]
"""What a job left: the files' names, and their bytes."""

MODEL = "chip_classifier.json"
GAIN_TOLERANCE_RATIO = 0.01


@dataclass(frozen=True)
class Workload:
    """One kind of job. Scripts are files of `controller/workloads/scripts`."""

    name: str
    what: str
    script: str
    leaves: tuple[str, ...]  # the files that come back
    size: int  # by default
    size_is: str
    least: int  # the smallest size whose answer is sure
    deadline_s: float  # of the sky's time, from the moment it is asked for: what a user would wait
    wrong: Callable[[int, int, Outputs], str | None]
    capture: str | None = None  # what makes its inputs, where they are to lie; None: it needs none
    captured: tuple[str, ...] = ()  # the files that leaves, which the script reads in this order
    model: str | None = None  # a file of the scripts' folder that it reads after them
    options: tuple[str, ...] = ()

    def capture_arguments(self, seed: int, size: int) -> list[str]:
        """Of the capture."""
        return [str(seed), str(size)]

    def arguments(self, seed: int, size: int) -> list[str]:
        """Of the script: what reads inputs needs no seed."""
        return [*([] if self.capture else [str(seed), str(size)]), *self.options]

    def verify(self, seed: int, size: int, outputs: Outputs) -> str | None:
        """What is wrong of a result; None if it is the right one."""
        if missing := [name for name in self.leaves if name not in outputs]:
            return f"{missing[0]} is not among its outputs"
        try:
            return self.wrong(seed, size, outputs)
        except (ValueError, KeyError, TypeError) as broken:
            return f"its outputs cannot be read: {broken!r}"


def script(name: str) -> bytes:
    """A file of the scripts' folder."""
    return resources.files("controller.workloads").joinpath("scripts", name).read_bytes()


def _hot_spots_wrong(seed: int, size: int, outputs: Outputs) -> str | None:
    found = [(s["row"], s["column"], s["pixels"]) for s in json.loads(outputs["finding.json"])["hot_spots"]]
    expected = [(row, column, side**2) for row, column, side in capture_scene.planted(seed, size)]
    return _difference("hot spots", found, expected)


def _compression_wrong(seed: int, size: int, outputs: Outputs, near: int) -> str | None:
    tile = capture_tile.tile(seed, size)
    decoded = compress_tile.decode(outputs["tile.skw"])
    if decoded.shape != tile.shape:
        return f"the tile came back as {decoded.shape}, and was {tile.shape}"
    error = int(np.abs(decoded.astype(np.int64) - tile).max())
    if error > near:
        return f"a pixel is off by {error}, and {near} is allowed"
    told, true = json.loads(outputs["report.json"]), compress_tile.report(tile, outputs["tile.skw"])
    return _difference("figures", told, true)


def _changes_wrong(seed: int, size: int, outputs: Outputs) -> str | None:
    told, true = json.loads(outputs["changes.json"]), capture_pair.planted(seed, size)
    gain = true.gain_1024 / 1024
    if abs(told["gain"] - gain) > GAIN_TOLERANCE_RATIO * gain:
        return f"gain {told['gain']}, and it was {gain:.4f}"
    keys = ("row", "column", "height", "width", "brighter")
    found = [tuple(box[key] for key in keys) for box in told["changes"]]
    expected = [(*box[:4], box[4] > 0) for box in true.boxes]
    moved = (told["down_pixels"], told["right_pixels"])
    return _difference("shift", moved, (true.down_pixels, true.right_pixels)) or _difference("changes", found, expected)


def _hash_wrong(seed: int, size: int, outputs: Outputs) -> str | None:
    return _difference("tree", json.loads(outputs["tree.json"]), hash_tree.tree(seed, size))


def _product_wrong(seed: int, size: int, outputs: Outputs) -> str | None:
    a, b = multiply_matrices.factors(seed, size)
    # Whole numbers throughout, and no BLAS.
    return _difference("product", json.loads(outputs["product.json"]), multiply_matrices.answer(a @ b))


def _manifest_wrong(seed: int, size: int, outputs: Outputs) -> str | None:
    """The same transactions, in memory."""
    kept: dict[int, bytes] = {}
    written_bytes = read_bytes = 0
    for transaction in churn_files.plan(seed, size):
        before = kept.get(transaction.file, b"")
        fresh = churn_files.content(seed, transaction)
        read_bytes += len(before)
        written_bytes += len(fresh)
        kept[transaction.file] = before + fresh if transaction.appends else fresh
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in kept.items()}
    read_bytes += sum(map(len, kept.values()))
    expected = churn_files.manifest(digests, written_bytes, read_bytes)
    return _difference("manifest", json.loads(outputs["manifest.json"]), expected)


def _classes_wrong(seed: int, size: int, outputs: Outputs) -> str | None:
    """The integers of the network give the same answer everywhere, chips that it mistakes included."""
    network = classify_chips.load(script(MODEL).decode())
    numbers = classify_chips.classify(network, capture_chips.chips(seed, size)[0])
    expected = {**classify_chips.answer(network, numbers), "classes": "".join(str(number) for number in numbers)}
    return _difference("classes", json.loads(outputs["classes.json"]), expected)


def _difference(what: str, found: object, expected: object) -> str | None:
    """In words, shortened: the first of two lists' or dicts' entries that differ, or all there is."""
    if found == expected:
        return None
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        key = next(key for key in expected if found[key] != expected[key])
        return f"{what}: {key} is {str(found[key])[:60]}, not {str(expected[key])[:60]}"
    if isinstance(found, Sequence) and isinstance(expected, Sequence):
        odd = [each for each in found if each not in expected] + [each for each in expected if each not in found]
        return f"{what}: {len(found)} found, {len(expected)} there; {str(odd[:1])[:80]} is among one alone"
    return f"{what}: {str(found)[:60]}, not {str(expected)[:60]}"


CATALOGUE: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            "hot-spots", "search a thermal scene for fires", "find_hot_spots.py", ("finding.json",),
            1024, "pixels a side", 256, 30.0, _hot_spots_wrong,
            capture="capture_scene.py", captured=("scene.npy",),
        ),
        Workload(
            "compress", "compress a tile without loss", "compress_tile.py", ("tile.skw", "report.json"),
            512, "pixels a side", 64, 60.0, functools.partial(_compression_wrong, near=0),
            capture="capture_tile.py", captured=("tile.npy",),
        ),
        Workload(
            "compress-near", "compress a tile, off by 3 at most", "compress_tile.py", ("tile.skw", "report.json"),
            512, "pixels a side", 64, 60.0, functools.partial(_compression_wrong, near=3),
            capture="capture_tile.py", captured=("tile.npy",), options=("3",),
        ),
        Workload(
            "changes", "find what changed between two looks", "detect_changes.py", ("changes.json",),
            512, "pixels a side", 384, 30.0, _changes_wrong,
            capture="capture_pair.py", captured=("before.npy", "after.npy"),
        ),
        Workload(
            "classify", "tell ships from sea, coasts and slicks in radar chips", "classify_chips.py", ("classes.json",),
            512, "chips", 1, 30.0, _classes_wrong,
            capture="capture_chips.py", captured=("chips.npy",), model=MODEL,
        ),
        Workload(
            "hash", "hash a stream into a tree", "hash_tree.py", ("tree.json",),
            32, "MiB", 1, 60.0, _hash_wrong,
        ),
        Workload(
            "matrix", "multiply two matrices of whole numbers", "multiply_matrices.py", ("product.json",),
            384, "rows and columns", 2, 60.0, _product_wrong,
        ),
        Workload(
            "files", "write, read and check many files", "churn_files.py", ("manifest.json",),
            256, "files", 1, 60.0, _manifest_wrong,
        ),
    )
}  # fmt: skip
"""Every workload by its name."""


def workload_named(name: str) -> Workload:
    """One of the catalogue. Raises InputError."""
    try:
        return CATALOGUE[name]
    except KeyError:
        raise InputError(f"there is no workload {name!r}; there are {', '.join(CATALOGUE)}") from None
