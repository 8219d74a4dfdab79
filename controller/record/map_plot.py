"""The map: coastlines, ground tracks, passes, and the links of any moment by a slider.

However long and large the run: tracks are those of its beginning, and of many satellites or ground nodes only some are
drawn in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from controller.orbit.frames import Geodetic
from controller.record.flat_map import Line, cut_at_antimeridian, footprint_deg, joined, land, line, map_axes
from controller.record.look import BLUE, CYCLE, GREEN, INK, PALE, SOFT_INK, VERMILION, every, figure, text
from controller.record.read import FaultWindow
from controller.record.sky_series import ContactSpan, contact_spans, masked, places
from controller.timeline import FloatArray, IntArray, LinkKind, Timeline

FRAMES = 31
FRAME_MARKS = 40_000
"""Moments that the slider offers, fewer where all their links and satellites together would pass FRAME_MARKS."""
TRACK_S = 6_000.0
"""Tracks are drawn for so long: about one low orbit. More would cover the map."""
TRACKS = 150
"""Satellites whose track is drawn; of more, every n-th."""
TRACK_POINTS, PASS_POINTS = 60, 16
"""Points of one ground track, and of one pass; more cannot be told apart on the page."""
STATIONS, PASSES = 20, 300
"""Ground nodes that are drawn with their mask and passes, and passes; the other ground nodes are marks."""
EDGE_DEG = 155
"""Beyond this longitude a name beside its mark would leave the map."""
MOVES_DEG = 0.01
LIT, DARK = "#F5C04A", "#4A5568"


def sky_map(timeline: Timeline, masks_deg: Mapping[str, float], faults: Sequence[FaultWindow]) -> go.Figure:
    """The run's sky on a map.

    masks_deg: the lowest elevation at which a ground node sees a satellite; without it no circle is drawn.
    """
    n_satellite = timeline.n_satellite
    grounds = range(n_satellite, len(timeline.nodes))
    traces = [land(), _tracks(timeline)]
    spans = [s for s in contact_spans(timeline) if s.start_s < timeline.t_s[0] + TRACK_S and s.first <= s.last]
    for number, ground in enumerate(grounds[:STATIONS]):
        own = [span for span in spans[:PASSES] if span.ground == ground]
        traces += _station(timeline, ground, CYCLE[number % len(CYCLE)], own, masks_deg, faults)
    if len(grounds) > STATIONS:
        traces.append(_other_stations(timeline, grounds[STATIONS:]))
    shown_steps = _frame_steps(timeline)
    moving = list(range(len(traces), len(traces) + 3))
    traces += _moment(timeline, faults, 0)
    fig = figure(
        traces,
        680,
        margin={"l": 44, "r": 12, "t": 44, "b": 96},
        hovermode="closest",
        sliders=[_slider(timeline, shown_steps)],
        **map_axes(),
    )
    fig.frames = [go.Frame(name=str(step), traces=moving, data=_moment(timeline, faults, step)) for step in shown_steps]
    return fig


def tracks_drawn(timeline: Timeline) -> int:
    """Of how many satellites the ground track is drawn."""
    return len(range(0, timeline.n_satellite, every(timeline.n_satellite, TRACKS)))


def _steps(timeline: Timeline, first: int, last: int, most: int) -> IntArray:
    """At most so many steps from first to last, both included, evenly."""
    return np.unique(np.linspace(first, last, min(last - first + 1, most)).astype(np.int64))


def _lines(timeline: Timeline, stretches: Sequence[tuple[int, IntArray]]) -> Line:
    """Ground tracks as one line. A stretch is a node and its steps."""
    if not stretches:
        return [], []
    steps = np.concatenate([steps for _, steps in stretches])
    nodes = np.concatenate([np.full(len(steps), node) for node, steps in stretches])
    where = places(timeline, steps, nodes)
    cuts = np.cumsum([len(steps) for _, steps in stretches])[:-1]
    parts = zip(np.split(where.longitude_deg, cuts), np.split(where.latitude_deg, cuts), strict=True)
    return joined(cut_at_antimeridian(longitude, latitude) for longitude, latitude in parts)


def _tracks(timeline: Timeline) -> go.Scatter:
    last = int(np.searchsorted(timeline.t_s, timeline.t_s[0] + TRACK_S, side="right")) - 1
    steps = _steps(timeline, 0, last, TRACK_POINTS)
    chosen = range(0, timeline.n_satellite, every(timeline.n_satellite, TRACKS))
    points = _lines(timeline, [(node, steps) for node in chosen])
    return line("ground tracks", points, "#9aa3b2", 1.2, group="tracks", legend=True)


def _passes(timeline: Timeline, spans: Sequence[ContactSpan]) -> Line:
    """The serving satellites' ground tracks while they serve."""
    return _lines(timeline, [(s.satellite, _steps(timeline, s.first, s.last, PASS_POINTS)) for s in spans])


