"""The committed stubs are the ones that the .proto files generate."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_stubs_are_up_to_date(tmp_path: Path) -> None:
    """Generating afresh gives what is committed, file by file; `make proto` brings them together again."""
    subprocess.run([ROOT / "deploy/proto.sh", tmp_path], check=True, timeout=50, capture_output=True)
    fresh, committed = stubs(tmp_path), stubs(ROOT / "protos")
    assert fresh.keys() == committed.keys()
    assert [str(path) for path in fresh if fresh[path] != committed[path]] == []


def stubs(root: Path) -> dict[Path, str]:
    """The text of every generated file, by its path from `protos`."""
    protos = root if root.name == "protos" else root / "protos"
    return {
        path.relative_to(protos): path.read_text() for path in protos.rglob("*_pb2*") if path.suffix in (".py", ".pyi")
    }
