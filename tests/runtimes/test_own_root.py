"""Nodes without an engine on a root that the user brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.errors import InputError
from controller.runs import MACHINE, RunPlace
from controller.runtime.choose import open_runtime
from tests.runtimes.test_contract import DEADLINE_S, executed, ignore, specs_of


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root whose programs are the machine's, and whose settings are its own."""
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib64")):
        if path.is_symlink():
            (tmp_path / path.name).symlink_to(path.readlink())
        elif path.is_dir():
            shutil.copytree(path, tmp_path / path.name, symlinks=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").touch()
    (tmp_path / "etc/whose").write_text("mine\n")
    (tmp_path / "usr").mkdir()
    subprocess.run(["mount", "--bind", "/usr", tmp_path / "usr"], check=True, timeout=DEADLINE_S)
    yield tmp_path
    subprocess.run(["umount", tmp_path / "usr"], check=True, timeout=DEADLINE_S)


def test_nodes_have_the_root_that_they_were_given(root: Path) -> None:
    """Its settings are theirs, its programs run, and the interpreter of jobs is there beside them."""
    runtime = open_runtime("namespace", MACHINE.run, str(root))
    with RunPlace.create("test", Path("/out"), 2) as place:
        try:
            runtime.start(specs_of(place, 2), ignore)
            said = executed((runtime, place), "sh", "-c", "cat /etc/whose; getent hosts node0; ls /etc")
            assert said.stdout.decode().split() == ["mine", "10.64.0.1", "node0", "hosts", "whose"], said.stderr
            assert executed((runtime, place), sys.executable, "-c", "import numpy").returncode == 0
        finally:
            runtime.remove(place.run_id)


@pytest.mark.parametrize(("runtime", "root"), [("docker", "/srv"), ("namespace", "/nowhere")])
def test_a_root_that_cannot_be_is_wrong_input(runtime: str, root: str) -> None:
    """One message says which root, and what would be right."""
    with pytest.raises(InputError, match=rf"resources.root = '{root}'"):
        open_runtime(runtime, MACHINE.run, root)
