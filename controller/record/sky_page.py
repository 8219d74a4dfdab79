"""The page of a plan: coverage of the Earth, round trips between nodes, contacts. One offline HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import plotly.graph_objects as go

from controller.faults import FaultSchedule
from controller.links.coverage import Grid, coverage
from controller.links.routes import NONE, Router, path_costs, ports
from controller.record.flat_map import land, map_axes
from controller.record.look import CYCLE, INK, axis, figure, plot_json, shade_faults, text, time_axis
from controller.record.page import Head, Section, Tile, page, plot_slot, remark, table
from controller.record.read import FaultWindow
from controller.record.sky_plots import contact_gantt, contacts_left_out
from controller.record.sky_series import contact_spans
from controller.record.words import count, span
from controller.scenario.model import Scenario
from controller.timeline import Block, FloatArray, IntArray, Role, Timeline

CELL_DEG = 2.0
COVERAGE_INSTANTS = 60
"""Instants at which coverage is looked at, evenly over the run."""
RTT_POINTS = 600
"""Instants at which round trips are worked out, evenly over the run."""
DEFAULT_MASK_DEG = 10.0
"""Where no ground node tells one."""
NODES_MARKED = 40
SCALE = [[0.0, "#f7f8fa"], [0.5, "#a6d0ea"], [1.0, "#3f93cc"]]
"""From nothing to all, never so dark that the coastline is lost."""


class SkyPage:
    """Gathers what the page shows, block by block, and draws it in the end. Shapes: pairs (n_pair, 2), node indices."""

    def __init__(
        self, scenario: Scenario, timeline: Timeline, faults: FaultSchedule, pairs: Sequence[tuple[str, str]]
    ) -> None:
        self._scenario, self._timeline, self._faults = scenario, timeline, faults
        self._names = [f"{a} – {b}" for a, b in pairs]
        index = {node.name: i for i, node in enumerate(timeline.nodes)}
        self._pairs = np.array([[index[name] for name in pair] for pair in pairs], np.int64).reshape(-1, 2)
        self._mask_deg = min((ground.min_elevation_deg for ground in scenario.grounds), default=DEFAULT_MASK_DEG)
        self._coverage = coverage(Grid.of(CELL_DEG), self._mask_deg, np.empty((0, 3, 0)))
        self._coverage_steps = _evenly(timeline.n_step, COVERAGE_INSTANTS)
        self._rtt_steps = _evenly(timeline.n_step, RTT_POINTS)
        self._rtt_us: list[IntArray] = []
        self._hops: list[IntArray] = []
        is_ground = np.array([node.role is not Role.SATELLITE for node in timeline.nodes])
        self._ends, column = np.unique(self._pairs, return_inverse=True)
        self._column = column.reshape(-1, 2)
        self._router = Router(len(timeline.nodes), timeline.links, is_ground, self._ends)

    def take(self, block: Block) -> None:
        """Look at the next block."""
        end = block.first_step + block.n_step
        here = self._coverage_steps[(self._coverage_steps >= block.first_step) & (self._coverage_steps < end)]
        r_ecef_m = block.r_ecef_m[here - block.first_step, :, : self._timeline.n_satellite]
        self._coverage = self._coverage.plus(coverage(self._coverage.grid, self._mask_deg, r_ecef_m))
        if len(self._pairs):
            for step in self._rtt_steps[(self._rtt_steps >= block.first_step) & (self._rtt_steps < end)].tolist():
                self._round_trips(step)

    def html(self) -> str:
        """The page, once every block was looked at."""
        sections = [self._coverage_section(), self._rtt_section(), self._contacts_section()]
        if self._timeline.warnings:
            body = "".join(remark(warning) for warning in self._timeline.warnings)
            sections.append(Section("warnings", "Warnings", "What is to be known of this sky.", body))
        return page(self._head(), self._tiles(), sections)

    def _round_trips(self, step: int) -> None:
        timeline, links = self._timeline, self._timeline.links
        masked = self._faults.masked(float(timeline.t_s[step]), timeline, timeline.sky(step))
        sky, usable = masked.sky, masked.usable
        routes, panel = self._router.next_ports(sky, usable), ports(len(timeline.nodes), links, sky, usable)
        there = path_costs(routes, panel, self._ends, self._pairs[:, 0], self._column[:, 1])
        back = path_costs(routes, panel, self._ends, self._pairs[:, 1], self._column[:, 0])
        whole = (there.hops != NONE) & (back.hops != NONE)
        self._rtt_us.append(np.where(whole, there.delay_us + back.delay_us, NONE))
        self._hops.append(np.where(whole, there.hops, NONE))

    def _head(self) -> Head:
        timeline = self._timeline
        start, end = (timeline.epoch_utc + timedelta(seconds=float(timeline.t_s[i])) for i in (0, -1))
        roles = Counter(node.role.value for node in timeline.nodes)
        facts = [
            ("sky", f"{start:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC"),
            ("nodes", ", ".join(count(number, role) for role, number in roles.items())),
            ("step", f"{timeline.step_s:g} s"),
        ]
        return Head(self._scenario.name, "plan", "skyrack · plan of the sky", facts, f"{self._scenario.label}")

    def _tiles(self) -> list[Tile]:
        timeline, seen = self._timeline, self._coverage
        tiles = [
            Tile(
                f"{seen.share_of_earth_ratio * 100:.1f} %",
                "of the Earth in view",
                f"above {self._mask_deg:g}°, on average",
            ),
            Tile(f"{seen.mean_over_earth:.2f}", "satellites in view", "of a place on the Earth, on average"),
        ]
        spans = contact_spans(timeline)
        lengths_s = [s.end_s - s.start_s for s in spans]
        note = f"{span(float(np.median(lengths_s)))} in the middle" if spans else "no ground node is ever linked"
        tiles.append(Tile(f"{len(spans):,}", "contacts with the ground", note))
        if self._rtt_us:
            rtt_us = np.array(self._rtt_us)[:, 0]
            up = rtt_us[rtt_us != NONE]
            figure_text = f"{float(np.median(up)) / 1e3:.1f} ms" if len(up) else "–"
            note = f"{self._names[0]}, {len(up) / len(rtt_us) * 100:.0f} % of the time"
            tiles.append(Tile(figure_text, "round trip (median)", note))
        return tiles

    def _coverage_section(self) -> Section:
        lead = (
            f"Satellites above {self._mask_deg:g}° as seen from each place at sea level, at "
            f"{count(self._coverage.n_instant, 'instant')} spread evenly over the plan. Equirectangular, cells of "
            f"{CELL_DEG:g}°."
        )
        if not self._timeline.n_satellite:
            return Section("coverage", "Coverage", lead, remark("This scenario has no satellites."))
        seen = self._coverage
        plots = {
            "coverage-share": self._map(seen.share_ratio * 100, "% of<br>the time", "%{z:.0f} % of the time", 100.0),
            "coverage-mean": self._map(
                seen.mean_satellites, "satellites", "%{z:.2f} satellites", float(max(seen.mean_satellites.max(), 1.0))
            ),
        }
        body = (
            f"<h3>Share of the time with a satellite in view</h3>{plot_slot('coverage-share')}"
            f"<h3>Satellites in view, on average</h3>{plot_slot('coverage-mean')}"
        )
        return Section("coverage", "Coverage", lead, body, {name: plot_json(fig) for name, fig in plots.items()})

    def _map(self, values: FloatArray, unit: str, hover: str, most: float) -> go.Figure:
        grid = self._coverage.grid
        heat = go.Heatmap(
            x=grid.longitude_deg.tolist(),
            y=grid.latitude_deg.tolist(),
            z=values.round(3).tolist(),
            zmin=0.0,
            zmax=most,
            colorscale=SCALE,
            colorbar={"title": {"text": unit, "font": {"size": 12}}, "thickness": 14, "outlinewidth": 0},
            hovertemplate=f"%{{y:.0f}}°, %{{x:.0f}}°: {hover}<extra></extra>",
        )
        coast = land(fill=False)
        coast.line = {"color": INK, "width": 0.8}
        grounds = self._scenario.grounds[:NODES_MARKED]
        marks = go.Scatter(
            x=[ground.longitude_deg for ground in grounds],
            y=[ground.latitude_deg for ground in grounds],
            mode="markers",
            marker={"symbol": "diamond", "size": 9, "color": "white", "line": {"color": INK, "width": 1.5}},
            customdata=[text(ground.name) for ground in grounds],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
        )
        return figure([heat, coast, marks], 520, margin={"l": 44, "r": 12, "t": 12, "b": 36}, **map_axes())

    def _rtt_section(self) -> Section:
        title = "Round trips"
        lead = "What the plan commands over the routes of least delay, there and back; faults are in force."
        if not self._rtt_us:
            body = remark("No two nodes to look at: name them with --between A B, or give the scenario ground nodes.")
            return Section("round-trips", title, lead, body)
        rtt_ms = np.where(np.array(self._rtt_us) == NONE, np.nan, np.array(self._rtt_us) / 1e3)
        hops = np.array(self._hops)
        t_s = self._timeline.t_s[self._rtt_steps]
        traces: list[Any] = []
        rows = []
        for i, name in enumerate(self._names):
            up = ~np.isnan(rtt_ms[:, i])
            traces.append(
                go.Scatter(
                    name=text(name),
                    x=t_s.round(3).tolist(),
                    y=[None if np.isnan(value) else round(value, 3) for value in rtt_ms[:, i].tolist()],
                    mode="lines",
                    line={"color": CYCLE[i % len(CYCLE)], "width": 1.8, "shape": "hv"},
                    customdata=hops[:, i].tolist(),
                    hovertemplate="%{x:.0f} s: %{y:.2f} ms, %{customdata} hops",
                )
            )
            some = rtt_ms[up, i]
            figures = [f"{f(some):.2f} ms" for f in (np.min, np.median, np.max)] if len(some) else ["–"] * 3
            mean_hops = f"{hops[up, i].mean():.1f}" if len(some) else "–"
            rows.append((name, f"{up.mean() * 100:.1f} %", *figures, mean_hops))
        fig = figure(
            traces,
            400,
            showlegend=True,
            xaxis=time_axis(float(t_s[0]), float(t_s[-1])),
            yaxis=axis("Round trip (ms)", rangemode="tozero"),
        )
        body = plot_slot("rtt") + table(rows, ("Between", "Time with a path", "Least", "Median", "Most", "Hops (mean)"))
        return Section("round-trips", title, lead, body, {"rtt": plot_json(shade_faults(fig, self._faults_within()))})

    def _contacts_section(self) -> Section:
        lead = "Which satellite serves each ground node when. Faults are no part of the contact plan: they are hatched."
        if not contact_spans(self._timeline):
            body = remark("No ground node has a satellite above its mask in this time.")
            return Section("contacts", "Contacts", lead, body)
        body = plot_slot("contacts")
        if left_out := contacts_left_out(self._timeline):
            body += remark(left_out)
        plots = {"contacts": plot_json(contact_gantt(self._timeline, self._faults_within()))}
        return Section("contacts", "Contacts", lead, body, plots)

    def _faults_within(self) -> list[FaultWindow]:
        """The faults that fall into the plan."""
        start_s, end_s = float(self._timeline.t_s[0]), float(self._timeline.t_s[-1])
        return [
            FaultWindow(f.target, f.kind, f.mode, f.at_s, min(f.until_s, end_s))
            for f in self._faults.within(start_s, end_s)
        ]


def _evenly(n_step: int, most: int) -> IntArray:
    return np.unique(np.linspace(0, n_step - 1, min(n_step, most)).astype(np.int64))
