"""What a run is told of while it is up, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from controller import watch
from controller.emulation import Emulation
from controller.errors import MachineError, SkyrackError
from controller.record.read import read_record
from tests.unit.test_emulation import emulation_of, events, ten_steps

LOOK_S = 0.01
GRACE_S = 0.1
DEADLINE_S = 10.0
SLOW = 1.0  # ten seconds a step: none comes meanwhile


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come often, and grace is short."""
    monkeypatch.setattr(watch, "LOOK_S", LOOK_S)
    monkeypatch.setattr(watch, "AWAY_GRACE_S", GRACE_S)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  (what is waited for is a state, not an event)
            await asyncio.sleep(LOOK_S)


async def stopped(emulation: Emulation, running: asyncio.Task[None]) -> None:
    """End the run in order."""
    emulation.request_stop()
    await asyncio.wait_for(running, DEADLINE_S)


async def test_a_node_that_is_lost_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    """In the record, and as what keeps a job waiting; also when it is seen again."""
    with emulation_of(tmp_path, ten_steps(), time_scale=SLOW) as (emulation, notebook):
        running = asyncio.create_task(emulation.run(hold=False))
        notebook.living = notebook.living - {"quito"}
        await until(lambda: emulation.down_of("quito").startswith("quito is lost since t = 720"))
        await asyncio.sleep(5 * LOOK_S)
        await stopped(emulation, running)
        (event,) = events(read_record(tmp_path), "node-lost")
        assert event.fields == {"node": "quito", "reason": "its agent has ended"}
        assert emulation.down_of("quito").endswith(" s: its agent has ended")
        assert emulation.down_of("nairobi") == ""


async def test_a_run_without_any_node_left_ends(tmp_path: Path) -> None:
    """There is nothing to emulate any more."""
    with emulation_of(tmp_path, ten_steps(), time_scale=SLOW) as (emulation, notebook):
        notebook.living = set()
        with pytest.raises(SkyrackError, match="no node of the run lives any more"):
            await asyncio.wait_for(emulation.run(hold=True), DEADLINE_S)


async def test_a_runtime_that_comes_back_in_time_is_told_and_no_more(tmp_path: Path) -> None:
    """Away and back are in the record; nodes are not lost for that nobody could look at them."""
    with emulation_of(tmp_path, ten_steps(), time_scale=SLOW) as (emulation, notebook):
        running = asyncio.create_task(emulation.run(hold=False))
        notebook.runtime_error = MachineError("the engine does not answer")
        await until(lambda: any("cannot be looked at" in told for told in notebook.of("say")))
        notebook.runtime_error = None
        await until(lambda: "the nodes can be looked at again" in notebook.of("say"))
        await stopped(emulation, running)
        record = read_record(tmp_path)
        assert [event.fields for event in events(record, "runtime-away")] == [{"reason": "the engine does not answer"}]
        assert len(events(record, "runtime-back")) == 1
        assert events(record, "node-lost") == []


async def test_a_runtime_that_stays_away_ends_the_run_with_its_own_error(tmp_path: Path) -> None:
    """Not at once, and not never."""
    with emulation_of(tmp_path, ten_steps(), time_scale=SLOW) as (emulation, notebook):
        notebook.runtime_error = MachineError("the engine does not answer")
        with pytest.raises(MachineError, match="the engine does not answer"):
            await asyncio.wait_for(emulation.run(hold=True), DEADLINE_S)
        assert emulation.t_s - emulation.timeline.t_s[0] >= GRACE_S


async def test_a_fabric_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    """Whether or not a step is near."""
    with emulation_of(tmp_path, ten_steps(), time_scale=SLOW) as (emulation, notebook):
        notebook.fabric_error = SkyrackError("the panel was removed from outside")
        with pytest.raises(SkyrackError, match="the panel was removed"):
            await asyncio.wait_for(emulation.run(hold=True), DEADLINE_S)


async def test_drift_is_repaired_and_counted_while_the_sky_stands(tmp_path: Path) -> None:
    """No step reads back then."""
    with emulation_of(tmp_path, ten_steps(), time_scale=SLOW, lit=True) as (emulation, notebook):
        running = asyncio.create_task(emulation.run(hold=True))
        await asyncio.sleep(0)
        emulation.pause()
        commanded_us = int(notebook.state.delay_us[0])
        notebook.state.delay_us[0] = commanded_us + 1
        await until(lambda: int(notebook.state.delay_us[0]) == commanded_us)
        await stopped(emulation, running)
        (event,) = events(read_record(tmp_path), "drift-repaired")
        assert event.fields == {"directions": 1}
