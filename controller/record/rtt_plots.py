"""Round trips: what was commanded, what was measured, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from controller.record.look import BLUE, CYCLE, ORANGE, axis, every, figure, shade_faults, text, time_axis
from controller.record.model import Sample
from controller.record.read import FaultWindow
from controller.record.summary import errors_us

POINTS_PER_PAIR = 4_000
"""More make a page that no browser likes; of a longer series every n-th probe is drawn."""
PAIRS_SHOWN = 8
"""Pairs that are drawn at first; the others wait in the legend."""


def by_pair(samples: Sequence[Sample], kind: str) -> dict[str, list[Sample]]:
    """The probes of one kind of pair, by pair, in order of time.

    A pair is a link where every path that it ever had is one hop, and a path otherwise; while no path is commanded its
    probes belong to the pair all the same.
    """
    pairs: dict[str, list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: s.t_s):
        pairs.setdefault(f"{sample.a} – {sample.b}", []).append(sample)
    return {pair: rows for pair, rows in pairs.items() if kind_of(rows) == kind}


def kind_of(rows: Sequence[Sample]) -> str:
    """Whether one pair's probes went over a link or a path."""
    commanded = [row for row in rows if row.commanded_rtt_us is not None]
    return "link" if commanded and all(row.kind == "link" for row in commanded) else "path"


def thinned(rows: Sequence[Sample]) -> Sequence[Sample]:
    """Every n-th of them, so that at most POINTS_PER_PAIR are left."""
    return rows[:: every(len(rows), POINTS_PER_PAIR)]


def rtt_over_time(
    samples: Sequence[Sample], kind: str, span_s: tuple[float, float], faults: Sequence[FaultWindow]
) -> go.Figure:
    """Commanded as a line, measured as points, unanswered as crosses; a colour a pair. span_s: of the whole run."""
    traces: list[Any] = []
    for number, (pair, probes) in enumerate(by_pair(samples, kind).items()):
        rows = thinned(probes)
        unanswered = [s for s in rows if s.commanded_rtt_us is not None and s.measured_rtt_us is None]
        shared = {
            "legendgroup": pair,
            "visible": True if number < PAIRS_SHOWN else "legendonly",
        }
        colour = CYCLE[number % len(CYCLE)]
        traces.append(
            go.Scatter(
                name="commanded",
                x=[s.t_s for s in rows],
                y=[None if s.commanded_rtt_us is None else s.commanded_rtt_us / 1e3 for s in rows],
                mode="lines",
                line={"color": colour, "width": 1.4, "shape": "hv"},
                showlegend=False,
                hoverinfo="skip",
                **shared,
            )
        )
        traces.append(
            go.Scatter(
                name=text(pair),
                x=[s.t_s for s in rows],
                y=[None if s.measured_rtt_us is None else s.measured_rtt_us / 1e3 for s in rows],
                mode="markers",
                marker={"color": colour, "size": 5, "opacity": 0.75},
                customdata=[[s.hops, _ms(s.commanded_rtt_us), _ms(s.error_us)] for s in rows],
                hovertemplate="%{x:.1f} s: measured %{y:.2f} ms<br>commanded %{customdata[1]} ms, error "
                "%{customdata[2]} ms<br>hops: %{customdata[0]}",
                **shared,
            )
        )
        if unanswered:
            traces.append(
                go.Scatter(
                    name=text(f"{pair}: no answer"),
                    x=[s.t_s for s in unanswered],
                    y=[_ms(s.commanded_rtt_us) for s in unanswered],
                    mode="markers",
                    marker={"color": colour, "size": 9, "symbol": "x-thin", "line": {"color": colour, "width": 2}},
                    hovertemplate="%{x:.1f} s: no answer, though %{y:.2f} ms was commanded",
                    showlegend=False,
                    **shared,
                )
            )
    fig = figure(
        traces,
        430 if kind == "path" else 340,
        xaxis=time_axis(*span_s),
        yaxis=axis("Round trip (ms)", rangemode="tozero"),
    )
    return shade_faults(fig, faults)


def error_distribution(samples: Sequence[Sample]) -> go.Figure:
    """Histogram and cumulative share of measured − commanded, for links and, a hop, for paths."""
    groups = {
        "links (one hop)": (errors_us(s for s in samples if s.kind == "link"), BLUE),
        "paths, a hop": (errors_us((s for s in samples if s.kind == "path"), per_hop=True), ORANGE),
    }
    groups = {name: group for name, group in groups.items() if group[0]}
    fig = make_subplots(1, 2, horizontal_spacing=0.11)
    every_ms = np.concatenate([np.array(errors) for errors, _ in groups.values()]) / 1e3
    low_ms, high_ms = np.percentile(every_ms, [0.1, 99.5])
    margin_ms = max(0.15 * (high_ms - low_ms), 0.02)
    edges_ms = np.linspace(low_ms - margin_ms, high_ms + margin_ms, 61)
    for name, (errors, colour) in groups.items():
        errors_ms = np.sort(np.array(errors)) / 1e3
        counts, _ = np.histogram(errors_ms, edges_ms)
        median_ms, p99_ms = np.percentile(errors_ms, [50, 99])
        fig.add_trace(
            go.Bar(
                name=name,
                legendgroup=name,
                x=((edges_ms[1:] + edges_ms[:-1]) / 2).round(4).tolist(),
                y=(counts / len(errors_ms) * 100).round(3).tolist(),
                marker={"color": colour, "opacity": 0.55, "line": {"width": 0}},
                showlegend=False,
                hovertemplate="%{x:.3f} ms: %{y:.1f} %",
            ),
            1,
            1,
        )
        share = np.linspace(0, 100, min(len(errors_ms), 501))
        fig.add_trace(
            go.Scatter(
                name=name,
                legendgroup=name,
                x=np.percentile(errors_ms, share).round(4).tolist(),
                y=share.round(2).tolist(),
                mode="lines",
                line={"color": colour, "width": 2},
                showlegend=False,
                hovertemplate="%{y:.1f} % below %{x:.3f} ms",
            ),
            1,
            2,
        )
        fig.add_trace(
            go.Scatter(
                name=f"{name}: median {median_ms:.2f} ms, p99 {p99_ms:.2f} ms",
                legendgroup=name,
                x=[round(float(median_ms), 4), round(float(p99_ms), 4)],
                y=[50, 99],
                mode="markers",
                marker={"color": colour, "size": 10, "line": {"color": "white", "width": 1.5}},
                cliponaxis=False,
                hovertemplate="%{y} % below %{x:.3f} ms",
            ),
            1,
            2,
        )
    fig.update_layout(figure([], 340, barmode="overlay", bargap=0).layout)
    range_ms = [float(edges_ms[0]), float(edges_ms[-1])]
    fig.update_xaxes(**axis("Measured − commanded (ms)", range=range_ms))
    fig.update_yaxes(**axis("Share of probes (%)", rangemode="tozero"), col=1)
    fig.update_yaxes(**axis("At or below (%)", range=[0, 104]), col=2)
    return fig


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else round(value_us / 1e3, 3)
