"""Links between ground and satellites: who sees whom, and which of them are joined by which ports.

A ground node keeps a satellite while it is above the mask, then takes the visible one that will stay longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.timeline import FloatArray, IntArray


@dataclass(frozen=True)
class PassTable:
    """Times during which satellites are above ground nodes' masks. Shapes: all (n_pass,), by satellite and time."""

    satellite: IntArray
    first_step: IntArray
    end_step: IntArray  # the first step at which it is not visible any more
    set_s: FloatArray  # when it sinks below the mask, between the steps; the horizon of the search if it does not


def passes(elevation_deg: FloatArray, mask_deg: float, t_s: FloatArray) -> PassTable:
    """The passes over one ground node. Shapes: elevation (n_sat, n_t), t (n_t,) increasing.

    The instant of setting is interpolated linearly between the two samples about it, which orders satellites that set
    within the same step.
    """
    visible = np.pad(elevation_deg >= mask_deg, ((0, 0), (1, 1)))
    satellite, first = np.nonzero(visible[:, 1:] & ~visible[:, :-1])
    _, end = np.nonzero(~visible[:, 1:] & visible[:, :-1])
    after = np.minimum(end, len(t_s) - 1)
    above_deg = elevation_deg[satellite, end - 1] - mask_deg
    below_deg = mask_deg - elevation_deg[satellite, after]
    sets = end < len(t_s)
    share = np.divide(above_deg, above_deg + below_deg, out=np.ones(len(end)), where=sets)
    return PassTable(satellite, first, end, t_s[end - 1] + share * (t_s[after] - t_s[end - 1]))


@dataclass(frozen=True)
class Assignment:
    """One ground node joined to one satellite for some steps, through the same ports all the while."""

    ground: int
    satellite: int
    antenna: int  # the ground node's port index
    gsl_port: int  # which of the satellite's ground ports, from 0
    first_step: int
    end_step: int


def assign(
    tables: Sequence[PassTable], antennas: Sequence[int], max_gsl: Sequence[int], n_step: int
) -> list[Assignment]:
    """Which passes become links, given each ground node's passes and antennas, and each satellite's ground ports.

    Step by step: first every link whose satellite has set is given up, then ground nodes take satellites in the order
    of the scenario, with their lowest free antenna and the satellite's lowest free port. Of the satellites with a free
    port a ground node takes the one that sets last; of equals, the first in the order of nodes. Passes may reach beyond
    n_step; links end there.
    """
    free_antennas = [list(range(n)) for n in antennas]
    free_ports = [list(range(n)) for n in max_gsl]
    links: list[Assignment] = []
    held: list[Assignment] = []
    for step in range(n_step):
        for link in [link for link in held if link.end_step <= step]:
            held.remove(link)
            free_antennas[link.ground] = sorted([*free_antennas[link.ground], link.antenna])
            free_ports[link.satellite] = sorted([*free_ports[link.satellite], link.gsl_port])
        for ground, table in enumerate(tables):
            if not free_antennas[ground]:
                continue
            candidates = np.flatnonzero((table.first_step <= step) & (step < table.end_step))
            taken = {link.satellite for link in held if link.ground == ground}
            for row in candidates[np.argsort(-table.set_s[candidates], kind="stable")]:
                satellite = int(table.satellite[row])
                if not free_antennas[ground]:
                    break
                if satellite in taken or not free_ports[satellite]:
                    continue
                antenna, port = free_antennas[ground].pop(0), free_ports[satellite].pop(0)
                link = Assignment(ground, satellite, antenna, port, step, int(table.end_step[row]))
                held.append(link)
                links.append(link)
    return [
        Assignment(k.ground, k.satellite, k.antenna, k.gsl_port, k.first_step, min(k.end_step, n_step)) for k in links
    ]
