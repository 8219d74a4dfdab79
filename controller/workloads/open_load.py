"""Drives an open load against a run that is up: each job of a trace at its moment, whatever became of those before.

Scenes are captured first, where they lie. Then the trace is gone through twice under the same sky, which is sought back
in between: *in orbit*, where a scene is searched on the satellite that has it and all else is computed on the satellite
overhead; and *bent pipe*, where everything is done at the nearest gateway, to which scenes come down. Every result is
held against its known answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path

from controller.agents import FINAL_STATES
from controller.api.load_client import LoadClient
from controller.errors import InputError, SkyrackError
from controller.jobs.desk import state_name
from controller.narrator import Narrator
from controller.record.model import LoadResult
from controller.schedule import Pace
from controller.timeline import Role
from controller.workloads.catalogue import CATALOGUE
from controller.workloads.figures import REFUSED, SUCCEEDED, UNFINISHED, JobRun, figures, sooner
from controller.workloads.sky_view import SkyView
from controller.workloads.trace import Arrival, Load, digest, lines, trace
from protos.skyrack.v1 import jobs_pb2

CAPTURE_S = 300.0  # for all scenes
CAPTURES_AT_A_TIME = 4
PATIENCE_S = 180.0  # for a job, from its submission; then it is cancelled and counts as unfinished
DRAIN_S = 60.0  # of the sky, after the last arrival, that the timeline should have left
REWATCH_S = 0.5

IN_ORBIT, BENT_PIPE = "in orbit", "bent pipe"
SCENES = {name for name, workload in CATALOGUE.items() if workload.capture}
"""The workloads that search what a satellite has captured."""

Inputs = list[jobs_pb2.JobInput]


@dataclass(frozen=True)
class Asked:
    """What a load shall be."""

    load: Load
    terminals: tuple[str, ...] = ()  # none: all terminals; where there is none, all gateways
    policy: str = ""  # what chooses the nodes of the first pass; empty: where the scene lies, or overhead


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    arrivals: tuple[Arrival, ...]
    began_t_s: float  # of the sky, in each pass
    results: tuple[LoadResult, ...]
    runs: tuple[tuple[JobRun, ...], ...]  # as results

    def document(self, asked: Asked) -> dict[str, object]:
        """As `--json` prints it."""
        return {
            "load": asdict(asked.load),
            "trace": digest(self.arrivals),
            "began_t_s": round(self.began_t_s, 3),
            "ways": [asdict(result) for result in self.results],
            "first_way_against_second": sooner(self.runs[0], self.runs[1], SCENES),
        }

    @property
    def wrong(self) -> list[str]:
        """Every result that was not the known one."""
        return [f"{run.job} on {run.on_node}: {run.wrong}" for runs in self.runs for run in runs if run.wrong]


def where_asked(asked: Asked, terminals: Sequence[str], gateways: Sequence[str]) -> tuple[str, ...]:
    """The nodes on the ground at which jobs are handed in. Raises InputError where that cannot be."""
    if not gateways:
        raise InputError("the bent pipe needs a gateway, and this scenario has none")
    if unknown := sorted(set(asked.terminals) - {*terminals, *gateways}):
        known = ", ".join([*terminals, *gateways])
        raise InputError(f"--from {unknown[0]!r}: no node on the ground has that name; there are {known}")
    return asked.terminals or tuple(terminals) or tuple(gateways)


class OpenLoad:
    """One load on one run."""

    def __init__(self, run: LoadClient, sky: SkyView, asked: Asked, narrator: Narrator) -> None:
        self._run, self._sky, self._asked, self._narrator = run, sky, asked, narrator
        self._token = secrets.token_hex(3)  # ids of jobs are of one run, which may have had loads before
        self._gateways = sky.names(Role.GATEWAY)
        terminals = where_asked(asked, sky.names(Role.TERMINAL), self._gateways)
        self.arrivals = trace(asked.load, terminals, sky.names(Role.SATELLITE))
        self._scripts: dict[tuple[str, str], str] = {}
        self._scenes: dict[int, Inputs] = {}

    async def run(self, out_dir: Path) -> Outcome:
        """All of it. The trace is written into `out_dir` before, how each job went after. Raises SkyrackError."""
        _write(out_dir / f"load-{self._token}-trace.jsonl", lines(self.arrivals))
        status = await self._run.status()
        if status.paused:
            raise InputError("the run's sky stands still: `skyrack resume` first")
        self._time_scale = status.time_scale
        await self._put_scripts()
        await self._capture_scenes()
        began_t_s = await self._choose_moment()
        orbit = await self._pass(f"by {self._asked.policy}" if self._asked.policy else IN_ORBIT, began_t_s, self._up)
        pipe = await self._pass(BENT_PIPE, began_t_s, self._down)
        outcome = Outcome(self.arrivals, began_t_s, (orbit[0], pipe[0]), (orbit[1], pipe[1]))
        rows = [json.dumps({"way": result.way, **asdict(run)}) for result, runs in (orbit, pipe) for run in runs]
        _write(out_dir / f"load-{self._token}-jobs.jsonl", "".join(f"{row}\n" for row in rows))
        _write(out_dir / f"load-{self._token}.json", json.dumps(outcome.document(self._asked), indent=2) + "\n")
        return outcome

    # --- before ---

    async def _put_scripts(self) -> None:
        """Bring to each terminal what its jobs run."""
        wanted = set()
        for arrival in self.arrivals:
            workload = CATALOGUE[arrival.workload]
            wanted |= {(arrival.terminal, name) for name in (workload.script, workload.capture, workload.model) if name}
        for terminal, name in sorted(wanted):
            with resources.as_file(resources.files("controller.workloads").joinpath("scripts", name)) as path:
                self._scripts[terminal, name] = await self._run.put(terminal, path)

    async def _capture_scenes(self) -> None:
        """Have each satellite take the scenes that lie there, a few at a time, and keep them."""
        turns, done = asyncio.Semaphore(CAPTURES_AT_A_TIME), 0
        scenes = [arrival for arrival in self.arrivals if arrival.workload in SCENES]

        async def capture(arrival: Arrival) -> None:
            nonlocal done
            async with turns:
                self._scenes[arrival.number] = await self._captured(arrival)
            done += 1
            self._narrator.progress("Capturing scenes", done, len(scenes))

        try:
            async with asyncio.timeout(CAPTURE_S):
                await _all([capture(arrival) for arrival in scenes])
        except TimeoutError:
            raise SkyrackError(
                f"{done} of {len(scenes)} scenes were captured within {CAPTURE_S:g} s (`skyrack jobs` says why)"
            ) from None

    async def _captured(self, arrival: Arrival) -> Inputs:
        workload = CATALOGUE[arrival.workload]
        spec = jobs_pb2.JobSpec(
            id=f"load-{self._token}-scene-{arrival.number}",
            on_node=arrival.satellite,
            script_object=self._scripts[arrival.terminal, workload.capture or ""],
            arguments=workload.capture_arguments(arrival.seed, arrival.size),
            keep_outputs_on_node=True,
        )
        job = (await self._run.submit(arrival.terminal, spec, "")).job
        async for told in self._updates(job):
            job = told
        if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
            tail = job.stderr.decode(errors="replace").strip()[-500:]
            raise SkyrackError(f"job {spec.id} ended as {state_name(job.state)}: {job.reason} {tail}".strip())
        objects = {output.name: output.object for output in job.outputs}
        return [jobs_pb2.JobInput(object=objects[name], at_node=arrival.satellite) for name in workload.captured]

    async def _choose_moment(self) -> float:
        """When, of the sky, each pass begins: now, or at the first step where the timeline has too little left."""
        first_s, last_s = self._sky.span_s
        wanted_s = self.arrivals[-1].at_s * self._time_scale + DRAIN_S
        now_s = min((await self._run.status()).t_s, last_s)
        began_t_s = now_s if now_s + wanted_s <= last_s else first_s
        if began_t_s + wanted_s > last_s:
            self._narrator.say(
                f"the load takes {wanted_s:.0f} s of the sky, and its timeline has {last_s - first_s:.0f} s: it stands "
                f"still from t = {last_s:g} s on"
            )
        return began_t_s

    # --- a pass ---

    def _up(self, arrival: Arrival, t_s: float) -> str:
        """Where a job of the first pass is done."""
        if self._asked.policy:
            return ""
        return arrival.satellite if arrival.workload in SCENES else self._sky.serving(arrival.terminal, t_s)

    def _down(self, arrival: Arrival, t_s: float) -> str:
        """Where a job of the second pass is done."""
        return self._sky.nearest(arrival.terminal, self._gateways, t_s)

    async def _pass(
        self, way: str, began_t_s: float, place: Callable[[Arrival, float], str]
    ) -> tuple[LoadResult, tuple[JobRun, ...]]:
        """Once through the trace."""
        policy = self._asked.policy if way != BENT_PIPE else ""
        self._narrator.say(f"{way}: {len(self.arrivals)} jobs, {self._asked.load.rate_per_min:g} a minute")
        before_bytes = await self._ground_bytes()
        clock = await self._run.seek(began_t_s)
        pace = Pace(clock.t_s, self._time_scale, time.monotonic())
        runs: list[JobRun] = []
        async with asyncio.TaskGroup() as group:
            for arrival in self.arrivals:
                await asyncio.sleep(max(0.0, pace.started_mono_s + arrival.at_s - time.monotonic()))
                spec = self._spec(way, arrival, pace, place)
                group.create_task(self._job(arrival, spec, policy, pace, runs, way))
        runs.sort(key=lambda run: run.arrival.number)
        ground_bytes = await self._ground_bytes() - before_bytes
        checked = [await self._checked(run) for run in runs]
        await self._forget(checked)
        return figures(way, policy, self._asked.load, checked, SCENES, ground_bytes), tuple(checked)

    def _spec(self, way: str, arrival: Arrival, pace: Pace, place: Callable[[Arrival, float], str]) -> jobs_pb2.JobSpec:
        workload, due_t_s = CATALOGUE[arrival.workload], pace.t_s(pace.started_mono_s + arrival.at_s)
        model = [self._scripts[arrival.terminal, workload.model]] if workload.model else []
        return jobs_pb2.JobSpec(
            id=f"load-{self._token}-{'down' if way == BENT_PIPE else 'up'}-{arrival.number}",
            on_node=place(arrival, due_t_s),
            script_object=self._scripts[arrival.terminal, workload.script],
            arguments=workload.arguments(arrival.seed, arrival.size),
            inputs=[*self._scenes.get(arrival.number, []), *(jobs_pb2.JobInput(object=name) for name in model)],
            deadline_emu_ns=round((due_t_s + workload.deadline_s) * 1e9),
        )

    async def _job(
        self, arrival: Arrival, spec: jobs_pb2.JobSpec, policy: str, pace: Pace, runs: list[JobRun], way: str
    ) -> None:
        """One job from its submission to its end, or until patience is over."""
        submitted_mono_s = time.monotonic()
        custodians = {""}
        job, state = jobs_pb2.Job(spec=spec), REFUSED
        try:
            job = (await self._run.submit(arrival.terminal, spec, policy)).job
            state = UNFINISHED
            async with asyncio.timeout(PATIENCE_S):
                async for told in self._updates(job):
                    job = told
                    custodians |= {job.custodian}
            state = state_name(job.state)
        except TimeoutError:
            job = await self._given_up(job)
        except SkyrackError as error:
            job.reason = str(error)
        ended_mono_s = time.monotonic()
        deadline_t_s = spec.deadline_emu_ns / 1e9
        start_t_s, end_t_s = pace.t_s(submitted_mono_s), pace.t_s(ended_mono_s)
        runs.append(
            JobRun(
                arrival=arrival,
                job=spec.id,
                on_node=job.spec.on_node or arrival.terminal,
                submitted_s=submitted_mono_s - pace.started_mono_s,
                ended_s=ended_mono_s - pace.started_mono_s,
                state=state,
                reason=job.reason,
                history=tuple((state_name(step.state), step.at_unix_ns / 1e9) for step in job.history),
                moved_bytes=job.moved_bytes,
                deadline_missed=state != SUCCEEDED or end_t_s > deadline_t_s,
                hand_offs=self._sky.hand_offs(arrival.terminal, start_t_s, end_t_s),
                custody_transfers=len(custodians - {"", job.spec.on_node, arrival.terminal}),
                outputs={output.name: output.object for output in job.outputs},
            )
        )
        self._narrator.progress(f"Jobs, {way}", len(runs), len(self.arrivals))

    async def _updates(self, job: jobs_pb2.Job) -> AsyncIterator[jobs_pb2.Job]:
        """The job now and at every change until it is final, also across a restart of the agent that has it.

        The caller has the deadline.
        """
        yield job
        while job.state not in FINAL_STATES:
            with contextlib.suppress(SkyrackError):  # asked again until it answers, or patience is over
                async for entry in self._run.watch(job.spec.id, job.revision):
                    job = entry.job
                    yield job
            if job.state not in FINAL_STATES:
                await asyncio.sleep(REWATCH_S)

    async def _given_up(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        """Cancel a job that takes too long, so that it is no load on what comes after."""
        try:
            await self._run.cancel(job.spec.id)
        except SkyrackError as error:
            job.reason = f"{job.reason}; and it could not be cancelled: {error}"
        return job

    async def _checked(self, run: JobRun) -> JobRun:
        """The job with what is wrong of its result."""
        if run.state != SUCCEEDED:
            return run
        workload, arrival = CATALOGUE[run.arrival.workload], run.arrival
        outputs = {
            name: await self._run.get(arrival.terminal, found)
            for name, found in run.outputs.items()
            if name in workload.leaves
        }
        return replace(run, wrong=await asyncio.to_thread(workload.verify, arrival.seed, arrival.size, outputs))

    async def _forget(self, runs: Sequence[JobRun]) -> None:
        """Have the ground forget what a pass has brought there: a later one shall not find it in place."""
        brought = {(run.arrival.terminal, name) for run in runs for name in run.outputs.values()}
        brought |= {
            (node, scene.object)
            for run in runs
            if run.on_node in self._gateways
            for scene in self._scenes.get(run.arrival.number, [])
            for node in (run.on_node, run.arrival.terminal)
        }
        brought |= {
            (run.on_node, name) for run in runs if run.on_node in self._gateways for name in run.outputs.values()
        }
        kept, why = 0, ""
        for node, name in sorted(brought):
            try:
                await self._run.delete(node, name)
            except SkyrackError as error:
                kept, why = kept + 1, str(error)
        if kept:
            self._narrator.say(f"{kept} objects stay on the ground, where the next pass finds them: {why}")

    async def _ground_bytes(self) -> int:
        """Bytes that have crossed the links of all nodes on the ground so far."""
        return sum(node.ground_link_bytes for node in (await self._run.status()).nodes)


async def _all(work: Sequence[Coroutine[object, object, None]]) -> None:
    """Do all of it at the same time. The first error ends the rest, and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
