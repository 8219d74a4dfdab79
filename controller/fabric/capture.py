"""Frames on ports of the panel, written as pcapng: what the nodes sent and what reached them, to the nanosecond.

One packet socket in the panel's namespace listens to the ports that are asked for; a filter in the kernel keeps the
others' frames away. A frame that a node sends is seen before its link delays it, one that a node gets as it arrives:
capture a link, and the same frame at its two ports lies one link delay apart.

The file is as IETF draft-ietf-opsawg-pcapng has it: a section header block, an interface description block a port, an
enhanced packet block a frame.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from controller.errors import MachineError, SkyrackError
from controller.fabric.namespaces import NAMED, in_namespace
from controller.fabric.panel import PANEL_FIRST_IFINDEX, PREFIX

MAX_BYTES = 1 << 30
"""A capture ends before its file grows beyond this."""

ETH_P_ALL, PACKET_OUTGOING, SOL_PACKET, PACKET_STATISTICS = 3, 4, 263, 6
SO_TIMESTAMPNS, SO_ATTACH_FILTER, SO_RCVBUFFORCE = 35, 26, 33
BUFFER_BYTES = 32 << 20
FRAME_BYTES = 14 + 65_536
LOOK_S = 0.1  # so often it is asked whether to stop

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER, _LENGTH_UNKNOWN, _LINKTYPE_ETHERNET = 0x1A2B3C4D, -1, 1
_OPT_END, _SHB_APPLICATION, _IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 0, 4, 2, 9, 2
_INBOUND, _OUTBOUND = 1, 2
_TIMESPEC = struct.Struct("=qq")
# Classic BPF: load the frame's ifindex (an ancillary word); equal to one of ours: take it whole; else: nothing of it.
_BPF = struct.Struct("=HBBI")
_LOAD_WORD, _JUMP_EQUAL, _RETURN, _IFINDEX_OFFSET, _WHOLE_FRAME = 0x20, 0x15, 0x06, 2**32 - 0x1000 + 8, 2**32 - 1
MAX_PORTS = 255  # as far as a jump of the filter reaches


@dataclass(frozen=True)
class CapturePort:
    """A port to listen to."""

    number: int  # the panel's
    label: str  # the node and its port, for the file


@dataclass(frozen=True)
class Captured:
    """What came of a capture."""

    frames: int
    size_bytes: int  # of the file
    missed: int  # frames that the capture was too slow for
    is_full: bool  # it ended because of its size


class PcapngWriter:
    """Writes a pcapng section, block by whole block. Interfaces are numbered in the order of their names."""

    def __init__(self, stream: BinaryIO, interfaces: Sequence[str]) -> None:
        self._stream = stream
        self.size_bytes = 0
        head = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, _LENGTH_UNKNOWN)
        self._block(_SECTION, head + _option(_SHB_APPLICATION, b"skyrack") + _option(_OPT_END, b""))
        for name in interfaces:
            options = _option(_IF_NAME, name.encode()) + _option(_IF_TSRESOL, b"\x09") + _option(_OPT_END, b"")
            self._block(_INTERFACE, struct.pack("=HHI", _LINKTYPE_ETHERNET, 0, 0) + options)

    def frame(self, interface: int, utc_ns: int, frame: bytes, *, outbound: bool) -> None:
        """One frame as the node's port saw it: outbound what the node sent."""
        head = struct.pack("=IIIII", interface, utc_ns >> 32, utc_ns & 0xFFFFFFFF, len(frame), len(frame))
        flags = struct.pack("=I", _OUTBOUND if outbound else _INBOUND)
        self._block(_PACKET, head + _padded(frame) + _option(_EPB_FLAGS, flags) + _option(_OPT_END, b""))

    def _block(self, kind: int, body: bytes) -> None:
        length = 12 + len(body)
        self._stream.write(struct.pack("=II", kind, length) + body + struct.pack("=I", length))
        self.size_bytes += length


def panel_of(run_id: str) -> Path:
    """The namespace of a run's panel."""
    return NAMED / (PREFIX + run_id)


def capture(
    namespace: Path,
    ports: Sequence[CapturePort],
    stream: BinaryIO,
    *,
    seconds_s: float,
    count: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    max_bytes: int = MAX_BYTES,
) -> Captured:
    """Write what passes some ports of a panel into a file, until time, count, size or `stopped` ends it.

    Raises MachineError without permission, SkyrackError where there is no such panel.
    """
    try:
        listener = in_namespace(namespace, lambda: open_listener([port.number for port in ports]))
    except PermissionError as error:
        raise MachineError(f"cannot listen in {namespace.name}: {error.strerror}; run as root") from error
    except OSError as error:
        raise SkyrackError(f"cannot listen in {namespace.name}: {error.strerror}") from error
    interface_of = {f"p{port.number}": index for index, port in enumerate(ports)}
    writer = PcapngWriter(stream, [port.label for port in ports])
    stream.flush()
    frames, is_full, missed, deadline_mono_s = 0, False, 0, time.monotonic() + seconds_s
    with listener:
        while not (stopped() or is_full or frames == count):
            left_s = deadline_mono_s - time.monotonic()
            if left_s <= 0:
                break
            if not select.select([listener], [], [], min(left_s, LOOK_S))[0]:
                stream.flush()
                continue
            frame, control, _, source = listener.recvmsg(FRAME_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
            seconds, nanoseconds = _TIMESPEC.unpack(control[0][2])
            if writer.size_bytes + len(frame) + 64 > max_bytes:
                is_full = True
            elif source[0] in interface_of:
                outbound = source[2] != PACKET_OUTGOING  # what goes out of the panel comes into the node
                writer.frame(interface_of[source[0]], seconds * 10**9 + nanoseconds, frame, outbound=outbound)
                frames += 1
        missed = struct.unpack("=II", listener.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
    stream.flush()
    return Captured(frames, writer.size_bytes, missed, is_full)


def open_listener(ports: Sequence[int]) -> socket.socket:
    """A packet socket on some ports of the panel whose namespace the calling thread is in."""
    if not 0 < len(ports) <= MAX_PORTS:
        raise SkyrackError(f"a capture listens to 1 to {MAX_PORTS} ports, not to {len(ports)}")
    # It hears all ports until the filter is set: what comes so early from others is told by its source.
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ETH_P_ALL))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        rows = [_BPF.pack(_LOAD_WORD, 0, 0, _IFINDEX_OFFSET)]
        for index, port in enumerate(ports):
            rows.append(_BPF.pack(_JUMP_EQUAL, len(ports) - index, 0, PANEL_FIRST_IFINDEX + port))
        rows += [_BPF.pack(_RETURN, 0, 0, 0), _BPF.pack(_RETURN, 0, 0, _WHOLE_FRAME)]
        program = ctypes.create_string_buffer(b"".join(rows))
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(rows), ctypes.addressof(program))
        )
        try:
            listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:  # root of a user namespace only: the limit of the machine holds
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    except BaseException:
        listener.close()
        raise
    return listener


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _padded(value: bytes) -> bytes:
    """A whole number of 32-bit words."""
    return value + bytes(-len(value) % 4)
