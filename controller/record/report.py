"""The report: one offline HTML file that shows a run to somebody who was not there."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

from controller.record.page import Head, Tile, page
from controller.record.read import read_record
from controller.record.recorder import write_text
from controller.record.sections import SECTIONS, Run
from controller.record.sky_series import series, until
from controller.record.summary import compared, summarise
from controller.record.words import count, ms, size, words
from controller.timeline import Timeline

REPORT = "report.html"


def write_report(run_dir: Path, timeline: Timeline) -> Path:
    """Write report.html of the run recorded in `run_dir`, whose sky was `timeline`. Its path.

    Raises InputError when the folder holds no readable record.
    """
    record = read_record(run_dir)
    applied, faults = until(timeline, record.end_s), record.faults()
    run = Run(record, applied, series(applied, faults), summarise(record), faults)
    path = run_dir / REPORT
    write_text(path, page(_head(run), _tiles(run), [section(run) for section in SECTIONS]))
    return path


def _head(run: Run) -> Head:
    manifest = run.record.manifest
    epoch = datetime.fromisoformat(manifest.epoch_utc)
    start, end = (epoch + timedelta(seconds=moment_s) for moment_s in run.span_s)
    roles = Counter(node.role.value for node in run.timeline.nodes)
    scale = "real time" if manifest.time_scale == 1 else f"{manifest.time_scale:g} × real time"
    facts = [
        ("sky", f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC"),
        ("nodes", ", ".join(count(number, role) for role, number in roles.items())),
        ("step", f"{manifest.step_s:g} s, {scale}"),
        ("runtime", manifest.engine_version or manifest.runtime),
        ("shaper", manifest.shaper),
        ("seed", str(manifest.seed)),
        ("started", f"{datetime.fromisoformat(manifest.started_utc):%Y-%m-%d %H:%M:%S} UTC on {manifest.host}"),
    ]
    return Head(
        title=manifest.scenario_name,
        kind="run report",
        kicker=f"skyrack {manifest.skyrack_version} · run {manifest.run_id}",
        facts=facts,
        made_from="this run's manifest.json, events.jsonl and samples.jsonl",
    )


def _tiles(run: Run) -> list[Tile]:
    summary = run.summary
    tiles = [_error_tile(run), _answer_tile(run)]
    share, steps = summary["loop_share_of_core_ratio"], summary["steps"]
    tiles.append(
        Tile(
            f"{steps - summary['overruns']:,} / {steps:,}",
            "steps in time",
            "no step recorded" if share is None else f"the loop used {share * 100:.1f} % of one core",
        )
    )
    links = summary["links_up"]
    tiles.append(
        Tile(
            "–" if links["median"] is None else f"{links['median']:.0f}",
            "links up (median)",
            f"{count(summary['links_changed'], 'link change')}, {count(summary['handovers'], 'handover')}",
        )
    )
    states = summary["jobs_by_state"]
    if states:
        others = ", ".join(f"{n} {words(state)}" for state, n in states.items() if state != "SUCCEEDED")
        tiles.append(
            Tile(f"{states.get('SUCCEEDED', 0)} / {sum(states.values())}", "jobs succeeded", others or "none was lost")
        )
    faults = len(run.faults)
    dark_s = sum(fault.end_s - fault.start_s for fault in run.faults)
    if faults:
        named = ", ".join(dict.fromkeys(fault.target for fault in run.faults))
        tiles.append(Tile(f"{dark_s:.0f} s", "under faults", f"{count(faults, 'fault')}: {named}"))
    return tiles + _comparison_tiles(run)


def _error_tile(run: Run) -> Tile:
    one_hop, per_hop, every = (
        run.summary[key] for key in ("rtt_error_one_hop_us", "rtt_error_per_hop_us", "rtt_error_us")
    )
    chosen, whose = (one_hop, "one hop") if one_hop["count"] else (per_hop, "a hop")
    return Tile(
        ms(chosen["median"]),
        f"RTT error, {whose} (median)",
        f"p99 {ms(chosen['p99'])}; all probes {ms(every['median'])}, p99 {ms(every['p99'])}",
    )


def _answer_tile(run: Run) -> Tile:
    ratio = run.summary["commanded_up_unanswered_ratio"]
    leaks = run.summary["commanded_down_answered"]
    return Tile(
        "–" if ratio is None else f"{ratio * 100:.2f} %",
        "unanswered though up",
        f"{count(run.summary['probes'], 'probe')}; {leaks or 'none'} answered though down",
    )


def _comparison_tiles(run: Run) -> list[Tile]:
    """What the quickest way saved against the slowest, in the first scene that was searched in several ways."""
    scenes = compared(run.record.workloads)
    if not scenes:
        return []
    ways = sorted(scenes[0], key=lambda result: result.time_to_insight_s)
    best, worst = ways[0], ways[-1]
    same = "same finding" if run.summary["same_finding"] else "the findings differ"
    return [
        Tile(
            f"{worst.time_to_insight_s / max(best.time_to_insight_s, 1e-9):.1f} ×",
            f"sooner: {best.way}",
            f"{best.time_to_insight_s:.1f} s to insight against {worst.time_to_insight_s:.1f} s; {same}",
        ),
        Tile(
            size(best.ground_link_bytes),
            f"over the ground link, {best.way}",
            f"{worst.way}: {size(worst.ground_link_bytes)}",
        ),
    ]
