"""`skyrack path`: the route between two nodes at one moment, hop by hop, or why there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from controller.cli.terminal import out, table
from controller.errors import InputError

if TYPE_CHECKING:
    from controller.explain import Route
    from controller.scenario import Scenario
    from controller.timeline import Timeline


@contextmanager
def _opened(where: str) -> Iterator[tuple[Timeline, Scenario]]:
    """The sky of a scenario, a run's folder or a saved timeline, and its scenario. Raises InputError."""
    from controller.planner import survey
    from controller.scenario import load_scenario
    from controller.timeline_file import open_timeline, timeline_in

    file = timeline_in(where)
    if file is not None:
        with open_timeline(file) as saved:
            yield saved.timeline, saved.scenario()
    else:
        scenario = load_scenario(where)
        yield survey(scenario), scenario


@click.command(name="path")
@click.argument("a")
@click.argument("b")
@click.option("--at", "t_s", type=float, help="Seconds since the epoch; default: now, of the run that is up.")
@click.option("--in", "where", help="A scenario, a run's folder or a saved timeline; default: the run that is up.")
@click.option("--run", "run_id", help="The run's id, when several are up.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def path_(a: str, b: str, t_s: float | None, where: str | None, run_id: str | None, as_json: bool) -> None:
    """Explain the route from node A to node B at one moment, hop by hop; or say why there is none."""
    from controller.explain import explain
    from controller.faults import FaultSchedule
    from controller.schedule import Schedule

    if where is None:
        from controller.cli.runs_of import client_of, the_run

        where = str(the_run(run_id).out_dir)
        if t_s is None:
            with client_of(run_id) as client:
                t_s = client.status().t_s
    if t_s is None:
        raise InputError("with --in, name the moment: --at SECONDS since the epoch")
    if not math.isfinite(t_s):
        raise InputError(f"--at {t_s}: must be a number of seconds")
    with _opened(where) as (timeline, scenario):
        route = explain(Schedule.of(timeline, FaultSchedule.from_scenario(scenario, timeline)), a, b, t_s)
    if as_json:
        click.echo(json.dumps(asdict(route), indent=2))
    else:
        _show(route)


def _show(route: Route) -> None:
    """A route for people."""
    out.print(f"{route.a} to {route.b} at t = {route.t_s:g} s ({route.utc})", markup=False)
    for fault in route.faults:
        out.print(f"fault: {fault}", markup=False)
    if not route.hops:
        out.print(f"no path: {route.reason}", markup=False)
        return
    rows = [
        (
            hop.node,
            hop.port,
            hop.to,
            hop.to_port,
            hop.kind.upper(),
            f"{hop.range_m / 1e3:.1f}",
            f"{hop.delay_us / 1e3:.3f}",
            f"{hop.rate_bps / 1e6:g}",
        )
        for hop in route.hops
    ]
    table(("From", "Port", "To", "Port", "Link", "Range (km)", "Delay (ms)", "Rate (Mbit/s)"), rows)
    rtt = "–" if route.rtt_us is None else f"{route.rtt_us / 1e3:.3f} ms"
    out.print(
        f"{len(route.hops)} hops, {route.range_m / 1e3:.1f} km, {route.delay_us / 1e3:.3f} ms one way, RTT {rtt}, "
        f"at most {(route.rate_bps or 0) / 1e6:g} Mbit/s",
        markup=False,
    )


COMMANDS = (path_,)
