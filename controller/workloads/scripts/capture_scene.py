"""Stand in for the instrument: a thermal infrared scene of 3,464 × 3,464 pixels (24 MB), made from a seed.

Usage: capture_scene.py SEED. Leaves `scene.npy` (brightness temperature in units of 0.01 K, uint16) and `truth.json`
(the hot spots that were put in). The background is a smooth field between 285 and 300 K with 0.8 K of sensor noise.
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

rng = np.random.default_rng(int(sys.argv[1]))
output = os.environ["SKYRACK_OUTPUT_DIR"]

phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
columns = np.arange(SIDE_PIXELS, dtype=np.float32)
ripple_x = np.sin(columns * (2 * np.pi / 1900) + phase_x)
scene = np.empty((SIDE_PIXELS, SIDE_PIXELS), np.uint16)
for top in range(0, SIDE_PIXELS, STRIP_ROWS):
    rows = np.arange(top, top + STRIP_ROWS, dtype=np.float32)
    ripple_y = np.sin(rows * (2 * np.pi / 1300) + phase_y)
    kelvin = 292.5 + 7.0 * np.outer(ripple_y, ripple_x).astype(np.float32)
    kelvin += NOISE_K * rng.standard_normal(kelvin.shape, dtype=np.float32)
    scene[top : top + STRIP_ROWS] = np.rint(kelvin * 100)

truth = []
cells = rng.permutation(16 * 16)[:HOT_SPOTS]  # one spot a cell of a coarse grid, so that none touch
for cell in cells:
    size_pixels = int(rng.integers(2, 6))
    row, column = (int(c) * (SIDE_PIXELS // 16) + int(rng.integers(20, 180)) for c in divmod(int(cell), 16))
    peak_k = float(rng.uniform(360.0, 480.0))
    offset = np.arange(size_pixels) - (size_pixels - 1) / 2
    falloff = np.exp(-(offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * size_pixels**2))
    kelvin = RIM_K + (peak_k - RIM_K) * falloff
    scene[row : row + size_pixels, column : column + size_pixels] = np.rint(kelvin * 100)
    truth.append({"row": row, "column": column, "size_pixels": size_pixels})

np.save(os.path.join(output, "scene.npy"), scene)
with open(os.path.join(output, "truth.json"), "w") as file:
    json.dump(sorted(truth, key=lambda spot: (spot["row"], spot["column"])), file)
print(f"scene of {scene.nbytes} bytes with {HOT_SPOTS} hot spots")
