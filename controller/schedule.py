"""What each step commands: geometry, with the faults over it, as ports patched and routes chosen. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from controller.fabric.plan import DARK, ShapingPlan, shaping_plan
from controller.faults import ActiveFault, FaultSchedule
from controller.links.routes import NONE, RouteChanges, Router, next_ports, path_costs, ports, route_changes
from controller.timeline import BoolArray, IntArray, LinkKind, NodeEnd, Role, Sky, Timeline

NO_ROUTE = NONE

INSTANT_S = 1e-6
"""Instants closer than this are one: a step's is a product of floats."""

ALL_TO_ALL_NODES = 200
"""Up to so many nodes there are routes between every two; beyond it towards those that somebody talks to."""

_CONTACT_INSTANT_S = 0.01
"""Contacts are known to 10 ms."""


@dataclass(frozen=True)
class Pace:
    """How the sky's time goes by on the wall clock. Only the sky is scaled: packets obey real time."""

    start_s: float  # the sky's time, since the epoch, at which the run begins
    time_scale: float  # seconds of the sky a second of the wall clock
    started_mono_s: float  # when it began, on the wall clock

    def t_s(self, mono_s: float) -> float:
        """The sky's time at a moment of the wall clock."""
        return self.start_s + (mono_s - self.started_mono_s) * self.time_scale

    def mono_s(self, t_s: float) -> float:
        """The moment of the wall clock at which the sky's time is t_s."""
        return self.started_mono_s + (t_s - self.start_s) / self.time_scale


@dataclass(frozen=True)
class RoundTrips:
    """What round trips are commanded to be. Shapes: both (n_pair,); NONE where there is no whole path."""

    rtt_us: IntArray
    hops: IntArray  # one way, there


@dataclass(frozen=True)
class Commanded:
    """One step as the fabric shall be.

    Shapes: usable (n_up,), the rows of `sky` that no fault masks; destinations (n_destination,), the nodes that routes
    lead to; next_port (n_node, n_destination), [node, column] → the node's port to send out of, or NO_ROUTE; unplugged
    (n_unplugged,), the panel's ports that have no carrier, rising. `sky` is as faults degrade it. `t_s` is the step's
    instant, or the moment within it for which faults were asked.
    """

    step: int
    t_s: float
    sky: Sky
    usable: BoolArray
    shaping: ShapingPlan
    destinations: IntArray
    next_port: IntArray
    unplugged: IntArray
    faults: tuple[ActiveFault, ...]  # in force


@dataclass(frozen=True)
class Change:
    """How one step becomes the next, in the order in which that is done: made before the old is broken."""

    plugged_in: IntArray  # the panel's ports whose carrier comes back
    made: ShapingPlan  # directions that come or change, each with its complete state
    routes: tuple[RouteChanges, ...]  # wave after wave, from the destinations outwards
    broken: ShapingPlan  # directions that go dark
    unplugged: IntArray  # the panel's ports whose carrier goes

    @property
    def n_direction(self) -> int:
        """How many directions change."""
        return len(self.made) + len(self.broken)

    @property
    def n_route(self) -> int:
        """How many routes change."""
        return sum(len(wave) for wave in self.routes)


