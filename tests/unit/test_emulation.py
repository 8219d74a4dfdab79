"""The loop: steps at the sky's own pace, each change made before the old is broken, and what the record says of it.

The fabric is a notebook that writes down what it is told; real ones are held by the kernel's suite.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from controller import schedule as schedule_module
from controller.emulation import Emulation
from controller.errors import SkyrackError
from controller.fabric.choose import ShaperChoice
from controller.fabric.plan import DARK, ShapingPlan
from controller.faults import FaultSchedule
from controller.jobs.forecast import Forecast
from controller.links.routes import RouteChanges
from controller.outlook import Outlook
from controller.overlay import Overlay
from controller.record.model import Event, Manifest
from controller.record.read import RunRecord, read_record
from controller.record.recorder import Recorder
from controller.run_fabric import RunFabric
from controller.runs import RunPlace
from controller.runtime.contract import Runtime
from controller.scenario.fault_model import Fault
from controller.scenario.model import Scenario
from controller.schedule import Commanded, Pace, Schedule
from controller.sky_feed import SkyFeed
from controller.timeline import IntArray, NodeEnd, Timeline
from tests.unit.hand_made import timeline as hand_made

START_S = 7_200.0
STEP_S = 10.0
SCALE = 200.0  # a step every 50 ms
END = NodeEnd(2, START_S + 35.0, "its orbit has decayed")


class Notebook:
    """Panel, shaper, routes, probing, runtime and narrator of a run, all in one list."""

    def __init__(self, port_count: int, names: Iterable[str], slow_step_s: float = 0.0) -> None:
        self.notes: list[tuple[str, Any]] = []
        self.living = set(names)
        self.runtime_error: SkyrackError | None = None
        self.fabric_error: SkyrackError | None = None
        self.state = ShapingPlan.dark(port_count)
        self.slow_step_s = slow_step_s

    def apply(self, plan: ShapingPlan | RouteChanges) -> None:
        """Write down a plan, or a wave of routes."""
        self.notes.append(("shape" if isinstance(plan, ShapingPlan) else "route", plan))
        if isinstance(plan, ShapingPlan):
            for name in ("peer", "delay_us", "rate_bps", "loss_ratio"):
                getattr(self.state, name)[plan.port] = getattr(plan, name)

    def set_carriers(self, port: IntArray, *, on: bool) -> None:
        """Write down ports that get or lose their carrier."""
        if len(port):
            self.notes.append(("carrier on" if on else "carrier off", port))

    def alive(self, _run_id: str) -> set[str]:
        """The nodes that live; a runtime that does not answer raises."""
        if self.runtime_error is not None:
            raise self.runtime_error
        return self.living

    def check(self) -> None:
        """Panel and probes are there, or not."""
        if self.fabric_error is not None:
            raise self.fabric_error

    def read_back(self) -> ShapingPlan:
        """What holds."""
        return self.state

    def start(self, pace: Pace, state: Commanded) -> None:
        """Probing begins."""
        self.notes.append(("pace", pace))
        self.command(state)

    def turn(self, pace: Pace) -> None:
        """The sky's clock is turned."""
        self.notes.append(("pace", pace))

    def command(self, state: Commanded) -> None:
        """Probes are held against this from now on. A slow machine takes its time here, once."""
        self.notes.append(("command", state))
        time.sleep(self.slow_step_s if state.step == 1 else 0.0)

    def say(self, text: str) -> None:
        """Hear."""
        self.notes.append(("say", text))

    def progress(self, what: str, done: int, total: int) -> None:
        """Hear and forget."""

    def of(self, kind: str) -> list[Any]:
        """The notes of a kind."""
        return [note for name, note in self.notes if name == kind]


@contextmanager
def emulation_of(
    tmp_path: Path, sky: Timeline, time_scale: float = SCALE, slow_step_s: float = 0.0, *, lit: bool = False
) -> Iterator[tuple[Emulation, Notebook]]:
    """An emulation whose fabric is a notebook; `lit`: the first step is in force."""
    scenario = Scenario.model_construct(
        name="ring", faults=(), probes=(), seed=1, duration_s=90.0, start_s=START_S, time_scale=time_scale
    )
    place = RunPlace("abcdefgh", "ring", tmp_path, 1, 1, datetime(2026, 1, 1, tzinfo=UTC))
    manifest = Manifest.here(
        run_id=place.run_id, scenario_name="ring", scenario_text="", timeline_hash=sky.content_hash, seed=1,
        epoch_utc=sky.epoch_utc, duration_s=90.0, step_s=sky.step_s, runtime="none", engine_version="", shaper="none",
        shaper_reason="", time_scale=time_scale,
    )  # fmt: skip
    schedule = Schedule.of(sky, FaultSchedule((), sky.nodes, links=sky.links), [("quito", "nairobi")])
    notebook = Notebook(int(schedule.port_start[-1]), schedule.index_of, slow_step_s)
    runtime = cast(Runtime, notebook)
    with Recorder(tmp_path, manifest) as recorder:
        emulation = Emulation(scenario, schedule, place, runtime, ShaperChoice("none", ""), recorder, notebook)
        bare = cast(Any, emulation)
        bare.probing = notebook
        bare._fabric = RunFabric(*[cast(Any, notebook)] * 3)
        bare._feed = SkyFeed({}, Forecast(bare.schedule, lambda: bare.state), Outlook(sky, time_scale, {}))
        if lit:
            bare._fabric.apply(schedule.change(None, emulation.state))
        yield emulation, notebook


