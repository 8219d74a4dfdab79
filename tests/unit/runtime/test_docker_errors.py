"""What a user reads when Docker Engine cannot be used: one message with its remedy, and exit status 3."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from controller.errors import MachineError
from controller.runtime.docker import DockerRuntime
from controller.runtime.engine import ask_engine


def test_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no engine runs, the message names its socket and how to get one."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(MachineError, match=r"does not run \(nobody answers at .*none\.sock\).*make setup") as caught:
        DockerRuntime("any:image")
    assert caught.value.exit_status == 3


def test_an_engine_that_was_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket which a dead engine left behind reads like no engine."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/left.sock")
    with pytest.raises(MachineError, match="does not run"):
        ask_engine()


def test_an_engine_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine on another machine is refused before it is asked anything."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(MachineError, match=r"DOCKER_HOST is tcp://127\.0\.0\.1:1.*unset DOCKER_HOST"):
        ask_engine()


def test_something_that_is_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever hangs up instead of answering gets a clear message too."""
    path = tmp_path / "odd.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def hang_up() -> None:
            for _ in range(8):
                try:
                    listening.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
            with pytest.raises(MachineError, match="cannot be used"):
                ask_engine()
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
