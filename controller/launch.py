"""The composition root: from a scenario's name to a run that has ended, with everything it made removed.

The order is: what costs nothing and may fail (input, machine) first; then the sky, then the machine is changed.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from controller import runs
from controller.api.server import STOP_GRACE_S, serve
from controller.doctor import diagnose, require, use_open_files
from controller.down import sweep
from controller.emulation import Emulation, Phase
from controller.errors import InputError, MachineError, SkyrackError
from controller.fabric.choose import ShaperChoice, choose_shaper
from controller.fabric.panel import remove_panel
from controller.faults import FaultSchedule
from controller.narrator import Narrator
from controller.node_specs import images_of
from controller.planner import plan
from controller.record.model import LoadResult, Manifest, WorkloadResult
from controller.record.read import last_instant_s
from controller.record.recorder import MANIFEST, Recorder
from controller.record.report import write_report
from controller.runs import RunPlace
from controller.runtime.choose import choose_runtime, open_runtime
from controller.runtime.contract import Runtime
from controller.runtime.docker import DockerRuntime
from controller.scenario.load import parse_scenario, read_source
from controller.scenario.model import Scenario
from controller.scenario.source import Source
from controller.schedule import Schedule
from controller.timeline import Timeline
from controller.timeline_file import TIMELINE_FILE, SavedTimeline, TimelineWriter, open_timeline

Workload = Callable[[Emulation], Awaitable[Sequence[WorkloadResult | LoadResult]]]
"""What runs on an emulation beside its sky, from when it is up."""


RUNS_FOLDER = "runs"


@dataclass(frozen=True)
class RunOptions:
    """What the user asked of a run."""

    scenario: str | None  # a preset's name, or a file; None: the timeline's
    runtime: str = "auto"
    shaper: str = "auto"
    duration_s: float | None = None  # None: the scenario's
    out_dir: Path | None = None  # None: runs/<scenario>-<time>
    hold: bool = False  # stay when the timeline has ended, until stopped
    start_s: float | None = None  # since the epoch; None: the scenario's
    time_scale: float | None = None  # seconds of the sky a second of the wall clock; None: the scenario's
    timeline: Path | None = None  # a saved timeline to replay in place of a scenario
    resume: str | None = None  # the id of a run whose controller was killed, to go on with in place of a scenario


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    out_dir: Path
    summary: dict[str, object]


def default_out_dir(scenario: Scenario) -> Path:
    """A new folder below the present one."""
    return Path(RUNS_FOLDER) / f"{scenario.name}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"


def out_dir_of(options: RunOptions) -> Path:
    """The folder of the record of a run that is asked for. Raises InputError for one that cannot be."""
    if options.resume is not None:
        _, options, _ = _killed(options)
    _, scenario = asked_for(options)
    return (options.out_dir or default_out_dir(scenario)).resolve()


async def launch(
    options: RunOptions,
    narrator: Narrator,
    workload: Workload | None = None,
    on_ready: Callable[[Emulation], None] | None = None,
) -> Ended:
    """Run a scenario to its end. Raises InputError, MachineError or SkyrackError; nothing of it is left either way."""
    left = None
    if options.resume is not None:
        left, options, start_s = _killed(options)
    source, scenario = asked_for(options)
    runtime_choice = choose_runtime(options.runtime)
    narrator.say(f"runtime: {runtime_choice.name} ({runtime_choice.reason})")
    require(diagnose(len(scenario.node_names), runtime_choice.name))
    use_open_files()
    runtime = open_runtime(runtime_choice.name, runs.MACHINE.run, scenario.resources.root)
    runtime.require_images(images_of(scenario), narrator.say)
    if runtime.shortcoming:
        narrator.say(f"warning: {runtime.shortcoming}")
    choice = choose_shaper(options.shaper)
    narrator.say(f"shaper: {choice.name} ({choice.reason})")
    _sweep_quietly(narrator, runtime_choice.name, spare=options.resume)
    out_dir = (options.out_dir or default_out_dir(scenario)).resolve()
    with _sky(options, source, scenario, out_dir) as timeline:
        narrator.say(f"sky: {len(timeline.nodes)} nodes, {timeline.n_step} steps, {timeline.content_hash}")
        for warning in timeline.warnings:
            narrator.say(f"warning: {warning}")
        pairs = [(probe.a, probe.b) for probe in scenario.probes]
        schedule = Schedule.of(timeline, FaultSchedule.from_scenario(scenario, timeline), pairs)
        first_step = 0 if left is None else schedule.step_at(start_s)
        with _place(left, scenario.name, out_dir, len(timeline.nodes), runtime.name) as place:
            manifest = _manifest(scenario, source.text, timeline, place, (runtime, runtime_choice.reason), choice)
            recorder = Recorder(out_dir, manifest)
            emulation = Emulation(scenario, schedule, place, runtime, choice, recorder, narrator, first_step)
            with RunErrors() as errors:
                try:
                    with errors.kept():
                        await _live(emulation, out_dir, recorder, options.hold, workload, on_ready)
                finally:
                    with suppress(SkyrackError):  # a record that takes no line: that is the first error then
                        if errors.first is not None:
                            recorder.event("run-ended", emulation.t_s, reason=str(errors.first))
                    try:
                        with errors.kept(f"`skyrack down --run {place.run_id}` removes what is left of it"):
                            await emulation.close()
                    finally:
                        with errors.kept():
                            summary = recorder.close()
                            narrator.say("writing the report")
                            write_report(out_dir, timeline)
                        _give_to_caller(out_dir)
    return Ended(out_dir, summary)


def _killed(options: RunOptions) -> tuple[RunPlace, RunOptions, float]:
    """A killed run that is to go on: its place, its options, and the moment it had come to. Raises InputError."""
    left = runs.killed_run(options.resume or "")
    for given, what in ((options.scenario, "SCENARIO"), (options.timeline, "--timeline"), (options.start_s, "--start")):
        if given is not None:
            raise InputError(f"run {left.run_id} goes on with its own sky, from where it was: leave {what} out")
    instant_s = last_instant_s(left.out_dir)
    if instant_s is None or not (left.out_dir / TIMELINE_FILE).exists():
        raise InputError(f"run {left.run_id} cannot go on: its record {left.out_dir} is gone, or had not begun")
    number = next(n for n in itertools.count(1) if not _resumed(left.out_dir, n).exists())
    asked = replace(
        options,
        runtime=left.runtime,
        timeline=left.out_dir / TIMELINE_FILE,
        out_dir=options.out_dir or _resumed(left.out_dir, number),
    )
    return left, asked, instant_s


def _resumed(out_dir: Path, number: int) -> Path:
    return out_dir.with_name(f"{out_dir.name}-resumed-{number}")


def _place(
    left: RunPlace | None, scenario: str, out_dir: Path, n_node: int, runtime: str
) -> AbstractContextManager[RunPlace]:
    """The run's place: a new one, or that of a killed run, of which nothing else is to be left."""
    if left is None:
        return RunPlace.create(scenario, out_dir, n_node, runtime=runtime)
    return left.taken_over(out_dir, n_node, lambda run_id: _remove_all_but_folders(run_id, runtime))


