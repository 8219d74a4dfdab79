"""How well the loop kept time: how late each step began, how long it took, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from controller.record.look import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION, axis, every, figure, time_axis
from controller.record.model import StepRecord
from controller.record.summary import overran

STEPS_DRAWN = 4_000
"""Points of a line; of a longer run every n-th step is drawn, and overruns apart."""


def loop_over_time(steps: Sequence[StepRecord], period_s: float) -> go.Figure:
    """Late and took, a step; below, the directions and routes that the step changed. Overruns are crossed."""
    overruns: list[Any] = [step for step in steps if overran(step, period_s)]
    overruns = overruns[:: every(len(overruns), STEPS_DRAWN)]
    first_s, last_s = steps[0].t_s, steps[-1].t_s
    steps = steps[:: every(len(steps), STEPS_DRAWN)]
    t_s = [step.t_s for step in steps]
    fig = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.6, 0.4], vertical_spacing=0.09)

    def line(name: str, y: list[float], colour: str, row: int, unit: str) -> None:
        fig.add_trace(
            go.Scatter(
                name=name,
                x=t_s,
                y=y,
                mode="lines",
                line={"color": colour, "width": 1.4},
                hovertemplate=f"%{{x:.0f}} s: %{{y:.4~g}}{unit}",
            ),
            row,
            1,
        )

    line("took", [step.took_ms for step in steps], BLUE, 1, " ms")
    line("CPU", [step.cpu_ms for step in steps], GREEN, 1, " ms")
    line("began late by", [step.late_ms for step in steps], ORANGE, 1, " ms")
    line("directions changed", [step.directions_changed for step in steps], PURPLE, 2, "")
    line("routes changed", [step.routes_changed for step in steps], SKY_BLUE, 2, "")
    if any(step.drift for step in steps):
        line("drift", [step.drift for step in steps], VERMILION, 2, " directions")
    if overruns:
        fig.add_trace(
            go.Scatter(
                name="overrun",
                x=[step.t_s for step in overruns],
                y=[step.late_ms + step.took_ms for step in overruns],
                mode="markers",
                marker={"symbol": "x-thin", "size": 10, "line": {"color": VERMILION, "width": 2}},
                hovertemplate="%{x:.0f} s: ended %{y:.0f} ms after it was due",
            ),
            1,
            1,
        )
    fig.update_layout(figure([], 400).layout)
    fig.update_xaxes(**axis())
    fig.update_xaxes(**time_axis(first_s, last_s), row=2)
    fig.update_yaxes(**axis("Per step (ms)", rangemode="tozero"), row=1)
    fig.update_yaxes(**axis("Changes", rangemode="tozero"), row=2)
    return fig
