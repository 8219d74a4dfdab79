"""How far a transfer is, for who watches its job."""

from __future__ import annotations

import time
from typing import Final

from node_agent.jobs.ledger import Ledger

NOTE_EVERY_S: Final = 1.0


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
