"""The stream of a command that runs in a container: the caller's stdin, stdout and stderr, and its terminal if any.

Docker Engine API, "Attach to a container": after the upgrade the connection carries raw bytes if there is a terminal,
else frames of an 8-byte header (stream, three zeros, big-endian length) and that many bytes.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import tty as terminal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from controller.errors import SkyrackError

CONNECT_TIMEOUT_S = 30.0
CHUNK_BYTES = 65536
FRAME_HEADER = struct.Struct(">BxxxL")
STDERR_STREAM = 2


def open_exec_stream(socket_path: str, url_path: str, body: bytes) -> tuple[socket.socket, bytes]:
    """Start a prepared exec and take its connection over: the socket, and what came right after the answer's head.

    Made by hand, since HTTP clients keep a buffer in which the command's first words can be lost.
    Raises SkyrackError when the engine refuses.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect(socket_path)
        head = (
            f"POST {url_path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            received = connection.recv(CHUNK_BYTES)
            if not received:
                break
            answer += received
    except OSError as error:
        connection.close()
        raise SkyrackError(f"Docker could not start the command: {error}") from error
    answered, _, rest = answer.partition(b"\r\n\r\n")
    status = answered.split(b"\r\n", 1)[0].decode(errors="replace")
    if " 101 " not in f"{status} " and " 200 " not in f"{status} ":
        connection.close()
        raise SkyrackError(f"Docker could not start the command: {rest.decode(errors='replace').strip() or status}")
    connection.settimeout(None)
    return connection, rest


class HijackedExec:
    """Pumps between the caller's standard streams and a running command, until the command closes its own."""

    def __init__(self, stream: tuple[socket.socket, bytes], tty: bool) -> None:
        self._connection, self._received = stream
        self._tty = tty
        self._saved_terminal: list[Any] | None = None

    def __enter__(self) -> Self:
        if self._tty:
            self._saved_terminal = termios.tcgetattr(sys.stdin.fileno())
            terminal.setraw(sys.stdin.fileno())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved_terminal is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._saved_terminal)
        self._connection.close()

    def run(self, resize: Callable[[int, int], object]) -> None:
        """Pump until the command ends. `resize` is told the terminal's rows and columns, now and at every change."""
        if self._tty:

            def on_resized(_signal: int, _frame: FrameType | None) -> None:
                size = shutil.get_terminal_size()
                resize(size.lines, size.columns)

            before = signal.signal(signal.SIGWINCH, on_resized)
            try:
                on_resized(signal.SIGWINCH, None)
                self._pump()
            finally:
                signal.signal(signal.SIGWINCH, before)
        else:
            self._pump()

    def _pump(self) -> None:
        stdin = sys.stdin.fileno() if sys.stdin is not None else -1
        readers: list[int | socket.socket] = [self._connection] if stdin < 0 else [self._connection, stdin]
        self._deliver()
        while True:
            ready, _, _ = select.select(readers, [], [])
            if stdin in ready:
                typed = os.read(stdin, CHUNK_BYTES)
                if typed:
                    with contextlib.suppress(BrokenPipeError):  # it has ended; its last words come yet
                        self._connection.sendall(typed)
                else:
                    readers.remove(stdin)
                    with contextlib.suppress(OSError):  # as above
                        self._connection.shutdown(socket.SHUT_WR)
            if self._connection in ready:
                received = self._connection.recv(CHUNK_BYTES)
                if not received:
                    return
                self._received += received
                self._deliver()

    def _deliver(self) -> None:
        """Write out what has arrived whole."""
        if self._tty:
            _write(sys.stdout.fileno(), self._received)
            self._received = b""
            return
        while len(self._received) >= FRAME_HEADER.size:
            stream, size_bytes = FRAME_HEADER.unpack_from(self._received)
            end = FRAME_HEADER.size + size_bytes
            if len(self._received) < end:
                return
            target = sys.stderr if stream == STDERR_STREAM else sys.stdout
            _write(target.fileno(), self._received[FRAME_HEADER.size : end])
            self._received = self._received[end:]


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
