"""Brings results home: nearer to where they shall go at each contact, by way of a node between where that is sooner.

Whoever has a result is charged with it until another node has taken charge, on its disk, or until it is home.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from node_agent.delivery.contact import Contacts
from node_agent.delivery.patience import Patience
from node_agent.delivery.peer import Peer
from node_agent.errors import AlreadyExists, Break, InvalidArgument, PermissionDenied, Refusal
from node_agent.jobs.states import FINAL
from node_agent.objects.store import ObjectStore
from node_agent.sky.sky import Sky
from node_agent.waiting import first_of
from protos.skyrack.v1 import jobs_pb2

RELEASE_S: Final = 10.0
FETCHED_S: Final = 1.0
"""Who follows a job from nearby has its result by then, and has said so: he need not be asked."""
ASK_AGAIN_S: Final = 10.0
"""Between two questions to who fetches a result whether he has it by now."""

_log = logging.getLogger(__name__)


class WayBack:
    """The ways of results from this agent."""

    def __init__(self, node: str, store: ObjectStore, contacts: Contacts, sky: Sky) -> None:
        self._node, self._store, self._contacts, self._sky = node, store, contacts, sky

    async def bring_back(self, job: jobs_pb2.Job) -> None:
        """Bring a result nearer to where it shall go, by way of a node between where that is sooner. After: one has it,
        or nobody wants it any more."""
        patience = Patience(self._sky)
        if job.submitted_by in ("", job.spec.return_to):
            await first_of(self._sky.changed(), asyncio.sleep(FETCHED_S))
        with self._sky.seeking(job.spec.return_to):
            while True:
                via = await patience.until_contact(job.spec.return_to, lambda _: None, between=True)
                try:
                    if await self._contacts.do(via, partial(self._give, job)):
                        return
                except (InvalidArgument, AlreadyExists, PermissionDenied) as never:
                    _log.error("job %s: %s does not want its result: %s", job.spec.id, via, never)
                    if via == job.spec.return_to:
                        return
                except (Break, Refusal) as no:
                    _log.info("job %s: its result cannot go to %s now: %s", job.spec.id, via, no)
                    await patience.after_break()
                    continue
                await first_of(self._sky.changed(), asyncio.sleep(ASK_AGAIN_S))

    async def until_home(self, job: jobs_pb2.Job) -> None:
        """Return when the node that a result shall go to has it, or does not know the job: as that one says itself."""
        patience = Patience(self._sky)
        while True:
            home = await patience.until_contact(job.spec.return_to, lambda _: None, between=False)
            try:
                known = await self._contacts.do(home, lambda peer: peer.job(job.spec.id))
                if known is None or known.state in FINAL:
                    return
                await asyncio.sleep(ASK_AGAIN_S)
            except (Break, Refusal):
                await patience.after_break()

    async def release(self, job: jobs_pb2.Job) -> None:
        """Let who had the job forget what it kept for the way back. Best done at once; no harm where that fails."""
        for node in dict.fromkeys((job.custodian, job.spec.on_node)):
            try:
                async with asyncio.timeout(RELEASE_S):
                    await self._contacts.do(node, lambda peer: peer.release(job.spec.id))
            except (Break, Refusal, TimeoutError) as no:
                _log.info("job %s: %s still keeps its result: %s", job.spec.id, node, no)

    async def _give(self, job: jobs_pb2.Job, peer: Peer) -> bool:
        """Whether the peer has the result now, or does not want it."""
        if peer.node == job.spec.return_to:
            known = await peer.job(job.spec.id)
            if known is None or known.state in FINAL:
                return True
            if job.submitted_by in ("", peer.node) and self._node in (known.custodian, known.spec.on_node):
                return False  # it fetches the result from here, and is only asked whether it has it
        for output in () if job.spec.keep_outputs_on_node else job.outputs:
            committed_bytes = await peer.committed_bytes(output.object)
            await peer.put(self._store, output.object, committed_bytes, lambda _: None, for_job=job.spec.id)
        await peer.give_back(job)
        return True
