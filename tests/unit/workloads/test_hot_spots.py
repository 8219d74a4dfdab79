"""The demo's scripts at the demo's size: what is put into a scene is what is found in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.workloads.catalogue import CATALOGUE
from controller.workloads.scripts import capture_scene
from tests.unit.workloads.test_catalogue import run

SCENE_BYTES = 3464 * 3464 * 2


@pytest.mark.parametrize("seed", [1, 2, 20260101])
def test_the_search_finds_what_the_scene_holds(seed: int, tmp_path: Path) -> None:
    """Every hot spot put in is found, whole and at its place, and nothing else; a scene is about 24 MB."""
    workload = CATALOGUE["hot-spots"]
    outputs = run(workload, tmp_path, capture_scene.SIDE_PIXELS, seed)
    scene = tmp_path / "capture" / "scene.npy"
    assert SCENE_BYTES < scene.stat().st_size < SCENE_BYTES + 1024
    assert workload.verify(seed, capture_scene.SIDE_PIXELS, outputs) is None
    assert len(capture_scene.planted(seed, capture_scene.SIDE_PIXELS)) == 12


@pytest.mark.parametrize("side_pixels", [256, 1024, 3464])
def test_spots_never_touch(side_pixels: int) -> None:
    """Between any two there is at least one pixel, so each is found as one."""
    for seed in range(200):
        spots = capture_scene.planted(seed, side_pixels)
        for number, (row, column, size) in enumerate(spots):
            assert 0 <= row <= side_pixels - size
            assert 0 <= column <= side_pixels - size
            for other_row, other_column, other_size in spots[:number]:
                assert (
                    row > other_row + other_size or column > other_column + other_size or other_column > column + size
                )
