"""Ends jobs when their deadlines pass, in the sky's time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from node_agent.errors import DataLoss, Exhausted
from node_agent.jobs.ledger import Ledger
from node_agent.sky.sky import Sky
from node_agent.waiting import first_of

_PAUSE_S: Final = 0.1
_AT_ONCE: Final = 100
_log = logging.getLogger(__name__)


class Deadlines:
    """The deadlines of all jobs that are not final."""

    def __init__(self, ledger: Ledger, sky: Sky) -> None:
        self._ledger, self._sky = ledger, sky
        self._sooner = asyncio.Event()

    def added(self) -> None:
        """There is one more, perhaps before all others."""
        self._sooner.set()

    async def watch(self, expire: Callable[[str], Awaitable[None]]) -> None:
        """End every job whose deadline passes, for ever."""
        while True:
            self._sooner.clear()
            try:
                first_emu_ns = self._ledger.first_deadline_emu_ns()
                if first_emu_ns is None:
                    await self._sooner.wait()
                    continue
                await first_of(self._sooner.wait(), self._sky.until(first_emu_ns))
                past = self._ledger.past_deadline(self._sky.now_emu_ns or 0, _AT_ONCE)
                await asyncio.gather(*map(expire, past))
            except (Exhausted, DataLoss) as trouble:
                _log.error("deadlines cannot be seen to: %s", trouble)
            # What has just ended otherwise is not written yet, and found once more.
            await asyncio.sleep(_PAUSE_S)
