"""Tests run in a kernel of their own: User-Mode Linux on this machine's files, or this kernel where it will do."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a run of some tests came to."""

    tests: int
    skipped: int
    failed: int
    said: str


def run_pytest(
    arguments: Sequence[str], folder: Path, *, in_guest: bool, timeout_s: int, set_up: str = "true"
) -> Outcome:
    """Run pytest, in a guest or here, after a shell command; what failed is remembered in the folder.

    A guest shares files but not /tmp, so the folder must lie elsewhere.
    """
    result = folder / "result.xml"
    result.unlink(missing_ok=True)
    options = ["-q", "-o", f"cache_dir={folder / 'cache'}", f"--junit-xml={result}"]
    command = f"{set_up} && {shlex.join([sys.executable, '-m', 'pytest', *options, *arguments])}"
    kernel = ["deploy/uml-run", "--timeout", str(timeout_s)] if in_guest else []
    ended = subprocess.run(
        [*kernel, "bash", "-c", command],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=timeout_s + 60,
    )  # fmt: skip
    said = f"{'guest' if in_guest else 'here'} (status {ended.returncode}):\n{ended.stdout}"
    assert result.exists(), said
    suite = ElementTree.parse(result).getroot().find("testsuite")  # noqa: S314  (pytest wrote it, a moment ago)
    assert suite is not None, said
    counts = {key: int(suite.attrib[key]) for key in ("tests", "skipped", "failures", "errors")}
    failed = counts["failures"] + counts["errors"]
    assert (ended.returncode == 0) == (failed == 0), said
    return Outcome(counts["tests"], counts["skipped"], failed, said)
