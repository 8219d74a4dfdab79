"""The parts of the report, each a function of the run; a part without data says so in a sentence."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from controller.record.job_plots import comparison, job_timeline, phases
from controller.record.look import plot_json
from controller.record.loop_plots import loop_over_time
from controller.record.map_plot import TRACK_S, TRACKS, sky_map, tracks_drawn
from controller.record.page import Section, folded, plot_slot, remark, table
from controller.record.read import FaultWindow, RunRecord
from controller.record.rtt_plots import PAIRS_SHOWN, by_pair, error_distribution, rtt_over_time
from controller.record.sky_plots import contact_gantt, contacts_left_out, links_over_time, sunlight
from controller.record.sky_series import SkySeries, contact_spans
from controller.record.summary import DROP_CAUSES, last_states
from controller.record.words import count, ms, size, span, words
from controller.timeline import Timeline

DIGEST_SHOWN = 10


@dataclass(frozen=True)
class Run:
    """What every part of the report is made from."""

    record: RunRecord
    timeline: Timeline  # as far as the run went
    series: SkySeries
    summary: Mapping[str, Any]  # as in summary.json
    faults: tuple[FaultWindow, ...]

    @property
    def span_s(self) -> tuple[float, float]:
        """When the run began and ended, since the epoch."""
        return float(self.timeline.t_s[0]), self.record.end_s


def round_trips(run: Run) -> Section:
    """Commanded and measured round trips, and how far they lie apart."""
    samples = run.record.samples
    lead = (
        "Lines are what the sky commanded when a probe was sent, points what it measured, crosses probes without an "
        "answer though a path was commanded. Click a pair in the legend to hide or show it."
    )
    figures: dict[str, tuple[str, go.Figure]] = {}
    for kind, title in (("path", "Paths, end to end"), ("link", "Links, one hop")):
        pairs = len(by_pair(samples, kind))
        if pairs:
            more = f" ({PAIRS_SHOWN} of {pairs} pairs shown at first)" if pairs > PAIRS_SHOWN else ""
            figures[f"rtt-{kind}"] = (title + more, rtt_over_time(samples, kind, run.span_s, run.faults))
    if run.summary["rtt_error_us"]["count"]:
        figures["rtt-error"] = ("Error", error_distribution(samples))
    body = "".join(f"<h3>{escape(title)}</h3>{plot_slot(name)}" for name, (title, _) in figures.items())
    rows = [
        (label, f"{spread['count']:,}", *(ms(spread[key], 3) for key in ("median", "p99", "min", "max")))
        for label, key in (
            ("links (one hop)", "rtt_error_one_hop_us"),
            ("paths, a hop", "rtt_error_per_hop_us"),
            ("all, end to end", "rtt_error_us"),
        )
        if (spread := run.summary[key])["count"]
    ]
    if rows:
        body += table(rows, ("Measured − commanded", "Probes", "Median", "p99", "Least", "Most"))
    if not samples:
        body = remark("No probe was sent in this run, so there is no round trip to show.")
    return _section("round-trips", "Round trips", lead, body, {name: fig for name, (_, fig) in figures.items()})


def links(run: Run) -> Section:
    """How many links were up, and whether the loop applied what the sky allowed."""
    series = run.series
    usable = (series.isl_usable + series.gsl_usable).tolist()
    expected = dict(zip(series.t_s.round(6).tolist(), usable, strict=True))
    steps = run.record.steps
    agree = sum(expected.get(step.t_s) == step.links_up for step in steps)
    lead = (
        "Links between satellites (ISL) and between ground and satellite (GSL) that the sky and the faults left "
        "usable. Triangles are handovers."
    )
    checked = f"In {agree:,} of {count(len(steps), 'step')} the loop had just as many links up as this plan says."
    body = plot_slot("links") + (f"<p>{checked}</p>" if steps else remark("The loop recorded no step."))
    ends = {"node-lost": "was lost", "node-down": "left the sky"}
    body += "".join(
        remark(f"{event.fields.get('node')} {ends[event.kind]} at {event.t_s:.0f} s: {event.fields.get('reason')}")
        for event in run.record.events
        if event.kind in ends
    )
    return _section("links", "Links up", lead, body, {"links": links_over_time(run.series, run.record)})


def ground_track_map(run: Run) -> Section:
    """The map, and each ground node's contacts."""
    figures = {"map": sky_map(run.timeline, _masks_deg(run.record.manifest.scenario_text), run.faults)}
    lead = (
        "Equirectangular. Thick tracks are passes, in the colour of the ground node that they serve (red: in "
        "blackout); dotted circles are where a satellite must be overhead to stand above that node's mask."
    )
    if run.timeline.t_s[-1] - run.timeline.t_s[0] > TRACK_S:
        lead += f" Tracks and passes are those of the first {span(TRACK_S)}."
    if run.timeline.n_satellite > TRACKS:
        lead += (
            f" Of {tracks_drawn(run.timeline)} of {count(run.timeline.n_satellite, 'satellite')} the track is drawn."
        )
    body = plot_slot("map") + "<h3>Contacts</h3>"
    if contact_spans(run.timeline):
        figures["contacts"] = contact_gantt(run.timeline, run.faults)
        body += plot_slot("contacts")
        if left_out := contacts_left_out(run.timeline):
            body += remark(left_out)
    else:
        body += remark("No ground node had a satellite above its mask during this run.")
    return _section("map", "Where they were", lead, body, figures)


