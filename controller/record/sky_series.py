"""What the report draws of the sky, worked out from the timeline: contacts, links and sunlight over time, places.

A timeline may be longer than memory: all of this goes through its blocks one after another, and keeps a few numbers of
each step, or what is asked for of some steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from controller.faults import in_region
from controller.orbit.frames import Geodetic, ecef_to_geodetic
from controller.record.read import FaultWindow
from controller.scenario.fault_model import PLANE, Region
from controller.timeline import (
    Block,
    BoolArray,
    ContactTable,
    FloatArray,
    Head,
    Int32Array,
    IntArray,
    LinkKind,
    Timeline,
)

FULL_SUN, UMBRA = 0.999, 0.001
"""Illumination ratios above and below which a satellite counts as wholly lit, and as wholly dark."""

_INSTANT_S = 0.01
"""Contacts are told to 10 ms: at their very ends a step may lie on either side."""


@dataclass(frozen=True)
class ContactSpan:
    """A ground node and a satellite joined from step `first` to step `last`, both included; none where first > last."""

    ground: int  # indexes Timeline.nodes
    satellite: int
    first: int
    last: int
    start_s: float
    end_s: float
    max_elevation_deg: float


@dataclass(frozen=True)
class SkySeries:
    """The sky step by step, in numbers. Shapes: all (n_t,)."""

    t_s: FloatArray
    isl: IntArray  # links that the geometry allows
    gsl: IntArray
    isl_usable: IntArray  # less those that a fault masks
    gsl_usable: IntArray
    in_sun: IntArray  # satellites that see the whole Sun
    in_penumbra: IntArray
    in_umbra: IntArray


def until(timeline: Timeline, end_s: float) -> Timeline:
    """The timeline's part that was applied by end_s: all of it, or less where a run ended early.

    A view, no copy: blocks that lie beyond are still there, and `blocks` leaves them out.
    """
    n_t = max(int(np.searchsorted(timeline.t_s, end_s, side="right")), 1)
    if n_t == timeline.n_step:
        return timeline
    begun = timeline.contacts.start_s <= end_s
    rows = {name: column[begun] for name, column in vars(timeline.contacts).items()}
    rows["end_s"] = np.minimum(rows["end_s"], end_s)
    return replace(timeline, t_s=timeline.t_s[:n_t], contacts=ContactTable(**rows))


def blocks(timeline: Timeline) -> Iterator[Block]:
    """The blocks, the last one only as far as the timeline goes."""
    for first in range(0, timeline.n_step, timeline.blocks.block_steps):
        block = timeline.blocks[first // timeline.blocks.block_steps]
        n_t = min(block.n_step, timeline.n_step - first)
        yield block if n_t == block.n_step else _cut(block, n_t)


def series(timeline: Timeline, faults: Sequence[FaultWindow]) -> SkySeries:
    """Links and sunlight of every step."""
    parts = [_series_of(timeline, block, faults) for block in blocks(timeline)]
    return SkySeries(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def masked(
    head: Head, link: Int32Array, step: IntArray, t_s: FloatArray, r_ecef_m: FloatArray, faults: Sequence[FaultWindow]
) -> BoolArray:
    """Which links some fault keeps from being used.

    Shapes: link (n,), indexes LinkTable, and step (n,), indexes t_s (n_t,) and r_ecef_m (n_t, 3, n_node) → (n,).
    """
    a, b = head.links.a[link], head.links.b[link]
    names = np.array([node.name for node in head.nodes])
    rows = np.zeros(len(link), np.bool_)
    for fault in faults:
        if fault.fault == "degrade":
            continue  # it takes no link
        lasts = (t_s >= fault.start_s) & (t_s < fault.end_s)
        region = Region.from_label(fault.target)
        if region is not None:
            inside = np.zeros((len(t_s), len(names)), np.bool_)
            inside[lasts] = in_region(region, r_ecef_m[lasts])
            rows |= inside[step, a] | inside[step, b]
            continue
        if fault.target.startswith(PLANE):
            of = _of_plane(names, fault.target.removeprefix(PLANE))
            hit = of[a] | of[b]
        else:
            ends = fault.target.split("~")
            hit = (names[a] == ends[0]) | (names[b] == ends[0])
            if len(ends) == 2:
                hit &= (names[a] == ends[1]) | (names[b] == ends[1])
        rows |= hit & lasts[step]
    return rows


def _of_plane(names: npt.NDArray[np.str_], plane: str) -> BoolArray:
    """Which nodes are the satellites of a plane: PLANEsNN. Shapes: (n_node,) → (n_node,)."""
    return np.array([name.startswith(plane + "s") and name[len(plane) + 1 :].isdecimal() for name in names.tolist()])


def places(timeline: Timeline, step: IntArray, node: IntArray) -> Geodetic:
    """Where nodes are at steps; NaN after a node's end. Shapes: step and node (n,) → (n,)."""
    r_ecef_m = np.full((len(step), 3), np.nan)
    of_block = step // timeline.blocks.block_steps
    for number in np.unique(of_block).tolist():
        block, here = timeline.blocks[number], np.flatnonzero(of_block == number)
        r_ecef_m[here] = block.r_ecef_m[step[here] - block.first_step, :, node[here]]
    return ecef_to_geodetic(r_ecef_m)


