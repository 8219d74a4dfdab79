"""Which node a job goes to: feasible → score → choose. Pure: facts in, a verdict on every node and a choice out.

Times are seconds of the sky since the epoch. What a job will take and give is not known before it has run: it counts as
ASSUMED_RUN_S of a core (or its own wall limit, if that is shorter) and RESULT_BYTES of a result.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Protocol

from controller.jobs.contact_graph import Arrivals, ContactGraph, Passage

ASSUMED_RUN_S = 1.0
"""Of the wall clock."""

RESULT_BYTES = 128 * 1024
"""The ends of stdout and stderr, which every result has."""

LOOKED_AT = 24
"""Of a whole shell's nodes so many are looked at: those that can have the job soonest."""


class Bar(enum.StrEnum):
    """What keeps a node from a job, in the order in which it is looked at: of two refused, who came further is nearer.

    Values are what is told of several nodes at once.
    """

    POLICY = "not of those that the policy chooses from"
    RESIDENCY = "outside its jurisdictions"
    DOWN = "down, in blackout or mute"
    FAR = "not looked at, for others can have it sooner"
    MEMORY = "with too little memory"
    CPU = "with too few cores"
    DISK = "with too little room"
    CONTACT = "with no contact in time"
    VOLUME = "with contacts that carry too little"
    DEADLINE = "with the result too late"


@dataclass(frozen=True)
class Load:
    """What a node's agent has told of it."""

    store_free_bytes: int
    open_jobs: int
    job_slots: int


@dataclass(frozen=True)
class Candidate:
    """A node, as placement sees it."""

    name: str
    is_ground: bool
    memory_bytes: int
    cpu_cores: float
    jurisdiction: str = ""  # empty: none
    plane: str = ""  # empty: of no plane
    lack: str = ""  # why nothing reaches it now, in words
    load: Load | None = None  # None: it was not asked


@dataclass(frozen=True)
class Item:
    """An object that a job needs, and who has it."""

    name: str
    size_bytes: int
    at_nodes: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """What is to be placed. Limits are 0 where nothing is asked for."""

    via: str  # where it is handed in, and where its result goes
    items: tuple[Item, ...] = ()
    memory_bytes: int = 0
    disk_bytes: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    deadline_s: float | None = None  # since the epoch
    jurisdictions: tuple[str, ...] = ()
    transit: bool = False
    pinned_to: tuple[str, ...] = ()
    is_keep: bool = False  # its items shall be there, and nothing runs

    def admits(self, jurisdiction: str) -> bool:
        """Whether a node of that jurisdiction may hold and process it."""
        return not self.jurisdictions or jurisdiction in self.jurisdictions


@dataclass(frozen=True)
class Facts:
    """What placement goes by."""

    now_s: float
    graph: ContactGraph
    candidates: tuple[Candidate, ...]
    time_scale: float = 1.0  # seconds of the sky a second of the wall clock


@dataclass(frozen=True)
class Estimate:
    """What it would be like on one node."""

    open_jobs: int
    plane_jobs: int  # in all of its plane
    moved_bytes: int  # of its items, from where they lie
    result_at_s: float


@dataclass(frozen=True)
class Verdict:
    """What placement says of one node."""

    node: str
    reason: str
    bar: Bar | None = None  # None: feasible
    score: float = 0.0  # lower is better
    result_at_s: float | None = None
    short_by: float = math.inf  # how much it lacks, in the bar's own unit


@dataclass(frozen=True)
class Decision:
    """A policy's choice, and why."""

    policy: str
    at_s: float
    chosen: str  # empty: no node is feasible
    verdicts: tuple[Verdict, ...]  # feasible ones first, best first; then the refused, nearest first


class Policy(Protocol):
    """How one of the feasible nodes is chosen."""

    name: str

    def refuses(self, candidate: Candidate, order: Order) -> str:
        """Why it would never choose this one; empty if it might."""

    def score(self, candidate: Candidate, estimate: Estimate, order: Order) -> float:
        """How good a feasible one is: lower is better. Of equals the earliest result counts, then the name."""

    def words(self, score: float, estimate: Estimate) -> str:
        """What speaks for it, in words."""


class _Refused(Exception):  # noqa: N818 — a verdict, not an error
    """A node is not feasible."""

    def __init__(self, bar: Bar, reason: str, short_by: float = math.inf) -> None:
        self.bar, self.reason, self.short_by = bar, reason, short_by


