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
    every,
    figure,
    shade_faults,
    text,
    time_axis,
)
from controller.record.read import FaultWindow, RunRecord
from controller.record.sky_series import ContactSpan, SkySeries, contact_spans
from controller.record.words import count
from controller.timeline import Head, IntArray

STEPS_DRAWN = 4_000
"""Points of a series; of a longer one every n-th step is drawn."""
HANDOVERS_DRAWN = 2_000
GROUNDS_DRAWN, CONTACTS_DRAWN = 40, 2_000
"""Rows and bars of the contacts' plot; more cannot be told apart."""
ROWS_OF_FULL_HEIGHT = 12


def links_over_time(series: SkySeries, record: RunRecord) -> go.Figure:
    """ISLs and GSLs that are usable, with what the geometry alone would allow behind; handovers as ticks."""
    faults = record.faults()
    some = slice(None, None, every(len(series.t_s), STEPS_DRAWN))
    t_s = series.t_s[some].tolist()
    fig = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.09)
    for row, (kind, geometry, usable, colour) in enumerate(
        (("ISLs", series.isl, series.isl_usable, BLUE), ("GSLs", series.gsl, series.gsl_usable, GREEN)), 1
    ):
        if np.any(geometry != usable):
            fig.add_trace(_steps("geometry alone", t_s, geometry[some], PALE, dash="dot", legend=row == 2), row, 1)
        fig.add_trace(_steps(f"{kind} usable", t_s, usable[some], colour), row, 1)
    top = 1.2 * max(int(series.gsl.max(initial=0)), 1)
    handovers = [event for event in record.events if event.kind == "handover"]
    handovers = handovers[:: every(len(handovers), HANDOVERS_DRAWN)]
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
    fig.update_xaxes(**time_axis(t_s[0], float(series.t_s[-1])), row=2)
    fig.update_yaxes(**_whole_numbers("ISLs", fig.data[0].y), row=1)
    fig.update_yaxes(**axis("GSLs", range=[0, 1.12 * top]), row=2)
    return shade_faults(fig, faults, y_axis="y2")


def contacts_left_out(head: Head) -> str:
    """What of the contacts `contact_gantt` leaves out, in words; empty if nothing."""
    spans, drawn = contact_spans(head), len(_drawn(head))
    if drawn == len(spans):
        return ""
    grounds = len(head.nodes) - head.n_satellite
    return (
        f"Drawn are {drawn:,} of {count(len(spans), 'contact')} and {min(grounds, GROUNDS_DRAWN)} of "
        f"{count(grounds, 'ground node')}; `skyrack contacts` lists them all."
    )


def _drawn(head: Head) -> list[ContactSpan]:
    last_ground = head.n_satellite + GROUNDS_DRAWN
    return [span for span in contact_spans(head) if span.ground < last_ground][:CONTACTS_DRAWN]


def contact_gantt(head: Head, faults: Sequence[FaultWindow]) -> go.Figure:
    """Which satellite serves each ground node when; neighbours in time alternate in colour; blackouts hatched."""
    spans = _drawn(head)
    grounds = range(head.n_satellite, min(len(head.nodes), head.n_satellite + GROUNDS_DRAWN))
    names = [head.nodes[n].name for n in grounds]
    traces: list[Any] = []
    for parity, colour in enumerate((SKY_BLUE, BLUE)):
        chosen = [s for n in grounds for i, s in enumerate(x for x in spans if x.ground == n) if i % 2 == parity]
        traces.append(
            go.Bar(
                name="contact",
                orientation="h",
                y=[text(head.nodes[span.ground].name) for span in chosen],
                base=[span.start_s for span in chosen],
                x=[span.end_s - span.start_s for span in chosen],
                width=0.5,
                marker={"color": colour, "line": {"color": "white", "width": 1}},
                text=[text(head.nodes[span.satellite].name) for span in chosen],
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
        120 + (46 if len(grounds) <= ROWS_OF_FULL_HEIGHT else 26) * len(grounds),
        barmode="overlay",
        uniformtext={"minsize": 8, "mode": "hide"},
        xaxis=time_axis(float(head.t_s[0]), float(head.t_s[-1])),
        yaxis=axis(
            categoryorder="array", categoryarray=[text(name) for name in reversed(names)], showgrid=False, ticks=""
        ),
    )


def sunlight(series: SkySeries) -> go.Figure:
    """How many satellites stand in full sun, in penumbra and in the Earth's umbra, over time."""
    some = slice(None, None, every(len(series.t_s), STEPS_DRAWN))
    t_s = series.t_s[some].tolist()
    satellites = int((series.in_sun + series.in_penumbra + series.in_umbra).max())
    traces = [
        go.Scatter(
            name=name,
            x=t_s,
            y=counts[some].tolist(),
            stackgroup="sun",
            mode="lines",
            line={"width": 0.8, "color": "white", "shape": "hv"},
            fillcolor=colour,
            hovertemplate=f"%{{y}} {name}",
        )
        for name, counts, colour in (
            ("in full sun", series.in_sun, "#F5C04A"),
            ("in penumbra", series.in_penumbra, "#C98A5B"),
            ("in umbra", series.in_umbra, "#4A5568"),
        )
    ]
    return figure(
        traces,
        300,
        hovermode="x unified",
        xaxis=time_axis(t_s[0], float(series.t_s[-1])),
        yaxis=axis("Satellites", range=[0, satellites]),
    )


def _whole_numbers(title: str, counts: Sequence[int]) -> dict[str, Any]:
    """An axis of counts: close around them, so that a single link is seen, and with ticks on whole numbers alone."""
    low, high = min(counts, default=0), max(counts, default=1)
    return axis(title, range=[low - 1.5, high + 1.5], dtick=max(1, round((high - low + 3) / 5)), tickformat="d")


def _steps(
    name: str, t_s: list[float], y: IntArray, colour: str, dash: str = "solid", legend: bool = True
) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=t_s,
        y=y.tolist(),
        mode="lines",
        line={"color": colour, "width": 1.8, "dash": dash, "shape": "hv"},
        hovertemplate="%{x:.0f} s: %{y}",
        showlegend=legend,
    )
