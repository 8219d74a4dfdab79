"""What nodes may know ahead of themselves: where they will be, in what light, and with whom they will be linked. Pure.

Told window by window: from its begin a window tells twice as far as it lasts, so that the next one may come late. The
windows of a run's nodes begin one after another: few nodes are to be told anew at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from controller.links.budget import LIGHT_M_S
from controller.scenario.model import Scenario
from controller.timeline import FloatArray, IntArray, Timeline

SPACING_S = 60.0
"""Between the positions that are told, or a step of the run where that is longer. A polynomial of the fifth degree
through six of them is within centimetres in low orbit; with the spacing its error grows as the sixth power."""

POINTS = 6
"""So many positions at least are told where a run has as many steps, and of a short run closer together."""

WINDOW_S = 600.0
"""So long a window lasts, of the sky, at up to WINDOW_SCALE times the pace of the wall clock; at a faster pace in
proportion, so that windows do not follow each other in haste."""

WINDOW_SCALE = 10.0
MAX_POSITIONS = 240
"""In one window's telling: at the fastest paces windows are shorter than in proportion."""

MAX_CONTACTS = 64
"""The first so many are told, those under way among them."""

_SHORTEST_S = 0.01
"""Contacts are known to 10 ms."""


@dataclass(frozen=True)
class Places:
    """Where a node is. Shapes: t_s and illumination_ratio (n,), rising times since the epoch; r_ecef_m (n, 3)."""

    t_s: FloatArray
    r_ecef_m: FloatArray
    illumination_ratio: FloatArray


@dataclass(frozen=True)
class Edge:
    """A moment at which the light of a node begins or ends to change."""

    t_s: float
    illumination_ratio: float


@dataclass(frozen=True)
class Foreseen:
    """One contact of a node, as the plan has it: faults and weather are no part of it."""

    peer: str
    start_s: float
    end_s: float | None  # None: it stays to the run's end, and with it
    delay_us: int  # the least, one way
    rate_bps: int  # in the mean


@dataclass(frozen=True)
class OwnSky:
    """What one window tells a node."""

    places: Places
    edges: tuple[Edge, ...]
    contacts: tuple[Foreseen, ...]


