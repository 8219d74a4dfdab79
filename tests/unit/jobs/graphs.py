"""Small contact graphs, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.jobs.contact_graph import ContactGraph, Contacts, Passage

MBPS = 1_000_000.0
MB = 1_000_000


@dataclass(frozen=True)
class Contact:
    """One contact, by the names of its nodes."""

    a: str
    b: str
    start_s: float
    end_s: float
    delay_s: float = 0.0
    rate_bps: float = 8.0 * MBPS  # a megabyte a second


def graph_of(names: str, contacts: Sequence[Contact], ground: str = "") -> ContactGraph:
    """Nodes of one letter each."""
    return ContactGraph(
        list(names),
        np.array([name in ground for name in names], np.bool_),
        Contacts(
            np.array([names.index(c.a) for c in contacts], np.int64),
            np.array([names.index(c.b) for c in contacts], np.int64),
            *(np.array([getattr(c, key) for c in contacts], np.float64) for key in ("start_s", "end_s")),
            *(np.array([getattr(c, key) for c in contacts], np.float64) for key in ("delay_s", "rate_bps")),
        ),
    )


def only(names: str, relays: str = "") -> Passage:
    """Those may hold, and these may relay."""
    return Passage(lambda name: name in names, lambda name: name in relays)
