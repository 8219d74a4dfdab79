"""The committed stubs are the ones that the .proto files generate."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generated_stubs_are_up_to_date(tmp_path: Path) -> None:
    """Generating afresh gives what is committed, file by file; `make proto` brings them together again."""
    subprocess.run([ROOT / "deploy/proto.sh", tmp_path], check=True, timeout=50, capture_output=True)
    fresh = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*_pb2*")}
    committed = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "protos").rglob("*_pb2*.py*")}
    committed = {path: text for path, text in committed.items() if "__pycache__" not in path.parts}
    assert fresh.keys() == committed.keys()
    assert [str(path) for path in fresh if fresh[path] != committed[path]] == []
