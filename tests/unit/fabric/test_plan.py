"""Plans are arrays: built from the sky, compared, and sized at the kernel's edge."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from controller.fabric.delay_line import RECORDS
from controller.fabric.delay_line_process import wire_bytes
from controller.fabric.netem import limit_packets
from controller.fabric.plan import DARK, FRAME_BYTES, ShapingPlan, queue_limit_bytes, segment_bytes, shaping_plan
from controller.fabric.plan_memory import RECORD
from controller.timeline import LinkTable, Sky

# Nodes 0, 1 and 2 with 2, 1 and 2 ports; links 0.1 – 1.0, 0.0 – 2.1 and 1.0 – 2.0.
PORT_START = np.array([0, 2, 3, 5])
LINKS = LinkTable(
    a=np.array([0, 0, 1]),
    b=np.array([1, 2, 2]),
    kind=np.array([0, 0, 1]),
    port_a=np.array([1, 0, 0]),
    port_b=np.array([0, 1, 0]),
    loss_ratio=np.array([0.0, 0.1, 0.2]),
)
RATE_BPS = np.array([8_000, 16_003, 24_000])  # of each link


def _sky(*rows: tuple[int, int]) -> Sky:
    link, delay_us = (np.array(each, np.int32) for each in zip(*rows, strict=True))
    nothing = np.full(len(link), np.nan, np.float32)
    return Sky(
        r_ecef_m=np.zeros((3, 3)),
        illumination_ratio=np.ones(3, np.float32),
        link=link,
        range_m=delay_us.astype(np.float64) * 299.792458,
        range_rate_m_s=nothing,
        delay_us=delay_us,
        rate_bps=RATE_BPS[link],
        loss_ratio=LINKS.loss_ratio[link],
        elevation_deg=nothing,
    )


def test_a_plan_patches_both_directions_of_every_usable_link() -> None:
    """Usable links are patched both ways with delay, rate (in whole bytes a second) and loss; all else is dark."""
    plan = shaping_plan(PORT_START, LINKS, _sky((0, 11), (1, 22)), np.array([True, True]))
    assert plan.port.tolist() == [0, 1, 2, 3, 4]
    assert plan.peer.tolist() == [4, 2, 1, DARK, 0]
    assert plan.delay_us.tolist() == [22, 11, 11, 0, 22]
    assert plan.rate_bps.tolist() == [16_000, 8_000, 8_000, 0, 16_000]
    assert plan.loss_ratio.tolist() == [0.1, 0.0, 0.0, 0.0, 0.1]


def test_a_masked_link_is_dark() -> None:
    """What a fault masks is not patched, whatever the geometry says."""
    plan = shaping_plan(PORT_START, LINKS, _sky((0, 11), (1, 22)), np.array([False, True]))
    assert plan.peer.tolist() == [4, DARK, DARK, DARK, 0]


def test_only_differences_are_sent_each_with_its_complete_state() -> None:
    """From step to step only the directions that differ are named, and each is complete."""
    every = np.array([True])
    before = shaping_plan(PORT_START, LINKS, _sky((1, 22)), every)
    after = shaping_plan(PORT_START, LINKS, _sky((1, 23)), every)
    changed = after.changed_from(before)
    assert changed.port.tolist() == [0, 4]
    assert changed.peer.tolist() == [4, 0]
    assert changed.rate_bps.tolist() == [16_000, 16_000]
    assert len(after.changed_from(after)) == 0
    assert ShapingPlan.dark(5).changed_from(before).peer.tolist() == [DARK, DARK]


def test_a_netem_holds_what_is_under_way_and_its_queue() -> None:
    """100 Mbit/s at 20 ms has 250 kB under way, which the default limit of 1000 packets is not made for."""
    rate_bps = np.array([100_000_000])
    under_way_bytes = 250_000
    expected = -(-(under_way_bytes + int(queue_limit_bytes(rate_bps)[0])) // FRAME_BYTES)
    assert limit_packets(np.array([20_000]), rate_bps).tolist() == [expected]


@pytest.mark.parametrize(
    ("rate_bps", "loss_ratio", "expected_bytes"),
    [(1_000, 0.0, FRAME_BYTES), (50_000_000, 0.0, 6_250), (10**10, 0.0, 65_536), (50_000_000, 0.01, FRAME_BYTES)],
)
def test_segments_are_a_millisecond_of_their_link(rate_bps: int, loss_ratio: float, expected_bytes: int) -> None:
    """A frame takes about 1 ms of its link, one MTU to 64 KiB; where frames are lost, one segment at a time."""
    assert segment_bytes(np.array([rate_bps]), np.array([loss_ratio])).tolist() == [expected_bytes]


def test_a_large_frame_fills_the_wire_with_its_headers_once_a_segment() -> None:
    """A TCP frame of three segments counts its 54 bytes of headers three times; an ordinary frame counts as it is."""
    header_bytes, segment = 14 + 20 + 20, 1_446
    tcp = bytearray(header_bytes)
    tcp[14 + 20 + 12] = 5 << 4  # data offset: five words
    large = struct.pack("=BBHHHH", 1, 1, header_bytes, segment, 34, 16) + bytes(tcp) + bytes(2 * segment + 100)
    assert wire_bytes(large) == 3 * header_bytes + 2 * segment + 100
    udp = struct.pack("=BBHHHH", 1, 5, 42, 1_000, 34, 6) + bytes(42 + 2_500)
    assert wire_bytes(udp) == 3 * 42 + 2_500
    assert wire_bytes(bytes(10) + bytes(60)) == 60


def test_both_ends_of_the_delay_lines_memory_mean_the_same_record() -> None:
    """The controller's numpy layout is the struct that the delay line unpacks."""
    row = np.array([(-1, 2, 3, 0.25, 4)], RECORDS)
    assert RECORDS.itemsize == RECORD.size
    assert RECORD.unpack(row.tobytes()) == (-1, 2, 3, 0.25, 4)