def decide(order: Order, facts: Facts, policy: Policy) -> Decision:
    """Look at every candidate, and choose. The same facts give the same answer."""
    board = _Board(order, facts)
    verdicts = [_verdict(board, candidate, policy) for candidate in facts.candidates]
    feasible = sorted((v for v in verdicts if v.bar is None), key=lambda v: (v.score, v.result_at_s or 0.0, v.node))
    bars = list(Bar)
    refused = sorted(
        (v for v in verdicts if v.bar is not None), key=lambda v: (-bars.index(v.bar or bars[0]), v.short_by, v.node)
    )
    return Decision(policy.name, facts.now_s, feasible[0].node if feasible else "", (*feasible, *refused))


def promising(order: Order, facts: Facts, policy: Policy) -> list[str]:
    """The LOOKED_AT candidates that are worth being asked for their load: who has an item, then who can have all
    soonest."""
    board = _Board(order, facts)
    holders = {node for item in order.items for node in item.at_nodes}
    found: list[tuple[bool, float, str]] = []
    for candidate in facts.candidates:
        try:
            _admitted(board, candidate, policy)
            found.append((candidate.name not in holders, board.arrives_s(candidate), candidate.name))
        except _Refused:
            continue
    return [name for _, _, name in sorted(found)[:LOOKED_AT]]


def across_planes(decision: Decision, facts: Facts, count: int) -> list[str]:
    """So many feasible nodes, or as many as there are: one of each plane, best first, before a second of any."""
    plane_of = {candidate.name: candidate.plane or candidate.name for candidate in facts.candidates}
    used: dict[str, int] = {}
    left = [verdict.node for verdict in decision.verdicts if verdict.bar is None]
    chosen: list[str] = []
    while left and len(chosen) < count:
        node = min(left, key=lambda name: used.get(plane_of[name], 0))  # the first of equals
        left.remove(node)
        chosen.append(node)
        used[plane_of[node]] = used.get(plane_of[node], 0) + 1
    return chosen


def infeasible(decision: Decision) -> str:
    """Why no node is feasible, in one line: how many for which reason, and who came nearest."""
    counts = {bar: sum(verdict.bar is bar for verdict in decision.verdicts) for bar in Bar}
    told = ", ".join(f"{count} {bar}" for bar, count in counts.items() if count)
    nearest = decision.verdicts[0]
    return f"no node can take it: {told}; nearest: {nearest.node}, {nearest.reason}"


def _verdict(board: _Board, candidate: Candidate, policy: Policy) -> Verdict:
    try:
        _admitted(board, candidate, policy)
        estimate = board.estimate(candidate)
    except _Refused as refused:
        return Verdict(candidate.name, refused.reason, refused.bar, short_by=refused.short_by)
    score = policy.score(candidate, estimate, board.order)
    return Verdict(candidate.name, policy.words(score, estimate), None, score, estimate.result_at_s)


def _admitted(board: _Board, candidate: Candidate, policy: Policy) -> None:
    """Raise _Refused for a node of which neither load nor contacts matter."""
    order = board.order
    refusal = policy.refuses(candidate, order)
    if refusal:
        raise _Refused(Bar.POLICY, refusal)
    if not order.admits(candidate.jurisdiction):
        where = f"lies in {candidate.jurisdiction}" if candidate.jurisdiction else "has no jurisdiction"
        raise _Refused(Bar.RESIDENCY, f"{where}, and the job is for {', '.join(order.jurisdictions)} alone")
    if candidate.lack and candidate.name != order.via:
        raise _Refused(Bar.DOWN, candidate.lack)


