"""Raw netlink: fixed-size messages laid out in numpy arrays and sent in bulk, refusals read back and named.

A call a message costs what a system call and a library cost; a thousand messages in one array cost one system call.
The kernel handles a message before `send` returns, and answers only what it refused: what can be read afterwards
without waiting is all there is.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.errors import SkyrackError
from controller.fabric.namespaces import in_namespace

NLM_F_REQUEST, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x300, 0x100, 0x200, 0x400
NLM_F_DUMP_INTR = 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
ERROR_BYTES = 20  # errno and the header of the refused message, which NETLINK_CAP_ACK spares us the rest of
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWNEIGH = (
    16,
    18,
    19,
    20,
    24,
    25,
    28,
)
RTM_NEWQDISC, RTM_GETQDISC, RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 36, 38, 44, 45, 46
RTM_GETSTATS = 94

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
BUFFER_BYTES = 16 << 20
SEND_BYTES = 128 << 10
RECEIVE_BYTES = 1 << 20
ANSWER_TIMEOUT_S = 10
DUMP_ATTEMPTS = 5

_HEADER = struct.Struct("=IHHII")
Rows = npt.NDArray[np.void]
HEADER_FIELDS: list[Any] = [
    ("length", "=u4"),
    ("type", "=u2"),
    ("flags", "=u2"),
    ("sequence", "=u4"),
    ("sender", "=u4"),
]
ATTRIBUTE = np.dtype([("length", "=u2"), ("type", "=u2")])


class FabricError(SkyrackError):
    """The kernel refused a part of the fabric. The message names it, what was asked, and the kernel's answer."""


class ShapingError(FabricError):
    """A shaping plan could not be made so. Names the port, what was asked, and the answer."""


class RouteError(FabricError):
    """A host route could not be made so. Names the node, the destination, what was asked, and the kernel's answer."""


@dataclass(frozen=True)
class Refusal:
    """One message that the kernel refused."""

    row: int  # which of the messages sent
    number: int  # errno
    detail: str  # the kernel's own words; may be empty

    def __str__(self) -> str:
        name = errno.errorcode.get(self.number, str(self.number))
        return f"{name} ({self.detail or os.strerror(self.number)})"


@dataclass(frozen=True)
class Message:
    """One message that the kernel sent."""

    type: int
    sequence: int
    body: bytes


class NetlinkSocket:
    """A route netlink socket that lives in a network namespace; its owner stays in his own. Threads may share it."""

    def __init__(self, namespace: Path) -> None:
        self._socket = in_namespace(namespace, open_socket)
        self._lock = threading.Lock()

    @classmethod
    def here(cls) -> NetlinkSocket:
        """A socket in the calling thread's namespace."""
        return cls(Path("/proc/thread-self/ns/net"))

    def send(self, messages: Sequence[bytes]) -> list[Refusal]:
        """Have the kernel act on messages, in order. What it refused; the others are done."""
        numbered = bytearray().join(messages)
        start, starts = 0, []
        for row, each in enumerate(messages):
            struct.pack_into("=I", numbered, start + 8, row)
            starts.append(start)
            start += len(each)
        return self._send_chunks(_chunks(numbered, starts))

    def send_rows(self, rows: Rows) -> list[Refusal]:
        """The same for messages of one fixed size, laid out in a structured array (see `new_rows`)."""
        rows["sequence"] = np.arange(len(rows))
        step = max(1, SEND_BYTES // rows.dtype.itemsize)
        return self._send_chunks(rows[first : first + step].tobytes() for first in range(0, len(rows), step))

    def get_rows(self, rows: Rows) -> tuple[list[Message], list[Refusal]]:
        """Answers and refusals to requests of one fixed size; `sequence` of an answer is its row."""
        rows["sequence"] = np.arange(len(rows))
        step = 256  # answers are larger than questions, and must fit the buffer
        answers: list[Message] = []
        refusals: list[Refusal] = []
        with self._lock:
            for first in range(0, len(rows), step):
                self._socket.send(rows[first : first + step].tobytes())
                for message in self._pending():
                    if message.type == NLMSG_ERROR:
                        refusals += _refusal(message)
                    else:
                        answers.append(message)
        return answers, refusals

    def dump(self, request: bytes) -> list[Message]:
        """Everything that a dump request lists. Raises FabricError if the kernel will not, or does not answer."""
        with self._lock:
            for _ in range(DUMP_ATTEMPTS):
                self._socket.send(request)
                listed = self._dump_answers()
                if listed is not None:
                    return listed
        raise FabricError(f"netlink: a listing was interrupted by changes {DUMP_ATTEMPTS} times")

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._socket.close()

    def _dump_answers(self) -> list[Message] | None:
        listed: list[Message] = []
        whole = True
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError as error:  # SO_RCVTIMEO has passed
                raise FabricError(f"netlink: the kernel did not answer within {ANSWER_TIMEOUT_S} s") from error
            for message, flags in _messages(data):
                whole = whole and not flags & NLM_F_DUMP_INTR
                if message.type == NLMSG_DONE:
                    return listed if whole else None
                if message.type == NLMSG_ERROR:
                    raise FabricError(f"netlink: a listing was refused: {_refusal(message)[0]}")
                listed.append(message)

    def _send_chunks(self, chunks: Iterator[bytes]) -> list[Refusal]:
        refusals: list[Refusal] = []
        with self._lock:
            for chunk in chunks:
                self._socket.send(chunk)
                for message in self._pending():
                    refusals += _refusal(message)
        return refusals

    def _pending(self) -> Iterator[Message]:
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            for message, _ in _messages(data):
                yield message


def open_socket() -> socket.socket:
    """A route netlink socket in the calling thread's namespace, with large buffers and the kernel's words on errors."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    netlink.bind((0, 0))
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", ANSWER_TIMEOUT_S, 0))
    netlink.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    netlink.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    for option, unforced in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            netlink.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        except PermissionError:  # root of a user namespace only: the limit of the machine holds
            netlink.setsockopt(socket.SOL_SOCKET, unforced, BUFFER_BYTES)
    return netlink


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A netlink message, its sequence number still zero."""
    return _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 0, 0) + body


def attribute(kind: int, payload: bytes) -> bytes:
    """A netlink attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Attribute type → payload."""
    found = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += length + (-length % 4)
    return found


def new_rows(layout: np.dtype[np.void], count: int, kind: int, flags: int) -> Rows:
    """Zeroed messages (count,) of one layout which begins with HEADER_FIELDS, their headers filled in."""
    rows = np.zeros(count, layout)
    rows["length"] = layout.itemsize
    rows["type"] = kind
    rows["flags"] = NLM_F_REQUEST | flags
    return rows


def _chunks(data: bytearray, starts: list[int]) -> Iterator[bytes]:
    first = 0
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        if end - first > SEND_BYTES and start > first:
            yield bytes(data[first:start])
            first = start
    if first < len(data):
        yield bytes(data[first:])


def _messages(data: bytes) -> Iterator[tuple[Message, int]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        body = data[offset + _HEADER.size : offset + length]
        yield Message(kind, sequence, body), flags
        offset += length + (-length % 4)


def _refusal(answer: Message) -> list[Refusal]:
    (code,) = struct.unpack_from("=i", answer.body)
    if code == 0:
        return []
    words = attributes(answer.body[ERROR_BYTES:]).get(NLMSGERR_ATTR_MSG, b"")
    return [Refusal(answer.sequence, -code, words.rstrip(b"\0").decode("utf-8", "replace"))]
