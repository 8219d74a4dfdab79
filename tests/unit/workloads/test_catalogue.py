"""Every workload of the catalogue, run as a node runs it: its answer is the known one, and a wrong one is told."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import pytest

from controller.errors import InputError
from controller.workloads.catalogue import CATALOGUE, Workload, script, workload_named

SEED = 20_260_101
SMALL = {
    "hot-spots": 512, "compress": 200, "compress-near": 200, "changes": 384, "classify": 64, "hash": 2, "matrix": 96,
    "files": 40,
}  # fmt: skip
LIMIT_S = 60
CPU_LIMIT_S = 2.0  # of a job at its default size, where "below a second" is meant and the machine has other work


def run_script(name: str, output: Path, *arguments: str, inputs: list[Path] | None = None) -> str:
    """Run a script with a job's environment; what it prints."""
    output.mkdir(parents=True)
    script_file = resources.files("controller.workloads").joinpath("scripts", name)
    environment = {
        "SKYRACK_INPUTS": os.pathsep.join(map(str, inputs or [])), "SKYRACK_OUTPUT_DIR": str(output),
        "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(script_file), *arguments], check=True, env=environment, timeout=LIMIT_S,
        stdout=subprocess.PIPE, text=True, cwd=output.parent,
    )  # fmt: skip
    return done.stdout


def run(workload: Workload, folder: Path, size: int, seed: int = SEED) -> dict[str, bytes]:
    """Capture what a workload needs and run it; what it leaves. It prints one line of JSON."""
    inputs: list[Path] = []
    folder.mkdir(exist_ok=True)
    if workload.capture:
        json.loads(run_script(workload.capture, folder / "capture", *workload.capture_arguments(seed, size)))
        inputs = [folder / "capture" / name for name in workload.captured]
    if workload.model:
        (folder / "model").write_bytes(script(workload.model))
        inputs.append(folder / "model")
    printed = run_script(workload.script, folder / "output", *workload.arguments(seed, size), inputs=inputs)
    (line,) = printed.splitlines()
    assert isinstance(json.loads(line), dict)
    return {path.name: path.read_bytes() for path in (folder / "output").iterdir()}


def damaged(outputs: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """The outputs with one number of one file changed, in each file in turn."""
    wrong = {}
    for name, content in outputs.items():
        if name.endswith(".json"):
            text, document = content.decode(), json.loads(content)
            first = next(key for key in document if key not in ("gain", "offset"))
            value = document[first]
            document[first] = value[1:] if isinstance(value, list) else "0" if isinstance(value, str) else value + 1
            changed = json.dumps(document).encode()
            assert json.loads(changed) != json.loads(text)
        else:
            changed = content[:-20]
        wrong[name] = {**outputs, name: changed}
    return wrong


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_answer_is_the_known_one_and_a_wrong_one_is_told(name: str, tmp_path: Path) -> None:
    """What comes out is right, byte for byte the same a second time; with another seed, a number changed, or a file
    missing or broken, it is not."""
    workload, size = CATALOGUE[name], SMALL[name]
    outputs = run(workload, tmp_path / "first", size)
    assert run(workload, tmp_path / "again", size) == outputs
    assert set(outputs) == set(workload.leaves)
    assert workload.verify(SEED, size, outputs) is None
    assert workload.verify(SEED + 1, size, outputs)
    for file, wrong in damaged(outputs).items():
        assert workload.verify(SEED, size, wrong), f"{file} changed, and nobody noticed"
    for file in workload.leaves:
        rest = {key: value for key, value in outputs.items() if key != file}
        assert workload.verify(SEED, size, rest) == f"{file} is not among its outputs"
        assert "cannot be read" in str(workload.verify(SEED, size, {**outputs, file: b"{"}))


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_job_of_the_default_size_is_small(name: str, tmp_path: Path) -> None:
    """It takes about a second of CPU at most, start of Python included, and is right."""
    workload = CATALOGUE[name]
    before = os.times()
    outputs = run(workload, tmp_path, workload.size)
    after = os.times()
    assert workload.verify(SEED, workload.size, outputs) is None
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    assert cpu_s < CPU_LIMIT_S * (2 if workload.capture else 1)


def test_an_unknown_workload_is_one_message() -> None:
    """It names what there is."""
    with pytest.raises(InputError, match=r"no workload 'hot-spot'; there are hot-spots, compress"):
        workload_named("hot-spot")


@pytest.mark.parametrize("workload", CATALOGUE.values(), ids=lambda workload: workload.name)
def test_scripts_need_what_nodes_have(workload: Workload) -> None:
    """They are handed to a node alone: each imports numpy and the standard library, and no other file of ours."""
    for name in filter(None, (workload.script, workload.capture)):
        for item in ast.walk(ast.parse(script(name))):
            names = [alias.name for alias in item.names] if isinstance(item, ast.Import) else []
            names += [item.module or ""] if isinstance(item, ast.ImportFrom) else []
            assert {module.partition(".")[0] for module in names} <= sys.stdlib_module_names | {"numpy"}, name
