"""The sky over time: links up, contacts of each ground node, and how many satellites are lit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from controller.record.look import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    SKY_BLUE,
    VERMILION,
    axis,
    figure,
    shade_faults,
    text,
    time_axis,
)
from controller.record.read import FaultWindow, RunRecord
from controller.record.sky_series import contact_spans, links_per_step, masked, of_kind
from controller.timeline import LinkKind, Timeline

FULL_SUN, UMBRA = 0.999, 0.001
"""Illumination ratios above and below which a satellite counts as wholly lit, and as wholly dark."""


def links_over_time(timeline: Timeline, record: RunRecord) -> go.Figure:
    """ISLs and GSLs that are usable, with what the geometry alone would allow behind; handovers as ticks."""
    faults = record.faults()
    lost = masked(timeline, faults)
    t_s = timeline.t_s.tolist()
    fig = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.09)
    for row, (kind, colour) in enumerate(((LinkKind.ISL, BLUE), (LinkKind.GSL, GREEN)), 1):
        rows = of_kind(timeline, kind)
        geometry, usable = links_per_step(timeline, rows), links_per_step(timeline, rows & ~lost)
        if np.any(geometry != usable):
            fig.add_trace(_steps("geometry alone", t_s, geometry.tolist(), PALE, dash="dot", legend=row == 2), row, 1)
        fig.add_trace(_steps(f"{kind.name}s usable", t_s, usable.tolist(), colour), row, 1)
    top = 1.2 * max(int(links_per_step(timeline, of_kind(timeline, LinkKind.GSL)).max(initial=0)), 1)
    handovers = [event for event in record.events if event.kind == "handover"]
    if handovers:
        fig.add_trace(
            go.Scatter(
                name="handover",
                x=[event.t_s for event in handovers],
                y=[top] * len(handovers),
                mode="markers",
                marker={"symbol": "triangle-down", "size": 9, "color": ORANGE, "line": {"color": INK, "width": 0.5}},
                customdata=[
                    text(f"{e.fields.get('ground', '')}: {e.fields.get('before', '')} → {e.fields.get('after', '')}")
                    for e in handovers
                ],
                hovertemplate="%{x:.0f} s: %{customdata}<extra>handover</extra>",
            ),
            2,
            1,
        )
    fig.update_layout(figure([], 430).layout)
    fig.update_xaxes(**axis())
    fig.update_xaxes(**time_axis(t_s[0], t_s[-1]), row=2)
    fig.update_yaxes(**_whole_numbers("ISLs", fig.data[0].y), row=1)
    fig.update_yaxes(**axis("GSLs", range=[0, 1.12 * top]), row=2)
    return shade_faults(fig, faults, y_axis="y2")


def contact_gantt(timeline: Timeline, faults: Sequence[FaultWindow]) -> go.Figure:
    """Which satellite serves each ground node when; neighbours in time alternate in colour; blackouts hatched."""
    spans = contact_spans(timeline)
    grounds = [n for n, node in enumerate(timeline.nodes) if node.role != "satellite"]
    names = [timeline.nodes[n].name for n in grounds]
    traces: list[Any] = []
    for parity, colour in enumerate((SKY_BLUE, BLUE)):
        chosen = [s for n in grounds for i, s in enumerate(x for x in spans if x.ground == n) if i % 2 == parity]
        traces.append(
            go.Bar(
                name="contact",
                orientation="h",
                y=[text(timeline.nodes[span.ground].name) for span in chosen],
                base=[span.start_s for span in chosen],
                x=[span.end_s - span.start_s for span in chosen],
                width=0.5,
                marker={"color": colour, "line": {"color": "white", "width": 1}},
                text=[text(timeline.nodes[span.satellite].name) for span in chosen],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": "white" if colour == BLUE else INK, "size": 11},
                constraintext="both",
                customdata=[[span.end_s, round(span.max_elevation_deg, 1)] for span in chosen],
                hovertemplate="%{text}<br>%{base:.0f} s to %{customdata[0]:.0f} s<br>highest elevation "
                "%{customdata[1]}°<extra>%{y}</extra>",
                showlegend=False,
            )
        )
    dark = [fault for fault in faults if fault.target in names]
    if dark:
        traces.append(
            go.Bar(
                name="blackout",
                orientation="h",
                y=[text(fault.target) for fault in dark],
                base=[fault.start_s for fault in dark],
                x=[fault.end_s - fault.start_s for fault in dark],
                width=0.72,
                marker={
                    "color": "rgba(213, 94, 0, 0.30)",
                    "line": {"color": VERMILION, "width": 1.5},
                    "pattern": {"shape": "/", "fgcolor": VERMILION, "size": 7, "solidity": 0.25},
                },
                customdata=[text(f"{fault.fault} ({fault.mode})") for fault in dark],
                hovertemplate="%{customdata}<br>from %{base:.0f} s for %{x:.0f} s<extra>%{y}</extra>",
                showlegend=True,
            )
        )
    return figure(
        traces,
        120 + 46 * len(grounds),
        barmode="overlay",
        xaxis=time_axis(float(timeline.t_s[0]), float(timeline.t_s[-1])),
        yaxis=axis(
            categoryorder="array", categoryarray=[text(name) for name in reversed(names)], showgrid=False, ticks=""
        ),
    )


def sunlight(timeline: Timeline) -> go.Figure:
    """How many satellites stand in full sun, in penumbra and in the Earth's umbra, over time."""
    satellites = [n for n, node in enumerate(timeline.nodes) if node.role == "satellite"]
    ratio = timeline.illumination_ratio[satellites]
    lit, dark = (ratio >= FULL_SUN).sum(axis=0), (ratio <= UMBRA).sum(axis=0)
    penumbra = len(satellites) - lit - dark
    t_s = timeline.t_s.tolist()
    traces = [
        go.Scatter(
            name=name,
            x=t_s,
            y=series.tolist(),
            stackgroup="sun",
            mode="lines",
            line={"width": 0.8, "color": "white", "shape": "hv"},
            fillcolor=colour,
            hovertemplate=f"%{{y}} {name}",
        )
        for name, series, colour in (
            ("in full sun", lit, "#F5C04A"),
            ("in penumbra", penumbra, "#C98A5B"),
            ("in umbra", dark, "#4A5568"),
        )
    ]
    return figure(
        traces,
        300,
        hovermode="x unified",
        xaxis=time_axis(t_s[0], t_s[-1]),
        yaxis=axis("Satellites", range=[0, len(satellites)]),
    )


def _whole_numbers(title: str, counts: Sequence[int]) -> dict[str, Any]:
    """An axis of counts: close around them, so that a single link is seen, and with ticks on whole numbers alone."""
    low, high = min(counts, default=0), max(counts, default=1)
    return axis(title, range=[low - 1.5, high + 1.5], dtick=max(1, round((high - low + 3) / 5)), tickformat="d")


def _steps(
    name: str, t_s: list[float], y: list[int], colour: str, dash: str = "solid", legend: bool = True
) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=t_s,
        y=y,
        mode="lines",
        line={"color": colour, "width": 1.8, "dash": dash, "shape": "hv"},
        hovertemplate="%{x:.0f} s: %{y}",
        showlegend=legend,
    )
