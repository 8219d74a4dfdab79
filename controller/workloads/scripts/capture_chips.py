"""Stand in for the instrument: chips of a radar image of the sea, made from a seed on integers alone.

Usage: capture_chips.py SEED CHIPS. Leaves `chips.npy` (chips of 24 × 24 pixels, uint8, 16 steps a doubling of
intensity). Each shows open sea, a ship, a coast, or a slick (oil, or calm water), under the speckle of four looks:
intensity is the mean times a gamma draw of order 4 (J. W. Goodman, "Some fundamental properties of speckle", Journal of
the Optical Society of America 66 (1976); C. Oliver and S. Quegan, "Understanding synthetic aperture radar images",
chapter 4).
"""

import json
import math
import os
import sys

import numpy as np

CLASSES = ("sea", "ship", "coast", "slick")
SIDE_PIXELS = 24
LOOKS = 4
STEPS_A_DOUBLING = 16
DRAWS = 8  # of 64 bits, for what a chip shows

# Exponential draws of mean 256, by inversion at the middles of 1,024 equal parts.
EXPONENTIAL = np.array([round(-256 * math.log((part + 0.5) / 1024)) for part in range(1024)], np.int64)
# The least intensities of the steps of the logarithm.
LEAST = np.array([math.ceil(2 ** (step / STEPS_A_DOUBLING)) for step in range(1, 256)], np.int64)
DIRECTIONS = np.array(
    [(round(256 * math.cos(turn * math.pi / 16)), round(256 * math.sin(turn * math.pi / 16))) for turn in range(32)],
    np.int64,
)


def means(words: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean intensities. Shapes: words (n, DRAWS), labels (n,) → (n, 24, 24)."""

    def drawn(column: int, low: int, high: int) -> np.ndarray:
        """Whole numbers from low to high, of the shape (n, 1, 1)."""
        return (low + (words[:, column] % np.uint64(high - low + 1)).astype(np.int64))[:, None, None]

    rows, columns = np.mgrid[:SIDE_PIXELS, :SIDE_PIXELS].astype(np.int64)
    turn = DIRECTIONS[(words[:, 0] % np.uint64(32)).astype(np.int64)][:, :, None, None]
    down, right = rows - drawn(1, 8, 15), columns - drawn(2, 8, 15)  # from the middle of what is shown
    along = (down * turn[:, 0] + right * turn[:, 1]) >> 7  # in half pixels
    aside = (right * turn[:, 0] - down * turn[:, 1]) >> 7
    sea = drawn(3, 40, 120)
    ship = (np.abs(along) <= drawn(4, 4, 9)) & (np.abs(aside) <= drawn(5, 1, 2))
    label = labels[:, None, None]
    factor = np.where((label == 1) & ship, drawn(6, 10, 32), 4)  # in quarters
    factor = np.where((label == 2) & (along > 0), drawn(6, 7, 16), factor)
    factor = np.where((label == 3) & (np.abs(aside) <= drawn(5, 4, 9)), drawn(6, 1, 2), factor)
    return sea * factor


def chips(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Chips, and the numbers of their classes. Shapes: (count, 24, 24), uint8; (count,), int64."""
    words = np.random.PCG64([seed, 1]).random_raw(DRAWS * count).reshape(count, DRAWS)
    labels = (words[:, 7] % np.uint64(len(CLASSES))).astype(np.int64)
    speckle = np.random.PCG64([seed, 2]).random_raw(count * SIDE_PIXELS**2)
    looks = sum(EXPONENTIAL[(speckle >> np.uint64(10 * look)).astype(np.int64) & 1023] for look in range(LOOKS))
    shape = (count, SIDE_PIXELS, SIDE_PIXELS)
    intensity = means(words, labels) * np.asarray(looks).reshape(shape) >> 10
    return np.searchsorted(LEAST, intensity, side="right").astype(np.uint8), labels


if __name__ == "__main__":
    captured, _ = chips(int(sys.argv[1]), int(sys.argv[2]))
    np.save(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "chips.npy"), captured)
    print(json.dumps({"chips": len(captured), "chip_bytes": captured.nbytes}))
