"""The sky's clock: it goes by at the run's pace, and may be stopped, started and set while the run is up."""

from __future__ import annotations

import asyncio
import contextlib
import time

from controller.errors import SkyrackError
from controller.schedule import Pace


class SkyClock:
    """Seconds since the scenario's epoch. All methods are called from one asyncio event loop."""

    def __init__(self, start_s: float, time_scale: float) -> None:
        self._start_s, self._time_scale = start_s, time_scale
        self._pace: Pace | None = None  # from when the run has begun
        self._turned = asyncio.Event()  # set, and replaced, when the clock is turned; set for good when it ends
        self.ended = False

    @property
    def pace(self) -> Pace:
        """How time goes by now; its scale is 0 while the clock stands. Raises SkyrackError before the run has begun."""
        if self._pace is None:
            raise SkyrackError("the run is still starting: its sky does not move yet")
        return self._pace

    @property
    def t_s(self) -> float:
        """Now; until the run begins, its start."""
        return self._start_s if self._pace is None else self._pace.t_s(time.monotonic())

    @property
    def paused(self) -> bool:
        """Whether it stands."""
        return self._pace is not None and self._pace.time_scale == 0.0

    def turn(self, t_s: float, *, paused: bool) -> Pace:
        """It is t_s now, and the clock stands, or goes on from there. The new pace."""
        self._pace = Pace(t_s, 0.0 if paused else self._time_scale, time.monotonic())
        if not self.ended:
            turned, self._turned = self._turned, asyncio.Event()
            turned.set()
        return self._pace

    def end(self) -> None:
        """Nobody shall wait any more."""
        self.ended = True
        self._turned.set()

    async def until(self, t_s: float) -> None:
        """Wait for a moment, however the clock is turned. Returns early when it ends."""
        while not self.ended and self.t_s < t_s:
            await self.due(t_s)

    async def due(self, t_s: float) -> bool:
        """Wait for a moment. False if the clock was turned, or ended, before it came."""
        turned = self._turned
        remaining_s = None if self.paused else max(0.0, (t_s - self.t_s) / self._time_scale)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(remaining_s):
                await turned.wait()
        return not turned.is_set()

    async def turned(self) -> None:
        """Wait until the clock is turned, or ends."""
        await self._turned.wait()