class Outlook:
    """Of one run's nodes, by their indices in the timeline."""

    def __init__(self, timeline: Timeline, time_scale: float, bends_s: Mapping[str, Sequence[float]]) -> None:
        """`bends_s`: when moving nodes on the ground turn; between the positions told they go straight on."""
        self._timeline, self._bends_s = timeline, bends_s
        self._stride = max(1, min(round(SPACING_S / timeline.step_s), (timeline.n_step - 1) // (POINTS - 1)))
        spacing_s = self._stride * timeline.step_s
        self._window_s = max(
            spacing_s, min(WINDOW_S * max(1.0, time_scale / WINDOW_SCALE), spacing_s * MAX_POSITIONS / 2.0)
        )
        n_window = round(4.0 * self._window_s / spacing_s) + 8  # of all nodes, whose windows begin at other times
        self._at = lru_cache(maxsize=n_window)(self._read)
        contacts, n_node = timeline.contacts, len(timeline.nodes)
        ends = np.concatenate([contacts.a, contacts.b])
        self._row = np.argsort(ends, kind="stable") % max(len(contacts.a), 1)  # a node's rows, each end's in order
        self._first_row = np.searchsorted(np.sort(ends), np.arange(n_node + 1))
        self._eclipse = np.argsort(timeline.eclipses.satellite, kind="stable")
        self._first_eclipse = np.searchsorted(timeline.eclipses.satellite[self._eclipse], np.arange(n_node + 1))

    @classmethod
    def of_run(cls, timeline: Timeline, scenario: Scenario) -> Self:
        """As a run of a scenario needs it."""
        bends_s = {ground.name: tuple(point.at_s for point in ground.waypoints) for ground in scenario.grounds}
        return cls(timeline, scenario.time_scale, bends_s)

    def window(self, node: int, t_s: float) -> int:
        """Which window a node is in at a moment. What it is told changes only with that."""
        return int((t_s + self._shift_s(node)) // self._window_s)

    def of(self, node: int, window: int) -> OwnSky:
        """What a node may know in one of its windows."""
        from_s = window * self._window_s - self._shift_s(node)
        until_s = from_s + 2.0 * self._window_s
        return OwnSky(
            self._places(node, from_s, until_s),
            self._edges(node, from_s, until_s),
            self._contacts(node, from_s),
        )

    def _shift_s(self, node: int) -> float:
        return self._window_s * node / len(self._timeline.nodes)

    def _places(self, node: int, from_s: float, until_s: float) -> Places:
        steps = self._steps(from_s, until_s, self._bends_s.get(self._timeline.nodes[node].name, ()))
        seen = [self._at(step) for step in steps]
        r_ecef_m = np.array([r_m[:, node] for r_m, _ in seen])
        light = np.array([ratio[node] for _, ratio in seen], np.float64)
        is_there = ~np.isnan(r_ecef_m[:, 0])
        return Places(self._timeline.t_s[steps][is_there], r_ecef_m[is_there], light[is_there])

    def _steps(self, from_s: float, until_s: float, bends_s: Sequence[float]) -> list[int]:
        """Those to be told: evenly spaced, from before the window's begin on, the last of the run, and the bends."""
        first_s, step_s, last = float(self._timeline.t_s[0]), self._timeline.step_s, self._timeline.n_step - 1
        low = min(int((from_s - first_s) / step_s) // self._stride, last // self._stride - POINTS + 1)
        high = int((until_s - first_s) / step_s) // self._stride + 1
        even = {min(max(number * self._stride, 0), last) for number in range(low, high + 1)}
        bends = {round((bend_s - first_s) / step_s) for bend_s in bends_s if from_s <= bend_s <= until_s}
        return sorted(even | {step for step in bends if 0 <= step <= last})

    def _read(self, step: int) -> tuple[FloatArray, FloatArray]:
        sky = self._timeline.sky(step)
        return sky.r_ecef_m, sky.illumination_ratio.astype(np.float64)

    def _edges(self, node: int, from_s: float, until_s: float) -> tuple[Edge, ...]:
        """Of eclipses: full light at their ends, none at those of the umbra. Where the run cuts one, steps tell it."""
        eclipses, t_s = self._timeline.eclipses, self._timeline.t_s
        rows = self._eclipse[self._first_eclipse[node] : self._first_eclipse[node + 1]]
        near = rows[(eclipses.end_s[rows] >= from_s) & (eclipses.start_s[rows] <= until_s)]
        columns = (
            (eclipses.start_s, 1.0), (eclipses.umbra_start_s, 0.0), (eclipses.umbra_end_s, 0.0), (eclipses.end_s, 1.0),
        )  # fmt: skip
        edges = [Edge(float(moment_s[row]), ratio) for row in near for moment_s, ratio in columns]
        return tuple(edge for edge in edges if t_s[0] < edge.t_s < t_s[-1])  # no NaN is

    def _contacts(self, node: int, from_s: float) -> tuple[Foreseen, ...]:
        table, nodes, last_s = self._timeline.contacts, self._timeline.nodes, float(self._timeline.t_s[-1])
        rows: IntArray = np.sort(self._row[self._first_row[node] : self._first_row[node + 1]])
        rows = rows[table.end_s[rows] > from_s][:MAX_CONTACTS]
        found = []
        for row in rows.tolist():
            start_s, end_s = float(table.start_s[row]), float(table.end_s[row])
            peer = int(table.b[row] if table.a[row] == node else table.a[row])
            found.append(
                Foreseen(
                    nodes[peer].name,
                    start_s,
                    None if end_s >= last_s - _SHORTEST_S else end_s,
                    round(float(table.min_range_m[row]) / LIGHT_M_S * 1e6),
                    round(8.0 * float(table.volume_bytes[row]) / max(end_s - start_s, _SHORTEST_S)),
                )
            )
        return tuple(found)
