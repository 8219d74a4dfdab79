"""When what is bound for a node can be there, over the contacts to come: store, carry and forward. Pure.

Contact-graph routing's earliest arrival (Araniti and others, "Contact graph routing in DTN space networks: overview,
enhancements and performance", IEEE Communications Magazine 53(3), 2015; CCSDS 734.3-B-1, "Schedule-aware bundle
routing"): a search as Dijkstra's over contacts, each with its start, end, rate and one-way light time. It differs in
what a hop costs, for the network here carries packets across all contacts that are up at once: a node passes on what it
has while the rest still comes in (virtual cut-through: Kermani and Kleinrock, Computer Networks 3(4), 1979), and keeps
what it cannot pass on yet, in custody, as nodes do in the architecture of RFC 9171. All of a transfer crosses from one
node to the next within one contact.

Times are seconds of the sky since the epoch.
"""

from __future__ import annotations

import heapq
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self, TypeAlias

import numpy as np

from controller.links.budget import LIGHT_M_S
from controller.schedule import ALL_TO_ALL_NODES, Commanded
from controller.timeline import BoolArray, FloatArray, IntArray, Role, Timeline

HORIZON_S = 86_400.0
"""How far ahead contacts are looked at …"""

WHOLE_SHELL_HORIZON_S = 1_200.0
"""… and where there are more than ALL_TO_ALL_NODES nodes: a plan is made anew before that has passed."""

_INSTANT_S = 1e-6
"""Instants closer than this are one: a step's is a product of floats."""

_SHORTEST_S = 0.01
"""Contacts are known to 10 ms."""

Allowed: TypeAlias = Callable[[str], bool]
"""Whether a node, by its name, may do something."""


def anyone(_: str) -> bool:
    """Every node may."""
    return True


@dataclass(frozen=True)
class Passage:
    """What nodes on the way may do. It neither binds where a search begins, nor frees a ground node to relay.

    Who may hold may also relay. Who may only relay passes packets on as they come and keeps nothing.
    """

    may_hold: Allowed = anyone
    may_relay: Allowed = anyone


FREE = Passage()


@dataclass(frozen=True)
class Contacts:
    """Contacts as the search wants them, both ways alike. Shapes: (n_contact,). Those of one pair do not overlap."""

    a: IntArray  # node indices
    b: IntArray
    start_s: FloatArray
    end_s: FloatArray
    delay_s: FloatArray  # one way
    rate_bps: FloatArray  # above 0


@dataclass(frozen=True)
class Hop:
    """One contact of a way, as it is used."""

    node: str
    to: str
    leaves_s: float  # the first bit
    reaches_s: float  # the first bit
    arrives_s: float  # the last bit
    until_s: float  # the contact's end


@dataclass(frozen=True)
class Way:
    """How something can be at a node soonest. No hops: it is there."""

    arrives_s: float
    hops: tuple[Hop, ...]


@dataclass(frozen=True)
class Forward:
    """Whom to hand what is bound for a node, and when: as node.proto has it, in seconds."""

    to_node: str
    via_node: str
    not_before_s: float
    until_s: float


class _Label(NamedTuple):
    """One way to a node. Where nodes on it may not keep anything, it must stand as a whole from the last one that may,
    the keeper: what is told of that is in the keeper's time, so much earlier as light takes from there."""

    last_s: float  # when the last bit is here …
    first_s: float  # … and the first, if it leaves as soon as it can
    node: int
    is_kept: bool  # this node is a keeper
    stands_until_s: float  # when the first of the contacts since the keeper ends
    transfer_s: float  # how long the slowest of them takes
    kept_s: float  # when the last bit is at the keeper
    light_s: float  # from the keeper
    before: _Label | None
    delay_s: float  # from the node before
    until_s: float  # the end of the contact with it

    def beats(self, other: _Label) -> bool:
        """Whether it is at least as good in all that counts. In the keeper's time: no way is better for a detour."""
        return (
            self.first_s <= other.first_s
            and self.kept_s <= other.kept_s
            and self.transfer_s <= other.transfer_s
            and self.stands_until_s >= other.stands_until_s
        )


# Of two nodes' contacts: the other node, their ends, and start, end, delay and rate of each, in order of time.
_Times: TypeAlias = tuple[float, float, float, float]
_Neighbour: TypeAlias = tuple[int, list[float], list[_Times]]


