"""A delay line in user space, the program: frames taken off panel ports are held back, thinned and put on their peers.

Started by DelayLineShaper as `python -m controller.fabric.delay_line_process MEMORY_FD N_PORT PARENT_PID SEED
NAMESPACE`. What is commanded it looks up, frame by frame, in the memory (see plan_memory). On its standard input, the
control socket, it is asked what it holds; it ends when that closes or the parent does. Standard library, one process,
one thread:

- one packet socket takes from, and sends to, all ports: a socket a port would cost the kernel 12 ms each to close;
- a frame's delay counts from the kernel's time stamp on it, so that a late wake-up costs nothing while it is under way;
- frames travel with their virtio header, so that large (GSO) frames and unfinished checksums pass as they are;
- a frame's fate is settled as it is taken, by the plan of the moment at which it was sent, and it waits in one heap
  with its peer: a blackout or a handover changes what comes later, never what is under way.
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

from controller.fabric.plan_memory import DROPPED, LOST, PlanMemory, State

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
OLDEST_NS = 10**9
SET_NS = 10_000_000  # the time of day leaves the monotonic clock by so much only when somebody sets it
CONTROL_BYTES = socket.CMSG_SPACE(16)

ASK = b"?"
ANSWER = struct.Struct("=qqq")
"""The number of the plan that is shown as held; frames the socket was too slow for, frames a port refused."""

_TIMESPEC = struct.Struct("=qq")
_GSO = struct.Struct("=xBxxHHH")  # of struct virtio_net_hdr: gso_type, gso_size, csum_start, csum_offset


class Transmitter:
    """What sends into one direction: what it is busy with, and its dice."""

    __slots__ = ("free_mono_s", "last_due_mono_s", "port", "random")

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.random = random.Random(f"{seed}:{port}").random  # noqa: S311  (a seeded run, no secrets)
        self.free_mono_s = 0.0  # when it has sent what it holds
        self.last_due_mono_s = 0.0


class DelayLine:
    """All directions of a panel, and the frames under way."""

    def __init__(
        self, frames: socket.socket, control: socket.socket, memory: PlanMemory, n_port: int, parent: int, seed: int
    ) -> None:
        self._frames, self._control, self._memory = frames, control, memory
        self._n_port, self._parent, self._seed = n_port, parent, seed
        self._transmitters: dict[str, Transmitter] = {}  # by the panel's name of the port, as they are first used
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
            if self._parent in readable or (self._control in readable and not self._answer()):
                return

    def _take(self) -> None:
        receive, transmitters, state = self._frames.recvmsg, self._transmitters, self._memory.state
        # In this order a pause between the two makes frames seem sent later: none is judged by a plan it came after.
        utc_ns = time.time_ns()
        now_mono_ns = time.monotonic_ns()
        utc_less_mono_ns = utc_ns - now_mono_ns
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
            transmitter = transmitters.get(source[0]) or self._first_frame_of(source[0])
            if transmitter is None:
                continue
            seconds, nanoseconds = _TIMESPEC.unpack(control[0][2])
            sent_mono_ns = seconds * 10**9 + nanoseconds - utc_less_mono_ns
            sent_mono_ns = max(now_mono_ns - OLDEST_NS, min(time.monotonic_ns(), sent_mono_ns))
            sent_mono_ns = sent_mono_ns if self._stamps_hold else now_mono_ns
            commanded = state(transmitter.port, sent_mono_ns)
            if commanded[0] >= 0:
                self._accept(transmitter, commanded, frame, sent_mono_ns * 1e-9)

    def _first_frame_of(self, name: str) -> Transmitter | None:
        """The transmitter of a port of the panel; None for any other interface."""
        if not (name[0] == "p" and name[1:].isdecimal() and int(name[1:]) < self._n_port):
            return None
        made = self._transmitters[name] = Transmitter(int(name[1:]), self._seed)
        return made

    def _accept(self, transmitter: Transmitter, commanded: State, frame: bytes, sent_mono_s: float) -> None:
        """Settle when a frame is due at its peer, if ever."""
        peer, delay_us, rate_bps, loss_ratio, queue_limit_bytes = commanded
        if loss_ratio and transmitter.random() < loss_ratio:
            self._memory.count(transmitter.port, LOST)
            return
        start_mono_s = max(sent_mono_s, transmitter.free_mono_s)
        seconds_a_byte = 8 / rate_bps if rate_bps else 0.0
        sending_s = wire_bytes(frame) * seconds_a_byte
        if start_mono_s - sent_mono_s + sending_s > queue_limit_bytes * seconds_a_byte:
            self._memory.count(transmitter.port, DROPPED)
            return
        transmitter.free_mono_s = start_mono_s + sending_s
        due_mono_s = max(transmitter.free_mono_s + delay_us * 1e-6, transmitter.last_due_mono_s)
        transmitter.last_due_mono_s = due_mono_s
        self._accepted += 1
        heapq.heappush(self._under_way, (due_mono_s, self._accepted, (f"p{peer}", 0), frame))

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

    def _answer(self) -> bool:
        """Show what is held, and tell what did not pass. False when there will be no more questions."""
        if self._control.recv(len(ASK)) != ASK:
            return False
        self._overrun += struct.unpack("=II", self._frames.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        self._control.sendall(ANSWER.pack(self._memory.show_held(), self._overrun, self._refused))
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
    control = socket.socket(fileno=sys.stdin.fileno())  # a low number, whatever the parent has open: see select(2)
    descriptor, n_port, parent_pid, seed = (int(each) for each in sys.argv[1:5])
    namespace = Path(sys.argv[5])
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
    DelayLine(frames, control, PlanMemory(descriptor, n_port), n_port, parent, seed).run()


if __name__ == "__main__":
    main()
