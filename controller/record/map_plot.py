"""The map: coastlines, ground tracks, passes, and the links of any moment by a slider."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import plotly.graph_objects as go

from controller.record.look import BLUE, CYCLE, GREEN, INK, PALE, SOFT_INK, VERMILION, axis, figure, text
from controller.record.read import FaultWindow
from controller.record.sky_series import ContactSpan, contact_spans, cut_at_antimeridian, footprint_deg, masked
from controller.timeline import BoolArray, FloatArray, LinkKind, Timeline

FRAMES = 31
FRAME_LINKS = 40_000
"""Moments that the slider offers, fewer where all their links together would pass FRAME_LINKS."""
TRACK_POINTS = 60
"""Points of one ground track; more cannot be told apart on the page."""
EDGE_DEG = 155
"""Beyond this longitude a name beside its mark would leave the map."""
LIT, DARK = "#F5C04A", "#4A5568"

Line = tuple[list[float | None], list[float | None]]


def coastline() -> Line:
    """Longitudes and latitudes of the land's rings, in degrees, with None between the rings."""
    document = json.loads(files("controller.record").joinpath("coastline_110m.json").read_text(encoding="utf-8"))
    longitudes: list[float | None] = []
    latitudes: list[float | None] = []
    for ring in document["rings"]:
        longitudes += [tenth / 10 for tenth in ring[0::2]] + [None]
        latitudes += [tenth / 10 for tenth in ring[1::2]] + [None]
    return longitudes, latitudes


def sky_map(
    timeline: Timeline,
    latitude_deg: FloatArray,
    longitude_deg: FloatArray,
    masks_deg: Mapping[str, float],
    faults: Sequence[FaultWindow],
) -> go.Figure:
    """The run's sky on a map. Shapes: latitude_deg and longitude_deg (n_node, n_t), geodetic.

    masks_deg: the lowest elevation at which a ground node sees a satellite; without it no circle is drawn.
    """
    n_satellite = sum(node.role == "satellite" for node in timeline.nodes)
    traces = [_land(), _tracks(latitude_deg[:n_satellite], longitude_deg[:n_satellite])]
    spans = contact_spans(timeline)
    for number, ground in enumerate(range(n_satellite, len(timeline.nodes))):
        name = timeline.nodes[ground].name
        colour = CYCLE[number % len(CYCLE)]
        own = [span for span in spans if span.ground == ground]
        dark = [fault for fault in faults if name in fault.target.split("~")]
        place = (float(latitude_deg[ground, 0]), float(longitude_deg[ground, 0]))
        if name in masks_deg:
            radius_m = np.linalg.norm(timeline.r_ecef_m[:, 0], axis=-1)
            edge = footprint_deg(
                *place, float(radius_m[ground]), float(np.median(radius_m[:n_satellite])), masks_deg[name]
            )
            traces.append(_line(name, cut_at_antimeridian(*edge), colour, 1, group=name, dash="dot"))
        traces.append(_line(name, _passes(own, latitude_deg, longitude_deg), colour, 4, group=name))
        if dark:
            in_dark = [clipped for span in own for fault in dark if (clipped := _within(span, fault, timeline))]
            traces.append(_line(name, _passes(in_dark, latitude_deg, longitude_deg), VERMILION, 5, group=name))
        traces.append(_station(name, timeline.nodes[ground].role.value, place, colour, dark))
    usable = ~masked(timeline, faults)
    shown_steps = _frame_steps(timeline)
    moving = list(range(len(traces), len(traces) + 3))
    traces += _moment(timeline, latitude_deg, longitude_deg, usable, 0)
    fig = figure(
        traces,
        680,
        margin={"l": 44, "r": 12, "t": 44, "b": 96},
        xaxis=axis(range=[-180, 180], dtick=30, ticksuffix="°", constrain="domain"),
        yaxis=axis(range=[-90, 90], dtick=30, ticksuffix="°", scaleanchor="x", constrain="domain"),
        hovermode="closest",
        sliders=[_slider(timeline, shown_steps)],
    )
    fig.frames = [
        go.Frame(name=str(step), traces=moving, data=_moment(timeline, latitude_deg, longitude_deg, usable, step))
        for step in shown_steps
    ]
    return fig


def _land() -> go.Scatter:
    longitudes, latitudes = coastline()
    return go.Scatter(
        x=longitudes,
        y=latitudes,
        mode="lines",
        fill="toself",
        fillcolor="#eef0ea",
        line={"color": "#b7bdb0", "width": 0.7},
        hoverinfo="skip",
        showlegend=False,
    )


