"""A delay line in user space, the program: frames taken off panel ports are held back, thinned and put on their peers.

Started by DelayLineShaper as `python -m controller.fabric.delay_line_process CONTROL_FD PARENT_PID SEED NAMESPACE`. It
obeys the control socket, and ends when that closes or the parent does. Standard library only, one process, one thread:

- one packet socket takes from, and sends to, all ports: a socket a port would cost the kernel 12 ms each to close;
- a frame's delay counts from the kernel's time stamp on it, so that a late wake-up costs nothing while it is under way;
- frames travel with their virtio header, so that large (GSO) frames and unfinished checksums pass as they are;
- a frame's fate is settled when it arrives, and it waits in one heap with its peer: a blackout or a handover changes
  what comes later, never what is under way.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import heapq
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 6, 15, 23
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 32, 33, 35
PR_SET_TIMERSLACK = 29
VNET_HEADER_BYTES = 10
RECEIVE_BYTES = VNET_HEADER_BYTES + 14 + 65_536
BUFFER_BYTES = 128 << 20
BURST = 16  # frames taken before the clock is looked at again
NICENESS = -20  # a late wake-up is an error in every delay; real-time class where that may be had
WAKE_S = 250e-6  # a sleeper wakes up to so late, so it sleeps so much less and then watches the clock,
BUSY_S = 0.002  # but not for a frame due this soon after another: an eighth of a core goes into it at most
OLDEST_S = 1.0
SET_NS = 10_000_000  # the time of day leaves the monotonic clock by so much only when somebody sets it
CONTROL_BYTES = socket.CMSG_SPACE(16)

APPLY, READ_BACK = 1, 2
HEADER = struct.Struct("=IIqq")
"""Verb, number of records that follow; in answers then frames the socket was too slow for, frames a port refused."""
RECORD = struct.Struct("=iiqqdqqq")
"""Port, peer (-1: dark), delay in µs, rate in bit/s, loss ratio, queue limit in bytes; frames lost, frames the full
queue dropped (both in answers only)."""

_TIMESPEC = struct.Struct("=qq")
_GSO = struct.Struct("=xBxxHHH")  # of struct virtio_net_hdr: gso_type, gso_size, csum_start, csum_offset


class Direction:
    """The state of one direction: what is commanded, and what its transmitter is busy with."""

    __slots__ = (
        "delay_s", "dropped", "free_mono_s", "last_due_mono_s", "loss_ratio", "lost", "peer", "queue_limit_s",
        "random", "rate_bps", "record", "seconds_a_byte",
    )  # fmt: skip

    def __init__(self, record: tuple[int, int, int, int, float, int, int, int], seed: int) -> None:
        self.random = random.Random(f"{seed}:{record[0]}").random  # noqa: S311  (a seeded run, no secrets)
        self.free_mono_s = 0.0  # when the transmitter has sent what it holds
        self.last_due_mono_s = 0.0
        self.lost = self.dropped = 0
        self.command(record)

    def command(self, record: tuple[int, int, int, int, float, int, int, int]) -> None:
        """Take on a new state. The transmitter goes on with what it holds."""
        _, peer, delay_us, rate_bps, self.loss_ratio, queue_limit_bytes, _, _ = self.record = record
        self.peer = None if peer < 0 else (f"p{peer}", 0)
        self.delay_s = delay_us * 1e-6
        self.seconds_a_byte = 8 / rate_bps if rate_bps else 0.0
        self.queue_limit_s = queue_limit_bytes * self.seconds_a_byte


class DelayLine:
    """All directions of a panel, and the frames under way."""

    def __init__(self, frames: socket.socket, control: socket.socket, parent: int, seed: int) -> None:
        self._frames, self._control, self._parent, self._seed = frames, control, parent, seed
        self._directions: dict[str, Direction] = {}  # by the panel's name of the port
        self._under_way: list[tuple[float, int, tuple[str, int], bytes]] = []  # heap of due, order, peer, frame
        self._accepted = self._overrun = self._refused = 0
        self._delivered_mono_s = 0.0
        self._utc_less_mono_ns = time.time_ns() - time.monotonic_ns()
        self._stamps_hold = True  # the kernel's stamps on what waits in the socket are of the time of day as it is

    def run(self) -> None:
        """Serve until the control socket closes or the parent ends."""
        clock, under_way = time.monotonic, self._under_way
        watched: list[socket.socket | int] = [self._frames, self._control, self._parent]
        while True:
            self._deliver()
            timeout_s = None
            if under_way:
                now_mono_s, due_mono_s = clock(), under_way[0][0]
                early_s = WAKE_S if due_mono_s - self._delivered_mono_s > BUSY_S else 0.0
                timeout_s = max(0.0, due_mono_s - early_s - now_mono_s)
            readable, _, _ = select.select(watched, [], [], timeout_s)
            if self._frames in readable:
                self._take()
            if self._parent in readable or (self._control in readable and not self._obey()):
                return

    def _take(self) -> None:
        receive, directions = self._frames.recvmsg, self._directions
        now_mono_s = time.monotonic()
        utc_less_mono_ns = time.time_ns() - time.monotonic_ns()
        if abs(utc_less_mono_ns - self._utc_less_mono_ns) > SET_NS:
            self._stamps_hold = False
        self._utc_less_mono_ns = utc_less_mono_ns
        for _ in range(BURST):
            try:
                frame, control, _, source = receive(RECEIVE_BYTES, CONTROL_BYTES)
            except OSError as error:  # EAGAIN: no more; EINVAL: a kind of GSO that virtio headers cannot say
                if isinstance(error, BlockingIOError):
                    self._stamps_hold = True
                else:
                    self._refused += 1
                return
            direction = directions.get(source[0])
            if direction is not None and direction.peer is not None:
                seconds, nanoseconds = _TIMESPEC.unpack(control[0][2])
                arrived_mono_s = (seconds * 10**9 + nanoseconds - utc_less_mono_ns) * 1e-9
                arrived_mono_s = max(now_mono_s - OLDEST_S, min(time.monotonic(), arrived_mono_s))
                self._accept(direction, direction.peer, frame, arrived_mono_s if self._stamps_hold else now_mono_s)

    def _accept(self, direction: Direction, peer: tuple[str, int], frame: bytes, arrived_mono_s: float) -> None:
        """Settle when a frame is due at its peer, if ever."""
        if direction.loss_ratio and direction.random() < direction.loss_ratio:
            direction.lost += 1
            return
        start_mono_s = max(arrived_mono_s, direction.free_mono_s)
        sending_s = wire_bytes(frame) * direction.seconds_a_byte
        if start_mono_s - arrived_mono_s + sending_s > direction.queue_limit_s:
            direction.dropped += 1
            return
        direction.free_mono_s = start_mono_s + sending_s
        due_mono_s = max(direction.free_mono_s + direction.delay_s, direction.last_due_mono_s)
        direction.last_due_mono_s = due_mono_s
        self._accepted += 1
        heapq.heappush(self._under_way, (due_mono_s, self._accepted, peer, frame))

    def _deliver(self) -> None:
        under_way, send = self._under_way, self._frames.sendto
        now_mono_s = time.monotonic()
        for _ in range(BURST):
            if not under_way or under_way[0][0] > now_mono_s:
                return
            _, _, peer, frame = heapq.heappop(under_way)
            self._delivered_mono_s = now_mono_s
            try:
                send(frame, peer)
            except OSError:  # the node has gone, or its end is down
                self._refused += 1

    def _obey(self) -> bool:
        """Serve one request of the controller. False when there will be no more."""
        header = receive_exactly(self._control, HEADER.size)
        if header is None:
            return False
        verb, count, _, _ = HEADER.unpack(header)
        records = receive_exactly(self._control, count * RECORD.size)
        if records is None:
            return False
        for record in RECORD.iter_unpack(records):
            name = f"p{record[0]}"
            if name in self._directions:
                self._directions[name].command(record)
            else:
                self._directions[name] = Direction(record, self._seed)
        answer = b""
        if verb == READ_BACK:
            answer = b"".join(
                RECORD.pack(*each.record[:6], each.lost, each.dropped) for each in self._directions.values()
            )
        self._overrun += struct.unpack("=II", self._frames.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        header = HEADER.pack(verb, len(answer) // RECORD.size, self._overrun, self._refused)
        self._control.sendall(header + answer)
        return True


def wire_bytes(frame: bytes) -> int:
    """What a frame, its virtio header in front, fills on the wire: a GSO frame has its headers once a segment."""
    length = len(frame) - VNET_HEADER_BYTES
    gso_type, gso_size, checksum_start, checksum_offset = _GSO.unpack_from(frame)
    if not gso_type or not gso_size:
        return length
    if checksum_offset == 16:  # TCP keeps its checksum there, and its own length, in words, four bytes earlier
        header = checksum_start + (frame[VNET_HEADER_BYTES + checksum_start + 12] >> 4) * 4
    else:
        header = checksum_start + 8
    segments = max(1, -(-(length - header) // gso_size))
    headers: int = (segments - 1) * header
    return length + headers


def receive_exactly(source: socket.socket, size: int) -> bytes | None:
    """So many bytes, or None if the other end closed."""
    received = bytearray()
    while len(received) < size:
        part = source.recv(size - len(received))
        if not part:
            return None
        received += part
    return bytes(received)


def open_frames() -> socket.socket:
    """A packet socket on every port of the calling process's namespace."""
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    for option, unforced in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            frames.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        except PermissionError:  # root of a user namespace only: the limit of the machine holds
            frames.setsockopt(socket.SOL_SOCKET, unforced, BUFFER_BYTES)
    frames.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    frames.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    frames.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    frames.setblocking(False)
    return frames


def hurry() -> None:
    """Wake on time: the first that the machine allows of a real-time class, a high priority, things as they are."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # nanoseconds
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def main() -> None:
    """Enter the panel's namespace and run the delay line."""
    control = socket.socket(fileno=int(sys.argv[1]))
    parent_pid, seed, namespace = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to handle
    try:
        parent = os.pidfd_open(parent_pid)
    except ProcessLookupError:
        return
    if os.getppid() != parent_pid:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open("rb") as handle:
        if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", str(namespace))
    hurry()
    frames = open_frames()
    gc.disable()  # nothing here makes cycles, and a collection would be a late frame
    gc.freeze()
    DelayLine(frames, control, parent, seed).run()


if __name__ == "__main__":
    main()