class Schedule:
    """The steps of a run, each computed when it is asked for; steps asked for in their order are the cheapest.

    What a step commands depends on the step and on the destinations, and on nothing that was asked before.
    Shapes: port_start (n_node + 1,); destinations (n_destination,), node indices, later ones at the end.
    """

    def __init__(self, timeline: Timeline, faults: FaultSchedule, probe_pairs: Sequence[tuple[str, str]]) -> None:
        self.timeline, self.faults, self.probe_pairs = timeline, faults, tuple(probe_pairs)
        self.index_of = {node.name: index for index, node in enumerate(timeline.nodes)}
        self.is_ground: BoolArray = np.array([node.role is not Role.SATELLITE for node in timeline.nodes])
        counts = [len(node.ports) for node in timeline.nodes]
        self.port_start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if len(timeline.nodes) <= ALL_TO_ALL_NODES:
            self._route_to(np.arange(len(timeline.nodes)))
        else:
            ends = {self.index_of[name] for pair in self.probe_pairs for name in pair}
            self._route_to(np.array(sorted(ends | set(np.flatnonzero(self.is_ground).tolist())), np.int64))

    @classmethod
    def of(cls, timeline: Timeline, faults: FaultSchedule, probe_pairs: Sequence[tuple[str, str]] = ()) -> Self:
        """The schedule of a timeline under its scenario's faults; without pairs, with the default ones."""
        return cls(timeline, faults, probe_pairs or default_probe_pairs(timeline))

    @property
    def n_step(self) -> int:
        """How many steps there are."""
        return self.timeline.n_step

    def step_at(self, t_s: float) -> int:
        """The step that holds at a moment of the run's sky; the last one after its end."""
        return max(int(np.searchsorted(self.timeline.t_s, t_s + INSTANT_S, side="right")) - 1, 0)

    def add_destinations(self, names: Iterable[str]) -> bool:
        """Have routes to these nodes too from now on. Whether any of them is new; unknown names are passed over."""
        known = set(self.destinations.tolist())
        new = sorted({self.index_of[name] for name in names if name in self.index_of} - known)
        if new:
            self._route_to(np.concatenate([self.destinations, np.array(new, np.int64)]))
        return bool(new)

    def at(self, step: int, t_s: float | None = None) -> Commanded:
        """The commanded state of one step, under the faults of its instant, or of a moment within it.

        Routes avoid what faults take. A destination that silent blackouts leave without any path keeps the route that
        there would be without them: they are holes in the network that nobody told the nodes about, so packets go out
        and vanish. Where there is no path besides, there is no route: a sender knows at once, and a node on the way
        answers that the network is unreachable.
        """
        timeline, links = self.timeline, self.timeline.links
        t_s = float(timeline.t_s[step]) if t_s is None else t_s
        masked = self.faults.masked(t_s, timeline, timeline.sky(step))
        sky, usable = masked.sky, masked.usable
        next_port = self._router.next_ports(sky, usable)
        if (masked.believed & ~usable).any() and np.count_nonzero(next_port == NO_ROUTE) > len(self.destinations):
            believed = self._router_of_silence.next_ports(sky, masked.believed)
            next_port = np.where(next_port == NO_ROUTE, believed, next_port)
        shaping = shaping_plan(self.port_start, links, sky, usable)
        cut = sky.link[masked.unplugged]
        ends = ((links.a[cut], links.port_a[cut]), (links.b[cut], links.port_b[cut]))
        unplugged = np.unique(np.concatenate([self.port_start[node] + port for node, port in ends]))
        return Commanded(
            step, t_s, sky, usable, shaping, self.destinations, next_port, unplugged, self.faults.active(t_s)
        )

    def change(self, before: Commanded | None, state: Commanded) -> Change:
        """How to come from one step to another; from None, a fabric all dark and without routes, where no order counts.

        Destinations are only ever added, so those of `before` are the first of `state`.
        """
        if before is None:
            shaping = state.shaping.changed_from(ShapingPlan.dark(int(self.port_start[-1])))
            node, column = np.nonzero(state.next_port != NO_ROUTE)
            routes: tuple[RouteChanges, ...] = (
                RouteChanges(node, state.destinations[column], state.next_port[node, column]),
            )
        else:
            shaping = state.shaping.changed_from(before.shaping)
            previous = np.full_like(state.next_port, NO_ROUTE)
            previous[:, : before.next_port.shape[1]] = before.next_port
            every = np.ones_like(state.usable)  # a route that a blackout masks has its way too
            panel = ports(len(self.timeline.nodes), self.timeline.links, state.sky, every)
            routes = route_changes(previous, state.next_port, panel, state.destinations)
        cut = np.empty(0, np.int64) if before is None else before.unplugged
        return Change(
            plugged_in=np.setdiff1d(cut, state.unplugged),
            made=shaping.only(shaping.peer != DARK),
            routes=routes,
            broken=shaping.only(shaping.peer == DARK),
            unplugged=np.setdiff1d(state.unplugged, cut),
        )

    def round_trips(self, state: Commanded, a: IntArray, b: IntArray) -> RoundTrips:
        """Commanded round trips between pairs of nodes. Shapes: a and b (n_pair,), node indices.

        To nodes that no route leads to so far: as they would be if one did.
        """
        n_node, links = len(self.timeline.nodes), self.timeline.links
        panel = ports(n_node, links, state.sky, state.usable)
        others = np.setdiff1d(np.concatenate([a, b]), state.destinations)
        destinations, next_port = np.concatenate([state.destinations, others]), state.next_port
        if len(others):
            routes = next_ports(n_node, links, state.sky, state.usable, self.is_ground, others)
            next_port = np.concatenate([next_port, routes], axis=1)
        column = np.full(n_node, NONE)
        column[destinations] = np.arange(len(destinations))
        there = path_costs(next_port, panel, destinations, a, column[b])
        back = path_costs(next_port, panel, destinations, b, column[a])
        whole = (there.hops != NONE) & (back.hops != NONE)
        return RoundTrips(np.where(whole, there.delay_us + back.delay_us, NONE), np.where(whole, there.hops, NONE))

    def ended(self, t_s: float) -> tuple[NodeEnd, ...]:
        """The nodes that have left the sky by a moment, in order of their ends."""
        return tuple(sorted((e for e in self.timeline.node_ends if e.at_s <= t_s), key=lambda e: (e.at_s, e.node)))

    def _route_to(self, destinations: IntArray) -> None:
        self.destinations = destinations
        n_node, links = len(self.timeline.nodes), self.timeline.links
        self._router = Router(n_node, links, self.is_ground, destinations)
        self._router_of_silence = Router(n_node, links, self.is_ground, destinations)


def default_probe_pairs(timeline: Timeline) -> list[tuple[str, str]]:
    """What a run probes when the scenario names no pairs: every two gateways, each terminal to every gateway, and up to
    four pairs of satellites that are neighbours for the whole run."""
    names = [node.name for node in timeline.nodes]
    of_role = {role: [node.name for node in timeline.nodes if node.role is role] for role in Role}
    gateways = of_role[Role.GATEWAY]
    pairs = [(a, b) for i, a in enumerate(gateways) for b in gateways[i + 1 :]]
    pairs += [(terminal, gateway) for terminal in of_role[Role.TERMINAL] for gateway in gateways]
    contacts = timeline.contacts
    from_the_start = contacts.start_s <= timeline.t_s[0] + _CONTACT_INSTANT_S
    to_the_end = contacts.end_s >= timeline.t_s[-1] - _CONTACT_INSTANT_S
    always = np.flatnonzero((contacts.kind == LinkKind.ISL) & from_the_start & to_the_end)
    few = always[np.linspace(0, len(always) - 1, min(4, len(always))).astype(np.int64)]
    pairs += [(names[contacts.a[row]], names[contacts.b[row]]) for row in few]
    return pairs
