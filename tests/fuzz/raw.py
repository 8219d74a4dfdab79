"""Bytes on the agents' sockets that are no gRPC, or hardly: before TLS, after it, on the control socket, over HTTP."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from node_agent.security.wire import DATA_PORT
from tests.agent.fleet import Fleet
from tests.agent.identities import ClientIdentity
from tests.agent.methods import METHODS
from tests.fuzz.generator import Generator
from tests.fuzz.world import ENDPOINT_PORT, GATEWAY, KNOWN, NODES

CONNECT_S: Final = 10.0
LISTENS_S: Final = 0.05
MOST_HEARD_BYTES: Final = 100_000
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, 3.4
_DATA, HEADERS, _PRIORITY, _RESET, SETTINGS, _PUSH, _PING, _GOAWAY, _WINDOW, _CONTINUATION = range(10)
_KINDS: Final = 10
_END_STREAM, END_HEADERS = 0x1, 0x4
_PATHS: Final = ("/", "/clock", "/place", "/contacts", "/peers", "/events", "/nothing", "/../etc/passwd", "*", "")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 (200|400|404|405|431|503) ")


class Door(Enum):
    """Where the bytes go."""

    CONTROL = "the control socket"
    PLAIN = "the data plane, without TLS"
    TLS = "the data plane, within TLS"
    ENDPOINT = "the endpoint for programs"


@dataclass(frozen=True)
class RawCase:
    """Bytes for one connection."""

    seed: int
    number: int
    node: str
    door: Door
    data: bytes
    resets: bool  # ends with a reset, without a word

    def __str__(self) -> str:
        return f"seed {self.seed} number {self.number}: {len(self.data)} bytes to {self.door.value} of {self.node}"


def raw_case(seed: int, number: int) -> RawCase:
    """The bytes of a number."""
    draw = random.Random(f"{seed} {number}")
    door = draw.choice([*Door])
    generator = Generator(draw, KNOWN)
    data = _http1(draw) if door is Door.ENDPOINT else _http2(draw)
    match draw.randrange(4):
        case 0:
            data = generator.garbage()
        case 1 | 2:
            data = generator.mutated(data)
    if door is not Door.ENDPOINT:
        data = _spared(data)
    node = GATEWAY if door is Door.ENDPOINT else draw.choice(NODES)
    return RawCase(seed, number, node, door, data, draw.random() < 0.5)


class Doors:
    """The agents' sockets, as whoever has nothing but sockets sees them."""

    def __init__(self, fleet: Fleet, who: ClientIdentity, folder: Path) -> None:
        self._fleet = fleet
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._tls.set_alpn_protocols(["h2"])
        shown = folder / "shown.pem"
        shown.write_bytes(who.key_pem + who.certificate_pem)
        self._tls.load_cert_chain(shown)

    async def knock(self, case: RawCase) -> str:
        """Bring the bytes, and hear what is answered. What is wrong with it, if something is."""
        heard = b""
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await self._open(case)
        except OSError as error:
            return f"nobody opens: {error}"
        try:
            with suppress(OSError, TimeoutError):
                if case.resets and case.door is not Door.CONTROL:
                    end = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, end)
                writer.write(case.data)
                async with asyncio.timeout(LISTENS_S):
                    await writer.drain()
                    while len(heard) < MOST_HEARD_BYTES and (piece := await reader.read(MOST_HEARD_BYTES)):
                        heard += piece
        finally:
            writer.transport.abort()
        if case.door is Door.ENDPOINT and heard and not _STATUS_LINE.match(heard):
            return f"answered {heard[:200]!r}"
        return ""

    async def _open(self, case: RawCase) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        agent = self._fleet[case.node]
        match case.door:
            case Door.CONTROL:
                return await asyncio.open_unix_connection(str(agent.control_socket))
            case Door.ENDPOINT:
                return await asyncio.open_connection(agent.address, ENDPOINT_PORT)
            case Door.PLAIN:
                return await asyncio.open_connection(agent.address, DATA_PORT)
            case Door.TLS:
                return await asyncio.open_connection(agent.address, DATA_PORT, ssl=self._tls)


# --- almost HTTP/1.1 ---


def _http1(draw: random.Random) -> bytes:
    method, path = draw.choice(("GET", "GET", "HEAD", "POST", "get", "")), draw.choice(_PATHS)
    lines = [f"{method} {path} HTTP/{draw.choice(('1.1', '1.0', '2', '1.1.1', ''))}"]
    lines += [f"X-{number}: {'x' * draw.choice((0, 10, 3_000))}" for number in range(draw.choice((0, 1, 5)))]
    return ("\r\n".join(lines) + draw.choice(("\r\n\r\n", "\r\n\r\n", "\r\n", "\n\n", "\r\n\r\n\0"))).encode()


# --- almost HTTP/2 ---


def _http2(draw: random.Random) -> bytes:
    """A preface, settings, and frames: calls, and others, some of them many times."""
    frames = [PREFACE, frame(SETTINGS, 0, 0, b"")]
    for call in range(draw.randrange(4)):
        stream = 2 * call + 1
        frames += [frame(HEADERS, END_HEADERS, stream, _headers(draw)), frame(_DATA, 1, stream, _message(draw))]
    for _ in range(draw.randrange(4)):
        other = frame(
            draw.randrange(_KINDS + 2),
            draw.randrange(256),
            draw.choice((0, 1, 2, 3, 2**31 - 1)),
            draw.randbytes(draw.choice((0, 4, 5, 8, 100))),
        )
        frames += [other] * draw.choice((1, 1, 200))
    if draw.random() < 0.2:  # opened and reset, again and again
        for stream in range(101, 301, 2):
            opened = frame(HEADERS, END_HEADERS, stream, _headers(draw))
            frames += [opened, frame(_RESET, 0, stream, struct.pack(">I", 8))]
    if draw.random() < 0.1:  # headers that never end
        frames.append(frame(HEADERS, 0, 401, _headers(draw)))
        frames += [frame(_CONTINUATION, 0, 401, field("x", "y" * 100))] * 500
    return b"".join(frames)


def _spared(data: bytes) -> bytes:
    """With paths that are text: gRPC 1.85 ends its server at any other, and the agent with it (see `wire`)."""
    spared, at = bytearray(data), -1
    while (at := data.find(b":path", at + 1)) >= 0:
        length = at + len(b":path")
        spared[length : length + 1] = bytes(byte & 0x7F for byte in spared[length : length + 1])  # not Huffman's code
        value = slice(length + 1, length + 1 + (spared[length] if length < len(spared) else 0))
        spared[value] = bytes(byte & 0x7F for byte in spared[value])
    return bytes(spared)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _headers(draw: random.Random) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{draw.choice(METHODS).name}",
        ":authority": "node",
        "content-type": "application/grpc",
        "te": "trailers",
        draw.choice(("grpc-timeout", "grpc-encoding", "x-bin", "user-agent")): draw.choice(
            ("1S", "-1S", "gzip", "%", "")
        ),
    }
    if draw.random() < 0.2:
        del fields[draw.choice([*fields])]
    return b"".join(field(name, value) for name, value in fields.items())


def field(name: str, value: str) -> bytes:
    """A literal that is not indexed, of names and values below 127 bytes (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _message(draw: random.Random) -> bytes:
    """A message of gRPC's: whether it is compressed, how long it is, and what it is."""
    content = draw.randbytes(draw.choice((0, 1, 50)))
    length = draw.choice((len(content), len(content), len(content) + 1, 2**32 - 1, 0))
    return struct.pack(">BI", draw.choice((0, 0, 1, 2, 255)), length) + content