def contact_spans(head: Head) -> list[ContactSpan]:
    """Every contact of a ground node with a satellite, by start."""
    table = head.contacts
    rows = np.flatnonzero(table.kind == int(LinkKind.GSL))
    first = np.searchsorted(head.t_s, table.start_s[rows] - _INSTANT_S)
    last = np.searchsorted(head.t_s, table.end_s[rows] - _INSTANT_S) - 1
    spans = [
        ContactSpan(
            ground=int(max(table.a[row], table.b[row])),
            satellite=int(min(table.a[row], table.b[row])),
            first=int(first[i]),
            last=int(last[i]),
            start_s=float(table.start_s[row]),
            end_s=float(table.end_s[row]),
            max_elevation_deg=float(table.max_elevation_deg[row]),
        )
        for i, row in enumerate(rows)
    ]
    return sorted(spans, key=lambda span: (span.start_s, span.ground))


def _series_of(timeline: Timeline, block: Block, faults: Sequence[FaultWindow]) -> SkySeries:
    n_t = block.n_step
    t_s = timeline.t_s[block.first_step : block.first_step + n_t]
    row_step = np.repeat(np.arange(n_t), np.diff(block.step_start))
    usable = ~masked(timeline, block.link, row_step, t_s, block.r_ecef_m, faults)
    kind = timeline.links.kind[block.link]

    def count(rows: BoolArray) -> IntArray:
        return np.bincount(row_step[rows], minlength=n_t).astype(np.int64)

    light = block.illumination_ratio[:, : timeline.n_satellite]
    in_sun, in_umbra = (light >= FULL_SUN).sum(axis=1), (light <= UMBRA).sum(axis=1)
    isl, gsl = kind == int(LinkKind.ISL), kind == int(LinkKind.GSL)
    return SkySeries(
        t_s=t_s,
        isl=count(isl),
        gsl=count(gsl),
        isl_usable=count(isl & usable),
        gsl_usable=count(gsl & usable),
        in_sun=in_sun,
        in_penumbra=(~np.isnan(light)).sum(axis=1) - in_sun - in_umbra,
        in_umbra=in_umbra,
    )


def _cut(block: Block, n_t: int) -> Block:
    """The first steps of a block."""
    n_row = int(block.step_start[n_t])
    return Block(
        block.first_step, block.r_ecef_m[:n_t], block.illumination_ratio[:n_t], block.step_start[: n_t + 1],
        block.link[:n_row], block.range_m[:n_row], block.range_rate_m_s[:n_row], block.delay_us[:n_row],
        block.rate_bps[:n_row], block.elevation_deg[:n_row],
    )  # fmt: skip
