"""The run: timeline → faults → plan → shape → read back → record, one step after another, in real time.

`Emulation` brings the nodes to life, joins them through the panel, and then applies each step at its deadline.
Deadlines are computed from the start and never accumulated, at the scenario's time scale; a step that ends after the
next one is due is an overrun, counted and recorded. Everything that it starts it also ends, in `close`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from enum import StrEnum

from controller.agents import AgentClient
from controller.errors import SkyrackError
from controller.fabric.choose import ShaperChoice, open_shaper
from controller.fabric.panel import NodePorts, Panel
from controller.fabric.plan import Shaper
from controller.fabric.routes import HostRoutes
from controller.jobs.desk import GatewayJob, JobDesk
from controller.logbook import Logbook
from controller.narrator import Narrator
from controller.probing import Probing
from controller.record.model import StepRecord
from controller.record.recorder import Recorder
from controller.runs import RunPlace
from controller.runtime.contract import NodeHandle, NodeSpec, Runtime
from controller.scenario import Scenario
from controller.schedule import Change, Commanded, Pace, Schedule
from controller.timeline import Role, Timeline

AGENT_READY_S = 90.0
READ_BACK_EVERY_STEPS = 10
NODE_WATCH_S = 5.0


class Phase(StrEnum):
    """Where a run stands."""

    STARTING = "starting"
    RUNNING = "running"
    HOLDING = "holding"  # the timeline has ended; its last state stays until the run is stopped
    ENDING = "ending"


def node_address(index: int) -> str:
    """The IPv4 address of a node in the emulated network, 10.64.0.1 onwards: room for four million nodes."""
    host = index + 1
    return f"10.{64 + (host >> 16)}.{host >> 8 & 255}.{host & 255}"


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
    ) -> None:
        self.scenario, self.schedule, self.place, self.runtime = scenario, schedule, place, runtime
        self.shaper_choice, self._recorder, self._narrator = shaper_choice, recorder, narrator
        self._logbook = Logbook(recorder, narrator, schedule)
        self.phase = Phase.STARTING
        self.overruns = 0
        self.handles: list[NodeHandle] = []
        self.agents: dict[str, AgentClient] = {}
        self.probing: Probing | None = None
        self.index_of = schedule.index_of
        self._panel: Panel | None = None
        self._shaper: Shaper | None = None
        self._routes: HostRoutes | None = None
        self._desk: JobDesk | None = None
        self._clean_up = AsyncExitStack()  # what `start` started, ended in reverse by `close`
        self._pace: Pace | None = None  # from when the run has begun
        self._state = schedule.at(0)
        self._stop = asyncio.Event()

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
        return self._state.t_s if self._pace is None else self._pace.t_s(time.monotonic())

    @property
    def desk(self) -> JobDesk:
        """The desk for jobs. Raises SkyrackError before the nodes are up."""
        if self._desk is None:
            raise SkyrackError("the run is still starting: its gateways take jobs once all nodes answer")
        return self._desk

    def request_stop(self) -> None:
        """Let `run` return soon."""
        self._stop.set()

    async def until(self, t_s: float) -> None:
        """Wait for a moment of the sky's time. Returns early when the run is stopped."""
        remaining_s = (t_s - self.t_s) / self.scenario.time_scale
        if remaining_s > 0:
            try:
                await asyncio.wait_for(self._stop.wait(), remaining_s)
            except TimeoutError:
                return

    def blackout_of(self, node: str) -> str:
        """Why nothing reaches a node now, a blackout or the node's end, in words; empty if neither holds."""
        for end in self.schedule.ended(self.t_s):
            if self.timeline.nodes[end.node].name == node:
                return f"{node} is down since t = {end.at_s:.0f} s: {end.reason}"
        for fault in self.schedule.faults.active(self.t_s):
            if fault.target == node and fault.kind != "degrade":
                how = "down" if fault.kind == "node-down" else f"in blackout ({fault.mode})"
                return f"{node} is {how} until t = {fault.until_s:.0f} s"
        return ""

    def cause_of_wait(self, entry: GatewayJob) -> str:
        """What the emulator knows of why a job does not move on; empty if it knows nothing."""
        nodes = (entry.via, entry.job.spec.on_node, *(item.at_node for item in entry.job.spec.inputs))
        return next((blackout for node in nodes if node and (blackout := self.blackout_of(node))), "")

    def ground_bytes(self, node: str) -> int:
        """Bytes that have crossed a ground node's links so far, both ways, headers included."""
        if self._panel is None:
            return 0
        index = self.index_of[node]
        ports = slice(int(self.schedule.port_start[index]), int(self.schedule.port_start[index + 1]))
        from_node_bytes, to_node_bytes = self._panel.counters()
        return int(from_node_bytes[ports].sum() + to_node_bytes[ports].sum())

    # --- life ---

    async def start(self) -> None:
        """Bring every node to life, join them as step 0 commands, and wait until every agent answers."""
        nodes, run_id = self.timeline.nodes, self.place.run_id
        specs = [self._spec(index) for index in range(len(nodes))]
        self.place.write_hosts({spec.name: spec.address for spec in specs})
        self._clean_up.push_async_callback(asyncio.to_thread, self.runtime.remove, run_id)
        self.handles = await asyncio.to_thread(
            self.runtime.start, specs, lambda done: self._narrator.progress("Starting nodes", done, len(specs))
        )
        panel = self._panel = Panel.create(run_id)
        self._clean_up.callback(panel.close)
        ports = [
            NodePorts(handle.network_namespace, handle.spec.address, node.ports, node.name)
            for handle, node in zip(self.handles, nodes, strict=True)
        ]
        await asyncio.to_thread(panel.connect, ports)
        self._narrator.progress("Joining ports", panel.n_port, panel.n_port)
        self._shaper = open_shaper(self.shaper_choice, panel, self.scenario.seed)
        self._clean_up.callback(self._shaper.close)
        self._routes = HostRoutes(panel)
        self._clean_up.callback(self._routes.close)
        self._apply(self.schedule.change(None, self._state))
        await self._meet_agents()
        gateways = {node.name: self.agents[node.name] for node in nodes if node.role is Role.GATEWAY}
        self._desk = JobDesk(gateways, self._on_job)
        self._clean_up.push_async_callback(self._desk.close)
        handles = {handle.spec.name: handle for handle in self.handles}
        self.probing = Probing(self.schedule, handles, self._recorder)
        self._clean_up.push_async_callback(asyncio.to_thread, self.probing.stop)

    async def run(self, hold: bool) -> None:
        """Apply every step at its time, until the timeline ends or a stop is asked for; with `hold`, until the stop."""
        if self.probing is None:
            raise SkyrackError("run() comes after start()")
        start_s = self._state.t_s
        pace = self._pace = Pace(start_s, self.scenario.time_scale, time.monotonic())
        self.phase = Phase.RUNNING
        self._recorder.event("run-started", start_s, nodes=len(self.handles), ports=int(self.schedule.port_start[-1]))
        self._logbook.step_changed(None, self._state)
        self.probing.start(pace, self._state)
        watch = asyncio.create_task(self._watch_nodes(), name="watch nodes")
        try:
            await self._run_steps(pace, hold)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        self.phase = Phase.ENDING
        self._recorder.event(
            "run-ended", self.t_s, reason="stopped" if self._stop.is_set() else "the timeline has ended"
        )

    async def _run_steps(self, pace: Pace, hold: bool) -> None:
        """Every step at its time."""
        for step in range(1, self.schedule.n_step):
            await self.until(float(self.timeline.t_s[step]))
            if self._stop.is_set():
                break
            self._step(step, pace)
        else:
            if hold:
                self.phase = Phase.HOLDING
                await self._stop.wait()

    async def _watch_nodes(self) -> None:
        """Tell of nodes whose process has ended, once each: the sky goes on without them."""
        lost: set[str] = set()
        while True:
            await asyncio.sleep(NODE_WATCH_S)
            alive = await asyncio.to_thread(self.runtime.alive, self.place.run_id)
            for name in sorted(self.index_of.keys() - alive - lost):
                lost.add(name)
                self._logbook.node_lost(name, self.t_s)

    async def close(self) -> None:
        """End everything that `start` started, in reverse, however far it came. Idempotent."""
        self.phase = Phase.ENDING
        await self._clean_up.aclose()

    # --- the step ---

    def _step(self, step: int, pace: Pace) -> None:
        """Make the fabric as one step commands, read it back, and write down how that went."""
        began_mono_s, began_cpu_s = time.monotonic(), time.thread_time()
        before, state = self._state, self.schedule.at(step)
        change = self._command(state)
        drift = self._repair_drift() if step % READ_BACK_EVERY_STEPS == 0 else 0
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
        self._apply(change)
        self._state = state
        if self.probing is not None:
            self.probing.command(state)
        return change

    def _apply(self, change: Change) -> None:
        """New and changed links first, then routes, wave after wave, then what goes dark."""
        if self._panel is None or self._shaper is None or self._routes is None:
            raise SkyrackError("the fabric is not up")
        self._panel.set_carriers(change.plugged_in, on=True)
        self._shaper.apply(change.made)
        for wave in change.routes:
            self._routes.apply(wave)
        self._shaper.apply(change.broken)
        self._panel.set_carriers(change.unplugged, on=False)

    def route_to(self, names: Iterable[str]) -> None:
        """Have routes to these nodes too, at once and from now on. Before: the fabric is up."""
        if self.schedule.add_destinations(names):
            self._command(self.schedule.at(self._state.step))

    def _repair_drift(self) -> int:
        """Compare the kernel's state with what is commanded, command again what differs, and say how much did."""
        if self._shaper is None:
            return 0
        drifted = self._state.shaping.changed_from(self._shaper.read_back())
        self._shaper.apply(drifted)
        return len(drifted)

    def _on_job(self, entry: GatewayJob) -> None:
        spec = entry.job.spec
        self.route_to([spec.on_node, *(item.at_node for item in spec.inputs)])
        self._logbook.job_changed(entry, self.cause_of_wait(entry), self.t_s)

    # --- parts of start ---

    def _spec(self, index: int) -> NodeSpec:
        """What the runtime needs to know of a node."""
        node, resources = self.timeline.nodes[index], self.scenario.resources
        return NodeSpec(
            run_id=self.place.run_id,
            index=index,
            name=node.name,
            role=node.role,
            address=node_address(index),
            control_dir=self.place.control_dir(index),
            store_dir=self.place.store_dir(index),
            hosts_file=self.place.hosts_file,
            memory_bytes=resources.memory_bytes,
            cpu_limit=resources.cpu_limit,
            pids_limit=resources.pids_limit,
        )

    async def _meet_agents(self) -> None:
        """Wait until every agent answers on its control plane."""
        counter = itertools.count(1)

        async def meet(handle: NodeHandle) -> None:
            agent = AgentClient(handle.spec.control_dir / "control.sock", handle.spec.name)
            self.agents[handle.spec.name] = await self._clean_up.enter_async_context(agent)
            await agent.wait_ready(AGENT_READY_S, data_plane=True)
            self._narrator.progress("Agents answering", next(counter), len(self.handles))

        await asyncio.gather(*(meet(handle) for handle in self.handles))