def jobs(run: Run) -> Section:
    """Each job's states over time."""
    records = run.record.jobs
    lead = "One row a job; each bar a state, with its reason under the pointer. The mark at the end is how it ended."
    if not records:
        return _section("jobs", "Jobs", lead, remark("No job was submitted in this run."), {})
    rows = [
        (job.id, job.gateway, job.on_node, words(job.state), size(job.moved_bytes), job.reason)
        for job in last_states(records)
    ]
    body = plot_slot("jobs") + table(rows, ("Job", "Gateway", "Node", "State", "Moved", "Reason"))
    return _section("jobs", "Jobs", lead, body, {"jobs": job_timeline(records, run.record.end_s, run.faults)})


def bent_pipe_or_in_orbit(run: Run) -> Section:
    """The same insight by different ways."""
    results = run.record.workloads
    title = "Bent pipe or in orbit"
    lead = "The same question about the same scene, answered on the ground and on the satellite."
    if not results:
        return _section("comparison", title, lead, remark("This run compared no workloads."), {})
    rows = [
        (
            result.way,
            _short(result.scene),
            result.satellite,
            result.gateway,
            f"{result.time_to_insight_s:.1f} s",
            size(result.ground_link_bytes),
            result.finding,
            _short(result.finding_digest),
        )
        for result in results
    ]
    verdicts = {
        True: "All ways of searching one scene found the same, byte for byte.",
        False: "In one scene the ways did not find the same: compare the digests.",
        None: "No scene was searched in more than one way, so there is nothing to compare.",
    }
    header = ("Way", "Scene", "Satellite", "Gateway", "Time to insight", "Ground link", "Finding", "Digest")
    body = f"{plot_slot('comparison')}<p><b>{verdicts[run.summary['same_finding']]}</b></p>{table(rows, header)}"
    return _section("comparison", title, lead, body, {"comparison": comparison(results)})


def load(run: Run) -> Section:
    """What came of an open load of jobs."""
    results, title = run.record.loads, "Jobs under load"
    lead = (
        "The same jobs at the same moments under the same sky, a pass each way. They come whatever became of those "
        "before; response counts from when a job was due until its result was back."
    )
    if not results:
        return _section("load", title, lead, remark("This run had no load of jobs (`skyrack bench-jobs`)."), {})
    rows = [
        (
            result.way,
            f"{result.right} of {result.jobs}",
            *(_seconds(result.response_s[key]) for key in ("p50", "p95", "p99")),
            _seconds(result.insight_s["p50"]),
            size(result.ground_link_bytes),
            str(result.deadline_misses),
            str(result.hand_offs),
        )
        for result in results
    ]
    header = (
        "Way",
        "Right",
        "Response p50",
        "p95",
        "p99",
        "Insight p50",
        "Ground links",
        "Deadlines missed",
        "Hand-offs",
    )
    body = plot_slot("load") + table(rows, header)
    wrong = [(f"{r.way}: {reason}", str(number)) for r in results for reason, number in r.failures.items()]
    body += table(wrong, ("What did not go right", "Jobs")) if wrong else ""
    late = sum(result.late_submissions for result in results)
    body += (
        remark(f"{count(late, 'job')} came later than the trace has it: the load was not quite open.") if late else ""
    )
    return _section("load", title, lead, body, {"load": phases(results)})


