"""Why a packet goes the way it goes: a route hop by hop at one moment, or why there is none. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import numpy as np

from controller.errors import InputError
from controller.links.routes import NONE, Ports, path, ports
from controller.schedule import INSTANT_S, Commanded, Schedule
from controller.timeline import LinkKind, utc_text


@dataclass(frozen=True)
class Hop:
    """One link of a route."""

    node: str
    port: str
    to: str
    to_port: str
    kind: str  # isl | gsl
    range_m: float
    delay_us: int  # one way
    rate_bps: int
    elevation_deg: float | None  # at the ground node; None for an ISL


@dataclass(frozen=True)
class Route:
    """What `path` tells. Totals are of the hops; where there are none, `reason` says why."""

    a: str
    b: str
    t_s: float  # asked for, since the epoch
    step_t_s: float  # of the step that holds then
    utc: str
    hops: tuple[Hop, ...]
    range_m: float
    delay_us: int  # one way
    rtt_us: int | None
    rate_bps: int | None  # that of the slowest hop
    faults: tuple[str, ...]  # in force
    reason: str | None


def explain(schedule: Schedule, a: str, b: str, t_s: float) -> Route:
    """The route from a to b at a moment. Raises InputError for unknown nodes, and for a moment outside the run."""
    timeline = schedule.timeline
    for name in (a, b):
        if name not in schedule.index_of:
            near = difflib.get_close_matches(name, schedule.index_of, n=1)
            raise InputError(f"no node is called {name!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    if a == b:
        raise InputError(f"A and B are both {a!r}: name two nodes")
    first_s, last_s = float(timeline.t_s[0]), float(timeline.t_s[-1])
    if not first_s - INSTANT_S <= t_s < last_s + timeline.step_s:
        raise InputError(f"--at {t_s:g}: the run's sky reaches from t = {first_s:g} to {last_s:g} s since its epoch")
    schedule.add_destinations((a, b))
    state = schedule.at(schedule.step_at(t_s))
    hops = _hops(schedule, state, a, b)
    ends = (np.array([schedule.index_of[name]]) for name in (a, b))
    rtt_us = int(schedule.round_trips(state, *ends).rtt_us[0])
    return Route(
        a=a,
        b=b,
        t_s=t_s,
        step_t_s=state.t_s,
        utc=utc_text(timeline.epoch_utc + timedelta(seconds=t_s)),
        hops=hops,
        range_m=round(sum(hop.range_m for hop in hops), 3),
        delay_us=sum(hop.delay_us for hop in hops),
        rtt_us=None if rtt_us == NONE else rtt_us,
        rate_bps=min((hop.rate_bps for hop in hops), default=None),
        faults=tuple(_fault_words(state)),
        reason=None if hops else _reason(schedule, state, a, b),
    )


def _hops(schedule: Schedule, state: Commanded, a: str, b: str) -> tuple[Hop, ...]:
    timeline, links, sky = schedule.timeline, schedule.timeline.links, state.sky
    panel = ports(len(timeline.nodes), links, sky, state.usable)
    column = int(np.flatnonzero(state.destinations == schedule.index_of[b])[0])
    nodes = path(state.next_port, panel, state.destinations, schedule.index_of[a], column)
    hops = []
    for node, to in pairwise(nodes):
        port = state.next_port[node, column]
        from_a = (links.a[sky.link] == node) & (links.port_a[sky.link] == port)
        from_b = (links.b[sky.link] == node) & (links.port_b[sky.link] == port)
        row = int(np.flatnonzero((from_a | from_b) & state.usable)[0])
        link = sky.link[row]
        to_port = links.port_b[link] if from_a[row] else links.port_a[link]
        elevation_deg = float(sky.elevation_deg[row])
        hops.append(
            Hop(
                node=timeline.nodes[node].name,
                port=timeline.nodes[node].ports[port],
                to=timeline.nodes[to].name,
                to_port=timeline.nodes[to].ports[to_port],
                kind=LinkKind(int(links.kind[link])).name.lower(),
                range_m=round(float(sky.range_m[row]), 3),
                delay_us=int(sky.delay_us[row]),
                rate_bps=int(sky.rate_bps[row]),
                elevation_deg=None if np.isnan(elevation_deg) else round(elevation_deg, 4),
            )
        )
    return tuple(hops)


def _fault_words(state: Commanded) -> Iterator[str]:
    for fault in state.faults:
        yield f"{fault.words} {fault.until_words}"


def _reason(schedule: Schedule, state: Commanded, a: str, b: str) -> str:
    """Why there is no path, as far as can be told: an end's own lack first, then what cuts the network."""
    timeline = schedule.timeline
    for name in (a, b):
        lack = _lack_of(schedule, state, name)
        if lack:
            return lack
    n_node, every = len(timeline.nodes), np.ones_like(state.usable)
    geometry = ports(n_node, timeline.links, state.sky, every)
    index_a, index_b = schedule.index_of[a], schedule.index_of[b]
    if index_b in _reach(schedule, geometry, index_a):
        return f"every path between {a} and {b} is cut by a fault: {'; '.join(_fault_words(state))}"
    reach_a, reach_b = (_reach(schedule, geometry, index) for index in (index_a, index_b))
    return (
        f"the network is split at t = {state.t_s:g} s: {a} reaches {len(reach_a) - 1} other nodes, {b} reaches "
        f"{len(reach_b) - 1}, and no link joins the two parts"
    )


def _lack_of(schedule: Schedule, state: Commanded, name: str) -> str:
    """What a node itself lacks: its life, its freedom of faults, or any link. Empty where it lacks nothing."""
    timeline, links, node = schedule.timeline, schedule.timeline.links, schedule.index_of[name]
    for end in schedule.ended(state.t_s):
        if end.node == node:
            return f"{name} is down since t = {end.at_s:g} s: {end.reason}"
    fault = schedule.faults.taking(name, state.t_s, state.sky)
    if fault is not None:
        return f"{name} is in {fault.kind} ({fault.mode}) {fault.until_words}"
    of_node = (links.a[state.sky.link] == node) | (links.b[state.sky.link] == node)
    if np.any(of_node & state.usable):
        return ""
    if np.any(of_node):
        return f"all links of {name} are cut by a fault: {'; '.join(_fault_words(state))}"
    contacts = timeline.contacts
    later = np.flatnonzero(((contacts.a == node) | (contacts.b == node)) & (contacts.start_s > state.t_s))
    if not len(later):
        return f"{name} has no link at t = {state.t_s:g} s, and no contact later in the run"
    row = later[np.argmin(contacts.start_s[later])]
    other = timeline.nodes[int(contacts.b[row] if contacts.a[row] == node else contacts.a[row])].name
    return (
        f"{name} has no link at t = {state.t_s:g} s; its next contact begins at t = {contacts.start_s[row]:g} s, "
        f"with {other}"
    )


def _reach(schedule: Schedule, panel: Ports, source: int) -> set[int]:
    """The nodes that a node reaches, itself among them; ground nodes do not relay."""
    reached, edge = {source}, [source]
    while edge:
        far = panel.peer[[node for node in edge if node == source or not schedule.is_ground[node]]]
        edge = [node for node in np.unique(far[far != NONE]).tolist() if node not in reached]
        reached.update(edge)
    return reached
