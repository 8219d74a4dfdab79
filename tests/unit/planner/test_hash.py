"""The hash of a timeline: the same for the same sky, whatever the machine, and another for another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from controller.planner import plan
from controller.scenario import load_scenario
from controller.timeline import Block, ContentHash, Timeline


def test_the_content_hash_is_the_same_each_time_and_names_what_is_commanded(timeline: Timeline) -> None:
    """The same scenario gives the same hash, however it is cut into blocks; a commanded microsecond changes it."""
    again = plan(load_scenario("iridium-66"))
    assert again.content_hash == timeline.content_hash
    assert timeline.content_hash.startswith("sha256:")
    block = timeline.blocks[0]

    def name(*blocks: Block) -> str:
        digest = ContentHash(timeline)
        for each in blocks:
            digest.update(each)
        return digest.text()

    assert name(block) == timeline.content_hash
    assert name(*cut(block, 100)) == timeline.content_hash
    later = replace(block, delay_us=block.delay_us + np.eye(1, len(block.delay_us), dtype=np.int32)[0])
    slower = replace(block, rate_bps=block.rate_bps - 8)
    assert len({timeline.content_hash, name(later), name(slower)}) == 3
    assert plan(load_scenario("iridium-66", 299.0)).content_hash != timeline.content_hash


def cut(block: Block, n_step: int) -> tuple[Block, Block]:
    """The same steps as two blocks, the first of n_step."""
    row = int(block.step_start[n_step])
    rows = ("link", "range_m", "range_rate_m_s", "delay_us", "rate_bps", "elevation_deg")
    steps = ("r_ecef_m", "illumination_ratio")
    first = {key: getattr(block, key)[:row] for key in rows} | {key: getattr(block, key)[:n_step] for key in steps}
    rest = {key: getattr(block, key)[row:] for key in rows} | {key: getattr(block, key)[n_step:] for key in steps}
    return (
        Block(first_step=0, step_start=block.step_start[: n_step + 1], **first),
        Block(first_step=n_step, step_start=block.step_start[n_step:] - row, **rest),
    )


def test_the_hash_does_not_see_what_machines_differ_in(timeline: Timeline) -> None:
    """A nanometre more or less, as the last bits of sines give it, changes no hash."""
    block = timeline.blocks[0]
    digest = ContentHash(timeline)
    digest.update(replace(block, r_ecef_m=block.r_ecef_m + 1e-9))
    assert digest.text() == timeline.content_hash


# What the preset's sky was when this hash was last taken. It changes when the physics, a rule of choice or the preset
# changes: then it is right to put the new one here, and to say why in CHANGELOG.md.
PRESET_HASH = "sha256:82199c5f61ef7c44c21e8be5e5772bb6f0428efb9c1688232371312a538bace0"


def test_the_hash_of_the_preset_is_that_of_other_machines(timeline: Timeline) -> None:
    """Another machine, another build of numpy, another day: the same commanded sky."""
    assert timeline.content_hash == PRESET_HASH