def sun(run: Run) -> Section:
    """How many satellites are lit."""
    lead = "Eclipse is a matter of power, never of links: a dark satellite still carries traffic."
    if not run.timeline.n_satellite:
        return _section("sunlight", "Sunlight", lead, remark("This scenario has no satellites."), {})
    return _section("sunlight", "Sunlight", lead, plot_slot("sunlight"), {"sunlight": sunlight(run.series)})


def loop(run: Run) -> Section:
    """How well the loop kept time."""
    manifest, summary, steps = run.record.manifest, run.summary, run.record.steps
    lead = f"Links were shaped by {manifest.shaper}: {manifest.shaper_reason}"
    if not steps:
        return _section("loop", "How the loop kept time", lead, remark("The loop recorded no step."), {})
    rows = [
        (label, *(f"{summary[key][figure]:.2f} ms" for figure in ("median", "p99", "max")))
        for label, key in (("began late by", "late_ms"), ("took", "took_ms"), ("CPU", "cpu_ms"))
    ]
    counted = (
        f"{count(summary['overruns'], 'overrun')} in {count(summary['steps'], 'step')}; "
        f"{count(summary['directions_changed'], 'direction')} and {count(summary['routes_changed'], 'route')} changed; "
        f"{count(summary['drift'], 'direction')} found in another state than commanded."
    )
    body = f"{plot_slot('loop')}{table(rows, ('A step', 'Median', 'p99', 'Most'))}<p>{counted}</p>"
    dropped = summary["frames_dropped"]
    if dropped is not None:
        causes = ("lost as commanded", "full queue", "shaper too slow", "port gone or down")
        counts = [(cause, f"{dropped[key]:,}") for cause, key in zip(causes, DROP_CAUSES, strict=True)]
        body += table(counts, ("Frames that did not arrive", "Count"))
    period_s = manifest.step_s / manifest.time_scale
    return _section("loop", "How the loop kept time", lead, body, {"loop": loop_over_time(steps, period_s)})


def manifest(run: Run) -> Section:
    """What ran, where, with what."""
    document = asdict(run.record.manifest)
    scenario = document.pop("scenario_text")
    rows = [(key, " ".join(value) if isinstance(value, tuple) else str(value)) for key, value in document.items()]
    body = folded("Manifest", table(rows)) + folded("Scenario file", f"<pre>{escape(scenario)}</pre>")
    return _section("manifest", "To run it again", "What ran, on what, from which scenario.", body, {})


SECTIONS: tuple[Callable[[Run], Section], ...] = (
    round_trips,
    links,
    ground_track_map,
    jobs,
    bent_pipe_or_in_orbit,
    load,
    sun,
    loop,
    manifest,
)
"""In the order in which they are read."""


def _section(anchor: str, title: str, lead: str, body: str, figures: Mapping[str, go.Figure]) -> Section:
    return Section(anchor, title, lead, body, {name: plot_json(figure) for name, figure in figures.items()})


def _seconds(value_s: float | int | None) -> str:
    """Seconds, or a dash for none."""
    return "–" if value_s is None else f"{value_s:.2f} s"


def _short(digest: str) -> str:
    """Enough of a digest to tell it from others on this page."""
    name = digest.removeprefix("sha256:")
    return name if len(name) <= DIGEST_SHOWN else f"{name[:DIGEST_SHOWN]}…"


def _masks_deg(scenario_text: str) -> dict[str, float]:
    """The mask of each ground node that the scenario gives one."""
    grounds = tomllib.loads(scenario_text).get("ground", [])
    return {ground["name"]: ground["min_elevation_deg"] for ground in grounds if "min_elevation_deg" in ground}
