"""Whose turn it is: the queue of a node by itself."""

from __future__ import annotations

import asyncio
import random

import pytest

from node_agent.jobs.turns import Turn, Turns


def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    """Of many that wait, in whatever order they came, the next is always the highest, among equals the oldest."""
    turns = Turns(1)
    started: list[Turn] = []
    turns.ask("first", 0, 0, started.append)
    places = [(priority, number) for number, priority in enumerate(random.Random(1).choices(range(-3, 4), k=200), 1)]
    for priority, number in random.Random(2).sample(places, len(places)):
        turns.ask(f"{priority} {number}", priority, number, started.append)
    assert [turn.job_id for turn in started] == ["first"]
    for turn in started:
        turn.give_back()
    expected = sorted(places, key=lambda place: (-place[0], place[1]))
    assert [turn.job_id for turn in started[1:]] == [f"{priority} {number}" for priority, number in expected]


def test_as_many_run_as_there_are_slots_and_a_slot_is_given_back_once() -> None:
    """Never more hold a slot than there are, though a turn is given back twice; who withdraws is not called."""
    turns = Turns(3)
    started: list[Turn] = []
    for number in range(10):
        turns.ask(str(number), 0, number, started.append)
    assert len(started) == 3
    assert turns.withdraw("4")
    assert not turns.withdraw("4")
    assert not turns.withdraw("0")
    started[0].give_back()
    started[0].give_back()
    assert [turn.job_id for turn in started] == ["0", "1", "2", "3"]
    started[1].give_back()
    assert [turn.job_id for turn in started][-1] == "5"
    assert [turn.job_id for turn in started if turn.is_held] == ["2", "3", "5"]


def test_a_turn_is_had_at_once_where_a_slot_is_free() -> None:
    """It holds that slot, and gives it back to whoever waits; where none is free, or the node ends, there is none."""
    turns = Turns(1)
    started: list[Turn] = []
    first = turns.at_once("first", 0, 1)
    assert first is not None
    assert first.is_held
    assert turns.at_once("second", 9, 2) is None
    turns.ask("third", 0, 3, started.append)
    assert started == []
    first.give_back()
    assert [turn.job_id for turn in started] == ["third"]
    started[0].give_back()
    turns.close()
    assert turns.at_once("late", 0, 4) is None


def test_asking_and_withdrawing_without_end_leaves_nothing_behind() -> None:
    """A job that is suspended and resumed a thousand times while it waits takes no more memory than once."""
    turns = Turns(1)
    turns.ask("runs", 0, 0, lambda _: None)
    for _ in range(1000):
        turns.ask("waits", 0, 1, lambda _: None)
        turns.withdraw("waits")
    assert len(turns._heap) < 100


@pytest.mark.parametrize("moment", ["waiting", "taken"])
async def test_who_is_cancelled_leaves_no_slot_taken_that_it_does_not_hold(moment: str) -> None:
    """A wait that is cancelled, before its turn or at the very moment of it, loses no slot."""
    turns = Turns(1)
    started: list[Turn] = []
    turns.ask("a", 0, 0, started.append)
    turns.ask("b", 0, 1, started.append)
    a = started[0]
    a.give_back()
    taking = asyncio.create_task(a.take())
    await asyncio.sleep(0)
    if moment == "taken":
        started[1].give_back()
    taking.cancel()
    await asyncio.wait({taking})
    assert a.is_held == (moment == "taken")
    a.give_back()
    started[1].give_back()
    turns.ask("c", 0, 2, started.append)
    assert [turn.job_id for turn in started] == ["a", "b", "c"]


def test_after_the_end_nobody_starts() -> None:
    """Slots that become free while the agent ends are handed to nobody."""
    turns = Turns(1)
    started: list[Turn] = []
    turns.ask("a", 0, 0, started.append)
    turns.ask("b", 0, 1, started.append)
    turns.close()
    started[0].give_back()
    turns.ask("c", 5, 2, started.append)
    assert [turn.job_id for turn in started] == ["a"]
