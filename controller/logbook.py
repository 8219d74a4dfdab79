"""What happens in a run, written into its record and told to the user."""

from __future__ import annotations

from controller.agents import FINAL_STATES
from controller.fabric.delay_line import DelayLineShaper
from controller.fabric.plan import Shaper
from controller.jobs.desk import GatewayJob, state_name
from controller.narrator import Narrator
from controller.record.model import EventKind, JobRecord
from controller.record.recorder import Recorder
from controller.runtime.contract import ProgramState
from controller.schedule import Commanded, Schedule
from controller.timeline import LinkKind, Role


class Logbook:
    """Turns steps, jobs and losses of one run into events and words."""

    def __init__(self, recorder: Recorder, narrator: Narrator, schedule: Schedule) -> None:
        self._recorder, self._narrator, self._schedule = recorder, narrator, schedule

    def step_changed(self, before: Commanded | None, state: Commanded, left_s: float | None = None) -> None:
        """Which links came and went, who changed satellites, which faults began and ended, which nodes went down.

        `left_s`: the sky went from that moment to the state's; what ended with it ended then, what began begins now.
        """
        end_s = state.t_s if left_s is None else left_s
        old = set() if before is None else set(before.sky.link[before.usable].tolist())
        new = set(state.sky.link[state.usable].tolist())
        changes: tuple[tuple[EventKind, set[int]], ...] = (("link-up", new - old), ("link-down", old - new))
        for kind, changed in changes:
            for link in sorted(changed):
                a, b, link_kind = self._ends(link)
                moment_s = state.t_s if kind == "link-up" else end_s
                self._recorder.event(kind, moment_s, a=a, b=b, link=link_kind.name.lower())
        if before is not None:
            lost, won = self._served(old - new), self._served(new - old)
            for ground in sorted(lost.keys() & won.keys()):
                self._recorder.event("handover", state.t_s, ground=ground, before=lost[ground], after=won[ground])
                self._narrator.say(f"{ground} hands over from {lost[ground]} to {won[ground]}")
        old_faults = {} if before is None else {(fault.id, fault.at_s): fault for fault in before.faults}
        new_faults = {(fault.id, fault.at_s): fault for fault in state.faults}
        turned = [(old_faults | new_faults)[key] for key in old_faults.keys() ^ new_faults.keys()]
        for fault in sorted(turned, key=lambda fault: (fault.target, fault.id, fault.at_s)):
            begins = (fault.id, fault.at_s) in new_faults
            self._recorder.event(
                "fault-on" if begins else "fault-off",
                state.t_s if begins else end_s,
                target=fault.target,
                fault=fault.kind,
                mode=fault.mode,
            )
            self._narrator.say(f"{fault.words} {'begins' if begins else 'ends'}")
        told = 0 if before is None else len(self._schedule.ended(before.t_s))
        for end in self._schedule.ended(state.t_s)[told:]:
            name = self._schedule.timeline.nodes[end.node].name
            self._recorder.event("node-down", state.t_s, node=name, reason=end.reason)
            self._narrator.say(f"{name} is down: {end.reason}")

    def job_changed(self, entry: GatewayJob, cause: str, t_s: float) -> None:
        """A job's new state or reason; `cause` is what the emulator knows of why it waits."""
        job = entry.job
        reason = f"{job.reason}; {cause}" if cause and job.state not in FINAL_STATES else job.reason
        state, on_node = state_name(job.state), job.spec.on_node or entry.via
        self._recorder.job(JobRecord(entry.via, job.spec.id, on_node, state, reason, job.moved_bytes, t_s, job.spec.id))
        self._narrator.say(f"job {job.spec.id} on {on_node}: {state} ({reason})")

    def node_lost(self, name: str, t_s: float) -> None:
        """A node's process has ended though nobody asked it to."""
        self._recorder.event("node-lost", t_s, node=name, reason="its agent has ended")
        self._narrator.say(f"node {name} is lost: its agent has ended")

    def program_started(self, node: str, program: ProgramState, t_s: float) -> None:
        """A node runs an image of the user's."""
        self._recorder.event("program-started", t_s, node=node, image=program.image, image_id=program.image_id)

    def program_ended(self, node: str, program: ProgramState, t_s: float) -> None:
        """What a node ran of the user's has ended."""
        self._recorder.event(
            "program-ended",
            t_s,
            node=node,
            image=program.image,
            exit_status=program.exit_status,
            reason=program.reason,
            last_words=program.last_words,
        )
        why = f" ({program.reason})" if program.reason else ""
        self._narrator.say(f"the program of {node} has ended with exit status {program.exit_status}{why}")

    def runtime_away(self, reason: str, t_s: float) -> None:
        """What the nodes live in does not answer."""
        self._recorder.event("runtime-away", t_s, reason=reason)
        self._narrator.say(f"the nodes cannot be looked at: {reason}")

    def runtime_back(self, t_s: float) -> None:
        """It answers again."""
        self._recorder.event("runtime-back", t_s)
        self._narrator.say("the nodes can be looked at again")

    def frames_dropped(self, shaper: Shaper, t_s: float) -> None:
        """What the shaper dropped in the whole run, if it is one that counts."""
        if isinstance(shaper, DelayLineShaper):
            drops = shaper.drops()
            self._recorder.event(
                "frames-dropped",
                t_s,
                lost=int(drops.lost.sum()),
                queue=int(drops.queue.sum()),
                overrun=drops.overrun,
                refused=drops.refused,
            )

    def _ends(self, link: int) -> tuple[str, str, LinkKind]:
        """The names at both ends of a link, and its kind."""
        links, nodes = self._schedule.timeline.links, self._schedule.timeline.nodes
        return nodes[int(links.a[link])].name, nodes[int(links.b[link])].name, LinkKind(int(links.kind[link]))

    def _served(self, links: set[int]) -> dict[str, str]:
        """Ground node → satellite, for those of the links that are GSLs."""
        satellites = {node.name for node in self._schedule.timeline.nodes if node.role is Role.SATELLITE}
        served = {}
        for link in links:
            a, b, kind = self._ends(link)
            if kind is LinkKind.GSL:
                served[b if a in satellites else a] = a if a in satellites else b
        return served
