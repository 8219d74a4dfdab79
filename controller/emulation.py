"""The run: timeline → faults → plan → shape → read back → record, one step after another, in real time.

`Emulation` brings the nodes to life, joins them through the panel, and then applies each step at its deadline.
Deadlines are computed from the start and never accumulated, at the scenario's time scale; a step that ends after the
next one is due is an overrun, counted and recorded. The sky's clock may be turned meanwhile: paused, and sought to
another moment, from which deadlines are computed anew. Everything that it starts it also ends, in `close`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from functools import partial

from controller.agents import AgentClient
from controller.authority import Subject
from controller.certificates import Certificates
from controller.errors import InputError, SkyrackError
from controller.fabric.choose import ShaperChoice, open_shaper
from controller.fabric.panel import NodePorts, Panel
from controller.fabric.plan import ShapingPlan
from controller.fabric.routes import HostRoutes
from controller.jobs.desk import GatewayJob, JobDesk
from controller.jobs.forecast import Forecast
from controller.jobs.office import Office
from controller.logbook import Logbook
from controller.narrator import Narrator
from controller.node_specs import node_specs
from controller.outlook import Outlook
from controller.probing import Probing
from controller.record.model import EventKind, StepRecord
from controller.record.recorder import Recorder
from controller.run_fabric import RunFabric
from controller.runs import RunPlace
from controller.runtime.contract import CONTROL_SOCKET, NodeHandle, NodeSpec, ProgramState, Runtime
from controller.scenario import Scenario
from controller.schedule import Change, Commanded, Schedule
from controller.sky_clock import SkyClock
from controller.sky_feed import SkyFeed, bound_pairs
from controller.timeline import Timeline
from controller.watch import NodeWatch, first_of, watch_fabric

AGENT_READY_S = 90.0
READ_BACK_EVERY_STEPS = 10


class Phase(StrEnum):
    """Where a run stands."""

    STARTING = "starting"
    RUNNING = "running"
    HOLDING = "holding"  # the timeline has ended; its last state stays until the run is stopped
    ENDING = "ending"


class Emulation:
    """One run from its start to its end. All methods are called from one asyncio event loop."""

    def __init__(
        self,
        scenario: Scenario,
        schedule: Schedule,
        place: RunPlace,
        runtime: Runtime,
        shaper_choice: ShaperChoice,
        recorder: Recorder,
        narrator: Narrator,
        first_step: int = 0,
    ) -> None:
        self.scenario, self.schedule, self.place, self.runtime = scenario, schedule, place, runtime
        self.shaper_choice, self._recorder, self._narrator = shaper_choice, recorder, narrator
        self._logbook = Logbook(recorder, narrator, schedule)
        self._nodes = NodeWatch(runtime, place.run_id, schedule.index_of, self._logbook)
        self.phase = Phase.STARTING
        self.overruns = 0
        self.handles: list[NodeHandle] = []
        self.agents: dict[str, AgentClient] = {}
        self.certificates = Certificates(place)
        self.probing: Probing | None = None
        self.index_of = schedule.index_of
        self._fabric: RunFabric | None = None
        self._office: Office | None = None
        self._feed: SkyFeed | None = None
        self._clean_up = AsyncExitStack()  # what `start` started, ended in reverse by `close`
        self._state = schedule.at(first_step)
        self._clock = SkyClock(self._state.t_s, scenario.time_scale)

    # --- what others may see ---

    @property
    def timeline(self) -> Timeline:
        """The sky of the run."""
        return self.schedule.timeline

    @property
    def state(self) -> Commanded:
        """What the newest step commanded."""
        return self._state

    @property
    def t_s(self) -> float:
        """The sky's time: seconds since the scenario's epoch, those of the first step until the run begins."""
        return self._clock.t_s

    @property
    def paused(self) -> bool:
        """Whether the sky's clock stands."""
        return self._clock.paused

    @property
    def office(self) -> Office:
        """The desks for jobs and objects. Raises SkyrackError before the nodes are up."""
        if self._office is None:
            raise SkyrackError("the run is still starting: its gateways take jobs once all nodes answer")
        return self._office

    @property
    def desk(self) -> JobDesk:
        """The desk for jobs. Raises as `office`."""
        return self.office.desk

    @property
    def programs(self) -> Mapping[str, ProgramState]:
        """What nodes run of the user's, by node, as it was last seen."""
        return self._nodes.programs

    def request_stop(self) -> None:
        """Let `run` return soon."""
        self._clock.end()

    async def until(self, t_s: float) -> None:
        """Wait for a moment of the sky's time, however its clock is turned. Returns early when the run is stopped."""
        await self._clock.until(t_s)

    def down_of(self, node: str) -> str:
        """Since when a node is lost or has left the sky, and why, or until when a fault has put it down; else empty."""
        if node in self._nodes.lost:
            return f"{node} is lost since t = {self._nodes.lost[node]:.0f} s: its agent has ended"
        for end in self.schedule.ended(self.t_s):
            if self.timeline.nodes[end.node].name == node:
                return f"{node} is down since t = {end.at_s:.0f} s: {end.reason}"
        fault = self.schedule.faults.taking(node, self.t_s, self._state.sky)
        return f"{node} is down {fault.until_words}" if fault is not None and fault.kind == "node-down" else ""

    def blackout_of(self, node: str) -> str:
        """Which blackout keeps everything from a node now, in words; empty if none does."""
        fault = self.schedule.faults.taking(node, self.t_s, self._state.sky)
        if fault is None or fault.kind == "node-down":
            return ""
        return f"{node} is in blackout ({fault.mode}) {fault.until_words}"

    def cause_of_wait(self, entry: GatewayJob) -> str:
        """What the emulator knows of why a job does not move on; empty if it knows nothing."""
        nodes = (entry.via, entry.job.spec.on_node, *(item.at_node for item in entry.job.spec.inputs))
        causes = (self.down_of(node) or self.blackout_of(node) for node in nodes if node)
        return next((cause for cause in causes if cause), "")

    def ground_bytes(self, node: str) -> int:
        """Bytes that have crossed a ground node's links so far, both ways, headers included."""
        if self._fabric is None:
            return 0
        index = self.index_of[node]
        ports = slice(int(self.schedule.port_start[index]), int(self.schedule.port_start[index + 1]))
        return self._fabric.crossed_bytes(ports)

    # --- life ---

    async def start(self) -> None:
        """Bring every node to life, join them as step 0 commands, and wait until every agent answers."""
        nodes, run_id = self.timeline.nodes, self.place.run_id
        specs = node_specs(self.scenario, self.timeline, self.place)
        self.place.write_hosts({spec.name: spec.address for spec in specs})
        self._clean_up.push_async_callback(asyncio.to_thread, self.runtime.remove, run_id)
        self.handles = await asyncio.to_thread(
            self.runtime.start, specs, lambda done: self._narrator.progress("Starting nodes", done, len(specs))
        )
        panel = Panel.create(run_id)
        self._clean_up.callback(panel.close)
        ports = [
            NodePorts(handle.network_namespace, handle.spec.address, node.ports, node.name)
            for handle, node in zip(self.handles, nodes, strict=True)
        ]
        await asyncio.to_thread(panel.connect, ports)
        self._narrator.progress("Joining ports", panel.n_port, panel.n_port)
        shaper = open_shaper(self.shaper_choice, panel, self.scenario.seed)
        self._clean_up.callback(shaper.close)
        self._fabric = RunFabric(panel, shaper, HostRoutes(panel))
        self._fabric.apply(self.schedule.change(None, self._state))
        await self._meet_agents()
        self.agents = {node.name: self.agents[node.name] for node in nodes}  # in order, and not as they were met
        forecast = Forecast(self.schedule, lambda: self._state, self.scenario.time_scale)
        self._feed = SkyFeed(self.agents, forecast, Outlook.of_run(self.timeline, self.scenario))
        self._office = await Office.open(self, self.place.journal_file, self._on_job)
        self._clean_up.push_async_callback(self._office.close)
        await self._start_programs(specs)
        handles = {handle.spec.name: handle for handle in self.handles}
        self.probing = Probing(self.schedule, handles, self._recorder)
        self._clean_up.push_async_callback(asyncio.to_thread, self.probing.stop)

    async def run(self, hold: bool) -> None:
        """Apply every step at its time, until the timeline ends or a stop is asked for; with `hold`, until the stop."""
        if self.probing is None or self._fabric is None or self._feed is None:
            raise SkyrackError("run() comes after start()")
        start_s = self._state.t_s
        pace = self._clock.turn(start_s, paused=False)
        self._feed.turn(pace)
        self.phase = Phase.RUNNING
        self._recorder.event("run-started", start_s, nodes=len(self.handles), ports=int(self.schedule.port_start[-1]))
        self._logbook.step_changed(None, self._state)
        self.probing.start(pace, self._state)
        await first_of(
            self._run_steps(hold),
            self._nodes.watch(lambda: self.t_s),
            self._feed.run(lambda: self.t_s),
            watch_fabric(self._fabric.panel, self.probing, self._look_at_shaper),
            self.certificates.keep(),
        )
        self.phase = Phase.ENDING
        self._logbook.frames_dropped(self._fabric.shaper, self.t_s)
        self._recorder.event("run-ended", self.t_s, reason="stopped" if self._clock.ended else "the timeline has ended")

    async def _run_steps(self, hold: bool) -> None:
        """Every step at its time, as the clock has it."""
        while not self._clock.ended:
            step = self._state.step + 1
            if step < self.schedule.n_step:
                self.phase = Phase.RUNNING
                if await self._clock.due(float(self.timeline.t_s[step])):
                    self._step(step)
            elif hold or self.paused:
                self.phase = Phase.HOLDING
                await self._clock.turned()
            else:
                return

    async def close(self) -> None:
        """End everything that `start` started, in reverse, however far it came. Idempotent."""
        self.phase = Phase.ENDING
        await self._clean_up.aclose()

    # --- the sky's clock ---

    def pause(self) -> None:
        """Let the sky stand: links stay as they are. Idempotent. Raises SkyrackError unless the run is up."""
        self._turn_to(paused=True)

    def resume(self) -> None:
        """Let the sky go on from where it stands. Idempotent. Raises SkyrackError unless the run is up."""
        self._turn_to(paused=False)

    def step_on(self, steps: int) -> None:
        """Go some steps on, to the last one at most, as one change. Raises InputError unless the sky is paused."""
        self.require_up()
        if not self.paused:
            raise InputError("the sky is not paused: `skyrack pause` first, or go to a moment with `skyrack seek`")
        if steps < 1:
            raise InputError(f"{steps} steps: must be 1 or more; `skyrack seek` goes back")
        self._go_to(float(self.timeline.t_s[min(self._state.step + steps, self.schedule.n_step - 1)]))

    def seek(self, t_s: float) -> None:
        """Go to a moment of the sky, forth or back, as one change. Raises InputError for one that it does not have."""
        self.require_up()
        first_s, last_s = float(self.timeline.t_s[0]), float(self.timeline.t_s[-1])
        if not first_s <= t_s <= last_s:
            raise InputError(f"t = {t_s:g} s: this sky has t = {first_s:g} s to {last_s:g} s")
        self._go_to(t_s)

    def overlay_changed(self, kind: EventKind, **what: object) -> None:
        """Write down what changed of faults and set links, and have it in force now, not at the next step."""
        before, t_s = self._state, self.t_s
        self._recorder.event(kind, t_s, **what)
        self._command(self.schedule.at(before.step, t_s))
        self._logbook.step_changed(before, self._state)

    def require_up(self) -> None:
        """Raise SkyrackError unless the run is up."""
        if self.phase not in (Phase.RUNNING, Phase.HOLDING):
            raise SkyrackError(f"the run is {self.phase}: this needs one that is up")

    def _go_to(self, t_s: float) -> None:
        left_s, before = self.t_s, self._state
        step = self.schedule.step_at(t_s)
        change = self._command(self.schedule.at(step, t_s))
        self._turn(t_s, paused=self.paused)
        self._recorder.event(
            "sky-sought", t_s, left_s=round(left_s, 6), step=step, directions_changed=change.n_direction
        )
        self._logbook.step_changed(before, self._state, left_s)

    def _turn_to(self, *, paused: bool) -> None:
        self.require_up()
        if self.paused != paused:
            self._turn(self.t_s, paused=paused)
            self._recorder.event("sky-paused" if paused else "sky-resumed", self.t_s)

    def _turn(self, t_s: float, *, paused: bool) -> None:
        pace = self._clock.turn(t_s, paused=paused)
        if self.probing is not None and self._feed is not None:
            self.probing.turn(pace)
            self._feed.turn(pace)

    # --- the step ---

    def _step(self, step: int) -> None:
        """Make the fabric as one step commands, read it back, and write down how that went."""
        pace = self._clock.pace
        began_mono_s, began_cpu_s = time.monotonic(), time.thread_time()
        before, state = self._state, self.schedule.at(step)
        change = self._command(state)
        drift = self._joined().repair_drift(state.shaping) if step % READ_BACK_EVERY_STEPS == 0 else 0
        self._logbook.step_changed(before, state)
        ended_mono_s = time.monotonic()
        self.overruns += ended_mono_s > pace.mono_s(state.t_s + self.timeline.step_s)
        self._recorder.step(
            StepRecord(
                step=step,
                t_s=state.t_s,
                late_ms=(began_mono_s - pace.mono_s(state.t_s)) * 1e3,
                took_ms=(ended_mono_s - began_mono_s) * 1e3,
                cpu_ms=(time.thread_time() - began_cpu_s) * 1e3,
                links_up=int(state.usable.sum()),
                directions_changed=change.n_direction,
                routes_changed=change.n_route,
                drift=drift,
            )
        )

    def _command(self, state: Commanded) -> Change:
        """Make the fabric so; how it changed."""
        change = self.schedule.change(self._state, state)
        self._joined().apply(change)
        self._state = state
        if self.probing is not None:
            self.probing.command(state)
        return change

    def route_to(self, names: Iterable[str]) -> None:
        """Have routes to these nodes too, at once and from now on. Before: the fabric is up."""
        if self.schedule.add_destinations(names):
            self._command(self.schedule.at(self._state.step, self._state.t_s))

    def _look_at_shaper(self) -> None:
        """While the sky stands, no step reads back what is in force: this does."""
        stands = self.paused or self.phase is Phase.HOLDING
        drift = self._joined().repair_drift(self._state.shaping) if stands else 0
        if drift:
            self._recorder.event("drift-repaired", self.t_s, directions=drift)

    def read_back(self) -> ShapingPlan:
        """Every port's direction as it is in force. Raises SkyrackError before the fabric is up."""
        return self._joined().shaper.read_back()

    def _joined(self) -> RunFabric:
        if self._fabric is None:
            raise SkyrackError("the fabric is not up")
        return self._fabric

    def _on_job(self, entry: GatewayJob) -> None:
        pairs = bound_pairs(entry)
        self.route_to(name for pair in pairs for name in pair)
        if self._feed is not None:
            self._feed.bind(entry.job.spec.id, pairs)
        self._logbook.job_changed(entry, self.cause_of_wait(entry), self.t_s)

    # --- parts of start ---

    async def _start_programs(self, specs: Sequence[NodeSpec]) -> None:
        """Start what nodes run of the user's, if any does, with routes to them."""
        hosts = [spec for spec in specs if spec.program is not None]
        if hosts:
            self.route_to(spec.name for spec in hosts)
            told = partial(self._narrator.progress, "Starting programs", total=len(hosts))
            await asyncio.to_thread(self.runtime.start_programs, hosts, told)
            await self._nodes.look_at_programs(self.t_s)

    async def _meet_agents(self) -> None:
        """Give every agent its certificate, and wait until others can reach it."""
        counter = itertools.count(1)

        async def meet(handle: NodeHandle) -> None:
            agent = AgentClient(handle.spec.control_dir / CONTROL_SOCKET, handle.spec.name)
            self.agents[handle.spec.name] = await self._clean_up.enter_async_context(agent)
            await self.certificates.meet(agent, Subject.of(handle.spec), AGENT_READY_S)
            self._narrator.progress("Agents answering", next(counter), len(self.handles))

        await asyncio.gather(*(meet(handle) for handle in self.handles))
