"""Lets go of what was sent ahead for jobs that never came, and of results that nobody was charged with: their senders
have found another way, or are no more."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from node_agent.errors import DataLoss, Exhausted
from node_agent.jobs.ledger import Ledger
from node_agent.objects.store import ObjectStore
from node_agent.sky.sky import Sky

CLAIM_EMU_S: Final = 7200.0
"""In the sky's time: an orbit, and then some. Whoever goes on with a job meets this node again within it, as a rule."""

LOOK_EVERY_S: Final = 5.0

_S: Final = 1_000_000_000
_log = logging.getLogger(__name__)


async def release_unclaimed(ledger: Ledger, store: ObjectStore, sky: Sky) -> None:
    """Go on doing so. A job that comes after all brings what it needs anew. Begun anew, it counts from its start."""
    since_ns: dict[str, int] = {}
    while True:
        # Where nobody has told the sky's time, it is the machine's.
        now_ns = time.monotonic_ns() if sky.now_emu_ns is None else sky.now_emu_ns
        since_ns = {
            job_id: min(since_ns.get(job_id, now_ns), now_ns)
            for job_id in store.jobs()
            if _is_unclaimed(ledger, job_id)
        }
        for job_id, at_ns in since_ns.items():
            if now_ns - at_ns >= CLAIM_EMU_S * _S and _is_unclaimed(ledger, job_id):
                _log.info("job %s: what was sent here for it is let go of: nobody has come for it", job_id)
                try:
                    await store.release(job_id)
                except (Exhausted, DataLoss) as trouble:
                    _log.error("job %s: what was sent here for it stays: %s", job_id, trouble)
        await asyncio.sleep(LOOK_EVERY_S)


def _is_unclaimed(ledger: Ledger, job_id: str) -> bool:
    """Whether nothing is to be done here for a job: it is unknown, or has ended and its result has gone."""
    record = ledger.find(job_id)
    return record is None or (record.is_final and not record.due_back)
