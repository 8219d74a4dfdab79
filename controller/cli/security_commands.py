"""Commands for who may do what: audit, rotate."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from controller.cli.job_commands import json_option, run_option
from controller.cli.runs_of import client_of
from controller.cli.terminal import out, table


@click.command()
@run_option
@json_option
def audit(run_id: str | None, as_json: bool) -> None:
    """List what was denied, damaged or repaired in the run so far, oldest first."""
    with client_of(run_id) as client:
        events = client.audit()
    rows = [
        {
            "utc": _utc_text(each.event.at_unix_ns),
            "node": each.node,
            "kind": each.event.kind,
            "who": each.event.who,
            "what": each.event.what,
            "of": each.event.of,
            "reason": each.event.reason,
        }
        for each in events
    ]
    if as_json:
        click.echo(json.dumps({"events": rows}, indent=2))
    else:
        table(("UTC", "Node", "Kind", "Who", "What", "Of", "Reason"), [tuple(row.values()) for row in rows])


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]…")
@run_option
@json_option
def rotate(nodes: tuple[str, ...], run_id: str | None, as_json: bool) -> None:
    """Give nodes, or all, new keys and certificates; jobs and transfers go on."""
    with client_of(run_id) as client:
        rotated = client.rotate(nodes)
    if as_json:
        click.echo(json.dumps({"rotated": rotated}))
    else:
        out.print(f"nodes with new keys and certificates: {rotated}", markup=False)


def _utc_text(at_unix_ns: int) -> str:
    """A moment of the wall clock as ISO 8601; nothing where there is none."""
    moment = datetime.fromtimestamp(at_unix_ns / 1e9, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at_unix_ns else ""


COMMANDS = (audit, rotate)
