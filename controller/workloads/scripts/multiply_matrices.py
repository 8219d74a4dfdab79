"""Multiply two matrices of whole numbers, and leave `product.json`.

Usage: multiply_matrices.py SEED SIDE. Elements are whole numbers from −1024 to 1023, so every sum is below 2⁵³ and
float64 is exact, in whichever order a machine's BLAS adds: the product has one digest everywhere.
"""

import hashlib
import json
import os
import sys

import numpy as np


def factors(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Both matrices. Shapes: (side, side), int64."""
    words = np.random.PCG64(seed).random_raw(2 * side**2)
    a, b = ((words >> np.uint64(53)).astype(np.int64) - 1024).reshape(2, side, side)
    return a, b


def answer(product: np.ndarray) -> dict[str, object]:
    """What is told of a product."""
    whole = product.astype("<i8")
    return {
        "side": len(whole),
        "trace": int(np.trace(whole)),
        "sha256": hashlib.sha256(whole.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    left, right = factors(int(sys.argv[1]), int(sys.argv[2]))
    result = answer(left.astype(np.float64) @ right.astype(np.float64))
    with open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "product.json"), "w") as file:
        json.dump(result, file)
    print(json.dumps(result))
