"""Whose turn it is: jobs wait for one of the node's slots, the highest priority first, among equals the oldest."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_SLACK: Final = 64


@dataclass(order=True)
class Turn:
    """A job's place in the queue, and then its hold on a slot."""

    place: tuple[int, int]  # the lower, the sooner
    job_id: str = field(compare=False)
    queue: Turns = field(compare=False)
    is_held: bool = field(default=False, compare=False)
    on_turn: Callable[[], None] | None = field(default=None, compare=False)

    def give_back(self) -> None:
        """Let another have the slot. Idempotent."""
        if self.is_held:
            self.is_held = False
            self.queue.freed()

    async def take(self) -> None:
        """Wait for a slot, anew. Cancelled, it waits no more; it may hold one all the same."""
        taken = asyncio.Event()
        self.queue.wait(self, taken.set)
        try:
            await taken.wait()
        finally:
            self.queue.withdraw(self.job_id)


class Turns:
    """The slots of one node. Of one event loop; what waits costs no task."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._closed = False
        self._heap: list[Turn] = []
        self._waiting: dict[str, Turn] = {}

    def ask(self, job_id: str, priority: int, number: int, on_turn: Callable[[Turn], None]) -> None:
        """Have on_turn called with a slot, once: at once, or when it is the job's turn.

        Before: the job does not wait already. Of two jobs the older one has the lower number.
        """
        turn = Turn((-priority, number), job_id, self)
        self.wait(turn, lambda: on_turn(turn))

    def at_once(self, job_id: str, priority: int, number: int) -> Turn | None:
        """A turn that holds a slot already. None where no slot is free: it is to be asked for."""
        if not self._free or self._closed:
            return None
        self._free -= 1
        return Turn((-priority, number), job_id, self, is_held=True)

    def wait(self, turn: Turn, on_turn: Callable[[], None]) -> None:
        """Have on_turn called when the turn holds a slot. Before: it holds none."""
        turn.on_turn = on_turn
        heapq.heappush(self._heap, turn)
        self._waiting[turn.job_id] = turn
        self._hand_out()

    def withdraw(self, job_id: str) -> bool:
        """Wait no longer. Whether it did wait."""
        turn = self._waiting.pop(job_id, None)
        if turn is None:
            return False
        turn.on_turn = None  # it stays in the heap until it comes up
        if len(self._heap) > 2 * len(self._waiting) + _SLACK:
            self._heap = sorted(self._waiting.values())
        return True

    def freed(self) -> None:
        """A slot is free again."""
        self._free += 1
        self._hand_out()

    def close(self) -> None:
        """Hand out no more."""
        self._closed = True

    def _hand_out(self) -> None:
        while self._free and self._heap and not self._closed:
            turn = heapq.heappop(self._heap)
            if turn.on_turn is not None and self._waiting.get(turn.job_id) is turn:
                self._free -= 1
                del self._waiting[turn.job_id]
                turn.is_held = True
                turn.on_turn()
