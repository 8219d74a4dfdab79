"""Round trips, measured from within the nodes by ICMP echo, with the kernel's time stamps on the answers.

An unprivileged ICMP socket a pair: the kernel gives each its own identifier and hands it only its own answers, so
that neither a ping typed by a user nor another pair's answer is ever mistaken for a probe's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.errors import SkyrackError
from controller.fabric.namespaces import in_namespace

SO_TIMESTAMPNS = 35
PR_SET_TIMERSLACK = 29
STOP_TIMEOUT_S = 5.0
PAYLOAD_BYTES = 56  # as ping's
ANSWERS_A_WAKE = 64

_ECHO = struct.Struct("!BBHHHQ")  # type, code, checksum, identifier, sequence; then the probe's full number
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_TIMESPEC = struct.Struct("=qq")
_POLLFD = struct.Struct("=ihh")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class ProbePair:
    """Who is measured from where."""

    network_namespace: Path  # of the node that asks
    source: str  # its address
    destination: str  # address of the node that answers


@dataclass(frozen=True)
class ProbeResult:
    """What became of one probe."""

    pair: int  # which of the prober's pairs
    sent_mono_s: float
    rtt_us: float | None  # None: no answer in time, or no way there


class Prober:
    """Probes every pair once an interval, the pairs' turns spread evenly over it, in one thread.

    Results come in the order they are settled, by `on_result`, called in the prober's thread: it must be quick.
    """

    def __init__(
        self,
        pairs: Sequence[ProbePair],
        interval_s: float,
        timeout_s: float,
        on_result: Callable[[ProbeResult], None],
    ) -> None:
        self._interval_s, self._timeout_s, self._on_result = interval_s, timeout_s, on_result
        self._destinations = [pair.destination for pair in pairs]
        self._sockets: list[socket.socket] = []
        self._failure: BaseException | None = None
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for pair in pairs:
                self._sockets.append(_open_echo(pair))
        except BaseException:
            self._close()
            raise
        self._under_way: deque[tuple[float, int, int]] = deque()  # sent, pair, number: oldest first
        self._open: dict[tuple[int, int], float] = {}  # pair, number → sent; settled ones are gone
        self._thread = threading.Thread(target=self._run_and_keep_failure, name="skyrack-prober", daemon=True)

    def start(self) -> None:
        """Begin to probe."""
        self._thread.start()

    def check(self) -> None:
        """Raise SkyrackError if something has ended the prober before its time."""
        if isinstance(self._failure, SkyrackError):
            raise self._failure
        if self._failure is not None:
            raise SkyrackError(f"the prober ended early: {self._failure}") from self._failure

    def stop(self) -> None:
        """End; probes under way are forgotten. Idempotent. Raises what ended the prober before its time."""
        if self._stop_write < 0:
            return
        os.write(self._stop_write, b"x")
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_S)
            if self._thread.is_alive():
                raise SkyrackError(f"the prober did not stop within {STOP_TIMEOUT_S} s")
        self._close()
        self.check()

    def _run_and_keep_failure(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001  (kept for stop(), which raises it)
            self._failure = error

    def _run(self) -> None:
        _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
        poller = select.epoll()
        try:
            poller.register(self._stop_read, select.EPOLLIN)
            by_descriptor = {}
            for pair, echo in enumerate(self._sockets):
                poller.register(echo.fileno(), select.EPOLLIN)
                by_descriptor[echo.fileno()] = pair
            self._probe_until_stopped(poller, by_descriptor)
        finally:
            poller.close()

    def _probe_until_stopped(self, poller: select.epoll, by_descriptor: dict[int, int]) -> None:
        started_mono_s, turn = time.monotonic(), 0
        turn_s = self._interval_s / max(1, len(self._sockets))
        while True:
            # Deadlines are computed from the start and never accumulated; turns that were missed are left out.
            due_mono_s = started_mono_s + turn * turn_s if self._sockets else float("inf")
            now_mono_s = time.monotonic()
            if now_mono_s >= due_mono_s:
                number, pair = divmod(turn, len(self._sockets))
                self._send(pair, number)
                turn = max(turn + 1, int((now_mono_s - started_mono_s) / turn_s))
                continue
            self._expire(now_mono_s)
            wake_mono_s = min(due_mono_s, self._under_way[0][0] + self._timeout_s if self._under_way else due_mono_s)
            wait_s = min(1.0, max(0.0, wake_mono_s - now_mono_s))
            if not _is_readable(poller.fileno(), wait_s):
                continue
            for descriptor, _ in poller.poll(0):
                if descriptor == self._stop_read:
                    return
                self._receive(by_descriptor[descriptor])

    def _send(self, pair: int, number: int) -> None:
        echo = _ECHO.pack(_ECHO_REQUEST, 0, 0, 0, number & 0xFFFF, number) + bytes(PAYLOAD_BYTES - 8)
        sent_mono_s = time.monotonic()
        try:
            self._sockets[pair].sendto(echo, (self._destinations[pair], 0))
        except OSError:  # no route: a blackout, told at once
            self._on_result(ProbeResult(pair, sent_mono_s, None))
            return
        self._open[pair, number] = sent_mono_s
        self._under_way.append((sent_mono_s, pair, number))

    def _expire(self, now_mono_s: float) -> None:
        while self._under_way and (self._under_way[0][0] + self._timeout_s <= now_mono_s):
            sent_mono_s, pair, number = self._under_way.popleft()
            if self._open.pop((pair, number), None) is not None:
                self._on_result(ProbeResult(pair, sent_mono_s, None))

    def _receive(self, pair: int) -> None:
        for _ in range(ANSWERS_A_WAKE):
            try:
                data, control, _, _ = self._sockets[pair].recvmsg(2048, 256)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error came back: the probe stays open until its time is over
                continue
            arrived_mono_s = _arrival_mono_s(control)
            if len(data) < _ECHO.size:
                continue
            kind, _, _, _, _, number = _ECHO.unpack_from(data)
            sent_mono_s = self._open.pop((pair, number), None) if kind == _ECHO_REPLY else None
            if sent_mono_s is not None:  # else it is too late, and was counted as unanswered
                # It may be too late all the same, if this thread was kept from counting it.
                rtt_s = arrived_mono_s - sent_mono_s
                if rtt_s < 0.0:  # somebody set the time of day between the kernel's stamp and its reading
                    rtt_s = time.monotonic() - sent_mono_s
                self._on_result(ProbeResult(pair, sent_mono_s, rtt_s * 1e6 if rtt_s < self._timeout_s else None))

    def _close(self) -> None:
        for echo in self._sockets:
            echo.close()
        os.close(self._stop_read)
        os.close(self._stop_write)
        self._stop_read = self._stop_write = -1


def _is_readable(descriptor: int, timeout_s: float) -> bool:
    """Whether there is something to read within a time.

    By ppoll(2): epoll and poll round up to whole milliseconds, select ends at descriptor 1,023.
    """
    asked = ctypes.create_string_buffer(_POLLFD.pack(descriptor, select.POLLIN, 0), _POLLFD.size)
    timeout = ctypes.create_string_buffer(_TIMESPEC.pack(int(timeout_s), int(timeout_s % 1 * 1e9)), _TIMESPEC.size)
    if _libc.ppoll(asked, 1, timeout, None) < 0 and ctypes.get_errno() != errno.EINTR:
        number = ctypes.get_errno()
        raise OSError(number, f"ppoll: {os.strerror(number)}")
    return bool(_POLLFD.unpack(asked.raw)[2])


def _open_echo(pair: ProbePair) -> socket.socket:
    def open_here() -> socket.socket:
        echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        try:
            echo.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            echo.setblocking(False)
            echo.bind((pair.source, 0))
        except BaseException:
            echo.close()
            raise
        return echo

    try:
        echo = in_namespace(pair.network_namespace, open_here)
    except OSError as error:
        raise SkyrackError(f"cannot probe {pair.destination} from {pair.source}: {error}") from error
    return echo


def _arrival_mono_s(control: list[tuple[int, int, bytes]]) -> float:
    """When the kernel took the answer in: its time of day, carried over to the monotonic clock."""
    now_mono_s, now_utc_ns = time.monotonic(), time.time_ns()
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            age_ns: int = now_utc_ns - seconds * 10**9 - nanoseconds
            return now_mono_s - max(0, age_ns) * 1e-9
    return now_mono_s
