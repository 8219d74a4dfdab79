"""What each step commands: geometry, with the faults over it, as ports patched and routes chosen. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.fabric.plan import ShapingPlan, shaping_plan
from controller.faults import FaultSchedule
from controller.links.routes import NONE, next_ports, path_costs, ports
from controller.timeline import BoolArray, IntArray, LinkKind, Role, Sky, Timeline

NO_ROUTE = NONE


@dataclass(frozen=True)
class RoundTrips:
    """What round trips are commanded to be. Shapes: both (n_pair,); NONE where there is no whole path."""

    rtt_us: IntArray
    hops: IntArray  # one way, there


@dataclass(frozen=True)
class Commanded:
    """One step as the fabric shall be.

    Shapes: usable (n_up,), the rows of `sky` that no fault masks; next_port (n_node, n_node), [node, destination] → the
    node's port to send out of, or NO_ROUTE.
    """

    step: int
    t_s: float
    sky: Sky
    usable: BoolArray
    shaping: ShapingPlan
    next_port: IntArray


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, each computed when it is asked for. Shapes: port_start (n_node + 1,)."""

    timeline: Timeline
    faults: FaultSchedule
    port_start: IntArray
    is_ground: BoolArray

    @classmethod
    def of(cls, timeline: Timeline, faults: FaultSchedule) -> Schedule:
        """The schedule of a timeline under its scenario's faults."""
        counts = [len(node.ports) for node in timeline.nodes]
        is_ground = np.array([node.role is not Role.SATELLITE for node in timeline.nodes])
        return cls(timeline, faults, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), is_ground)

    @property
    def n_step(self) -> int:
        """How many steps there are."""
        return len(self.timeline.t_s)

    def at(self, step: int) -> Commanded:
        """The commanded state of one step.

        Routes avoid what is in blackout. A destination that the blackout leaves without any path keeps the route that
        the geometry alone would give: a silent blackout is a hole in the network that nobody told the nodes about, so
        packets go out and vanish. Where the geometry has no path there is no route, and the node knows at once.
        """
        timeline, n_node = self.timeline, len(self.timeline.nodes)
        sky, t_s = timeline.sky(step), float(timeline.t_s[step])
        usable = self.faults.usable(t_s, timeline, sky)
        next_port = next_ports(n_node, timeline.links, sky, usable, self.is_ground)
        if not usable.all():
            of_geometry = next_ports(n_node, timeline.links, sky, np.ones_like(usable), self.is_ground)
            next_port = np.where(next_port == NO_ROUTE, of_geometry, next_port)
        shaping = shaping_plan(self.port_start, timeline.links, sky, usable)
        return Commanded(step, t_s, sky, usable, shaping, next_port)

    def round_trips(self, state: Commanded, a: IntArray, b: IntArray) -> RoundTrips:
        """Commanded round trips between pairs of nodes. Shapes: a and b (n_pair,), node indices."""
        panel = ports(len(self.timeline.nodes), self.timeline.links, state.sky, state.usable)
        there, back = path_costs(state.next_port, panel, a, b), path_costs(state.next_port, panel, b, a)
        whole = (there.hops != NONE) & (back.hops != NONE)
        return RoundTrips(np.where(whole, there.delay_us + back.delay_us, NONE), np.where(whole, there.hops, NONE))


def default_probe_pairs(timeline: Timeline) -> list[tuple[str, str]]:
    """What a run probes when the scenario names no pairs: every two gateways, each terminal to every gateway, and up to
    four pairs of satellites that are neighbours for the whole run."""
    names = [node.name for node in timeline.nodes]
    of_role = {role: [node.name for node in timeline.nodes if node.role is role] for role in Role}
    gateways = of_role[Role.GATEWAY]
    pairs = [(a, b) for i, a in enumerate(gateways) for b in gateways[i + 1 :]]
    pairs += [(terminal, gateway) for terminal in of_role[Role.TERMINAL] for gateway in gateways]
    steps_up = np.bincount(timeline.link, minlength=len(timeline.links.a))
    always = np.nonzero((steps_up == len(timeline.t_s)) & (timeline.links.kind == LinkKind.ISL))[0]
    few = always[np.linspace(0, len(always) - 1, min(4, len(always))).astype(np.int64)]
    pairs += [(names[timeline.links.a[link]], names[timeline.links.b[link]]) for link in few]
    return pairs
