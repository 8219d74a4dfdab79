"""The demo's scripts, run as a node runs them: what is put into a scene is what is found in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

SCENE_BYTES = 3464 * 3464 * 2


def run_script(name: str, output: Path, *arguments: str, inputs: str = "") -> None:
    """Run a workload's script with a node's environment."""
    output.mkdir()
    script = resources.files("controller.workloads").joinpath("scripts", name)
    environment = {"SKYRACK_INPUTS": inputs, "SKYRACK_OUTPUT_DIR": str(output), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, str(script), *arguments], check=True, env=environment, timeout=60)


@pytest.mark.parametrize("seed", [1, 2, 20260101])
def test_the_search_finds_what_the_scene_holds(seed: int, tmp_path: Path) -> None:
    """Every hot spot of the truth is found, whole and at its place, and nothing else; a scene is about 24 MB."""
    run_script("capture_scene.py", tmp_path / "scene", str(seed))
    scene = tmp_path / "scene" / "scene.npy"
    assert SCENE_BYTES < scene.stat().st_size < SCENE_BYTES + 1024
    run_script("find_hot_spots.py", tmp_path / "finding", inputs=str(scene))
    truth = json.loads((tmp_path / "scene" / "truth.json").read_text())
    found = json.loads((tmp_path / "finding" / "finding.json").read_text())["hot_spots"]
    assert [(spot["row"], spot["column"], spot["pixels"]) for spot in found] == [
        (spot["row"], spot["column"], spot["size_pixels"] ** 2) for spot in truth
    ]
    assert len(truth) == 12


def test_a_scene_is_the_same_from_the_same_seed(tmp_path: Path) -> None:
    """The same seed gives the same bytes, another seed others."""
    for folder, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        run_script("capture_scene.py", tmp_path / folder, seed)
    a, b, c = ((tmp_path / folder / "scene.npy").read_bytes() for folder in "abc")
    assert a == b
    assert a != c
