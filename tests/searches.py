"""How long Hypothesis searches for a counterexample: a quarter as long in `make check`, in full in `make test`."""

from __future__ import annotations

import os

IN_FULL = os.environ.get("SKYRACK_SEARCHES") == "full"
SHARE = 4


def examples(in_full: int) -> int:
    """How many examples a test draws."""
    return in_full if IN_FULL else in_full // SHARE