class Arrivals:
    """When something that is at a node at one time can be at the others, and how."""

    def __init__(self, graph: ContactGraph, labels: dict[int, _Label]) -> None:
        self._graph, self._labels = graph, labels

    def arrives_s(self, to_node: str) -> float:
        """When the last bit is there; infinite where it cannot be."""
        label = self._labels.get(self._graph.index_of[to_node])
        return math.inf if label is None else label.last_s

    def way(self, to_node: str) -> Way | None:
        """How it comes there; None where it cannot."""
        label = self._labels.get(self._graph.index_of[to_node])
        if label is None:
            return None
        names, hops = self._graph.names, []
        whole_s = arrives_s = label.last_s
        reaches_s = label.first_s
        while label.before is not None:
            before, leaves_s = label.before, reaches_s - label.delay_s
            hops.append(Hop(names[before.node], names[label.node], leaves_s, reaches_s, arrives_s, label.until_s))
            if before.is_kept:
                reaches_s, arrives_s = before.first_s, before.last_s
            else:  # it goes on as it comes, so it comes as late as it goes on
                reaches_s, arrives_s = leaves_s, max(before.kept_s + before.light_s, leaves_s + before.transfer_s)
            label = before
        return Way(whole_s, tuple(reversed(hops)))

    def forward(self, to_node: str) -> Forward | None:
        """Whom to hand what is bound for a node, from where the search began; None where no way leads on.

        That is the last node that is reached without a wait on the way: the one before which it would have to wait is
        to have it in custody. `until_s` is when the first contact on the way there ends, in the holder's time.
        """
        way = self.way(to_node)
        if way is None or not way.hops:
            return None
        together = [way.hops[0]]
        for hop, onward in pairwise(way.hops):
            if onward.leaves_s > hop.reaches_s + _INSTANT_S:
                break
            together.append(onward)
        not_before_s = together[0].leaves_s
        until_s = min(hop.until_s - (hop.leaves_s - not_before_s) for hop in together)
        return Forward(to_node, together[-1].to, not_before_s, until_s)

    def forwards(self) -> Iterator[Forward]:
        """The same of every node that a way leads to, in the order of nodes."""
        for index in sorted(self._labels):
            forward = self.forward(self._graph.names[index])
            if forward is not None:
                yield forward


class ContactGraph:
    """The contacts to come between nodes, made for many searches."""

    def __init__(self, names: Sequence[str], is_ground: BoolArray, contacts: Contacts) -> None:
        self.names = tuple(names)
        self.index_of = {name: index for index, name in enumerate(self.names)}
        self._is_ground: list[bool] = is_ground.tolist()
        self._neighbours: list[list[_Neighbour]] = [[] for _ in self.names]
        of_pair: dict[tuple[int, int], list[_Times]] = {}
        order = np.argsort(contacts.start_s, kind="stable")
        columns = (contacts.a, contacts.b, contacts.start_s, contacts.end_s, contacts.delay_s, contacts.rate_bps)
        for a, b, *times in zip(*(column[order].tolist() for column in columns), strict=True):
            of_pair.setdefault((min(a, b), max(a, b)), []).append((times[0], times[1], times[2], times[3]))
        for (a, b), contacts_of_pair in sorted(of_pair.items()):
            ends_s = [end_s for _, end_s, _, _ in contacts_of_pair]
            self._neighbours[a].append((b, ends_s, contacts_of_pair))
            self._neighbours[b].append((a, ends_s, contacts_of_pair))

    @classmethod
    def of(cls, timeline: Timeline, now_s: float, state: Commanded | None = None, time_scale: float = 1.0) -> Self:
        """The contacts of a timeline from a moment on, until the horizon, at the steps that command them.

        Packets obey the wall clock: with so many seconds of the sky to each of its own, contacts carry less.

        With the state of that moment: links that a fault or the rain takes now are not counted on for as long as their
        contacts last, and those that are up have the delay and rate of now. Others have the delay of their least range
        and their mean rate. What is linked at the last instant is taken to stay, as in a run that holds its last state.
        """
        is_ground = np.array([node.role is not Role.SATELLITE for node in timeline.nodes], np.bool_)
        return cls(
            [node.name for node in timeline.nodes], is_ground, contacts_ahead(timeline, now_s, state, time_scale)
        )

    def search(
        self, from_node: str, at_s: float, size_bytes: int = 0, passage: Passage = FREE, to_node: str | None = None
    ) -> Arrivals:
        """When what is whole at a node at a moment can be at the others; with `to_node`, it stops at that one."""
        source, target = self.index_of[from_node], None if to_node is None else self.index_of[to_node]
        may_hold = [passage.may_hold(name) for name in self.names]
        passes_on = [
            not is_ground and (holds or passage.may_relay(name))
            for name, is_ground, holds in zip(self.names, self._is_ground, may_hold, strict=True)
        ]
        may_hold[source] = passes_on[source] = True
        best: dict[int, _Label] = {}
        settled: list[list[_Label]] = [[] for _ in self.names]
        count = itertools.count()  # keeps equals apart, the one found first before
        start = _Label(at_s, at_s, source, True, math.inf, 0.0, at_s, 0.0, None, 0.0, math.inf)
        queue = [(at_s, at_s, next(count), start)]
        while queue:
            label = heapq.heappop(queue)[-1]
            node = label.node
            if any(other.beats(label) for other in settled[node]):
                continue
            settled[node].append(label)
            best.setdefault(node, label)
            if node == target:
                break
            if passes_on[node]:
                for neighbour in self._neighbours[node]:
                    for onward in _onward(label, neighbour, 8.0 * size_bytes, may_hold[neighbour[0]]):
                        heapq.heappush(queue, (onward.last_s, onward.first_s, next(count), onward))
        return Arrivals(self, best)

    def earliest_arrival(
        self, from_node: str, at_s: float, size_bytes: int, to_node: str, passage: Passage = FREE
    ) -> Way | None:
        """How something can be at a node soonest; None where it cannot be there."""
        return self.search(from_node, at_s, size_bytes, passage, to_node).way(to_node)


