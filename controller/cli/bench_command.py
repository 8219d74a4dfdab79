"""The command that offers an open load of jobs to a run, and measures what comes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from controller.cli.run_commands import be_root, run_options
from controller.cli.terminal import TerminalNarrator, out, table
from controller.errors import InputError, SkyrackError

if TYPE_CHECKING:
    from controller.narrator import Narrator
    from controller.record.model import LoadResult
    from controller.workloads.open_load import Asked, Outcome

POLICIES = ("earliest-result", "data-local", "spread", "pinned")


@click.command("bench-jobs")
@click.argument("scenario", required=False)
@click.option("--run", "run_id", help="A run that is up, in place of a SCENARIO.")
@click.option("--rate-per-min", type=float, default=20.0, show_default=True, help="Jobs a minute, in the mean.")
@click.option("--jobs", type=int, default=30, show_default=True, help="How many.")
@click.option("--mix", help="NAME[@SIZE][:WEIGHT],… Default: all workloads, scenes more often.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of moments, kinds, places and contents.")
@click.option(
    "--from", "terminals", multiple=True, metavar="NODE", help="Where jobs are asked for. Default: terminals."
)
@click.option(
    "--policy", type=click.Choice(POLICIES), help="What chooses nodes. Default: where scenes lie, or overhead."
)
@run_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def bench_jobs(
    scenario: str | None,
    run_id: str | None,
    rate_per_min: float,
    jobs: int,
    mix: str | None,
    seed: int,
    terminals: tuple[str, ...],
    policy: str | None,
    runtime: str,
    shaper: str,
    out_dir: Path | None,
    as_json: bool,
) -> None:
    """Offer an open load of jobs, in orbit and by bent pipe, to a SCENARIO or to a run that is up (--run)."""
    if (scenario is None) == (run_id is None):
        raise InputError("name a SCENARIO to be run, or with --run one that is up")
    if scenario is not None:
        be_root(runtime)
    from controller.workloads.open_load import Asked
    from controller.workloads.trace import DEFAULT_MIX, Load, parsed_mix

    load = Load(rate_per_min, jobs, parsed_mix(mix or DEFAULT_MIX), seed)
    asked, narrator = Asked(load, terminals, policy or ""), TerminalNarrator(quiet_in_pipe=True)
    if scenario is None:
        outcome, folder = _on_living_run(run_id, asked, out_dir, narrator)
    else:
        outcome, folder = _on_own_run(scenario, runtime, shaper, asked, out_dir, narrator)
    if as_json:
        click.echo(json.dumps({**outcome.document(asked), "out_dir": str(folder)}, indent=2))
    else:
        load_tables(outcome, asked)
        out.print(f"trace, jobs and figures: {folder}", markup=False)
    if outcome.wrong:
        raise SkyrackError(f"{len(outcome.wrong)} results were wrong; the first: {outcome.wrong[0]}")


def _on_living_run(run_id: str | None, asked: Asked, out_dir: Path | None, narrator: Narrator) -> tuple[Outcome, Path]:
    """Offer it to a run that is up."""
    from controller.api.load_client import LoadClient
    from controller.cli.runs_of import live_with, the_run
    from controller.timeline_file import TIMELINE_FILE, open_timeline
    from controller.workloads.open_load import OpenLoad
    from controller.workloads.sky_view import SkyView

    place = the_run(run_id)
    live_with(place)
    folder = (out_dir or place.out_dir).resolve()

    async def offer() -> Outcome:
        with open_timeline(place.out_dir / TIMELINE_FILE) as saved:
            async with LoadClient(place.api_socket) as run:
                return await OpenLoad(run, SkyView(saved.timeline), asked, narrator).run(folder)

    return asyncio.run(offer()), folder


def _on_own_run(
    scenario: str, runtime: str, shaper: str, asked: Asked, out_dir: Path | None, narrator: Narrator
) -> tuple[Outcome, Path]:
    """Bring a scenario up, offer it, and take the run down again."""
    from controller.api.load_client import LoadClient
    from controller.emulation import Emulation
    from controller.launch import RunOptions, asked_for, launch
    from controller.workloads.open_load import OpenLoad, where_asked
    from controller.workloads.sky_view import SkyView

    # The sky's last state stays: a load may take longer than the scenario has.
    options = RunOptions(scenario, runtime, shaper, out_dir=out_dir, hold=True)
    _, parsed = asked_for(options)
    terminals, gateways = (
        [ground.name for ground in parsed.grounds if ground.role == role] for role in ("terminal", "gateway")
    )
    where_asked(asked, terminals, gateways)  # refuses what cannot be before anything starts
    outcomes: list[Outcome] = []

    async def offer(emulation: Emulation) -> Sequence[LoadResult]:
        async with LoadClient(emulation.place.api_socket) as run:
            load = OpenLoad(run, SkyView(emulation.timeline), asked, narrator)
            outcomes.append(await load.run(emulation.place.out_dir))
        emulation.request_stop()
        return outcomes[0].results

    try:
        ended = asyncio.run(launch(options, narrator, offer))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if not outcomes:
        raise SkyrackError("the run was stopped before its load was done")
    return outcomes[0], ended.out_dir


def load_tables(outcome: Outcome, asked: Asked) -> None:
    """The figures, for people."""
    results = outcome.results
    heading = f"{asked.load.jobs} jobs, {asked.load.rate_per_min:g} a minute, seed {asked.load.seed}"
    spreads: list[tuple[object, ...]] = []
    for result in results:
        parts = [("response", result.response_s), ("insight from a scene", result.insight_s), *result.phases_s.items()]
        spreads += [
            (result.way, what, *(_shown(figures[key]) for key in ("p50", "p95", "p99"))) for what, figures in parts
        ]
    table(("Way", "Seconds", "p50", "p95", "p99"), spreads, heading)
    rows = [
        (
            result.way,
            f"{result.right} of {result.jobs}",
            f"{result.ground_link_bytes / 1e6:.3f}",
            result.deadline_misses,
            result.hand_offs,
            result.custody_transfers,
            result.late_submissions,
            f"{result.jobs_in_system:.2f} / {result.littles_law_jobs:.2f}",
        )
        for result in results
    ]
    headings = ("Way", "Right", "Ground links (MB)", "Deadlines missed", "Hand-offs", "Custody", "Late", "L / λW")
    table(headings, rows)
    document: Any = outcome.document(asked)["first_way_against_second"]
    if document["scenes"]:
        out.print(
            f"insight {document['median_ratio']:.1f} × sooner {results[0].way} than by {results[1].way} (median of "
            f"{document['scenes']} scenes; sooner in {document['sooner']})",
            markup=False,
        )
    for result in results:
        for reason, number in result.failures.items():
            out.print(f"{result.way}: {number} × {reason}", markup=False)


def _shown(value_s: float | int | None) -> str:
    """Seconds, or a dash for none."""
    return "–" if value_s is None else f"{value_s:.2f}"


COMMANDS = (bench_jobs,)
