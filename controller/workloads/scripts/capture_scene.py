"""Stand in for the instrument: a thermal infrared scene, made from a seed.

Usage: capture_scene.py SEED [SIDE_PIXELS]. Leaves `scene.npy` (brightness temperature in units of 0.01 K, uint16), by
default of 3,464 × 3,464 pixels (24 MB), with hot spots in it. The background is a smooth field between 285 and 300 K
with 0.8 K of sensor noise.
"""

import json
import os
import sys

import numpy as np

SIDE_PIXELS = 3464
HOT_SPOTS = 12
NOISE_K = 0.8
RIM_K = 335.0
STRIP_ROWS = 433  # 8 strips: memory stays at a few strips, as on a satellite
CELLS = 16  # one spot a cell of a coarse grid, so that none touch


def planted(seed: int, side_pixels: int) -> list[tuple[int, int, int]]:
    """The hot spots of a scene, row by row: row, column and side of each, in pixels."""
    words = np.random.PCG64([seed, 1]).random_raw(CELLS**2 + 3 * HOT_SPOTS)
    cell_pixels = side_pixels // CELLS
    low, room = cell_pixels // 10, cell_pixels * 8 // 10
    spots = []
    for cell, draws in zip(np.argsort(words[: CELLS**2])[:HOT_SPOTS], words[CELLS**2 :].reshape(-1, 3), strict=True):
        size_pixels = 2 + int(draws[0] % 4)
        row, column = (int(at) * cell_pixels + low for at in divmod(cell, CELLS))
        spots.append((row + int(draws[1] % (room - 5)), column + int(draws[2] % (room - 5)), size_pixels))
    return sorted(spots)


def scene(seed: int, side_pixels: int) -> np.ndarray:
    """Brightness temperature in units of 0.01 K. Shape: (side_pixels, side_pixels), uint16."""
    rng = np.random.default_rng(seed)
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
    ripple_x = np.sin(np.arange(side_pixels, dtype=np.float32) * (2 * np.pi / 1900) + phase_x)
    pixels = np.empty((side_pixels, side_pixels), np.uint16)
    for top in range(0, side_pixels, STRIP_ROWS):
        rows = np.arange(top, min(top + STRIP_ROWS, side_pixels), dtype=np.float32)
        ripple_y = np.sin(rows * (2 * np.pi / 1300) + phase_y)
        kelvin = 292.5 + 7.0 * np.outer(ripple_y, ripple_x).astype(np.float32)
        kelvin += NOISE_K * rng.standard_normal(kelvin.shape, dtype=np.float32)
        pixels[top : top + STRIP_ROWS] = np.rint(kelvin * 100)
    for row, column, size_pixels in planted(seed, side_pixels):
        peak_k = float(rng.uniform(360.0, 480.0))
        offset = np.arange(size_pixels) - (size_pixels - 1) / 2
        falloff = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * size_pixels**2))
        kelvin = RIM_K + (peak_k - RIM_K) * falloff
        pixels[row : row + size_pixels, column : column + size_pixels] = np.rint(kelvin * 100)
    return pixels


if __name__ == "__main__":
    captured = scene(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SIDE_PIXELS)
    np.save(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "scene.npy"), captured)
    print(json.dumps({"scene_bytes": captured.nbytes, "hot_spots": HOT_SPOTS}))