def ten_steps(node_ends: Sequence[NodeEnd] = ()) -> Timeline:
    """Nine steps after the first, two hours after the epoch."""
    return hand_made(n_step=10, step_s=STEP_S, start_s=START_S, node_ends=node_ends)


def events(record: RunRecord, kind: str) -> list[Event]:
    """The events of a kind."""
    return [event for event in record.events if event.kind == kind]


async def test_steps_are_due_at_the_skys_own_pace(tmp_path: Path) -> None:
    """A run that starts two hours after the epoch, at 200 times real time: every step is recorded with the sky's time,
    late by wall time, and 90 s of sky take 0.45 s."""
    with emulation_of(tmp_path, ten_steps()) as (emulation, notebook):
        assert emulation.t_s == START_S
        began_mono_s = time.monotonic()
        await emulation.run(hold=False)
        took_s = time.monotonic() - began_mono_s
        assert took_s >= 90.0 / SCALE
        assert emulation.t_s == pytest.approx(START_S + took_s * SCALE, abs=SCALE * 0.05)
        (pace,) = notebook.of("pace")
        assert (pace.start_s, pace.time_scale) == (START_S, SCALE)
        record = read_record(tmp_path)
        assert [step.t_s for step in record.steps] == [START_S + STEP_S * step for step in range(1, 10)]
        assert all(step.late_ms >= 0.0 for step in record.steps)
        assert events(record, "run-started")[0].t_s == START_S
        assert min(step.late_ms for step in record.steps) < 40.0  # by the wall clock: by the sky's it were seconds


async def test_overruns_are_counted_by_the_wall_clock(tmp_path: Path) -> None:
    """A step that takes longer than a step's share of the wall clock is an overrun, though it is short in the sky."""
    with emulation_of(tmp_path, ten_steps(), slow_step_s=0.12) as (emulation, _):
        await emulation.run(hold=False)
        assert emulation.overruns >= 1
        slow = read_record(tmp_path).steps[0]
        assert slow.took_ms >= 120.0


async def test_each_change_is_made_before_the_old_is_broken(tmp_path: Path) -> None:
    """In every step: what comes or changes, then the routes wave after wave, then what goes dark, then the probes."""
    with emulation_of(tmp_path, ten_steps([END])) as (emulation, notebook):
        await emulation.run(hold=False)
        stages: list[list[tuple[str, Any]]] = [[]]
        for kind, note in notebook.notes[2:]:
            if kind == "command":
                stages.append([])
            elif kind != "say":
                stages[-1].append((kind, note))
        assert len(stages) == 10
        for step in stages[:-1]:
            made, *waves, broken = step
            assert made[0] == broken[0] == "shape"
            assert not np.any(made[1].peer == DARK)
            assert np.all(broken[1].peer == DARK)
            assert all(kind == "route" for kind, _ in waves)
        assert any(len(step[-1][1]) for step in stages[:-1]), "nothing ever went dark: the test shows nothing"


async def test_a_node_that_leaves_the_sky_is_told_once(tmp_path: Path) -> None:
    """At the first step after its end an event and a line say so with the reason; from then on it is down."""
    with emulation_of(tmp_path, ten_steps([END])) as (emulation, notebook):
        name = emulation.timeline.nodes[END.node].name
        assert emulation.down_of(name) == ""
        await emulation.run(hold=False)
        (event,) = events(read_record(tmp_path), "node-down")
        assert (event.t_s, event.fields) == (START_S + 40.0, {"node": name, "reason": END.reason})
        assert notebook.of("say").count(f"{name} is down: {END.reason}") == 1
        assert emulation.blackout_of(name) == ""
        assert emulation.down_of(name) == f"{name} is down since t = {END.at_s:.0f} s: {END.reason}"


