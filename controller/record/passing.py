"""Blocks of a timeline that are looked at once, in order: so a plan of any length passes through little memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controller.planner import plan, survey
from controller.scenario.model import Scenario
from controller.timeline import Block, Timeline

Reader = Callable[[Block], None]


class PassingBlocks:
    """A BlockStore that shows each block to its readers, and keeps the last one only."""

    def __init__(self) -> None:
        self.block_steps = 1  # set by the planner before the first block
        self.readers: Sequence[Reader] = ()
        self._n_block = 0
        self._block: Block | None = None

    def append(self, block: Block) -> None:
        """Show the next block; meanwhile it is the one that the timeline has."""
        self._block, self._n_block = block, self._n_block + 1
        for read in self.readers:
            read(block)

    def __len__(self) -> int:
        return self._n_block

    def __getitem__(self, index: int) -> Block:
        if self._block is None or index != self._n_block - 1:
            raise IndexError(f"block {index} has passed, or is still to come")
        return self._block


def pass_through(sky: Scenario | Timeline, readers: Callable[[Timeline], Sequence[Reader]]) -> Timeline:
    """Show every block of a sky to readers, in order: of a timeline that there is, or as it is computed.

    `readers` makes them from the timeline; while they read, it has at least the block that they are shown. The whole
    timeline comes back; one that was computed here has none of its blocks left. Raises as `plan` does.
    """
    if isinstance(sky, Timeline):
        for_each = readers(sky)
        for index in range(len(sky.blocks)):
            block = sky.blocks[index]
            for read in for_each:
                read(block)
        return sky
    passing = PassingBlocks()
    passing.readers = readers(Timeline(**vars(survey(sky)), blocks=passing, content_hash=""))
    return plan(sky, passing)
