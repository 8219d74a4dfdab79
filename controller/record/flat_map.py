"""A flat map of the Earth: coastlines, lines that are cut at its edges, and how it is framed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import numpy as np
import plotly.graph_objects as go

from controller.record.look import axis, text
from controller.timeline import FloatArray

Line = tuple[list[float | None], list[float | None]]
"""Longitudes and latitudes of a polyline in degrees, with None between its parts."""


def coastline() -> Line:
    """The land's rings."""
    document = json.loads(files("controller.record").joinpath("coastline_110m.json").read_text(encoding="utf-8"))
    longitudes: list[float | None] = []
    latitudes: list[float | None] = []
    for ring in document["rings"]:
        longitudes += [tenth / 10 for tenth in ring[0::2]] + [None]
        latitudes += [tenth / 10 for tenth in ring[1::2]] + [None]
    return longitudes, latitudes


def land(fill: bool = True) -> go.Scatter:
    """The land, as a ground for what is drawn over it, or as lines over what is drawn below."""
    longitudes, latitudes = coastline()
    look = {"fill": "toself", "fillcolor": "#eef0ea"} if fill else {}
    return go.Scatter(
        x=longitudes,
        y=latitudes,
        mode="lines",
        line={"color": "#b7bdb0" if fill else "#4A5568", "width": 0.7},
        hoverinfo="skip",
        showlegend=False,
        **look,
    )


def map_axes() -> dict[str, Any]:
    """Axes of an equirectangular map, a degree as long one way as the other."""
    return {
        "xaxis": axis(range=[-180, 180], dtick=30, ticksuffix="°", constrain="domain"),
        "yaxis": axis(range=[-90, 90], dtick=30, ticksuffix="°", scaleanchor="x", constrain="domain"),
    }


def line(
    name: str, points: Line, colour: str, width: float, *, group: str, dash: str = "solid", legend: bool = False
) -> go.Scatter:
    """A line on the map, which the pointer passes over."""
    return go.Scatter(
        name=text(name),
        legendgroup=group,
        x=points[0],
        y=points[1],
        mode="lines",
        line={"color": colour, "width": width, "dash": dash},
        hoverinfo="skip",
        showlegend=legend,
    )


def joined(lines: Iterable[Line]) -> Line:
    """Many lines as one."""
    longitudes: list[float | None] = []
    latitudes: list[float | None] = []
    for one in lines:
        longitudes += [*one[0], None]
        latitudes += [*one[1], None]
    return longitudes, latitudes


def cut_at_antimeridian(longitude_deg: FloatArray, latitude_deg: FloatArray) -> Line:
    """A polyline in (−180°, 180°] for a flat map: where it crosses 180° it ends at one edge and goes on at the other.

    Shapes: (n,) each → lists with None at each cut, and in place of NaN.
    """
    longitudes: list[float | None] = []
    latitudes: list[float | None] = []
    for number, (longitude, latitude) in enumerate(zip(longitude_deg.tolist(), latitude_deg.tolist(), strict=True)):
        if np.isnan(longitude):
            longitudes.append(None)
            latitudes.append(None)
            continue
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