def _tracks(latitude_deg: FloatArray, longitude_deg: FloatArray) -> go.Scatter:
    every = -(-latitude_deg.shape[1] // TRACK_POINTS)
    line = _joined(
        cut_at_antimeridian(longitude[::every], latitude[::every])
        for latitude, longitude in zip(latitude_deg, longitude_deg, strict=True)
    )
    return _line("ground tracks", line, "#9aa3b2", 1.2, group="tracks", legend=True)


def _passes(spans: Sequence[ContactSpan], latitude_deg: FloatArray, longitude_deg: FloatArray) -> Line:
    """The serving satellites' ground tracks while they serve."""
    lines = []
    for span in spans:
        steps = np.unique(np.linspace(span.first, span.last, min(span.last - span.first + 1, TRACK_POINTS)).astype(int))
        lines.append(cut_at_antimeridian(longitude_deg[span.satellite, steps], latitude_deg[span.satellite, steps]))
    return _joined(lines)


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


def _station(name: str, role: str, place: tuple[float, float], colour: str, dark: Sequence[FaultWindow]) -> go.Scatter:
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


def _beside(longitude_deg: float) -> str:
    """Where a name stands so that the map's edge does not cut it."""
    if abs(longitude_deg) < EDGE_DEG:
        return "top center"
    return "bottom left" if longitude_deg > 0 else "bottom right"


def _moment(
    timeline: Timeline, latitude_deg: FloatArray, longitude_deg: FloatArray, usable: BoolArray, step: int
) -> list[go.Scatter]:
    """ISLs, GSLs and satellites at one step."""
    rows = np.arange(int(timeline.step_start[step]), int(timeline.step_start[step + 1]))
    rows = rows[usable[rows]]
    lines: list[go.Scatter] = []
    for kind, colour, width in ((LinkKind.ISL, BLUE, 0.8), (LinkKind.GSL, GREEN, 2.2)):
        link = timeline.link[rows]
        link = link[timeline.links.kind[link] == int(kind)]
        ends = np.stack([timeline.links.a[link], timeline.links.b[link]], axis=-1)
        line = _joined(cut_at_antimeridian(longitude_deg[pair, step], latitude_deg[pair, step]) for pair in ends)
        trace = _line(f"{kind.name}s", line, colour, width, group=kind.name, legend=True)
        trace.opacity = 0.5 if kind is LinkKind.ISL else 1
        lines.append(trace)
    satellites = [number for number, node in enumerate(timeline.nodes) if node.role == "satellite"]
    lit = timeline.illumination_ratio[satellites, step]
    marks = go.Scatter(
        name="satellites (dark: in eclipse)",
        x=longitude_deg[satellites, step].round(2).tolist(),
        y=latitude_deg[satellites, step].round(2).tolist(),
        mode="markers",
        marker={
            "size": 7,
            "color": [LIT if ratio > 0.5 else DARK for ratio in lit],
            "line": {"color": INK, "width": 0.7},
        },
        customdata=[
            [text(timeline.nodes[n].name), f"{ratio * 100:.0f}"] for n, ratio in zip(satellites, lit, strict=True)
        ],
        hovertemplate="%{customdata[0]}<br>%{y:.1f}°, %{x:.1f}°, %{customdata[1]} % lit<extra></extra>",
    )
    return [*lines, marks]


def _frame_steps(timeline: Timeline) -> list[int]:
    n_t = len(timeline.t_s)
    links_a_step = max(len(timeline.link) // n_t, 1)
    n_frame = max(2, min(FRAMES, FRAME_LINKS // links_a_step, n_t))
    return sorted({int(step) for step in np.linspace(0, n_t - 1, n_frame)})


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


def _line(
    name: str, line: Line, colour: str, width: float, *, group: str, dash: str = "solid", legend: bool = False
) -> go.Scatter:
    return go.Scatter(
        name=text(name),
        legendgroup=group,
        x=line[0],
        y=line[1],
        mode="lines",
        line={"color": colour, "width": width, "dash": dash},
        hoverinfo="skip",
        showlegend=legend,
    )


def _joined(lines: Iterable[Line]) -> Line:
    longitudes: list[float | None] = []
    latitudes: list[float | None] = []
    for line in lines:
        longitudes += [*line[0], None]
        latitudes += [*line[1], None]
    return longitudes, latitudes
