"""The map: coastlines, ground tracks, passes, and the links of any moment by a slider.

However long and large the run: tracks are those of its beginning, and of many satellites or ground nodes only some are
drawn in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

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
    spans = [s for s in contact_spans(timeline) if s.start_s < timeline.t_s[0] + TRACK_S and s.first <= s.last]
    ways = _Ways(timeline)
    tracks = ways.tracks()
    stations = [
        _Station.of(timeline, ground, [s for s in spans[:PASSES] if s.ground == ground], ways, faults)
        for ground in grounds[:STATIONS]
    ]
    ways.look_up()
    traces = [land(), line("ground tracks", ways.line(tracks), "#9aa3b2", 1.2, group="tracks", legend=True)]
    for number, station in enumerate(stations):
        traces += station.traces(timeline, ways, CYCLE[number % len(CYCLE)], masks_deg)
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


class _Ways:
    """Ground tracks: asked for one after another, then looked up all at once, so that each block is read once."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._steps: list[IntArray] = []
        self._nodes: list[IntArray] = []
        self._longitude_deg: list[FloatArray] = []
        self._latitude_deg: list[FloatArray] = []

    def add(self, node: int, first: int, last: int, most: int) -> int:
        """Where a node is at no more than so many steps from first to last; the number of this track."""
        steps = np.unique(np.linspace(first, last, min(last - first + 1, most)).astype(np.int64))
        self._steps.append(steps)
        self._nodes.append(np.full(len(steps), node))
        return len(self._steps) - 1

    def tracks(self) -> list[int]:
        """Those of the satellites, or of some of many, in the beginning of the run."""
        t_s, n_satellite = self._timeline.t_s, self._timeline.n_satellite
        last = int(np.searchsorted(t_s, t_s[0] + TRACK_S, side="right")) - 1
        return [self.add(node, 0, last, TRACK_POINTS) for node in range(0, n_satellite, every(n_satellite, TRACKS))]

    def look_up(self) -> None:
        """Read where they all are."""
        if not self._steps:
            return
        where = places(self._timeline, np.concatenate(self._steps), np.concatenate(self._nodes))
        cuts = np.cumsum([len(steps) for steps in self._steps])[:-1]
        self._longitude_deg = np.split(where.longitude_deg, cuts)
        self._latitude_deg = np.split(where.latitude_deg, cuts)

    def points_deg(self, track: int) -> tuple[FloatArray, FloatArray]:
        """Longitudes and latitudes of a track, once they were looked up."""
        return self._longitude_deg[track], self._latitude_deg[track]

    def line(self, tracks: Sequence[int]) -> Line:
        """Tracks as one line, once they were looked up."""
        return joined(cut_at_antimeridian(*self.points_deg(track)) for track in tracks)


@dataclass(frozen=True)
class _Station:
    """A ground node as it is drawn; `way`, `passes` and `dark_passes` are numbers of tracks."""

    ground: int
    dark: Sequence[FaultWindow]
    way: int
    passes: Sequence[int]  # the serving satellites' tracks while they serve
    dark_passes: Sequence[int]  # where a fault took them

    @classmethod
    def of(
        cls, timeline: Timeline, ground: int, own: Sequence[ContactSpan], ways: _Ways, faults: Sequence[FaultWindow]
    ) -> Self:
        """Asks for the tracks that will be drawn."""
        dark = [fault for fault in faults if timeline.nodes[ground].name in fault.target.split("~")]
        in_dark = [clipped for span in own for fault in dark if (clipped := _within(span, fault, timeline))]
        return cls(
            ground,
            dark,
            ways.add(ground, 0, timeline.n_step - 1, TRACK_POINTS),
            [ways.add(span.satellite, span.first, span.last, PASS_POINTS) for span in own],
            [ways.add(span.satellite, span.first, span.last, PASS_POINTS) for span in in_dark],
        )

    def traces(self, timeline: Timeline, ways: _Ways, colour: str, masks_deg: Mapping[str, float]) -> list[go.Scatter]:
        """The circle of its mask, its way if it moves, its passes, red where a fault took them, and its mark."""
        name, role = timeline.nodes[self.ground].name, timeline.nodes[self.ground].role.value
        longitude_deg, latitude_deg = ways.points_deg(self.way)
        place = (float(latitude_deg[0]), float(longitude_deg[0]))
        traces = []
        if name in masks_deg and timeline.n_satellite:
            radius_m = np.linalg.norm(timeline.sky(0).r_ecef_m, axis=0)
            satellite_m = float(np.nanmedian(radius_m[: timeline.n_satellite]))
            edge = footprint_deg(*place, float(radius_m[self.ground]), satellite_m, masks_deg[name])
            traces.append(line(name, cut_at_antimeridian(*edge), colour, 1, group=name, dash="dot"))
        if np.ptp(latitude_deg) > MOVES_DEG or np.ptp(longitude_deg) > MOVES_DEG:
            traces.append(line(name, ways.line([self.way]), colour, 2, group=name, dash="dash"))
        traces.append(line(name, ways.line(self.passes), colour, 4, group=name))
        if self.dark_passes:
            traces.append(line(name, ways.line(self.dark_passes), VERMILION, 5, group=name))
        return [*traces, _mark(name, role, place, colour, self.dark)]


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
    sky, now = timeline.sky(step), np.zeros(len(timeline.sky(step).link), np.int64)
    link = sky.link[~masked(timeline, sky.link, now, timeline.t_s[[step]], sky.r_ecef_m[np.newaxis], faults)]
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