async def test_routes_to_a_node_that_is_asked_for_are_made_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large sky: not at the next step, and not twice; nothing else changes."""
    monkeypatch.setattr(schedule_module, "ALL_TO_ALL_NODES", 1)
    with emulation_of(tmp_path, ten_steps()) as (emulation, notebook):
        far = next(name for name, i in emulation.index_of.items() if i not in emulation.schedule.destinations)
        emulation.route_to([far])
        waves = notebook.of("route")
        assert {int(node) for wave in waves for node in wave.destination} == {emulation.index_of[far]}
        assert sum(len(wave) for wave in waves) > 0
        assert all(len(plan) == 0 for plan in notebook.of("shape"))
        emulation.route_to([far, ""])
        assert len(notebook.of("route")) == len(waves)


async def test_a_paused_sky_waits_and_then_goes_on_from_a_new_start(tmp_path: Path) -> None:
    """While it stands no step comes, however long; then steps come at their own times, none late for the pause."""
    with emulation_of(tmp_path, ten_steps()) as (emulation, notebook):
        running = asyncio.create_task(emulation.run(hold=False))
        await emulation.until(START_S + 25.0)
        emulation.pause()
        stood_s, step = emulation.t_s, emulation.state.step
        waiting = asyncio.create_task(emulation.until(START_S + 60.0))
        await asyncio.sleep(10 * STEP_S / SCALE)
        assert (emulation.t_s, emulation.state.step) == (stood_s, step)
        assert not waiting.done()
        emulation.resume()
        await waiting
        assert emulation.t_s >= START_S + 60.0
        await running
        paces = notebook.of("pace")
        assert [pace.time_scale for pace in paces] == [SCALE, 0.0, SCALE]
        record = read_record(tmp_path)
        assert [each.t_s for each in record.steps] == [START_S + STEP_S * each for each in range(1, 10)]
        assert max(each.late_ms for each in record.steps) < 10 * STEP_S / SCALE * 1e3


async def test_a_sky_that_is_sought_goes_on_from_there(tmp_path: Path) -> None:
    """Back and forth: the fabric becomes the step that holds as one change, and the next step is the one after it."""
    with emulation_of(tmp_path, ten_steps(), lit=True) as (emulation, notebook):
        running = asyncio.create_task(emulation.run(hold=False))
        await emulation.until(START_S + 35.0)
        emulation.seek(START_S + 5.0)
        assert emulation.state.step == 0
        expected = emulation.schedule.at(0).shaping
        assert not len(expected.changed_from(notebook.state)), "the fabric is that of the step"
        await emulation.until(START_S + 15.0)
        emulation.seek(START_S + 85.0)
        await running
        record = read_record(tmp_path)
        steps = [step.step for step in record.steps]  # on a busy machine one may be passed over
        back = next(at for at in range(1, len(steps)) if steps[at] < steps[at - 1])
        assert steps[back - 1] <= 3 < steps[-1] == 9
        assert steps[:back] == sorted(steps[:back])
        assert steps[back:] == [1, 9]
        assert [event.fields["step"] for event in events(record, "sky-sought")] == [0, 8]


async def test_a_run_that_is_paused_at_its_last_step_does_not_end(tmp_path: Path) -> None:
    """It ends when it is resumed; and a run that is stopped while it is paused ends at once."""
    with emulation_of(tmp_path, ten_steps()) as (emulation, _):
        running = asyncio.create_task(emulation.run(hold=False))
        await emulation.until(START_S + 5.0)
        emulation.pause()
        emulation.step_on(100)
        assert emulation.t_s == START_S + 90.0
        await asyncio.sleep(2 * STEP_S / SCALE)
        assert not running.done()
        emulation.resume()
        await asyncio.wait_for(running, 5.0)
        with pytest.raises(SkyrackError, match="the run is ending"):
            emulation.pause()


async def test_a_fault_ends_in_the_record_where_the_sky_was_left(tmp_path: Path) -> None:
    """Injected, left by a seek to before it and met again: two windows, neither of which ends before it begins."""
    with emulation_of(tmp_path, ten_steps(), time_scale=1.0) as (emulation, _):
        running = asyncio.create_task(emulation.run(hold=False))
        await asyncio.sleep(0)
        emulation.pause()
        emulation.step_on(4)
        Overlay(emulation).inject(Fault(kind="blackout", target="quito", at_s=0.0))
        emulation.step_on(2)
        emulation.seek(START_S + 10.0)
        assert emulation.blackout_of("quito") == ""
        emulation.seek(START_S + 50.0)
        assert emulation.blackout_of("quito") == "quito is in blackout (silent) until it is cleared"
        emulation.request_stop()
        await running
        windows = [(each.start_s - START_S, each.end_s - START_S) for each in read_record(tmp_path).faults()]
        assert windows == [(40.0, 60.0), (50.0, 60.0)]
