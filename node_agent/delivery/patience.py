"""When to call another node: at the next contact that is foreseen; where none is, again and again, ever less often."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from node_agent.sky.sky import Sky

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 0.5
SOON_S = 60.0
"""So long a node that falls silent is called as often as possible: most breaks are short."""
LATE_BACKOFF_S = 5.0
BUSY_BACKOFF_S = 30.0
MAX_BUSY = 30
"""How often a node may say that it is full, before that is its last word: about a quarter of an hour."""
UNFORESEEN_S = 60.0
"""The emulator may not know of a contact: so often one is tried though none is foreseen."""

LONG_S = 1.0

_S = 1_000_000_000


class Patience:
    """What has been tried for one purpose, and when to try again."""

    def __init__(self, sky: Sky) -> None:
        self._sky = sky
        self._backoff_s = FIRST_BACKOFF_S
        self._busy_backoff_s = 1.0
        self._n_busy = 0
        self._heard_mono_s = self._called_mono_s = time.monotonic()

    def heard(self) -> None:
        """The node has answered."""
        self._backoff_s = FIRST_BACKOFF_S
        self._heard_mono_s = time.monotonic()

    @property
    def silence_s(self) -> float:
        """Since when it has not."""
        return time.monotonic() - self._heard_mono_s

    async def after_break(self) -> None:
        """Wait as long as is wise after an attempt that came to nothing; less if the emulator has news.

        One that took long has waited at the node's door all the time, and the next may do so at once.
        """
        if time.monotonic() - self._called_mono_s > LONG_S and self.silence_s < SOON_S:
            return
        await self._pause(self._backoff_s)
        most_s = MAX_BACKOFF_S if self.silence_s < SOON_S else LATE_BACKOFF_S
        self._backoff_s = min(2 * self._backoff_s, most_s)

    async def after_refusal_for_now(self) -> bool:
        """Wait as long as is wise after a node has said that it is full. False when that was its last chance."""
        self._n_busy += 1
        if self._n_busy > MAX_BUSY:
            return False
        await self._pause(self._busy_backoff_s)
        self._busy_backoff_s = min(2 * self._busy_backoff_s, BUSY_BACKOFF_S)
        return True

    async def until_contact(self, to: str, tell: Callable[[str], None], *, between: bool) -> str:
        """Wait for the next contact that brings something nearer to a node, and say with whom that is.

        `between`: another node may take it over on the way; otherwise only `to` itself will do. Without a forecast, at
        once.
        """
        try:
            return await self._until_contact(to, tell, between, time.monotonic() + UNFORESEEN_S)
        finally:
            self._called_mono_s = time.monotonic()

    async def _until_contact(self, to: str, tell: Callable[[str], None], between: bool, latest_mono_s: float) -> str:
        while True:
            forward = self._sky.forward_to(to)
            if forward is None:
                return to
            left_s = latest_mono_s - time.monotonic()
            if left_s <= 0:
                return to
            if forward.via_node == to or between:
                now_emu_ns = self._sky.now_emu_ns
                if now_emu_ns is None or now_emu_ns >= forward.not_before_emu_ns:
                    return forward.via_node
                at_s = forward.not_before_emu_ns / _S
                tell(f"the next contact with {forward.via_node} is foreseen at t = {at_s:.1f} s")
                await self._wait(left_s, forward.not_before_emu_ns)
            else:
                tell(f"no path leads to {to}")
                await self._wait(left_s)

    async def _pause(self, longest_s: float) -> None:
        await self._wait(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 — jitter, no secret

    async def _wait(self, longest_s: float, moment_emu_ns: int | None = None) -> None:
        """Until a moment of the sky if one is given, until there is news of it, or as long as that."""
        waiting = {asyncio.create_task(self._sky.changed())}
        if moment_emu_ns is not None:
            waiting.add(asyncio.create_task(self._sky.until(moment_emu_ns)))
        try:
            await asyncio.wait(waiting, timeout=longest_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
