"""The nodes' certificates while a run is up: given as agents come up, renewed in time, changed when asked for."""

from __future__ import annotations

import asyncio
import datetime
from collections import defaultdict
from collections.abc import Collection
from functools import cached_property
from typing import NoReturn

from controller.agents import AgentClient
from controller.authority import Authority, Issued, Subject
from controller.errors import InputError, SkyrackError
from controller.runs import RunPlace

LOOK_S = 60.0
AT_ONCE = 8  # a new key takes a node a tenth of a second of a core
TOLD_REFUSALS = 3


class Certificates:
    """The certificates of all nodes of a run. Of one event loop."""

    def __init__(self, place: RunPlace) -> None:
        self._place = place
        self._given: dict[str, tuple[AgentClient, Subject, Issued]] = {}
        self._busy: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # a node waits for one certificate at a time
        self._turns = asyncio.Semaphore(AT_ONCE)

    @cached_property
    def authority(self) -> Authority:
        """The run's, once the run has its folders."""
        return Authority.of(self._place.run_id, self._place.authority_dir)

    async def meet(self, agent: AgentClient, subject: Subject, deadline_s: float) -> None:
        """Give an agent that comes up its certificate, and return when other nodes can reach it.

        Raises SkyrackError after deadline_s, or when the agent does not take it.
        """
        await agent.wait_ready(deadline_s)
        await self._give(agent, subject)
        await agent.wait_ready(deadline_s, data_plane=True)

    async def rotate(self, nodes: Collection[str] = ()) -> int:
        """Give nodes (none named: all) new keys and certificates; what is connected stays so. How many have them.

        Raises InputError for a name that is none, and SkyrackError when all have been tried and some have failed.
        """
        unknown = sorted(set(nodes) - self._given.keys())
        if unknown:
            raise InputError(f"there is no node {unknown[0]!r} in this run (`skyrack status` lists them)")
        chosen = set(nodes) or self._given.keys()
        refusals = await self._renew(chosen)
        if refusals:
            told = [str(refusal) for refusal in refusals[:TOLD_REFUSALS]]
            more = [f"{len(refusals) - TOLD_REFUSALS} more"] if len(refusals) > TOLD_REFUSALS else []
            raise SkyrackError(f"{len(refusals)} of {len(chosen)} nodes keep their keys: {'; '.join(told + more)}")
        return len(chosen)

    async def keep(self) -> NoReturn:
        """Renew what is due, until cancelled. A node that does not answer is asked again later."""
        while True:
            await asyncio.sleep(LOOK_S)
            now_utc = datetime.datetime.now(datetime.UTC)
            await self._renew({node for node, (_, _, issued) in self._given.items() if issued.is_due(now_utc)})

    async def _renew(self, nodes: Collection[str]) -> list[SkyrackError]:
        """What kept nodes from being given new ones."""
        agents = {node: self._given[node][:2] for node in nodes}
        gifts = [self._give(agent, subject, renew=True) for agent, subject in agents.values()]
        outcomes = await asyncio.gather(*gifts, return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None and not isinstance(outcome, SkyrackError):
                raise outcome
        return [outcome for outcome in outcomes if isinstance(outcome, SkyrackError)]

    async def _give(self, agent: AgentClient, subject: Subject, *, renew: bool = False) -> None:
        async with self._busy[subject.name], self._turns:
            issued = await agent.certify(self.authority, subject, renew=renew)
        self._given[subject.name] = agent, subject, issued
