"""Inter-satellite links of fixed partners: who has a port towards whom.

Ports of a satellite: isl0 fore and isl1 aft in its own plane; isl2 towards the next plane, isl3 towards the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.scenario.link_model import Topology
from controller.scenario.model import Walker
from controller.timeline import BoolArray, FloatArray, IntArray

FORE, AFT, NEXT_PLANE, PREVIOUS_PLANE = range(4)

# A gap of right ascension wider than this parts two planes of element sets: satellites of one plane stray by some
# tenths of a degree, planes of the densest shells flown are 5° apart.
_PLANE_GAP_DEG = 2.0
# Planes further apart than this are not neighbours: at the seam of a star pattern they run against each other.
_NEIGHBOUR_GAP_DEG = 90.0


@dataclass(frozen=True)
class IslPairs:
    """Pairs of ports between satellites. Shapes: all (n_isl,). Satellites are counted within their constellation."""

    a: IntArray
    b: IntArray
    port_a: IntArray
    port_b: IntArray
    is_cross_plane: BoolArray

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, int]]) -> IslPairs:
        """From rows of (a, b, port_a, port_b)."""
        table = np.array(rows, np.int64).reshape(-1, 4)
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 2] == NEXT_PLANE)


def named_pairs(
    names: Sequence[str], pairs: Sequence[tuple[str, str]], others: Sequence[str] | None = None
) -> IslPairs:
    """The links that the scenario names, each satellite's ports in the order of its pairs.

    `others` are the names of the second constellation where a pair joins two; else both ends are of the first.
    """
    of_a = {name: i for i, name in enumerate(names)}
    of_b = of_a if others is None else {name: i for i, name in enumerate(others)}
    used_a: Counter[int] = Counter()
    used_b = used_a if others is None else Counter()
    rows = []
    for name_a, name_b in pairs:
        a, b = of_a[name_a], of_b[name_b]
        rows.append((a, b, used_a[a], used_b[b]))
        used_a[a] += 1
        used_b[b] += 1
    table = np.array(rows, np.int64).reshape(-1, 4)
    return IslPairs(table[:, 0], table[:, 1], table[:, 2], table[:, 3], np.zeros(len(table), np.bool_))


def walker_pairs(walker: Walker, topology: Topology) -> IslPairs:
    """The links of a Walker pattern.

    In a plane each satellite joins the next, round about. Across planes ("plus-grid") slot k of a plane joins slot k of
    the next; where a delta closes, slot k of the last plane joins slot k + phasing of the first, which is as far ahead
    of it as everywhere else. A star's first and last planes run against each other: that seam stays open.
    """
    grid = np.arange(walker.total).reshape(walker.planes, walker.slots)
    if topology not in ("plus-grid", "ring"):
        return IslPairs.of([])
    rows = [row for plane in grid for row in _ring(plane)]
    if topology == "plus-grid":
        rows += [row for j in range(walker.planes - 1) for row in _across(grid[j], grid[j + 1])]
        if walker.pattern == "delta" and walker.planes > 2:
            rows += _across(grid[-1], np.roll(grid[0], -walker.phasing))
    return IslPairs.of(rows)


def element_set_pairs(r_teme_m: FloatArray, v_teme_m_s: FloatArray, topology: Topology) -> IslPairs:
    """The links of satellites whose pattern is not given, from their states at the epoch. Shapes: both (n_sat, 3).

    Planes are clusters of right ascension of the ascending node, parted by gaps of more than 2°; in a plane satellites
    are in order of their argument of latitude, each joined to the next. Planes next to each other (less than 90° apart)
    are joined satellite by satellite, closest arguments of latitude first, each satellite at most once a side.
    """
    if topology not in ("plus-grid", "ring") or len(r_teme_m) < 2:
        return IslPairs.of([])
    node_deg, latitude_argument_deg = _node_and_latitude_argument_deg(r_teme_m, v_teme_m_s)
    planes = _planes(node_deg, latitude_argument_deg)
    rows = [row for plane in planes for row in _ring(plane)]
    if topology == "plus-grid":
        n_joint = len(planes) if len(planes) > 2 else len(planes) - 1
        for j in range(n_joint):
            here, there = planes[j], planes[(j + 1) % len(planes)]
            gap_deg = (_circular_mean_deg(node_deg[there]) - _circular_mean_deg(node_deg[here])) % 360.0
            if gap_deg < _NEIGHBOUR_GAP_DEG:
                rows += _across(*_matched(here, there, latitude_argument_deg))
    return IslPairs.of(rows)


def _ring(plane: IntArray) -> list[tuple[int, int, int, int]]:
    """Each satellite joined to the one ahead; two satellites only once, one not at all."""
    n_link = len(plane) if len(plane) > 2 else len(plane) - 1
    return [(int(plane[k]), int(plane[(k + 1) % len(plane)]), FORE, AFT) for k in range(n_link)]


def _across(here: IntArray, there: IntArray) -> list[tuple[int, int, int, int]]:
    return [(int(a), int(b), NEXT_PLANE, PREVIOUS_PLANE) for a, b in zip(here, there, strict=True)]


def _node_and_latitude_argument_deg(r_m: FloatArray, v_m_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Right ascension of the ascending node and argument of latitude of states. Shapes: (n, 3) → (n,) twice.

    Vallado, 4th ed., algorithm 9.
    """
    momentum = np.cross(r_m, v_m_s)
    node = np.stack((-momentum[:, 1], momentum[:, 0], np.zeros(len(r_m))), axis=-1)
    ahead = np.cross(momentum, node) / np.linalg.norm(momentum, axis=-1, keepdims=True)
    node_deg = np.degrees(np.arctan2(node[:, 1], node[:, 0])) % 360.0
    return node_deg, np.degrees(np.arctan2(np.sum(r_m * ahead, -1), np.sum(r_m * node, -1))) % 360.0


