"""A capture of real ports, read back block by block by a reader of the test's own."""

from __future__ import annotations

import io
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from controller.fabric.capture import CapturePort, capture, panel_of
from controller.fabric.namespaces import wait_until
from tests.kernel.world import Link, World, plan

DELAY_US = 50_000
DELAY_TOLERANCE_MS = 5.0  # of a delay line on a machine that has other things to do
SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6


class Packet(NamedTuple):
    """An enhanced packet block."""

    interface: str
    utc_ns: int
    frame: bytes
    flags: int


def read(data: bytes) -> list[Packet]:
    """The packets of a pcapng file of one little-endian section, every length and order of blocks checked."""
    packets: list[Packet] = []
    names: list[str] = []
    kinds: list[int] = []
    offset = 0
    while offset < len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, offset + length - 4) == (length,)
        body = data[offset + 8 : offset + length - 4]
        kinds.append(kind)
        if kind == SECTION:
            assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
        elif kind == INTERFACE:
            assert struct.unpack_from("<HHI", body) == (1, 0, 0)
            options = read_options(body[8:])
            assert options[9] == b"\x09"
            names.append(options[2].decode())
        else:
            assert kind == PACKET
            interface, high, low, captured, original = struct.unpack_from("<IIIII", body)
            assert captured == original
            flags = read_options(body[20 + captured + -captured % 4 :])[2]
            packets.append(
                Packet(names[interface], high << 32 | low, body[20 : 20 + captured], int.from_bytes(flags, "little"))
            )
        offset += length
    assert offset == len(data)
    assert kinds == sorted(kinds, key=[SECTION, INTERFACE, PACKET].index)
    return packets


def read_options(data: bytes) -> dict[int, bytes]:
    """Code → value, up to the end of options."""
    found: dict[int, bytes] = {}
    offset = 0
    while True:
        code, length = struct.unpack_from("<HH", data, offset)
        if code == 0:
            assert offset + 4 == len(data)
            return found
        found[code] = data[offset + 4 : offset + 4 + length]
        offset += 4 + length + -length % 4


def captured_while_sending(world: World, ports: list[CapturePort], count: int) -> list[Packet]:
    """What a capture of some ports has of numbered datagrams from node 0 to node 1."""
    stream, told = io.BytesIO(), []
    listening = threading.Thread(
        target=lambda: told.append(
            capture(panel_of(world.panel.run_id), ports, stream, seconds_s=20.0, count=count * len(ports))
        )
    )
    listening.start()
    assert wait_until(lambda: stream.tell() > 0, 10.0)  # the head is written when the listener is open
    with world.sending(0, 1) as traffic:
        traffic.send(count, 0.01)
        listening.join(20.0)
    (done,) = told
    assert (done.frames, done.missed, done.is_full, done.size_bytes) == (
        count * len(ports), 0, False, len(stream.getvalue()),
    )  # fmt: skip
    return read(stream.getvalue())


def test_a_link_is_captured_at_both_its_ports(pair: World) -> None:
    """Every frame leaves node 0 and reaches node 1, byte for byte, one link delay later by the kernel's stamps."""
    pair.shaper.apply(plan(Link(0, 1, DELAY_US)))
    before_ns = time.time_ns()
    packets = captured_while_sending(pair, [CapturePort(0, "one isl0"), CapturePort(1, "two isl0")], 20)
    sent = [packet for packet in packets if packet.interface == "one isl0"]
    arrived = [packet for packet in packets if packet.interface == "two isl0"]
    assert {packet.flags for packet in sent} == {2}, "the node sends: outbound"
    assert {packet.flags for packet in arrived} == {1}
    assert [packet.frame for packet in sent] == [packet.frame for packet in arrived]
    assert all(before_ns <= packet.utc_ns <= time.time_ns() for packet in packets)
    delays_ms = sorted((b.utc_ns - a.utc_ns) / 1e6 for a, b in zip(sent, arrived, strict=True))
    assert delays_ms[10] == pytest.approx(DELAY_US / 1e3, abs=DELAY_TOLERANCE_MS)


def test_other_ports_are_not_listened_to(pair: World) -> None:
    """A capture of one port holds that port's frames alone, though the panel has others with traffic."""
    pair.shaper.apply(plan(Link(0, 1, 1_000)))
    assert {packet.interface for packet in captured_while_sending(pair, [CapturePort(1, "two isl0")], 5)} == {
        "two isl0"
    }


def test_a_capture_ends_at_its_time_or_size_with_a_whole_file(pair: World, tmp_path: Path) -> None:
    """Without a frame it ends at its time; with too many at its size; also the empty file is a section."""
    namespace, ports = panel_of(pair.panel.run_id), [CapturePort(0, "one isl0")]
    path = tmp_path / "nothing.pcapng"
    with path.open("wb") as file:
        assert capture(namespace, ports, file, seconds_s=0.05).frames == 0
    assert read(path.read_bytes()) == []
    assert capture(namespace, ports, io.BytesIO(), seconds_s=20.0, stopped=lambda: True).frames == 0
    pair.shaper.apply(plan(Link(0, 1, 0)))
    stream = io.BytesIO()
    told = []
    full = threading.Thread(
        target=lambda: told.append(capture(namespace, ports, stream, seconds_s=20.0, max_bytes=2_000))
    )
    full.start()
    assert wait_until(lambda: stream.tell() > 0, 10.0)
    with pair.sending(0, 1) as traffic:
        traffic.send(100, 0.001)
        full.join(20.0)
    assert told[0].is_full
    assert 1_500 < told[0].size_bytes <= 2_000
    assert len(read(stream.getvalue())) == told[0].frames
