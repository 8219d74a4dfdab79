"""Search a thermal scene for hot spots by a contextual test, and leave `finding.json`.

A pixel is a candidate above 320 K, and a hot spot if it also stands 3.5 deviations above the background around it (the
mean of a 21 × 21 window without candidates); touching pixels are one spot. After the contextual fire test of L. Giglio
et al., "An enhanced contextual fire detection algorithm for MODIS", Remote Sensing of Environment 87 (2003), section 3.
"""

import json
import os
from typing import Any

import numpy as np

CANDIDATE_K = 320.0
WINDOW_HALF_PIXELS = 10
DEVIATIONS = 3.5
STRIP_ROWS = 433

Pixel = tuple[int, int]


def candidates(scene: np.ndarray) -> list[Pixel]:
    """Every pixel above the fixed threshold. Strip by strip: a scene may be larger than memory."""
    found: list[Pixel] = []
    for top in range(0, len(scene), STRIP_ROWS):
        rows, columns = np.nonzero(scene[top : top + STRIP_ROWS] > CANDIDATE_K * 100)
        found += zip((rows + top).tolist(), columns.tolist(), strict=True)
    return found


def stands_out(scene: np.ndarray, row: int, column: int) -> bool:
    """Whether a candidate is hotter than its surroundings by more than their scatter explains."""
    window = scene[
        max(0, row - WINDOW_HALF_PIXELS) : row + WINDOW_HALF_PIXELS + 1,
        max(0, column - WINDOW_HALF_PIXELS) : column + WINDOW_HALF_PIXELS + 1,
    ].astype(np.float64)
    background_k = window[window <= CANDIDATE_K * 100] / 100
    return bool(scene[row, column] / 100 > background_k.mean() + DEVIATIONS * background_k.std())


def spots_of(hot: set[Pixel]) -> list[list[Pixel]]:
    """Touching pixels together. Empties `hot`."""
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
        spots.append(spot)
    return spots


def find(scene: np.ndarray) -> list[dict[str, Any]]:
    """The hot spots, row by row."""
    hot = {pixel for pixel in candidates(scene) if stands_out(scene, *pixel)}
    found = []
    for spot in spots_of(hot):
        peak = max(spot, key=lambda pixel: (int(scene[pixel]), pixel))
        row, column = min(row for row, _ in spot), min(column for _, column in spot)
        found.append({"row": row, "column": column, "pixels": len(spot), "peak_k": int(scene[peak]) / 100})
    return sorted(found, key=lambda spot: (spot["row"], spot["column"]))


if __name__ == "__main__":
    hot_spots = find(np.load(os.environ["SKYRACK_INPUTS"].split(os.pathsep)[0], mmap_mode="r"))
    with open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "finding.json"), "w") as file:
        json.dump({"hot_spots": hot_spots}, file, indent=1)
    print(json.dumps({"hot_spots": len(hot_spots)}))
