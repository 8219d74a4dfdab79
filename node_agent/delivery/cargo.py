"""What jobs need and leave, on its way to a peer or from one: counted, told of, and mended where it is damaged."""

from __future__ import annotations

import logging
import time
from typing import Final

from node_agent.delivery.healing import Healer
from node_agent.delivery.peer import Peer
from node_agent.errors import Break, DataLoss, FailedPrecondition, OutOfRange
from node_agent.jobs.ledger import Ledger
from node_agent.objects.scrub import Scrubber
from node_agent.objects.store import ObjectStore

NOTE_EVERY_S: Final = 1.0
_log = logging.getLogger(__name__)


class Progress:
    """Says how far a transfer is, once a second."""

    def __init__(self, ledger: Ledger, job_id: str, what: str) -> None:
        self._ledger = ledger
        self._job_id = job_id
        self._what = what
        self._due_mono_s = time.monotonic() + NOTE_EVERY_S

    def at(self, done_bytes: int, size_bytes: int) -> None:
        """So many bytes of so many."""
        if time.monotonic() >= self._due_mono_s:
            self._due_mono_s = time.monotonic() + NOTE_EVERY_S
            self._ledger.note(self._job_id, f"{self._what}, {100 * done_bytes // max(size_bytes, 1)} %")


class Cargo:
    """The objects of this agent's jobs, on their way."""

    def __init__(self, node: str, store: ObjectStore, ledger: Ledger, scrubber: Scrubber, healer: Healer) -> None:
        self._node, self._store, self._ledger, self._scrubber, self._healer = node, store, ledger, scrubber, healer
        self._offered: dict[tuple[str, str], int] = {}

    async def fetch(self, peer: Peer, job_id: str, name: str, what: str, why: str) -> None:
        """Bring an object here from a peer. `why`: the reason to keep it."""
        progress = Progress(self._ledger, job_id, what)

        def on_received(chunk_bytes: int, done_bytes: int, size_bytes: int) -> None:
            self._ledger.moved(job_id, chunk_bytes)
            progress.at(done_bytes, size_bytes)

        await peer.fetch(self._store, name, on_received, why=why)

    async def send(self, peer: Peer, job_id: str, name: str, what: str, committed_bytes: int) -> None:
        """Put an object at a peer, which has so much of it, for the job. Raises FailedPrecondition, Break, Refusal."""
        if self._store.is_damaged(name):
            await self._mend(name, DataLoss(f"{name} is damaged at {self._node}"))
        size_bytes = self._store.size_bytes(name)
        if size_bytes is None:
            raise FailedPrecondition(f"{name} has gone from the store of {self._node}")
        # Bytes count as moved when they have arrived: an earlier contact's, once this one tells how many they were.
        offered = self._offered.pop((job_id, name), None)
        if offered is not None:
            self._ledger.moved(job_id, max(committed_bytes - offered, 0))
        self._offered[job_id, name] = committed_bytes
        reason = f"sending {what} ({size_bytes / 1e6:.1f} MB) to {peer.node}"
        if committed_bytes < size_bytes:
            self._ledger.note(job_id, reason)
            _log.info("job %s: %s, from byte %d", job_id, reason, committed_bytes)
        progress = Progress(self._ledger, job_id, reason)
        try:  # also what is there already: it is for this job, too, and must not go before it
            await peer.put(
                self._store, name, committed_bytes, lambda done_bytes: progress.at(done_bytes, size_bytes),
                for_job=job_id,
            )  # fmt: skip
        except OutOfRange:
            raise Break(f"what {peer.node} had of {name} has gone") from None
        except DataLoss as damage:
            await self._mend(name, damage)
            raise
        self._ledger.moved(job_id, size_bytes - self._offered.pop((job_id, name)))

    async def _mend(self, name: str, damage: DataLoss) -> None:
        """See whether an object is damaged here, and have it made whole. Raises Break if it is not yet, DataLoss if it
        cannot be."""
        report = await self._scrubber.scrub(name)
        if report.damaged:
            row = self._store.row(name)
            if row is None or not self._healer.knows_a_way(row):
                raise damage
            raise Break(f"{name} was damaged at {self._node}, and comes again")
