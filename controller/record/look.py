"""How the report's plots look: colours that colour-blind people can tell apart, one layout, one way to write a figure.

Colours: Okabe and Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from controller.record.read import FaultWindow

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY_BLUE, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
INK, SOFT_INK, GRID, PALE = "#1c2430", "#5b6675", "#e4e8ee", "#b9c1cc"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY_BLUE, VERMILION, "#7a5195", "#4d4d4d")
FAULT_FILL = "rgba(213, 94, 0, 0.10)"
FONT = "Inter, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif"
TIME_AXIS = "Time since the scenario's epoch (s)"


def axis(title: str = "", **more: object) -> dict[str, Any]:
    """An axis in the report's manner."""
    base: dict[str, Any] = {
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "gridcolor": GRID,
        "linecolor": PALE,
        "showline": True,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": PALE,
        "automargin": True,
    }
    return {**base, **more}


def time_axis(start_s: float, end_s: float) -> dict[str, Any]:
    """The time axis from start to end."""
    return axis(TIME_AXIS, range=[start_s, max(end_s, start_s + 1)])


def every(number: int, most: int) -> int:
    """Every how many-th of so many points is drawn, so that there are no more than `most`."""
    return max(1, -(-number // most))


def figure(traces: Sequence[Any], height_px: int, **layout: object) -> go.Figure:
    """A figure in the report's manner: white, quiet grid, legend above the plot."""
    base = {
        "template": "none",
        "height": height_px,
        "margin": {"l": 64, "r": 20, "t": 36, "b": 52},
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
    }
    return go.Figure(data=list(traces), layout={**base, **layout})


NAMED_FAULTS = 40
"""More names cannot be read beside each other."""


def shade_faults(fig: go.Figure, faults: Sequence[FaultWindow], *, y_axis: str = "y") -> go.Figure:
    """The same figure with every fault as a pale band, the longest named at the foot of `y_axis`. Returns `fig`."""
    bands = [
        {
            "type": "rect", "x0": fault.start_s, "x1": fault.end_s, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain",
            "fillcolor": FAULT_FILL, "line": {"width": 0}, "layer": "below",
        }
        for fault in faults
    ]  # fmt: skip
    longest = sorted(faults, key=lambda fault: fault.start_s - fault.end_s)[:NAMED_FAULTS]
    names = [
        {
            "x": (fault.start_s + fault.end_s) / 2, "y": 0, "yref": f"{y_axis} domain", "yanchor": "bottom",
            "text": text(f"{fault.fault}: {fault.target}"), "showarrow": False,
            "font": {"size": 11, "color": VERMILION},
        }
        for fault in longest
    ]  # fmt: skip
    # All at once: plotly looks at all that are there whenever one is added.
    fig.update_layout(shapes=[*fig.layout.shapes, *bands], annotations=[*fig.layout.annotations, *names])
    return fig


def text(raw: str) -> str:
    """Words for a plot's labels, which would otherwise be read as markup."""
    return escape(raw, quote=False)


def plot_json(fig: go.Figure) -> str:
    """A figure as the page keeps it: plain JSON that cannot end the script element which holds it."""
    document = fig.to_plotly_json()
    return json.dumps(_plain(document), ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def _plain(value: object) -> object:
    """JSON values only; NaN becomes null, as JSON has no word for it."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
