"""The sky of a run as arrays: computed whole before the start, hashed, and only applied afterwards."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Role(enum.StrEnum):
    """What a node is."""

    SATELLITE = "satellite"
    GATEWAY = "gateway"
    TERMINAL = "terminal"


class LinkKind(enum.IntEnum):
    """What a link joins."""

    ISL = 0  # satellite to satellite
    GSL = 1  # ground node to satellite


@dataclass(frozen=True)
class Node:
    """A satellite, gateway or terminal, and its fixed pool of ports."""

    name: str
    role: Role
    ports: tuple[str, ...]  # isl0 … isl3, gsl0 …


@dataclass(frozen=True)
class LinkTable:
    """Every pair of ports that is patched at some time of the run. Shapes: all (n_link,).

    `a` and `b` index Timeline.nodes, with names[a] < names[b] (as strings); `port_a` and `port_b` index that node's ports.
    """

    a: IntArray
    b: IntArray
    kind: IntArray  # LinkKind
    port_a: IntArray
    port_b: IntArray
    rate_bps: IntArray
    loss_ratio: FloatArray


@dataclass(frozen=True)
class Sky:
    """The links that are usable at one step. Shapes: all (n_up,), in order of link index."""

    link: IntArray  # indexes LinkTable
    range_m: FloatArray
    delay_us: IntArray
    elevation_deg: FloatArray  # at the ground node; NaN for an ISL


@dataclass(frozen=True)
class Timeline:
    """The whole run: where every node is, how it is lit, and which links are usable, at each step.

    Shapes: t_s (n_t,), r_ecef_m (n_node, n_t, 3), illumination_ratio (n_node, n_t). Links are kept step by step, one
    after another: step i owns rows step_start[i] to step_start[i + 1] of link, range_m, delay_us and elevation_deg.
    State i holds from t_s[i] until t_s[i + 1]. content_hash names all of it, and is the same on every machine.
    """

    epoch_utc: datetime
    step_s: float
    nodes: tuple[Node, ...]  # satellites first, then ground nodes
    t_s: FloatArray
    r_ecef_m: FloatArray
    illumination_ratio: FloatArray
    links: LinkTable
    step_start: IntArray
    link: IntArray
    range_m: FloatArray
    delay_us: IntArray
    elevation_deg: FloatArray
    content_hash: str  # "sha256:…"

    def sky(self, step: int) -> Sky:
        """The usable links at one step."""
        rows = slice(int(self.step_start[step]), int(self.step_start[step + 1]))
        return Sky(self.link[rows], self.range_m[rows], self.delay_us[rows], self.elevation_deg[rows])
