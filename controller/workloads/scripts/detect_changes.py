"""Find what has changed between two looks at one place, and leave `changes.json`.

The looks are registered by phase correlation (C. D. Kuglin and D. C. Hines, "The phase correlation image alignment
method", Proc. IEEE Int. Conf. on Cybernetics and Society, 1975) under a Hann window, to whole pixels; its highest peaks
are held against the looks themselves, for noise has peaks too. Gain and offset are fitted to the pixels that have not
changed, found by leaving out what lies far off the fit and fitting again, in the manner of J. R. Schott et al.,
"Radiometric scene normalization using pseudoinvariant features", Remote Sensing of Environment 26 (1988). A pixel has
changed where it differs by more than eight deviations, by the median absolute deviation; touching ones, nine at least,
are one change. Boxes are in the pixels of the first look.
"""

import json
import os
from typing import Any

import numpy as np

DEVIATIONS = 8.0
MAD_TO_DEVIATION = 1.4826  # of a normal distribution
FITS = 5
LEAST_PIXELS = 9
PEAKS = 16


def overlap(before: np.ndarray, after: np.ndarray, down: int, right: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """What both looks see, pixel on pixel, and the first look's row and column where that begins."""
    rows, columns = before.shape
    top, left = max(0, -down), max(0, -right)
    height, width = rows - abs(down), columns - abs(right)
    second = after[top + down : top + down + height, left + right : left + right + width]
    return before[top : top + height, left : left + width], second, top, left


def shift(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """By how many rows and columns the second look is displaced: the best of the highest peaks, and of those beside."""
    window = np.outer(np.hanning(before.shape[0]), np.hanning(before.shape[1]))
    first, second = (np.fft.rfft2((look - look.mean()) * window) for look in (before, after))
    cross = second * first.conj()
    surface = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), s=before.shape)
    rows, columns = before.shape

    def likeness(place: tuple[int, int]) -> float:
        """Correlation of what both looks see; the least there is where that is less than half a side."""
        if abs(place[0]) > rows // 2 or abs(place[1]) > columns // 2:
            return -1.0
        one, other, _, _ = overlap(before, after, *place)
        return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])

    peaks = np.argsort(surface, axis=None)[-PEAKS:]
    places = [(int(at) // columns, int(at) % columns) for at in peaks]
    signed = [(down - rows * (down > rows // 2), right - columns * (right > columns // 2)) for down, right in places]
    best = max(signed, key=likeness)
    while True:
        beside = [(best[0] + down, best[1] + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        better = max(beside, key=likeness)
        if likeness(better) <= likeness(best):
            return best
        best = better


def deviation(values: np.ndarray) -> float:
    """The standard deviation, whatever some outliers do; of whole numbers not below that of rounding."""
    return max(MAD_TO_DEVIATION * float(np.median(np.abs(values - np.median(values)))), 0.29)


def fitted(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Gain and offset by which the first look becomes the second."""
    x, y = first.ravel(), second.ravel()
    gain, offset = 1.0, float(np.median(y) - np.median(x))
    for _ in range(FITS):
        rest = y - (gain * x + offset)
        kept = np.abs(rest - np.median(rest)) <= 3 * deviation(rest)
        gain, offset = (float(value) for value in np.polyfit(x[kept], y[kept], 1))
    return gain, offset


def boxes(changed: np.ndarray, difference: np.ndarray) -> list[dict[str, Any]]:
    """Touching pixels together, row by row."""
    left = set(zip(*(axis.tolist() for axis in np.nonzero(changed)), strict=True))
    found = []
    while left:
        frontier = [left.pop()]
        pixels = []
        while frontier:
            row, column = frontier.pop()
            pixels.append((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            frontier += near
        if len(pixels) >= LEAST_PIXELS:
            rows, columns = (sorted(axis) for axis in zip(*pixels, strict=True))
            brighter = bool(sum(difference[pixel] for pixel in pixels) > 0)
            box = {"row": rows[0], "column": columns[0], "height": rows[-1] - rows[0] + 1}
            found.append({**box, "width": columns[-1] - columns[0] + 1, "pixels": len(pixels), "brighter": brighter})
    return sorted(found, key=lambda box: (box["row"], box["column"]))


def changes(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """How the second look lies to the first, and what has changed."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    down, right = shift(before, after)
    first, second, top, left = overlap(before, after, down, right)
    gain, offset = fitted(first, second)
    difference = second - (gain * first + offset)
    found = boxes(np.abs(difference) > DEVIATIONS * deviation(difference), difference)
    for box in found:
        box["row"], box["column"] = box["row"] + top, box["column"] + left
    fit = {"gain": round(gain, 4), "offset": round(offset, 2)}
    return {"down_pixels": down, "right_pixels": right, **fit, "changes": found}


if __name__ == "__main__":
    looks = [np.load(path) for path in os.environ["SKYRACK_INPUTS"].split(os.pathsep)]
    result = changes(looks[0], looks[1])
    with open(os.path.join(os.environ["SKYRACK_OUTPUT_DIR"], "changes.json"), "w") as file:
        json.dump(result, file, indent=1)
    print(json.dumps({**result, "changes": len(result["changes"])}))
