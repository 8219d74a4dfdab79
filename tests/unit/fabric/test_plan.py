"""Plans are arrays: built from the sky, compared, and sized at the kernel's edge."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from controller.fabric.delay_line import RECORDS
from controller.fabric.delay_line_process import wire_bytes
from controller.fabric.netem import limit_packets, netem_rows
from controller.fabric.plan import (
    DARK,
    FRAME_BYTES,
    LOSS_DECIMALS,
    ShapingPlan,
    frames_at_once,
    queue_limit_bytes,
    shaping_plan,
)
from controller.fabric.plan_memory import RECORD
from controller.timeline import MTU_BYTES, LinkTable, Sky

# Nodes 0, 1 and 2 with 2, 1 and 2 ports; links 0.1 – 1.0, 0.0 – 2.1 and 1.0 – 2.0.
PORT_START = np.array([0, 2, 3, 5])
LINKS = LinkTable(
    a=np.array([0, 0, 1]),
    b=np.array([1, 2, 2]),
    kind=np.array([0, 0, 1]),
    port_a=np.array([1, 0, 0]),
    port_b=np.array([0, 1, 0]),
    loss_ratio=np.array([0.0, 0.1, 0.2]),
    mtu_bytes=np.array([1_500, 9_000, 1_280]),
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
    assert plan.mtu_bytes.tolist() == [9_000, 1_500, 1_500, 1_500, 9_000]


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


def direction(delay_us: int, rate_bps: int, loss_ratio: float = 0.0, mtu_bytes: int = MTU_BYTES) -> ShapingPlan:
    """A plan of one."""
    numbers = (0, 1, delay_us, rate_bps, loss_ratio, mtu_bytes)
    return ShapingPlan(*(np.array([number]) for number in numbers))


@pytest.mark.parametrize(
    ("delay_us", "rate_bps", "mtu_bytes", "under_way", "queue"),
    [
        # 1 Mbit/s: segments of one frame; the floor of the queue is 64 of them.
        (10_000, 1_000_000, 1_500, 1, 64),
        # 8 Mbit/s at 10 ms: 10 kB under way; the floor again, as 50 ms are 50 kB.
        (10_000, 8_000_000, 1_500, 7, 64),
        # 100 Mbit/s at 20 ms: 250 kB under way, 625 kB in the queue, in 8 frames at a time: 52, but for the floor.
        (20_000, 100_000_000, 1_500, 166, 64),
        # 1 Gbit/s at 10 ms: 1.25 MB under way, 6.25 MB in the queue, 43 frames at a time.
        (10_000, 1_000_000_000, 1_500, 826, 97),
        # As far as geostationary orbit: the queue is what is under way, 25 MB, 43 frames at a time.
        (250_000, 800_000_000, 1_500, 16_513, 385),
        # Jumbo frames, one at a time.
        (10_000, 100_000_000, 9_000, 14, 70),
    ],
)
def test_a_netem_holds_what_is_under_way_in_frames_and_its_queue_in_segments(
    delay_us: int, rate_bps: int, mtu_bytes: int, under_way: int, queue: int
) -> None:
    """The limit, by hand. The default of 1000 packets is not made for long fat links."""
    assert limit_packets(direction(delay_us, rate_bps, mtu_bytes=mtu_bytes)).tolist() == [under_way + queue]


def test_a_queue_holds_as_much_as_is_under_way_and_50_ms_at_least() -> None:
    """So that a direction holds 2 × rate × delay at the least, whatever its delay."""
    assert queue_limit_bytes(direction(10_000, 100_000_000)).tolist() == [625_000]
    assert queue_limit_bytes(direction(250_000, 100_000_000)).tolist() == [3_125_000]
    assert queue_limit_bytes(direction(250_000, 10_000)).tolist() == [64 * FRAME_BYTES]


@pytest.mark.parametrize(
    ("rate_bps", "loss_ratio", "mtu_bytes", "expected"),
    [
        (1_000_000, 0.0, 1_500, 1),
        (25_000_000, 0.0, 1_500, 2),
        (100_000_000, 0.0, 1_500, 8),
        (10_000_000_000, 0.0, 1_500, 43),
        (100_000_000, 0.01, 1_500, 1),
        (50_000_000, 0.0, 9_000, 1),
        (50_000_000, 0.0, 1_280, 4),
    ],
)
def test_senders_hand_over_at_most_a_millisecond_of_the_link(
    rate_bps: int, loss_ratio: float, mtu_bytes: int, expected: int
) -> None:
    """GSO frames follow the rate, from one frame to what the kernel takes; where frames are lost they stay single."""
    assert frames_at_once(direction(0, rate_bps, loss_ratio, mtu_bytes)).tolist() == [expected]


def test_a_commanded_loss_is_one_that_the_kernel_gives_back() -> None:
    """Losses that faults have computed have more digits than netem; the plan has what will be read back."""
    sky = replace(_sky((0, 11)), loss_ratio=np.array([1.0 - (1.0 - 0.01) * (1.0 - 0.003)]))
    plan = shaping_plan(PORT_START, LINKS, sky, np.array([True]))
    row = netem_rows(np.array([1]), plan.only(plan.peer != DARK))["loss"][0]
    assert np.round(row / (2**32 - 1), LOSS_DECIMALS) == plan.loss_ratio.max() == 0.01297


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
