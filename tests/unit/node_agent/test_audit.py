"""The audit: on disk, bounded, and not to be flooded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from node_agent.journal import Journal
from node_agent.security import audit as audit_module
from node_agent.security.audit import Audit
from protos.skyrack.v1.node_pb2 import AuditEvent


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """The node's journal."""
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


async def listed(audit: Audit, after: int = 0) -> list[AuditEvent]:
    """Those that there are."""
    return [event async for event in audit.events(after, follow=False)]


def told(events: list[AuditEvent]) -> list[tuple[str, str, str, str, str]]:
    """What they say."""
    return [(event.kind, event.who, event.what, event.of, event.reason) for event in events]


async def test_an_event_is_on_disk_when_it_is_recorded(journal: Journal, tmp_path: Path) -> None:
    """The next agent reads it, numbered and with its time, and goes on counting."""
    first = Audit(journal)
    await first.record("denied", "term", "skyrack.v1.Jobs/Get", "j1", "not term's")
    journal.close()
    again = Journal(tmp_path / "journal.db")
    audit = Audit(again)
    await audit.record("damaged", "emulator", "scrub", "sha256:0", "it hashes to another name")
    events = await listed(audit)
    assert told(events) == [
        ("denied", "term", "skyrack.v1.Jobs/Get", "j1", "not term's"),
        ("damaged", "emulator", "scrub", "sha256:0", "it hashes to another name"),
    ]
    assert [event.number for event in events] == [1, 2]
    assert 0 < events[0].at_unix_ns <= events[1].at_unix_ns
    assert await listed(audit, after=1) == events[1:]
    await first.close()
    await audit.close()
    again.close()


async def test_a_flood_of_denials_is_a_few_events(journal: Journal) -> None:
    """Of a thousand different denials of one caller at one call twenty are told apart; of the rest, how many."""
    audit = Audit(journal)
    for n in range(1000):
        await audit.record("denied", "term", "Jobs/Get", f"j{n}", f"j{n} is not term's")
    await audit.record("denied", "other", "Jobs/Get", "j1", "j1 is not other's")
    for _ in range(5):
        await audit.record("denied", "other", "Jobs/List", "", "no")
    apart = [("denied", "term", "Jobs/Get", f"j{n}", f"j{n} is not term's") for n in range(20)]
    rest = ("denied", "term", "Jobs/Get", "", "more than 20 times within 60 s")
    others = [("denied", "other", "Jobs/Get", "j1", "j1 is not other's"), ("denied", "other", "Jobs/List", "", "no")]
    assert told(await listed(audit)) == [*apart, rest, *others]
    await audit.close()
    assert sorted(told(await listed(audit))[23:]) == [
        ("denied", "other", "Jobs/List", "", "no (and 4 more within 60 s)"),
        (*rest[:4], "more than 20 times within 60 s (and 979 more within 60 s)"),
    ]


async def test_after_a_flood_denials_are_heard_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is written when the time is over, unasked, and the next denial is an event of its own."""
    monkeypatch.setattr(audit_module, "FLOOD_S", 0.2)
    audit = Audit(journal)
    for _ in range(3):
        await audit.record("denied", "term", "Jobs/List", "", "no")
    events = audit.events(0, follow=True)
    async with asyncio.timeout(10):
        assert [(await anext(events)).reason for _ in range(2)] == ["no", "no (and 2 more within 0 s)"]
        await audit.record("denied", "term", "Jobs/List", "", "no")
        assert (await anext(events)).reason == "no"
    await cast(Any, events).aclose()
    await audit.close()


async def test_damage_of_two_objects_is_two_events(journal: Journal) -> None:
    """Only what is equal in all is counted together, where it is no denial."""
    audit = Audit(journal)
    for name in ("a", "b", "a"):
        await audit.record("damaged", "emulator", "scrub", name, "other bytes")
    assert [event.of for event in await listed(audit)] == ["a", "b"]
    await audit.close()
    assert [event.of for event in await listed(audit)] == ["a", "b", "a"]


async def test_the_newest_are_kept(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than are kept, the oldest go; numbers stay what they are."""
    monkeypatch.setattr(audit_module, "KEPT_EVENTS", 100)
    audit = Audit(journal)
    await asyncio.gather(*(audit.record("damaged", "emulator", "scrub", f"o{n}", "") for n in range(1234)))
    events = await listed(audit)
    assert [event.number for event in events] == list(range(1135, 1235))
    await audit.close()


async def test_who_follows_hears_of_every_event_once(journal: Journal) -> None:
    """More than a page, from after a number, and those that come while it listens."""
    audit = Audit(journal)
    for n in range(700):
        await audit.record("damaged", "emulator", "scrub", f"o{n}", "")

    async def follow() -> list[str]:
        names = []
        async for event in audit.events(10, follow=True):
            names.append(event.of)
            if len(names) == 790:
                break
        return names

    following = asyncio.create_task(follow())
    for n in range(700, 800):
        await audit.record("damaged", "emulator", "scrub", f"o{n}", "")
    assert await asyncio.wait_for(following, 30) == [f"o{n}" for n in range(10, 800)]
    await audit.close()
