"""Inter-satellite links of changing partners: every so often, each satellite is joined to the nearest that are free."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from controller.columns import taken
from controller.links.isl import IslPairs
from controller.links.isl_access import IslView, acquired
from controller.orbit.crossings import Spans
from controller.timeline import FloatArray, IntArray


@dataclass(frozen=True)
class Pools:
    """How many of these links a satellite of the one side and of the other may have."""

    a: int
    b: int


@dataclass(frozen=True)
class IslHolds:
    """Satellites joined through the same ports all the while. Shapes: all (n_hold,). Ports count from 0 in a pool."""

    a: IntArray
    b: IntArray
    port_a: IntArray
    port_b: IntArray
    start_s: FloatArray
    end_s: FloatArray


def nearest_holds(view: IslView, pools: Pools, start_s: float, end_s: float, scan_s: float) -> IslHolds:
    """Links from start_s to end_s, paired anew each reassign_s.

    At each pairing the shortest usable link is made first, then the next, while both ends have one left. What is paired
    again goes on as it was; a new partner is acquired first. Between pairings a link is down while it is not usable.
    """
    is_one = view.track_a is view.track_b
    instants_s = np.arange(start_s, end_s, view.policy.reassign_s)
    current: dict[tuple[int, int], float] = {}
    assigned: list[tuple[int, int, float, float]] = []
    for now_s in instants_s:
        chosen = _match(view, pools, is_one, float(now_s))
        assigned += [(*pair, since_s, float(now_s)) for pair, since_s in current.items() if pair not in chosen]
        current = {pair: current.get(pair, float(now_s)) for pair in sorted(chosen)}
    assigned += [(*pair, since_s, end_s) for pair, since_s in current.items()]
    return _usable_parts(view, _with_ports(sorted(assigned, key=lambda x: (x[2], x[0], x[1])), is_one), start_s, scan_s)


def _match(view: IslView, pools: Pools, is_one: bool, now_s: float) -> set[tuple[int, int]]:
    """The pairs of one instant, shortest first."""
    instant = np.array([now_s])
    a_m, b_m = view.track_a.teme(instant).r_m[0].T, view.track_b.teme(instant).r_m[0].T
    here, there = np.flatnonzero(~np.isnan(a_m[:, 0])), np.flatnonzero(~np.isnan(b_m[:, 0]))
    if not len(here) or not len(there):
        return set()
    # More than are needed, since the nearest may be out of sight or taken.
    k = min(len(there), 4 * max(pools.a, pools.b) + 4)
    reach_m = min(view.reach_m, view.policy.max_range_m or np.inf)
    distance_m, found = cKDTree(b_m[there]).query(a_m[here], k=k, distance_upper_bound=reach_m)
    distance_m, found = distance_m.reshape(len(here), -1), found.reshape(len(here), -1)
    row, column = np.nonzero(np.isfinite(distance_m))
    a, b, distance_m = here[row], there[found[row, column]], distance_m[row, column]
    if is_one:
        kept = a != b
        low, high, distance_m = np.minimum(a, b)[kept], np.maximum(a, b)[kept], distance_m[kept]
        _, first = np.unique(np.stack((low, high), axis=1), axis=0, return_index=True)
        a, b, distance_m = low[first], high[first], distance_m[first]
    pairs = _pairs(a, b)
    usable = view.margin(pairs, np.arange(len(a)), np.full(len(a), now_s)) >= 0.0
    a, b, distance_m = a[usable], b[usable], distance_m[usable]
    free_a = np.full(view.track_a.n_satellite, pools.a)
    free_b = free_a if is_one else np.full(view.track_b.n_satellite, pools.b)
    chosen: set[tuple[int, int]] = set()
    for i in np.lexsort((b, a, distance_m)):
        if free_a[a[i]] and free_b[b[i]]:
            free_a[a[i]] -= 1
            free_b[b[i]] -= 1
            chosen.add((int(a[i]), int(b[i])))
    return chosen


def _pairs(a: IntArray, b: IntArray) -> IslPairs:
    none = np.zeros(len(a), np.int64)
    return IslPairs(a, b, none, none, np.zeros(len(a), np.bool_))


def _with_ports(assigned: list[tuple[int, int, float, float]], is_one: bool) -> IslHolds:
    """Each pairing with the lowest ports that are free at both ends for all its time. Pairings are by start."""
    taken: dict[tuple[bool, int], list[tuple[int, float]]] = {}  # by side and satellite: ports, until when

    def lowest(side: bool, satellite: int, since_s: float, until_s: float) -> int:
        mine = [(port, end_s) for port, end_s in taken.get((side, satellite), []) if end_s > since_s]
        used = {port for port, _ in mine}
        port = next(p for p in range(len(used) + 1) if p not in used)
        insort(mine, (port, until_s))
        taken[side, satellite] = mine
        return port

    rows = [
        (a, b, lowest(False, a, since_s, until_s), lowest(not is_one, b, since_s, until_s), since_s, until_s)
        for a, b, since_s, until_s in assigned
    ]
    table = np.array(rows, np.float64).reshape(-1, 6)
    a, b, port_a, port_b = table[:, :4].T.astype(np.int64)
    return IslHolds(a, b, port_a, port_b, table[:, 4], table[:, 5])


def _usable_parts(view: IslView, paired: IslHolds, start_s: float, scan_s: float) -> IslHolds:
    """The parts of pairings in which the two are usable, and acquired."""
    if not len(paired.a):
        return paired
    keys, pair_of_hold = np.unique(np.stack((paired.a, paired.b), axis=1), axis=0, return_inverse=True)
    pair_of_hold = pair_of_hold.reshape(-1)
    usable = view.usable(_pairs(keys[:, 0], keys[:, 1]), start_s, float(paired.end_s.max()), scan_s)
    # Every pairing with every usable interval of its pair; those that do not meet fall out.
    first = np.searchsorted(usable.row, pair_of_hold, side="left")
    count = np.searchsorted(usable.row, pair_of_hold, side="right") - first
    hold = np.repeat(np.arange(len(paired.a)), count)
    span = np.arange(len(hold)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    meet = Spans(
        hold,
        np.maximum(paired.start_s[hold], usable.start_s[span]),
        np.minimum(paired.end_s[hold], usable.end_s[span]),
    )
    left = acquired(taken(meet, meet.end_s > meet.start_s), view.policy, start_s)
    return replace(taken(paired, left.row), start_s=left.start_s, end_s=left.end_s)
