"""Search a thermal scene for hot spots by a contextual test, and leave `finding.json`.

A pixel is a candidate above 320 K, and a hot spot if it also stands 3.5 deviations above the background around it (the
mean of a 21 × 21 window without candidates); touching pixels are one spot. After the contextual fire test of L. Giglio
et al., "An enhanced contextual fire detection algorithm for MODIS", Remote Sensing of Environment 87 (2003), section 3.
"""

import json
import os

import numpy as np

CANDIDATE_K = 320.0
WINDOW_HALF_PIXELS = 10
DEVIATIONS = 3.5
STRIP_ROWS = 433

scene = np.load(os.environ["SKYRACK_INPUTS"].split(os.pathsep)[0], mmap_mode="r")
height, width = scene.shape
candidates: list[tuple[int, int]] = []
for top in range(0, height, STRIP_ROWS):
    rows, columns = np.nonzero(scene[top : top + STRIP_ROWS] > CANDIDATE_K * 100)
    candidates += zip((rows + top).tolist(), columns.tolist(), strict=True)


def stands_out(row: int, column: int) -> bool:
    """Whether a candidate is hotter than its surroundings by more than their scatter explains."""
    window = scene[
        max(0, row - WINDOW_HALF_PIXELS) : row + WINDOW_HALF_PIXELS + 1,
        max(0, column - WINDOW_HALF_PIXELS) : column + WINDOW_HALF_PIXELS + 1,
    ].astype(np.float64)
    background_k = window[window <= CANDIDATE_K * 100] / 100
    return bool(scene[row, column] / 100 > background_k.mean() + DEVIATIONS * background_k.std())


hot = {pixel for pixel in candidates if stands_out(*pixel)}
spots = []
while hot:
    spot, frontier = [], [min(hot)]
    hot.discard(frontier[0])
    while frontier:
        row, column = frontier.pop()
        spot.append((row, column))
        near = [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        touching = [pixel for pixel in near if pixel in hot]
        hot.difference_update(touching)
        frontier += touching
    peak = max(spot, key=lambda pixel: (int(scene[pixel]), pixel))
    spots.append(
        {
            "row": min(row for row, _ in spot),
            "column": min(column for _, column in spot),
            "pixels": len(spot),
            "peak_k": int(scene[peak]) / 100,
        }
    )

spots.sort(key=lambda spot: (spot["row"], spot["column"]))
with open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "finding.json"), "w") as file:
    json.dump({"hot_spots": spots}, file, indent=1)
print(f"{len(spots)} hot spots in {height} x {width} pixels")