def _planes(node_deg: FloatArray, latitude_argument_deg: FloatArray) -> list[IntArray]:
    """Satellites cluster by cluster of their nodes, going east; each cluster in order of argument of latitude."""
    order = np.argsort(node_deg, kind="stable")
    gaps_deg = np.diff(node_deg[order], append=node_deg[order[0]] + 360.0)
    # Begin after the widest gap, so that no plane is cut by the turn from 360° to 0°.
    first = (int(np.argmax(gaps_deg)) + 1) % len(order)
    order, gaps_deg = np.roll(order, -first), np.roll(gaps_deg, -first)
    clusters = np.split(order, np.flatnonzero(gaps_deg[:-1] > _PLANE_GAP_DEG) + 1)
    return [cluster[np.argsort(latitude_argument_deg[cluster], kind="stable")] for cluster in clusters]


def _circular_mean_deg(angles_deg: FloatArray) -> float:
    return float(np.degrees(np.angle(np.sum(np.exp(1j * np.radians(angles_deg))))))


def _matched(here: IntArray, there: IntArray, latitude_argument_deg: FloatArray) -> tuple[IntArray, IntArray]:
    """One-to-one partners of two planes, the closest in argument of latitude first; who is left over has none."""
    apart_deg = np.abs(latitude_argument_deg[here][:, None] - latitude_argument_deg[there][None])
    apart_deg = np.minimum(apart_deg, 360.0 - apart_deg)
    free_here, free_there = np.ones(len(here), bool), np.ones(len(there), bool)
    chosen: list[tuple[int, int]] = []
    for flat in np.argsort(apart_deg, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(there))
        if free_here[i] and free_there[j]:
            free_here[i] = free_there[j] = False
            chosen.append((i, j))
    pairs = np.array(sorted(chosen), np.int64).reshape(-1, 2)
    return here[pairs[:, 0]], there[pairs[:, 1]]