class _Board:
    """One placement: what has been worked out so far."""

    def __init__(self, order: Order, facts: Facts) -> None:
        self.order, self._facts = order, facts
        of_name = {candidate.name: candidate for candidate in facts.candidates}
        self._lacks = {name: candidate.lack for name, candidate in of_name.items() if candidate.lack}

        def may_hold(name: str) -> bool:
            return name not in self._lacks and order.admits(of_name[name].jurisdiction)

        def may_relay(name: str) -> bool:
            return name not in self._lacks and order.transit

        self._passage = Passage(may_hold, may_relay)
        self._searches: dict[tuple[str, float, int], Arrivals] = {}
        self._plane_jobs: dict[str, int] = {}
        for candidate in facts.candidates:
            if candidate.load is not None and candidate.plane:
                jobs = self._plane_jobs.get(candidate.plane, 0) + candidate.load.open_jobs
                self._plane_jobs[candidate.plane] = jobs

    def arrives_s(self, candidate: Candidate) -> float:
        """When all that it lacks can be there. Raises _Refused."""
        order, via = self.order, self.order.via
        away = [item for item in order.items if candidate.name not in item.at_nodes]
        ready_s = max((self._at_via_s(item) for item in away), default=self._facts.now_s)
        moved_bytes = sum(item.size_bytes for item in away)
        if candidate.name == via:
            return ready_s
        return self._passed(via, candidate.name, ready_s, moved_bytes, f"from {via}")

    def estimate(self, candidate: Candidate) -> Estimate:
        """What it would be like there. Raises _Refused."""
        order, load, scale = self.order, candidate.load, self._facts.time_scale
        if load is None:
            raise _Refused(Bar.FAR, f"not looked at: {LOOKED_AT} others can have it sooner")
        moved_bytes = sum(item.size_bytes for item in order.items if candidate.name not in item.at_nodes)
        self._check_resources(candidate, load, moved_bytes)
        arrives_s = self.arrives_s(candidate)
        self._check_deadline("it would be there", arrives_s)
        result_at_s = arrives_s
        if not order.is_keep:
            run_s = min(order.wall_s or ASSUMED_RUN_S, ASSUMED_RUN_S) / min(candidate.cpu_cores, 1.0) * scale
            slots = max(load.job_slots, 1)
            waits_s = max(0, load.open_jobs + 1 - slots) / slots * run_s
            done_s = arrives_s + waits_s + run_s
            back = f"back to {order.via}"
            is_here = candidate.name == order.via
            result_at_s = done_s if is_here else self._passed(candidate.name, order.via, done_s, RESULT_BYTES, back)
            self._check_deadline("its result would be back", result_at_s)
        plane_jobs = self._plane_jobs.get(candidate.plane, load.open_jobs)
        return Estimate(load.open_jobs, plane_jobs, moved_bytes, result_at_s)

    def _check_resources(self, candidate: Candidate, load: Load, moved_bytes: int) -> None:
        order = self.order
        if order.memory_bytes > candidate.memory_bytes:
            short_by = order.memory_bytes - candidate.memory_bytes
            asked = f"asks for {amount(order.memory_bytes)} of memory, it has {amount(candidate.memory_bytes)}"
            raise _Refused(Bar.MEMORY, asked, short_by)
        time_s = order.wall_s or math.inf
        if order.deadline_s is not None:
            time_s = min(time_s, (order.deadline_s - self._facts.now_s) / self._facts.time_scale)
        if order.cpu_s > time_s * candidate.cpu_cores:
            asked = f"asks for {order.cpu_s:g} s of CPU within {time_s:g} s, it has {candidate.cpu_cores:g} cores"
            raise _Refused(Bar.CPU, asked, order.cpu_s - time_s * candidate.cpu_cores)
        needed_bytes = moved_bytes + order.disk_bytes
        if needed_bytes > load.store_free_bytes:
            asked = f"needs {amount(needed_bytes)} of room, {amount(load.store_free_bytes)} of its store are free"
            raise _Refused(Bar.DISK, asked, needed_bytes - load.store_free_bytes)

    def _check_deadline(self, what: str, at_s: float) -> None:
        deadline_s = self.order.deadline_s
        if deadline_s is not None and at_s > deadline_s:
            late_s = at_s - deadline_s
            raise _Refused(Bar.DEADLINE, f"{what} at t = {at_s:.1f} s, {late_s:.1f} s after its deadline", late_s)

    def _at_via_s(self, item: Item) -> float:
        """When an item can be where the job is handed in. Raises _Refused."""
        via, now_s = self.order.via, self._facts.now_s
        if via in item.at_nodes:
            return now_s
        there = [node for node in item.at_nodes if node not in self._lacks]
        if not there:
            holders = "; ".join(self._lacks[node] for node in item.at_nodes) or "no node has it"
            raise _Refused(Bar.CONTACT, f"it needs {short(item.name)}: {holders}")
        at_s = min(self._search(node, now_s, item.size_bytes).arrives_s(via) for node in there)
        if math.isinf(at_s):
            raise _Refused(Bar.CONTACT, f"no contact to come brings {short(item.name)} from {there[0]} to {via}")
        return at_s

    def _passed(self, a: str, b: str, at_s: float, size_bytes: int, words: str) -> float:
        """When so much from one node is at another. Raises _Refused."""
        arrives_s = self._search(a, at_s, size_bytes).arrives_s(b)
        if math.isfinite(arrives_s):
            return arrives_s
        if math.isinf(self._search(a, at_s, 0).arrives_s(b)):
            raise _Refused(Bar.CONTACT, f"no contacts to come lead {words}")
        raise _Refused(Bar.VOLUME, f"no contacts to come {words} carry {amount(size_bytes)} at a time")

    def _search(self, node: str, at_s: float, size_bytes: int) -> Arrivals:
        key = (node, at_s, size_bytes)
        if key not in self._searches:
            self._searches[key] = self._facts.graph.search(node, at_s, size_bytes, self._passage)
        return self._searches[key]


def amount(size_bytes: float) -> str:
    """So many bytes, for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes:.0f} bytes"


def short(name: str) -> str:
    """An object's name, for people: "sha256:" and the first twelve digits."""
    return name[: len("sha256:") + 12]