def _remove_all_but_folders(run_id: str, runtime: str) -> None:
    open_runtime(runtime, runs.MACHINE.run).remove(run_id)  # one of its own: it starts nothing of the run any more
    remove_panel(run_id)


def _sweep_quietly(narrator: Narrator, runtime: str, spare: str | None) -> None:
    """Remove what killed runs left. An engine that this run has no use for may be mute."""
    try:
        removed, refusal = sweep(everything=False, spare=spare)
    except MachineError as error:
        removed, refusal = [], error
    for run_id in removed:
        narrator.say(f"removed what the killed run {run_id} had left")
    if refusal is not None and runtime == DockerRuntime.name:
        raise refusal
    if refusal is not None:
        narrator.say(f"warning: {refusal}")


class RunErrors:
    """What goes wrong in a run and while it ends: leaving the context raises it as one error, whatever else ends the
    run, an interrupt for one."""

    def __init__(self) -> None:
        self.first: SkyrackError | None = None
        self._left = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.first is not None:
            first = str(self.first)
            left = [self._left] if self._left else []
            told = SkyrackError(self._left if self._left.startswith(first) else "; ".join([first, *left]))
            told.exit_status = self.first.exit_status
            raise told from self.first

    @contextmanager
    def kept(self, left: str = "") -> Iterator[None]:
        """Keep an error for the end: the first is told, and every one that leaves something, with what to do then."""
        try:
            yield
        except SkyrackError as error:
            if left and error is not self.first:  # a broken record ends the probes too, and leaves nothing
                self._left = f"{error}; {left}"
            self.first = self.first or error


