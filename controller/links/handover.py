"""Which passes become links: each ground node's choice among what it sees, event by event.

A ground node keeps a satellite while it has access, then takes another by its policy: the one that will stay longest,
the highest, or the nearest. With an overlap it makes before it breaks: one antenna is kept free for the next satellite,
which is taken so long before the present one is lost.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from controller.links.passes import Passes
from controller.orbit.frames import Look
from controller.scenario.model import Ground
from controller.timeline import FloatArray, IntArray

_ENDS, _OVERLAPS, _RISES = range(3)  # the order of what happens at one instant
_SHORTEST_S = 1e-3  # access that ends sooner is not worth an antenna


@dataclass(frozen=True)
class Holds:
    """Ground nodes joined to satellites, through the same ports all the while. Shapes: all (n_hold,), by start."""

    ground: IntArray
    satellite: IntArray
    antenna: IntArray  # the ground node's port
    gsl_port: IntArray  # which of the satellite's ground ports, from 0
    start_s: FloatArray
    end_s: FloatArray


LookAt = Callable[[IntArray, IntArray, FloatArray], Look]
"""What ground nodes see of satellites: GroundView.look."""


@dataclass
class _Station:
    """A ground node while links are handed out."""

    policy: Ground
    rows: IntArray  # its passes, by rise
    rise_s: FloatArray
    set_s: FloatArray
    satellite: IntArray
    free: list[int] = field(default_factory=list)  # antennas
    holds: set[int] = field(default_factory=set)  # satellites


def handovers(
    passes: Passes, grounds: Sequence[Ground], max_gsl: Sequence[int], look: LookAt, start_s: float, end_s: float
) -> Holds:
    """The links from start_s to end_s. Passes may reach beyond both; links end there.

    Who is first has it: at one instant losses come before gains, and ground nodes are in the order of the scenario.
    Antennas and ports are the lowest free ones; of equal satellites the first in the order of nodes is taken.
    """
    stations = _stations(passes, grounds)
    ports = [list(range(n)) for n in max_gsl]
    refused: dict[int, set[int]] = {}  # by satellite: the stations that would have taken it, had it had a port
    held: list[tuple[int, int, int, int, float, float]] = []
    events: list[tuple[float, int, int, int]] = [  # instant, what, station, row of the pass or of the hold
        (max(float(rise_s), start_s), _RISES, int(ground), row)
        for row, (ground, rise_s, set_s) in enumerate(zip(passes.ground, passes.rise_s, passes.set_s, strict=True))
        if rise_s < end_s and set_s > start_s
    ]
    heapq.heapify(events)

    def take(ground: int, now_s: float, spare: int) -> None:
        """Let a station join satellites while it has more free antennas than `spare`."""
        station = stations[ground]
        while len(station.free) > spare:
            satellite, set_s = _choice(ground, station, ports, refused, look, now_s)
            if satellite < 0:
                return
            antenna, port = station.free.pop(0), ports[satellite].pop(0)
            station.holds.add(satellite)
            held.append((ground, satellite, antenna, port, now_s, set_s))
            heapq.heappush(events, (set_s, _ENDS, ground, len(held) - 1))
            if station.policy.overlap_s > 0.0:
                overlap_s = max(now_s, set_s - station.policy.overlap_s)
                heapq.heappush(events, (overlap_s, _OVERLAPS, ground, len(held) - 1))

    while events and events[0][0] < end_s:
        now_s, what, ground, row = heapq.heappop(events)
        station = stations[ground]
        spare = 1 if station.policy.overlap_s > 0.0 else 0
        if what == _ENDS:
            _, satellite, antenna, port, _, _ = held[row]
            insort(station.free, antenna)
            insort(ports[satellite], port)
            station.holds.discard(satellite)
            take(ground, now_s, spare)
            for waiting in sorted(refused.pop(satellite, ())):
                take(waiting, now_s, 1 if stations[waiting].policy.overlap_s > 0.0 else 0)
        elif what == _OVERLAPS:
            take(ground, now_s, len(station.free) - 1 if station.free else 0)
        elif len(station.free) > spare:
            take(ground, now_s, spare)
    table = np.array(held, np.float64).reshape(-1, 6)
    order = np.lexsort((table[:, 1], table[:, 0], table[:, 4]))
    whole = table[order].astype(np.int64)
    return Holds(
        whole[:, 0], whole[:, 1], whole[:, 2], whole[:, 3], table[order, 4], np.minimum(table[order, 5], end_s)
    )


def _stations(passes: Passes, grounds: Sequence[Ground]) -> list[_Station]:
    order = np.lexsort((passes.satellite, passes.rise_s, passes.ground))
    bounds = np.searchsorted(passes.ground[order], np.arange(len(grounds) + 1))
    return [
        _Station(
            ground, rows, passes.rise_s[rows], passes.set_s[rows], passes.satellite[rows], [*range(ground.antennas)]
        )
        for ground, rows in zip(grounds, (order[a:b] for a, b in pairwise(bounds)), strict=True)
    ]


def _choice(
    ground: int,
    station: _Station,
    ports: Sequence[Sequence[int]],
    refused: dict[int, set[int]],
    look: LookAt,
    now_s: float,
) -> tuple[int, float]:
    """The satellite that a station takes now, and until when it has access; -1 if there is none."""
    until = int(np.searchsorted(station.rise_s, now_s, side="right"))
    rows = np.flatnonzero(station.set_s[:until] > now_s + _SHORTEST_S)
    rows = rows[np.array([int(s) not in station.holds for s in station.satellite[rows]], np.bool_)]
    full = np.array([not ports[int(s)] for s in station.satellite[rows]], np.bool_)
    for satellite in station.satellite[rows[full]]:
        refused.setdefault(int(satellite), set()).add(ground)
    rows = rows[~full]
    if not len(rows):
        return -1, 0.0
    satellite = station.satellite[rows]
    if station.policy.handover == "longest":
        merit = station.set_s[rows]
    else:
        seen = look(np.full(len(rows), ground), satellite, np.full(len(rows), now_s))
        merit = seen.elevation_deg if station.policy.handover == "highest" else -seen.range_m
    best = np.lexsort((satellite, -merit))[0]
    return int(satellite[best]), float(station.set_s[rows[best]])