def _within(span: ContactSpan, fault: FaultWindow, timeline: Timeline) -> ContactSpan | None:
    """The part of a contact that falls into a fault on its ground node, or on that very link."""
    ends = fault.target.split("~")
    if len(ends) == 2 and timeline.nodes[span.satellite].name not in ends:
        return None
    first = max(span.first, int(np.searchsorted(timeline.t_s, fault.start_s)))
    last = min(span.last, int(np.searchsorted(timeline.t_s, fault.end_s)))
    if first > last:
        return None
    return ContactSpan(span.ground, span.satellite, first, last, fault.start_s, fault.end_s, span.max_elevation_deg)


def _station(
    timeline: Timeline,
    ground: int,
    colour: str,
    own: Sequence[ContactSpan],
    masks_deg: Mapping[str, float],
    faults: Sequence[FaultWindow],
) -> list[go.Scatter]:
    """A ground node with the circle of its mask, its way if it moves, and its passes, red where a fault took them."""
    name, role = timeline.nodes[ground].name, timeline.nodes[ground].role.value
    dark = [fault for fault in faults if name in fault.target.split("~")]
    steps = _steps(timeline, 0, timeline.n_step - 1, TRACK_POINTS)
    way = places(timeline, steps, np.full(len(steps), ground))
    place = (float(way.latitude_deg[0]), float(way.longitude_deg[0]))
    traces = []
    if name in masks_deg and timeline.n_satellite:
        radius_m = np.linalg.norm(timeline.sky(0).r_ecef_m, axis=0)
        satellite_m = float(np.nanmedian(radius_m[: timeline.n_satellite]))
        edge = footprint_deg(*place, float(radius_m[ground]), satellite_m, masks_deg[name])
        traces.append(line(name, cut_at_antimeridian(*edge), colour, 1, group=name, dash="dot"))
    if _moves(way):
        points = cut_at_antimeridian(way.longitude_deg, way.latitude_deg)
        traces.append(line(name, points, colour, 2, group=name, dash="dash"))
    traces.append(line(name, _passes(timeline, own), colour, 4, group=name))
    in_dark = [clipped for span in own for fault in dark if (clipped := _within(span, fault, timeline))]
    if in_dark:
        traces.append(line(name, _passes(timeline, in_dark), VERMILION, 5, group=name))
    return [*traces, _mark(name, role, place, colour, dark)]


def _moves(way: Geodetic) -> bool:
    return bool(np.ptp(way.latitude_deg) > MOVES_DEG or np.ptp(way.longitude_deg) > MOVES_DEG)


def _mark(name: str, role: str, place: tuple[float, float], colour: str, dark: Sequence[FaultWindow]) -> go.Scatter:
    causes = "".join(f"<br>{text(f.fault)} from {f.start_s:.0f} s to {f.end_s:.0f} s" for f in dark)
    return go.Scatter(
        name=text(name),
        legendgroup=name,
        x=[place[1]],
        y=[place[0]],
        mode="markers+text",
        marker={
            "symbol": "diamond" if role == "gateway" else "square",
            "size": 12,
            "color": colour,
            "line": {"color": VERMILION if dark else "white", "width": 2.5 if dark else 1.5},
        },
        text=[f"<b>{text(name)}</b>" + (f'<br><span style="color:{VERMILION}">blackout</span>' if dark else "")],
        textposition=_beside(place[1]),
        textfont={"size": 12, "color": INK},
        hovertemplate=f"{text(name)} ({role})<br>%{{y:.2f}}°, %{{x:.2f}}°{causes}<extra></extra>",
    )


