"""Sees every start of a job's program and its end, by itself: the kernel tells it, no agent."""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MESSAGE_BYTES = 4096


@dataclass
class Start:
    """One start of a job's program."""

    job: str
    node: str
    ordinal: int  # among the starts of the job, from 1
    from_step: int
    at_mono_s: float
    ends: int | None = None  # the exit status that it said it would end with, when it had done all
    over_mono_s: float | None = None  # when no process held the connection any more
    overlaps: bool = False  # another start of the job lived when this one came


class Witness:
    """A socket that jobs come to. A thread of its own; a context manager."""

    def __init__(self, path: Path) -> None:
        self.starts: list[Start] = []
        """In the order in which they were seen."""
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.bind(str(path))
        path.chmod(0o666)
        self._door.listen(128)
        self._selector = selectors.DefaultSelector()
        self._woken, self._wakes = os.pipe()
        self._open: dict[socket.socket, Start] = {}
        self._thread = threading.Thread(target=self._watch, name="witness", daemon=True)

    def __enter__(self) -> Witness:
        self._selector.register(self._door, selectors.EVENT_READ, None)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._wakes, b"x")
        self._thread.join()
        self._door.close()

    def of(self, job_id: str) -> list[Start]:
        """The starts of a job."""
        return [start for start in self.starts if start.job == job_id]

    @property
    def living(self) -> list[Start]:
        """Those of which a process lives."""
        return [start for start in self.starts if start.over_mono_s is None]

    def _watch(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj == self._woken:
                    return
                if key.fileobj is self._door:
                    connection, _ = self._door.accept()
                    connection.setblocking(False)
                    self._selector.register(connection, selectors.EVENT_READ, None)
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._hear(key.fileobj)

    def _hear(self, connection: socket.socket) -> None:
        """Take in all that a connection has brought."""
        while connection.fileno() >= 0:
            try:
                message = connection.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except ConnectionResetError:
                message = b""
            start = self._open.get(connection)
            if not message:
                if start is not None:
                    start.over_mono_s = time.monotonic()
                    del self._open[connection]
                self._selector.unregister(connection)
                connection.close()
            elif start is not None:
                start.ends = json.loads(message)["ends"]
            else:
                self._begin(connection, json.loads(message))

    def _begin(self, connection: socket.socket, told: dict[str, Any]) -> None:
        for other, start in list(self._open.items()):
            if start.job == told["job"]:
                self._hear(other)  # it may have ended just before
        begun = Start(told["job"], told["node"], len(self.of(told["job"])) + 1, told["from_step"], time.monotonic())
        begun.overlaps = any(start.job == begun.job for start in self._open.values())
        self.starts.append(begun)
        self._open[connection] = begun
        with suppress(OSError):  # killed meanwhile: its end is heard next
            connection.send(str(begun.ordinal).encode())
