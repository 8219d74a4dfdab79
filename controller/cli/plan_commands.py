"""Commands that ask and change nothing: doctor, presets, init, and those about a sky."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

import click

from controller.cli import sky_commands
from controller.cli.run_commands import RUNTIMES, be_root
from controller.cli.terminal import out, table
from controller.errors import InputError, MachineError


@click.command()
@click.option("--nodes", default=71, show_default=True, type=click.IntRange(min=1), help="For a run of so many nodes.")
@click.option("--runtime", type=click.Choice(RUNTIMES), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor(nodes: int, runtime: str, as_json: bool) -> None:
    """Say what this machine has and lacks, with a remedy for each lack."""
    with contextlib.suppress(MachineError):  # then the first of the checks says so
        be_root(runtime)
    from controller.doctor import diagnose

    checks = diagnose(nodes, runtime)
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


COMMANDS = (doctor, presets, init, *sky_commands.COMMANDS)
