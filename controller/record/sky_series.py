"""What the report draws of the sky, worked out from the timeline: contacts, links over time, tracks on the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.record.read import FaultWindow
from controller.timeline import BoolArray, FloatArray, IntArray, LinkKind, Timeline


@dataclass(frozen=True)
class ContactSpan:
    """A ground node and a satellite joined from step `first` to step `last`, both included."""

    ground: int  # indexes Timeline.nodes
    satellite: int
    first: int
    last: int
    start_s: float
    end_s: float
    max_elevation_deg: float


def until(timeline: Timeline, end_s: float) -> Timeline:
    """The timeline's part that was applied by end_s: all of it, or less where a run ended early."""
    n_t = max(int(np.searchsorted(timeline.t_s, end_s, side="right")), 1)
    n_row = int(timeline.step_start[n_t])
    return replace(
        timeline,
        t_s=timeline.t_s[:n_t],
        r_ecef_m=timeline.r_ecef_m[:, :n_t],
        illumination_ratio=timeline.illumination_ratio[:, :n_t],
        step_start=timeline.step_start[: n_t + 1],
        link=timeline.link[:n_row],
        range_m=timeline.range_m[:n_row],
        delay_us=timeline.delay_us[:n_row],
        elevation_deg=timeline.elevation_deg[:n_row],
    )


def step_of_row(timeline: Timeline) -> IntArray:
    """The step that owns each row of the timeline's links. Shape (n_row,)."""
    return np.repeat(np.arange(len(timeline.t_s)), np.diff(timeline.step_start))


def masked(timeline: Timeline, faults: Sequence[FaultWindow]) -> BoolArray:
    """Which rows of the timeline's links some fault kept from being used. Shape (n_row,)."""
    row_t_s = timeline.t_s[step_of_row(timeline)]
    a, b = timeline.links.a[timeline.link], timeline.links.b[timeline.link]
    index = {node.name: number for number, node in enumerate(timeline.nodes)}
    rows = np.zeros(len(row_t_s), np.bool_)
    for fault in faults:
        ends = [index.get(name, -1) for name in fault.target.split("~")]
        hit = (a == ends[0]) | (b == ends[0])
        if len(ends) == 2:
            hit &= (a == ends[1]) | (b == ends[1])
        rows |= hit & (row_t_s >= fault.start_s) & (row_t_s < fault.end_s)
    return rows


def links_per_step(timeline: Timeline, rows: BoolArray) -> IntArray:
    """How many of the chosen rows each step has. Shapes: rows (n_row,) → (n_t,)."""
    return np.bincount(step_of_row(timeline)[rows], minlength=len(timeline.t_s)).astype(np.int64)


def of_kind(timeline: Timeline, kind: LinkKind) -> BoolArray:
    """Which rows are links of this kind. Shape (n_row,)."""
    rows: BoolArray = timeline.links.kind[timeline.link] == int(kind)
    return rows


def contact_spans(timeline: Timeline) -> list[ContactSpan]:
    """Every unbroken time over which a ground node and a satellite are joined, whatever ports they use; by start."""
    n_satellite = sum(node.role == "satellite" for node in timeline.nodes)
    rows = np.flatnonzero(of_kind(timeline, LinkKind.GSL))
    step = step_of_row(timeline)[rows]
    a, b = timeline.links.a[timeline.link[rows]], timeline.links.b[timeline.link[rows]]
    ground, satellite = np.where(a >= n_satellite, a, b), np.where(a >= n_satellite, b, a)
    order = np.lexsort((step, satellite, ground))
    rows, step, ground, satellite = rows[order], step[order], ground[order], satellite[order]
    if not len(rows):
        return []
    breaks = (np.diff(ground) != 0) | (np.diff(satellite) != 0) | (np.diff(step) > 1)
    spans = []
    for part in np.split(np.arange(len(rows)), np.flatnonzero(breaks) + 1):
        first, last = int(step[part[0]]), int(step[part[-1]])
        spans.append(
            ContactSpan(
                ground=int(ground[part[0]]),
                satellite=int(satellite[part[0]]),
                first=first,
                last=last,
                start_s=float(timeline.t_s[first]),
                end_s=float(timeline.t_s[min(last + 1, len(timeline.t_s) - 1)]),
                max_elevation_deg=float(np.nanmax(timeline.elevation_deg[rows[part]])),
            )
        )
    return sorted(spans, key=lambda span: (span.start_s, span.ground))


def cut_at_antimeridian(
    longitude_deg: FloatArray, latitude_deg: FloatArray
) -> tuple[list[float | None], list[float | None]]:
    """A polyline in (−180°, 180°] for a flat map: where it crosses 180° it ends at one edge and goes on at the other.

    Shapes: (n,) each → lists with None at each cut.
    """
    longitudes: list[float | None] = []
    latitudes: list[float | None] = []
    for number, (longitude, latitude) in enumerate(zip(longitude_deg.tolist(), latitude_deg.tolist(), strict=True)):
        if number and abs(longitude - longitude_deg[number - 1]) > 180:
            before_longitude, before_latitude = float(longitude_deg[number - 1]), float(latitude_deg[number - 1])
            edge = 180.0 if before_longitude > 0 else -180.0
            # Both ends seen in one turn of the globe, so that the crossing lies between them.
            unwrapped = longitude + 2 * edge
            share = (edge - before_longitude) / (unwrapped - before_longitude)
            at_edge = round(before_latitude + share * (latitude - before_latitude), 2)
            longitudes += [edge, None, -edge]
            latitudes += [at_edge, None, at_edge]
        longitudes.append(round(longitude, 2))
        latitudes.append(round(latitude, 2))
    return longitudes, latitudes


def footprint_deg(
    latitude_deg: float, longitude_deg: float, station_radius_m: float, satellite_radius_m: float, mask_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Where a satellite must be overhead for a station to see it above its mask: a circle on a spherical Earth.

    Radii are from the Earth's centre. Earth central angle: Wertz, Space Mission Analysis and Design, 3rd ed., sec. 5.2.
    Shapes: longitude and latitude (181,) each, longitude in (−180°, 180°].
    """
    mask = np.radians(mask_deg)
    central = np.pi / 2 - mask - np.arcsin(station_radius_m * np.cos(mask) / satellite_radius_m)
    bearing = np.linspace(0, 2 * np.pi, 181)
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    sin_edge = np.sin(latitude) * np.cos(central) + np.cos(latitude) * np.sin(central) * np.cos(bearing)
    turn = np.arctan2(
        np.sin(bearing) * np.sin(central) * np.cos(latitude), np.cos(central) - np.sin(latitude) * sin_edge
    )
    edge_longitude_deg = (np.degrees(longitude + turn) + 180) % 360 - 180
    return edge_longitude_deg, np.degrees(np.arcsin(np.clip(sin_edge, -1, 1)))
