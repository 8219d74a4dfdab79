"""Looks after what a run stands on while it is up: its nodes and what they live in, the panel, the shaper, the probes.

What the run can go on without is told; without what it cannot, its watch raises, and so ends it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from typing import NoReturn

from controller.errors import SkyrackError
from controller.fabric.panel import Panel
from controller.logbook import Logbook
from controller.probing import Probing
from controller.runtime.contract import ProgramState, Runtime

LOOK_S = 3.0
AWAY_GRACE_S = 10.0  # an engine that is started again is back by then


async def first_of(*works: Coroutine[None, None, None]) -> None:
    """Do all of these at once until the first ends, and end the others. Raises what that one raises."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class NodeWatch:
    """Tells of nodes whose process has ended, once each: the sky goes on without them, as long as one is left."""

    def __init__(self, runtime: Runtime, run_id: str, names: Collection[str], logbook: Logbook) -> None:
        self._runtime, self._run_id, self._names, self._logbook = runtime, run_id, frozenset(names), logbook
        self._away_since_mono_s: float | None = None
        self._are_hosts = False
        self.lost: dict[str, float] = {}  # node → when that was noticed, in the sky's time
        self.programs: dict[str, ProgramState] = {}  # of the user's, by node, as they were last seen

    async def watch(self, t_s: Callable[[], float]) -> NoReturn:
        """Look until cancelled; `t_s` tells the sky's time. Raises SkyrackError when no node is left, or when the
        runtime has not answered for AWAY_GRACE_S: what became of the nodes cannot be known then, nor helped."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                alive = await asyncio.to_thread(self._runtime.alive, self._run_id)
            except SkyrackError as error:
                self._away(error, t_s())
                continue
            if self._are_hosts:
                with suppress(SkyrackError):  # of the engine, which may have gone just now: the next look tells
                    await self.look_at_programs(t_s())
            if self._away_since_mono_s is not None:
                self._away_since_mono_s = None
                self._logbook.runtime_back(t_s())
            for name in sorted(self._names - alive - self.lost.keys()):
                self.lost[name] = t_s()
                self._logbook.node_lost(name, self.lost[name])
            if self.lost.keys() >= self._names:
                raise SkyrackError("no node of the run lives any more: all their agents have ended")

    async def look_at_programs(self, t_s: float) -> None:
        """See how it is with what nodes run of the user's, and tell of those that have begun and ended.

        From the first look on, `watch` does so too. Raises SkyrackError.
        """
        self._are_hosts = True
        for node, state in sorted((await asyncio.to_thread(self._runtime.programs, self._run_id)).items()):
            before = self.programs.get(node)
            self.programs[node] = state
            if before is None:
                self._logbook.program_started(node, state, t_s)
            if not state.is_running and (before is None or before.is_running):
                self._logbook.program_ended(node, state, t_s)

    def _away(self, error: SkyrackError, t_s: float) -> None:
        now_mono_s = time.monotonic()
        if self._away_since_mono_s is None:
            self._away_since_mono_s = now_mono_s
            self._logbook.runtime_away(str(error), t_s)
        elif now_mono_s - self._away_since_mono_s > AWAY_GRACE_S:
            raise error


async def watch_fabric(panel: Panel, probing: Probing, look: Callable[[], None]) -> NoReturn:
    """Look at panel and probes, and have `look` see to what else there is, until cancelled.

    Raises SkyrackError for what is gone.
    """
    while True:
        await asyncio.sleep(LOOK_S)
        panel.check()
        probing.check()
        look()
