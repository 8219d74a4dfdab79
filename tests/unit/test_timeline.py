from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from controller.timeline import Block, ContentHash, LinkKind, MemoryBlocks, NodeEnd, Timeline, utc_text
from tests.unit.hand_made import timeline


def hash_of(made: Timeline, **changes: object) -> str:
    """The content hash of a timeline whose second block has other arrays."""
    digest = ContentHash(made)
    for i in range(len(made.blocks)):
        block = made.blocks[i]
        digest.update(replace(block, **changes) if i == 1 else block)  # type: ignore[arg-type]
    return digest.text()


def test_a_step_is_found_in_its_block() -> None:
    """Step 37 of blocks of 16 is the third block's sixth: its places, light and rows of links, in order of link."""
    made = timeline(block_steps=16)
    sky, block = made.sky(37), made.blocks[2]
    assert np.array_equal(sky.r_ecef_m, block.r_ecef_m[5])
    assert np.array_equal(sky.illumination_ratio, block.illumination_ratio[5])
    rows = slice(block.step_start[5], block.step_start[6])
    for name in ("link", "range_m", "range_rate_m_s", "delay_us", "rate_bps", "elevation_deg"):
        assert np.array_equal(getattr(sky, name), getattr(block, name)[rows], equal_nan=True), name
    assert np.all(np.diff(sky.link) > 0)
    assert len(list(made.skies())) == made.n_step == 60


@pytest.mark.parametrize("step", [-1, 60])
def test_a_step_that_there_is_not_is_refused(step: int) -> None:
    """No step before the first, as Python's lists would have it, and none after the last."""
    with pytest.raises(IndexError, match="of 60"):
        timeline().sky(step)


def test_how_a_timeline_is_cut_does_not_change_its_name() -> None:
    """Blocks of any length give the same skies and the same content hash."""
    whole = timeline(block_steps=60)
    for block_steps in (1, 7, 16, 100):
        cut = timeline(block_steps=block_steps)
        assert cut.content_hash == whole.content_hash
        assert np.array_equal(cut.sky(31).delay_us, whole.sky(31).delay_us)


def test_the_name_tells_what_is_commanded() -> None:
    """One microsecond, one bit a second, another link, another port or another end of a node is another timeline."""
    made = timeline()
    block, links = made.blocks[1], made.links
    assert hash_of(made) == made.content_hash
    names = {
        made.content_hash,
        hash_of(made, delay_us=block.delay_us + 1),
        hash_of(made, rate_bps=block.rate_bps + 1),
        hash_of(made, link=block.link[::-1]),
        hash_of(made, illumination_ratio=block.illumination_ratio * np.float32(0.5)),
        hash_of(made, r_ecef_m=block.r_ecef_m + 1e3),
        hash_of(replace(made, links=replace(links, port_a=links.port_a[::-1]))),
        hash_of(replace(made, links=replace(links, loss_ratio=links.loss_ratio + 1e-6))),
        hash_of(replace(made, node_ends=(NodeEnd(1, 30.0, "decayed"),))),
        hash_of(replace(made, epoch_utc=made.epoch_utc + timedelta(microseconds=1))),
    }
    assert len(names) == 10


def test_the_name_does_not_tell_one_machine_from_another() -> None:
    """The last bits of sines, and what follows from other values, do not enter; nor do warnings."""
    made = timeline()
    block = made.blocks[1]
    assert hash_of(made, r_ecef_m=block.r_ecef_m * (1 + 1e-15)) == made.content_hash
    assert hash_of(made, range_m=block.range_m + 1e-6, elevation_deg=block.elevation_deg) == made.content_hash
    assert hash_of(replace(made, warnings=("old elements",))) == made.content_hash


def test_a_node_that_is_gone_has_no_place() -> None:
    """From a node's end on its position is NaN; the hash takes that as it takes any other value."""
    made = timeline(node_ends=(NodeEnd(2, 333.25, "decayed"),))
    assert not np.isnan(made.sky(33).r_ecef_m).any()
    assert np.isnan(made.sky(34).r_ecef_m[:, 2]).all()
    assert made.content_hash != timeline().content_hash


def test_blocks_know_their_size() -> None:
    """What memory a block takes is the sum of its arrays."""
    block = timeline(block_steps=16).blocks[0]
    assert block.n_step == 16
    assert block.n_byte > 16 * 8 * (3 * 8 + 4)
    empty = Block(
        0, np.empty((0, 3, 1)), np.empty((0, 1), np.float32), np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0),
        np.empty(0, np.float32), np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float32),
    )  # fmt: skip
    assert (empty.n_step, empty.n_byte) == (0, 8)
    assert len(MemoryBlocks(5)) == 0


def test_the_hand_made_sky_is_sound() -> None:
    """What the tests stand on: names in order, a port at one link's end at a time, elevations for GSLs alone."""
    made = timeline()
    names = [node.name for node in made.nodes]
    keys = [(names[a], names[b]) for a, b in zip(made.links.a, made.links.b, strict=True)]
    assert keys == sorted(set(keys))
    assert all(a < b for a, b in keys)
    for sky in made.skies():
        ends = np.concatenate(
            (
                np.stack((made.links.a[sky.link], made.links.port_a[sky.link]), axis=1),
                np.stack((made.links.b[sky.link], made.links.port_b[sky.link]), axis=1),
            )
        )
        assert len(np.unique(ends, axis=0)) == len(ends)
        assert np.array_equal(np.isnan(sky.elevation_deg), made.links.kind[sky.link] == LinkKind.ISL)


def test_instants_are_written_in_utc() -> None:
    """Whatever the zone, to the millisecond."""
    there = datetime(2026, 1, 1, 8, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=8)))
    assert utc_text(there) == "2026-01-01T00:00:00.123Z"
    assert utc_text(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
