"""Jobs: in which state each was when and why; and what computing in orbit saved against the bent pipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from controller.record.look import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SKY_BLUE,
    SOFT_INK,
    VERMILION,
    YELLOW,
    axis,
    figure,
    shade_faults,
    text,
    time_axis,
)
from controller.record.model import JobRecord, LoadResult, WorkloadResult
from controller.record.read import FaultWindow
from controller.record.words import size, words

STATE_COLOURS = {
    "WAITING_CONTACT": PALE,
    "IN_TRANSIT": SKY_BLUE,
    "QUEUED": YELLOW,
    "RUNNING": BLUE,
    "SUSPENDED": PURPLE,
    "RETURNING": GREEN,
}
END_MARKS = {
    "SUCCEEDED": ("circle", GREEN),
    "FAILED": ("x", VERMILION),
    "CANCELLED": ("square", SOFT_INK),
    "EXPIRED": ("diamond", ORANGE),
}
REASONS_SHOWN = 6
LOAD_PHASES = ("waiting", "transit", "queued", "running", "suspended", "returning")
"""What the figures of a load call the states above, in their order."""


def job_timeline(jobs: Sequence[JobRecord], end_s: float, faults: Sequence[FaultWindow]) -> go.Figure:
    """A row a job, a bar a state, the reason on hover, a mark where it ended. A job under way ends at end_s."""
    histories: dict[tuple[str, str], list[JobRecord]] = {}
    for record in jobs:
        histories.setdefault((record.gateway, record.id), []).append(record)
    labels = {key: text(_label(history[-1])) for key, history in histories.items()}
    stays = [(labels[key], stay) for key, history in histories.items() for stay in _stays(history, end_s)]
    by_state: dict[str, list[tuple[str, _Stay]]] = {state: [] for state in STATE_COLOURS}
    for label, stay in stays:
        by_state.setdefault(stay.last.state, []).append((label, stay))
    traces: list[Any] = [
        go.Bar(
            name=words(state),
            orientation="h",
            y=[label for label, _ in rows],
            base=[stay.start_s for _, stay in rows],
            x=[round(stay.end_s - stay.start_s, 3) for _, stay in rows],
            width=0.55,
            marker={"color": STATE_COLOURS.get(state, SOFT_INK), "line": {"color": "white", "width": 1}},
            customdata=[
                [round(stay.end_s, 1), stay.reasons, size(stay.last.moved_bytes), text(stay.last.on_node)]
                for _, stay in rows
            ],
            hovertemplate="%{base:.1f} s to %{customdata[0]} s, on %{customdata[3]}<br>%{customdata[1]}<br>"
            "%{customdata[2]} moved so far",
        )
        for state, rows in by_state.items()
        if rows and state not in END_MARKS
    ]
    traces += [
        go.Scatter(
            name=words(state),
            x=[stay.start_s for _, stay in rows],
            y=[label for label, _ in rows],
            mode="markers",
            marker={"symbol": symbol, "size": 13, "color": colour, "line": {"color": "white", "width": 1.5}},
            customdata=[[stay.reasons, size(stay.last.moved_bytes)] for _, stay in rows],
            hovertemplate="%{x:.1f} s<br>%{customdata[0]}<br>%{customdata[1]} moved",
            cliponaxis=False,
        )
        for state, (symbol, colour) in END_MARKS.items()
        if (rows := by_state.get(state, []))
    ]
    first_s, last_s = min(stay.start_s for _, stay in stays), max(_until_s(stay) for _, stay in stays)
    margin_s = max(0.04 * (last_s - first_s), 0.5)
    fig = figure(
        traces,
        150 + 44 * len(histories),
        barmode="overlay",
        xaxis=time_axis(first_s - margin_s, last_s + margin_s),
        yaxis=axis(categoryorder="array", categoryarray=list(reversed(labels.values())), showgrid=False, ticks=""),
    )
    return shade_faults(fig, faults)


def comparison(results: Sequence[WorkloadResult]) -> go.Figure:
    """Time to insight and bytes over the ground link, a bar for each way."""
    fig = make_subplots(
        1,
        2,
        shared_yaxes=True,
        horizontal_spacing=0.06,
        subplot_titles=["Time to insight", "Bytes over the ground link"],
    )
    ways = [text(result.way) for result in results]
    colours = [(ORANGE, BLUE, GREEN, PURPLE)[number % 4] for number in range(len(results))]
    columns: tuple[tuple[list[float], list[str], str], ...] = (
        ([round(r.time_to_insight_s, 2) for r in results], [f"{r.time_to_insight_s:.1f} s" for r in results], " s"),
        ([float(r.ground_link_bytes) for r in results], [size(r.ground_link_bytes) for r in results], "B"),
    )
    fig.update_layout(figure([], 130 + 52 * len(results)).layout)
    for column, (values, labels, unit) in enumerate(columns, 1):
        fig.add_trace(
            go.Bar(
                orientation="h",
                y=ways,
                x=values,
                width=0.55,
                marker={"color": colours, "line": {"width": 0}},
                text=labels,
                textposition="outside",
                textfont={"size": 14, "color": INK},
                cliponaxis=False,
                showlegend=False,
                hovertemplate="%{y}: %{text}<extra></extra>",
            ),
            1,
            column,
        )
        fig.update_xaxes(
            **axis(range=[0, 1.2 * max(values)], ticksuffix=unit, tickformat="~s" if unit == "B" else ""),
            row=1,
            col=column,
        )
    fig.update_yaxes(**axis(autorange="reversed", showgrid=False, ticks=""))
    return fig


def phases(results: Sequence[LoadResult]) -> go.Figure:
    """Where the jobs of a load spent their time: the mean of each phase, a bar a way."""
    ways = [text(result.way) for result in results]
    colours = dict(zip(LOAD_PHASES, STATE_COLOURS.values(), strict=True))
    traces = [
        go.Bar(
            name=phase,
            orientation="h",
            y=ways,
            x=[result.phases_s.get(phase, {}).get("mean") or 0.0 for result in results],
            width=0.55,
            marker={"color": colour, "line": {"color": "white", "width": 1}},
            hovertemplate="%{y}: " + phase + " %{x:.2f} s<extra></extra>",
        )
        for phase, colour in colours.items()
        if any(phase in result.phases_s for result in results)
    ]
    return figure(
        traces,
        150 + 52 * len(results),
        barmode="stack",
        xaxis=axis("Mean time of a job (s)"),
        yaxis=axis(autorange="reversed", showgrid=False, ticks=""),
    )


@dataclass(frozen=True)
class _Stay:
    """A job's unbroken time in one state, whatever reasons it gave meanwhile."""

    start_s: float
    end_s: float
    last: JobRecord
    reasons: str  # one a line, for a label


def _stays(history: Sequence[JobRecord], end_s: float) -> list[_Stay]:
    """A job's states in turn; the last one lasts until end_s."""
    groups = [list(group) for _, group in groupby(history, key=lambda record: record.state)]
    ends = [group[0].t_s for group in groups[1:]] + [end_s]
    stays = []
    for group, until_s in zip(groups, ends, strict=True):
        reasons = list(dict.fromkeys(text(record.reason) for record in group if record.reason))
        shown = reasons if len(reasons) <= REASONS_SHOWN else [*reasons[: REASONS_SHOWN - 2], "…", reasons[-1]]
        stays.append(_Stay(group[0].t_s, until_s, group[-1], "<br>".join(shown)))
    return stays


def _until_s(stay: _Stay) -> float:
    """When a state ended, or began where it is the job's last."""
    return stay.start_s if stay.last.state in END_MARKS else stay.end_s


def _label(job: JobRecord) -> str:
    return f"{job.label or job.id} · {job.gateway}"
