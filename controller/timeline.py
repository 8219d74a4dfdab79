"""The sky of a run as arrays: computed whole before the start, hashed, and only applied afterwards."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

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

    `a` and `b` index Timeline.nodes, with names[a] < names[b] (as strings); `port_a` and `port_b` index that node's
    ports. Rows are in the order of their names, then of their ports.
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


def utc_text(instant: datetime) -> str:
    """An aware instant as ISO 8601 in UTC, to the millisecond: "2026-01-01T00:00:00.000Z"."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def content_hash(timeline: Timeline) -> str:
    """ "sha256:…" of everything that a timeline commands and describes, its own hash aside.

    Canonical bytes: little-endian 64-bit integers. Commanded values (links, ports, delays, rates) enter exactly. Sines
    differ in their last bit from one machine to the next, so described values enter rounded, so coarsely that such a
    difference (some 1e-8 m) all but never crosses a rounding edge: distances to 100 m, elevations to 0.01°, sunlight
    to 1e-4. A delay of one microsecond is 300 m.
    """
    digest = hashlib.sha256(b"skyrack timeline 1\n")
    nodes = [[node.name, node.role.value, list(node.ports)] for node in timeline.nodes]
    header = [timeline.epoch_utc.astimezone(UTC).isoformat(timespec="microseconds"), nodes]
    digest.update(json.dumps(header, separators=(",", ":")).encode())
    links = timeline.links
    exact = (links.a, links.b, links.kind, links.port_a, links.port_b, links.rate_bps, timeline.step_start)
    rounded = (
        (np.array([timeline.step_s]), 1e-9),
        (timeline.t_s, 1e-9),
        (links.loss_ratio, 1e-12),
        (timeline.r_ecef_m, 100.0),
        (timeline.illumination_ratio, 1e-4),
        (timeline.range_m, 100.0),
        (np.nan_to_num(timeline.elevation_deg, nan=-1000.0), 0.01),
    )
    for array in (*exact, timeline.link, timeline.delay_us, *(np.rint(array / unit) for array, unit in rounded)):
        # The length keeps neighbours apart; + 0 makes one zero of the two that floats have.
        digest.update(np.array([array.size], "<i8").tobytes())
        digest.update(np.ascontiguousarray(array + 0, "<i8").tobytes())
    return f"sha256:{digest.hexdigest()}"