def asked_for(options: RunOptions) -> tuple[Source, Scenario]:
    """The scenario that is to be run. Raises InputError."""
    if options.timeline is None:
        if options.scenario is None:
            raise InputError("name a SCENARIO, or a saved timeline with --timeline")
        source = read_source(options.scenario)
        return source, parse_scenario(
            source, options.duration_s, start_s=options.start_s, time_scale=options.time_scale
        )
    for given, what in (
        (options.scenario, "SCENARIO"),
        (options.duration_s, "--duration"),
        (options.start_s, "--start"),
    ):
        if given is not None:
            raise InputError(f"{options.timeline} holds its scenario, start and duration: leave {what} out")
    with open_timeline(options.timeline) as saved:
        return saved.source, saved.scenario(options.time_scale)


@contextmanager
def _sky(options: RunOptions, source: Source, scenario: Scenario, out_dir: Path) -> Iterator[Timeline]:
    """The run's sky, replayed from a file in the folder of its record; no file where no record came to be."""
    if (out_dir / MANIFEST).exists():
        raise InputError(f"{out_dir} already holds the record of a run; name another folder with --out")
    is_new = not out_dir.exists()
    path = out_dir / TIMELINE_FILE
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        if options.timeline is not None:
            shutil.copyfile(options.timeline, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with _planned(scenario, source, path) if options.timeline is None else open_timeline(path) as saved:
            yield saved.timeline
    finally:
        if not (out_dir / MANIFEST).exists():
            path.unlink(missing_ok=True)
            if is_new:
                out_dir.rmdir()


def _planned(scenario: Scenario, source: Source, path: Path) -> SavedTimeline:
    with TimelineWriter(path, source) as writer:
        return writer.finish(plan(scenario, writer))


async def _live(
    emulation: Emulation,
    out_dir: Path,
    recorder: Recorder,
    hold: bool,
    workload: Workload | None,
    on_ready: Callable[[Emulation], None] | None,
) -> None:
    """Start the emulation, answer on its socket, and run it beside its workload."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _asked_to_end, emulation, this)
    server = await serve(emulation, out_dir)
    tasks: list[asyncio.Task[Any]] = []
    try:
        await emulation.start()
        tasks.append(asyncio.create_task(emulation.run(hold), name="sky"))
        if on_ready is not None:
            on_ready(emulation)
        if workload is not None:
            tasks.append(asyncio.create_task(_work(workload, emulation, recorder), name="workload"))
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if tasks[0] in done and len(done) < len(tasks):
            raise SkyrackError("the run ended before its workload did; a longer --duration gives it time")
        await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop(STOP_GRACE_S)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _work(workload: Workload, emulation: Emulation, recorder: Recorder) -> None:
    """Run the workload and record what came of it."""
    for result in await workload(emulation):
        if isinstance(result, LoadResult):
            recorder.load(emulation.t_s, result)
        else:
            recorder.workload(emulation.t_s, result)


def _give_to_caller(out_dir: Path) -> None:
    """Let the record belong to whoever called sudo: what root wrote below a user's folder the user could not remove."""
    if "SUDO_UID" not in os.environ:
        return
    owner = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    for path in (out_dir, *out_dir.iterdir()):
        os.chown(path, *owner)
    if out_dir.parent.name == RUNS_FOLDER:
        os.chown(out_dir.parent, *owner)


def _asked_to_end(emulation: Emulation, task: asyncio.Task[Any] | None) -> None:
    """A signal: a run that is up ends in order, one that is still starting is broken off."""
    if emulation.phase is Phase.STARTING and task is not None:
        task.cancel()
    emulation.request_stop()


def _manifest(
    scenario: Scenario,
    text: str,
    timeline: Timeline,
    place: RunPlace,
    nodes: tuple[Runtime, str],
    choice: ShaperChoice,
) -> Manifest:
    """What the record says of the run before it starts. `nodes`: their runtime, and why it was chosen."""
    runtime, runtime_reason = nodes
    return Manifest.here(
        run_id=place.run_id,
        scenario_name=scenario.name,
        scenario_text=text,
        timeline_hash=timeline.content_hash,
        seed=scenario.seed,
        epoch_utc=timeline.epoch_utc,
        duration_s=scenario.duration_s,
        step_s=scenario.step_s,
        start_s=scenario.start_s,
        time_scale=scenario.time_scale,
        runtime=runtime.name,
        runtime_reason=runtime_reason,
        engine_version=runtime.engine_version(),
        shaper=choice.name,
        shaper_reason=choice.reason,
    )
