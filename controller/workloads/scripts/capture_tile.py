"""Stand in for the instrument: a panchromatic tile of 12 bits a pixel, made from a seed on integers alone.

Usage: capture_tile.py SEED SIDE_PIXELS. Leaves `tile.npy` (uint16): a smooth relief of five octaves of value noise,
fields with edges, and sensor noise of 2.3 digital numbers (the deviation of the sum of four uniform draws from 0 to 3).
"""

import json
import os
import sys

import numpy as np

TOP = 4095
OCTAVES = ((128, 1400), (64, 500), (32, 220), (16, 90), (8, 40))  # cell in pixels, amplitude in digital numbers
FIELD_PIXELS = 48
FIELD_STEP = 260


def value_noise(seed: int, octave: int, side_pixels: int, cell_pixels: int, amplitude: int) -> np.ndarray:
    """Random values at the corners of cells, bilinear between them. Shape: (side_pixels, side_pixels), 0 to amplitude.

    `cell_pixels` is a power of two.
    """
    corners = side_pixels // cell_pixels + 2
    words = np.random.PCG64([seed, octave]).random_raw(corners**2) % np.uint64(amplitude + 1)
    lattice = words.astype(np.int64).reshape(corners, corners)
    at = np.arange(side_pixels)
    cell, right = at // cell_pixels, at % cell_pixels
    left = cell_pixels - right
    across = lattice[:, cell] * left + lattice[:, cell + 1] * right
    return (across[cell] * left[:, None] + across[cell + 1] * right[:, None]) // cell_pixels**2


def tile(seed: int, side_pixels: int) -> np.ndarray:
    """Digital numbers from 0 to 4095. Shape: (side_pixels, side_pixels), uint16."""
    pixels = np.full((side_pixels, side_pixels), 400, np.int64)
    for octave, (cell_pixels, amplitude) in enumerate(OCTAVES):
        pixels += value_noise(seed, octave, side_pixels, cell_pixels, amplitude)
    fields = side_pixels // FIELD_PIXELS + 1
    steps = (np.random.PCG64([seed, 100]).random_raw(fields**2) % np.uint64(FIELD_STEP)).astype(np.int64)
    field = np.arange(side_pixels) // FIELD_PIXELS
    pixels += steps.reshape(fields, fields)[field][:, field]
    words = np.random.PCG64([seed, 200]).random_raw(side_pixels**2).view(np.uint8).reshape(-1, 8)
    pixels += ((words[:, :4] & 3).sum(axis=1, dtype=np.int64) - 6).reshape(pixels.shape)
    return np.clip(pixels, 0, TOP).astype(np.uint16)


if __name__ == "__main__":
    captured = tile(int(sys.argv[1]), int(sys.argv[2]))
    np.save(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "tile.npy"), captured)
    print(json.dumps({"tile_bytes": captured.nbytes}))