def _onward(label: _Label, neighbour: _Neighbour, size_bits: float, is_kept: bool) -> Iterator[_Label]:
    """The ways on to a neighbour: by the first contact that has room, and by later ones that may be better."""
    node, ends_s, contacts = neighbour
    soonest_s = math.inf
    for row in range(bisect_right(ends_s, label.first_s), len(contacts)):
        start_s, end_s, delay_s, rate_bps = contacts[row]
        leaves_s = max(label.first_s, start_s)
        if start_s >= soonest_s or leaves_s - label.light_s >= label.stands_until_s:
            return
        stands_until_s = min(label.stands_until_s, end_s - label.light_s)
        transfer_s = max(label.transfer_s, size_bits / rate_bps)
        left_s = max(label.kept_s + label.light_s, leaves_s + transfer_s)  # the last bit
        if left_s - label.light_s > stands_until_s:
            continue
        first_s, last_s, light_s, kept_s = leaves_s + delay_s, left_s + delay_s, label.light_s + delay_s, label.kept_s
        if is_kept:
            soonest_s = min(soonest_s, last_s)
            stands_until_s, transfer_s, kept_s, light_s = math.inf, 0.0, last_s, 0.0
        yield _Label(last_s, first_s, node, is_kept, stands_until_s, transfer_s, kept_s, light_s, label, delay_s, end_s)


def contacts_ahead(
    timeline: Timeline, now_s: float, state: Commanded | None = None, time_scale: float = 1.0
) -> Contacts:
    """A timeline's contacts from a moment until the horizon, as `ContactGraph.of` has them."""
    table, n_node = timeline.contacts, len(timeline.nodes)
    t_s, last_s = timeline.t_s, float(timeline.t_s[-1])
    until_s = now_s + (HORIZON_S if n_node <= ALL_TO_ALL_NODES else WHOLE_SHELL_HORIZON_S)
    # A step holds from its instant on: a contact begins and ends with the steps that have it.
    steps_s = np.append(t_s, last_s + timeline.step_s)
    start_s, end_s = (steps_s[np.searchsorted(t_s, edge_s - _INSTANT_S)] for edge_s in (table.start_s, table.end_s))
    end_s = np.minimum(np.where(table.end_s >= last_s - _INSTANT_S, math.inf, end_s), until_s)
    length_s = np.maximum(table.end_s - table.start_s, _SHORTEST_S)
    delay_s, rate_bps = table.min_range_m / LIGHT_M_S, 8.0 * table.volume_bytes / length_s
    is_ahead = (end_s > np.maximum(start_s, now_s)) & (rate_bps > 0.0)
    if state is not None:
        now = np.flatnonzero(is_ahead & (start_s <= t_s[state.step]))
        up = _as_commanded(timeline, state)
        row = np.searchsorted(up.pair, table.a[now] * n_node + table.b[now])
        is_up = np.append(up.pair, _NO_PAIR)[row] == table.a[now] * n_node + table.b[now]
        is_ahead[now] = is_up
        delay_s[now[is_up]], rate_bps[now[is_up]] = up.delay_s[row[is_up]], up.rate_bps[row[is_up]]
    return Contacts(
        table.a[is_ahead], table.b[is_ahead], start_s[is_ahead], end_s[is_ahead],
        delay_s[is_ahead] * time_scale, rate_bps[is_ahead] / time_scale,
    )  # fmt: skip


_NO_PAIR = -1


@dataclass(frozen=True)
class _LinkedPairs:
    """Nodes that are linked, each pair once. Shapes: (n_pair,)."""

    pair: IntArray  # a × n_node + b, rising
    delay_s: FloatArray
    rate_bps: FloatArray


def _as_commanded(timeline: Timeline, state: Commanded) -> _LinkedPairs:
    """Who is linked in a step, faults in force; of links side by side the fastest counts."""
    link, delay_us, rate_bps = (
        column[state.usable] for column in (state.sky.link, state.sky.delay_us, state.sky.rate_bps)
    )
    pair = timeline.links.a[link] * len(timeline.nodes) + timeline.links.b[link]
    order = np.lexsort((delay_us, -rate_bps, pair))
    known, first = np.unique(pair[order], return_index=True)
    best = order[first]
    return _LinkedPairs(known, delay_us[best].astype(np.float64) * 1e-6, rate_bps[best].astype(np.float64))
