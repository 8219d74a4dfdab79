"""What has arrived of objects whose senders have left: kept to be gone on with, and bounded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from node_agent.journal import Journal
from node_agent.objects import holdings
from node_agent.objects.store import ObjectStore


async def broken_off(store: ObjectStore, number: int, arrived_bytes: int) -> str:
    """A transfer that ends early. The object's name."""
    name = f"sha256:{hashlib.sha256(bytes([number])).hexdigest()}"
    async with store.receiving(name, 1_000) as part:
        assert part is not None
        async with part.taking(0) as intake:
            await intake.take(bytes(arrived_bytes))
    return name


async def test_parts_are_bounded_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many transfers break off after a byte or two, so many files and rows stay, and of the most has come."""
    monkeypatch.setattr(holdings, "MAX_PARTS", 5)
    journal = Journal(tmp_path / "journal.db")
    store = ObjectStore(tmp_path / "objects", 10**6, journal)
    largest = await broken_off(store, 0, 500)
    needed = await broken_off(store, 1, 1)
    store.in_use = lambda name: "job x is open" if name == needed else None
    for number in range(2, 30):
        newest = await broken_off(store, number, 2)
        assert store.committed_bytes(newest) == 2
    kept = {row.name for row in store.rows()}
    assert len(kept) == 5
    assert {largest, needed, newest} <= kept
    assert sum(path.suffix == ".part" for path in (tmp_path / "objects").iterdir()) == 5
    assert store.used_bytes == 500 + 1 + 3 * 2
    journal.close()
