"""Commands that ask and change nothing: doctor, presets, init, plan, contacts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import click

from controller.cli.terminal import out, table
from controller.errors import InputError, MachineError


@click.command()
@click.option("--nodes", default=71, show_default=True, type=click.IntRange(min=1), help="For a run of so many nodes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor(nodes: int, as_json: bool) -> None:
    """Say what this machine has and lacks, with a remedy for each lack."""
    from controller.doctor import diagnose

    checks = diagnose(nodes)
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
    else:
        rows = [
            ("ok" if check.ok else "LACKING" if check.required else "note", check.name, check.found, check.remedy)
            for check in checks
        ]
        table(("", "What", "Found", "Remedy"), rows)
    lacking = [check.name for check in checks if check.required and not check.ok]
    if lacking:
        raise MachineError(f"this machine lacks: {', '.join(lacking)}")


@click.command()
def presets() -> None:
    """List the scenarios that come along."""
    from controller.scenario.load import load_scenario, preset_names, preset_summary

    rows = []
    for name in preset_names():
        scenario = load_scenario(name)
        counts = (len(scenario.satellite_names), len(scenario.grounds), f"{scenario.duration_s:g}")
        rows.append((name, *counts, preset_summary(name)))
    table(("Preset", "Satellites", "Ground nodes", "Duration (s)", "What it is"), rows)


@click.command()
@click.argument("preset")
@click.option("--out", "out_file", type=click.Path(dir_okay=False, path_type=Path), help="Default: PRESET.toml here.")
def init(preset: str, out_file: Path | None) -> None:
    """Write a preset's scenario file, to be changed, and beside it the element sets that it names, if any."""
    from controller.scenario.load import preset_data_files, preset_text

    path = out_file or Path(f"{preset}.toml")
    texts = {path: preset_text(preset)}
    texts |= {path.parent / file.name: file.read_text(encoding="utf-8") for file in preset_data_files(preset)}
    for file in texts:
        if file.exists():
            raise InputError(f"{file} exists already; name another file with --out, in another folder if need be")
    for file, text in texts.items():
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror}") from error
        out.print(f"wrote {file}", markup=False)


@click.command()
@click.argument("scenario")
@click.option("--out", "out_file", type=click.Path(dir_okay=False, path_type=Path), help="Default: standard output.")
@click.option("--duration", "duration_s", type=float, help="Seconds; default: the scenario's.")
def plan(scenario: str, out_file: Path | None, duration_s: float | None) -> None:
    """Print the sky of a scenario: a JSON line a step, with every node and every usable link."""
    from controller.faults import FaultSchedule
    from controller.planner import plan as plan_sky
    from controller.record.plan_export import plan_lines
    from controller.scenario.load import load_scenario

    checked = load_scenario(scenario, duration_s)
    timeline = plan_sky(checked)
    faults = FaultSchedule.from_scenario(checked, timeline)

    def write(stream: TextIO) -> None:
        for line in plan_lines(timeline, faults):
            stream.write(line + "\n")

    if out_file is None:
        write(sys.stdout)
        return
    try:
        with out_file.open("w") as stream:
            write(stream)
    except OSError as error:
        raise InputError(f"cannot write {out_file}: {error.strerror}") from error


@click.command()
@click.argument("scenario")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--duration", "duration_s", type=float, help="Seconds; default: the scenario's.")
def contacts(scenario: str, form: str, duration_s: float | None) -> None:
    """Print the contact plan: a row a scheduled link interval."""
    from controller.links.contacts import contacts as contact_plan
    from controller.links.contacts import contacts_csv, contacts_json
    from controller.planner import plan as plan_sky
    from controller.scenario.load import load_scenario

    rows = contact_plan(plan_sky(load_scenario(scenario, duration_s)))
    if form == "csv":
        click.echo(contacts_csv(rows), nl=False)
    elif form == "json":
        click.echo(contacts_json(rows))
    else:
        table(
            ("A", "B", "Kind", "Start (UTC)", "End (UTC)", "Duration (s)", "Max elevation (°)", "Min range (km)"),
            (
                (
                    row.a,
                    row.b,
                    row.kind,
                    f"{row.start_utc:%H:%M:%S}",
                    f"{row.end_utc:%H:%M:%S}",
                    f"{row.duration_s:g}",
                    "–" if row.max_elevation_deg is None else f"{row.max_elevation_deg:.1f}",
                    f"{row.min_range_m / 1e3:.1f}",
                )
                for row in rows
            ),
        )


COMMANDS = (doctor, presets, init, plan, contacts)