def _other_stations(timeline: Timeline, grounds: Sequence[int]) -> go.Scatter:
    where = places(timeline, np.zeros(len(grounds), np.int64), np.array(grounds))
    return go.Scatter(
        name="other ground nodes",
        x=where.longitude_deg.round(2).tolist(),
        y=where.latitude_deg.round(2).tolist(),
        mode="markers",
        marker={"symbol": "diamond", "size": 7, "color": SOFT_INK, "line": {"color": "white", "width": 0.7}},
        customdata=[text(timeline.nodes[ground].name) for ground in grounds],
        hovertemplate="%{customdata}<br>%{y:.2f}°, %{x:.2f}°<extra></extra>",
    )


def _beside(longitude_deg: float) -> str:
    """Where a name stands so that the map's edge does not cut it."""
    if abs(longitude_deg) < EDGE_DEG:
        return "top center"
    return "bottom left" if longitude_deg > 0 else "bottom right"


def _moment(timeline: Timeline, faults: Sequence[FaultWindow], step: int) -> list[go.Scatter]:
    """ISLs, GSLs and satellites at one step."""
    sky, t_s = timeline.sky(step), float(timeline.t_s[step])
    link = sky.link[~masked(timeline, sky.link, np.full(len(sky.link), t_s), faults)]
    node = np.arange(len(timeline.nodes))
    where = places(timeline, np.full(len(node), step), node)
    lines: list[go.Scatter] = []
    for kind, colour, width in ((LinkKind.ISL, BLUE, 0.8), (LinkKind.GSL, GREEN, 2.2)):
        of_kind = link[timeline.links.kind[link] == int(kind)]
        ends = np.stack([timeline.links.a[of_kind], timeline.links.b[of_kind]], axis=-1)
        points = joined(cut_at_antimeridian(where.longitude_deg[pair], where.latitude_deg[pair]) for pair in ends)
        trace = line(f"{kind.name}s", points, colour, width, group=kind.name, legend=True)
        trace.opacity = 0.5 if kind is LinkKind.ISL else 1
        lines.append(trace)
    return [*lines, _satellites(timeline, where, sky.illumination_ratio.astype(np.float64))]


def _satellites(timeline: Timeline, where: Geodetic, illumination_ratio: FloatArray) -> go.Scatter:
    """Every satellite that still flies."""
    flying = np.flatnonzero(~np.isnan(where.latitude_deg[: timeline.n_satellite]))
    lit = illumination_ratio[flying]
    return go.Scatter(
        name="satellites (dark: in eclipse)",
        x=where.longitude_deg[flying].round(2).tolist(),
        y=where.latitude_deg[flying].round(2).tolist(),
        mode="markers",
        marker={
            "size": 7 if len(flying) <= TRACKS else 4,
            "color": [LIT if ratio > 0.5 else DARK for ratio in lit],
            "line": {"color": INK, "width": 0.7 if len(flying) <= TRACKS else 0.3},
        },
        customdata=[[text(timeline.nodes[n].name), f"{ratio * 100:.0f}"] for n, ratio in zip(flying, lit, strict=True)],
        hovertemplate="%{customdata[0]}<br>%{y:.1f}°, %{x:.1f}°, %{customdata[1]} % lit<extra></extra>",
    )


def _frame_steps(timeline: Timeline) -> list[int]:
    marks_a_step = len(timeline.sky(0).link) + timeline.n_satellite
    n_frame = max(2, min(FRAMES, FRAME_MARKS // max(marks_a_step, 1), timeline.n_step))
    return sorted({int(step) for step in np.linspace(0, timeline.n_step - 1, n_frame)})


def _slider(timeline: Timeline, steps: Sequence[int]) -> dict[str, Any]:
    options = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    return {
        "active": 0,
        "pad": {"t": 34, "b": 4},
        "currentvalue": {"prefix": "Links and satellites at ", "font": {"size": 13, "color": INK}},
        "font": {"size": 11, "color": SOFT_INK},
        "bordercolor": PALE,
        "tickcolor": PALE,
        "steps": [
            {"label": f"{timeline.t_s[step]:.0f} s", "method": "animate", "args": [[str(step)], options]}
            for step in steps
        ],
    }
