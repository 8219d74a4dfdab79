"""What unit tests share: how long Hypothesis searches, and the command line in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from controller.cli import main
from tests.searches import examples

settings.register_profile("skyrack", max_examples=examples(100), deadline=None)  # the machine may be busy
settings.load_profile("skyrack")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported


class Said(NamedTuple):
    """What a command has printed."""

    stdout: str
    stderr: str


Skyrack = Callable[..., Said]
"""Run a command to its end: its arguments, and `exit_status`, to which it is held."""


@pytest.fixture
def skyrack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Skyrack:
    """The command line from its entry point on, without the start of a process."""

    def run(*arguments: str | Path, exit_status: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["skyrack", *map(str, arguments)])
        status: object = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        said = Said(*capsys.readouterr())
        assert status == exit_status, said.stderr
        return said

    return run
