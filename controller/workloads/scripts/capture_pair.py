"""Stand in for the instrument: the same place on two days, made from a seed on integers alone.

Usage: capture_pair.py SEED SIDE_PIXELS. Leaves `before.npy` and `after.npy` (uint16, 12 bits). The second look is
shifted by whole pixels, has another gain and offset (another Sun, another air), sensor noise of its own, and some
rectangles of another brightness: what has changed.
"""

import json
import os
import sys
from dataclasses import dataclass

import numpy as np

TOP = 4095
OCTAVES = ((64, 700), (32, 500), (16, 300), (8, 150))  # cell in pixels, amplitude in digital numbers
MAX_SHIFT_PIXELS = 12
CHANGES = 6
CELLS = 4  # one change a cell of a coarse grid, so that none touch
MARGIN_PIXELS = 2 * MAX_SHIFT_PIXELS  # changes lie where both looks see


@dataclass(frozen=True)
class Planted:
    """What is different in the second look. Places are those of the first."""

    down_pixels: int  # a thing at (row, column) of the first look is at (row + down, column + right) of the second
    right_pixels: int
    gain_1024: int  # in 1/1024
    offset: int
    boxes: tuple[tuple[int, int, int, int, int], ...]  # row, column, height, width, step in digital numbers; sorted


def planted(seed: int, side_pixels: int) -> Planted:
    """What a pair of looks holds."""
    words = [int(word) for word in np.random.PCG64([seed, 1]).random_raw(4 + CELLS**2 + 5 * CHANGES)]
    down, right = (word % (2 * MAX_SHIFT_PIXELS + 1) - MAX_SHIFT_PIXELS for word in words[:2])
    cell_pixels = (side_pixels - 2 * MARGIN_PIXELS) // CELLS
    boxes = []
    for number, cell in enumerate(np.argsort(words[4 : 4 + CELLS**2])[:CHANGES]):
        draws = words[4 + CELLS**2 + 5 * number :]
        height, width = 5 + draws[0] % 10, 5 + draws[1] % 10
        row = MARGIN_PIXELS + int(cell) // CELLS * cell_pixels + 2 + draws[2] % (cell_pixels - height - 4)
        column = MARGIN_PIXELS + int(cell) % CELLS * cell_pixels + 2 + draws[3] % (cell_pixels - width - 4)
        step = 250 + draws[4] // 2 % 400
        boxes.append((row, column, height, width, step if draws[4] % 2 else -step))
    return Planted(down, right, 900 + words[2] % 250, words[3] % 121 - 60, tuple(sorted(boxes)))


def noise(seed: int, look: int, shape: tuple[int, int]) -> np.ndarray:
    """Sensor noise of 2.3 digital numbers: the sum of four uniform draws from 0 to 3, less its mean."""
    words = np.random.PCG64([seed, 200 + look]).random_raw(shape[0] * shape[1]).view(np.uint8).reshape(-1, 8)
    draws: np.ndarray = (words[:, :4] & 3).sum(axis=1, dtype=np.int64) - 6
    return draws.reshape(shape)


def ground(seed: int, side_pixels: int) -> np.ndarray:
    """The place, noiseless: octaves of value noise. Shape: (side_pixels, side_pixels), int64."""
    pixels: np.ndarray = np.full((side_pixels, side_pixels), 1000, np.int64)
    at = np.arange(side_pixels)
    for octave, (cell_pixels, amplitude) in enumerate(OCTAVES):
        corners = side_pixels // cell_pixels + 2
        words = np.random.PCG64([seed, 100 + octave]).random_raw(corners**2) % np.uint64(amplitude + 1)
        lattice = words.astype(np.int64).reshape(corners, corners)
        cell, right = at // cell_pixels, at % cell_pixels
        left = cell_pixels - right
        across = lattice[:, cell] * left + lattice[:, cell + 1] * right
        pixels = pixels + (across[cell] * left[:, None] + across[cell + 1] * right[:, None]) // cell_pixels**2
    return pixels


def looks(seed: int, side_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Both looks. Shapes: (side_pixels, side_pixels), uint16."""
    what, edge = planted(seed, side_pixels), MAX_SHIFT_PIXELS
    place = ground(seed, side_pixels + 2 * edge)
    before = place[edge : edge + side_pixels, edge : edge + side_pixels].copy()
    for row, column, height, width, step in what.boxes:
        place[row + edge : row + edge + height, column + edge : column + edge + width] += step
    top, left = edge - what.down_pixels, edge - what.right_pixels
    after = place[top : top + side_pixels, left : left + side_pixels] * what.gain_1024 // 1024 + what.offset
    first, second = before + noise(seed, 0, before.shape), after + noise(seed, 1, after.shape)
    return np.clip(first, 0, TOP).astype(np.uint16), np.clip(second, 0, TOP).astype(np.uint16)


if __name__ == "__main__":
    pair = looks(int(sys.argv[1]), int(sys.argv[2]))
    for name, look in zip(("before", "after"), pair, strict=True):
        np.save(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], f"{name}.npy"), look)
    print(json.dumps({"look_bytes": pair[0].nbytes, "looks": 2}))
