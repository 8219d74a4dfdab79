"""Commands that ask about a sky, and change nothing: plan, contacts, eclipses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from controller.cli.terminal import err, out, table
from controller.errors import InputError

if TYPE_CHECKING:
    from controller.record.contact_export import Contact
    from controller.record.sky_page import SkyPage
    from controller.scenario import Scenario, Source
    from controller.timeline import Block, Head, Timeline
    from controller.timeline_file import SavedTimeline

Reader = Callable[["Block"], None]

_file = click.Path(dir_okay=False, path_type=Path)
_duration = click.option("--duration", "duration_s", type=float, help="Seconds; default: the scenario's.")
_start = click.option("--start", "start_s", type=float, help="Seconds since the epoch; default: the scenario's.")
_node = click.option("--node", "nodes", multiple=True, metavar="NAME", help="Of this node only; repeatable.")


@dataclass(frozen=True)
class _Opened:
    """What the user named: a scenario, or a timeline in a file."""

    scenario: Scenario
    source: Source
    sky: Timeline  # read, or computed as it is asked for


@contextmanager
def _opened(name: str, duration_s: float | None, start_s: float | None) -> Iterator[_Opened]:
    """A scenario by name or file, or a saved timeline; its warnings are told. Raises InputError."""
    from controller.planner import survey
    from controller.scenario.load import parse_scenario, read_source
    from controller.timeline_file import open_timeline, timeline_in

    file = timeline_in(name)
    if file is None:
        source = read_source(name)
        scenario = parse_scenario(source, duration_s, start_s=start_s)
        sky = survey(scenario)
        _warn(sky)
        yield _Opened(scenario, source, sky)
        return
    if duration_s is not None or start_s is not None:
        raise InputError(f"{name}: a saved timeline is as it is; --duration and --start need its scenario")
    with open_timeline(file) as saved:
        _warn(saved.timeline)
        yield _Opened(saved.scenario(), saved.source, saved.timeline)


def _warn(head: Head) -> None:
    for warning in head.warnings:
        err.print(f"warning: {warning}", markup=False, style="yellow")


def _check_nodes(head: Head, names: Sequence[str]) -> None:
    """Raises InputError for a name that no node has."""
    from controller.scenario.checks import nearest

    known = [node.name for node in head.nodes]
    for name in names:
        if name not in known:
            raise InputError(f"no node is called {name!r}{nearest(name, known)}")


@click.command()
@click.argument("scenario")
@click.option("--out", "out_file", type=_file, help="JSON lines; default: standard output.")
@click.option("--save", "save_file", type=_file, help="The timeline as a file, to be replayed or read with numpy.")
@click.option("--plot", "plot_file", type=_file, help="A page with coverage, round trips and contacts.")
@click.option("--between", nargs=2, multiple=True, metavar="A B", help="Whose round trips --plot draws; repeatable.")
@_duration
@_start
def plan(
    scenario: str,
    out_file: Path | None,
    save_file: Path | None,
    plot_file: Path | None,
    between: tuple[tuple[str, str], ...],
    duration_s: float | None,
    start_s: float | None,
) -> None:
    """Print the sky of a scenario or of a saved timeline: a JSON line a step, with every node and every usable link.

    With --save, --plot or --out, write what they name instead, in one go.
    """
    if between and plot_file is None:
        raise click.UsageError("--between says what --plot draws")
    with ExitStack() as stack:
        opened = stack.enter_context(_opened(scenario, duration_s, start_s))
        sky = opened.sky if save_file is None else stack.enter_context(_saved(opened, save_file)).timeline
        readers: list[Reader] = []
        if out_file is not None or (save_file is None and plot_file is None):
            stream = sys.stdout if out_file is None else stack.enter_context(_writing(out_file))
            readers.append(_line_writer(opened.scenario, sky, stream))
        if plot_file is not None:
            page_stream = stack.enter_context(_writing(plot_file))
            page = _page(opened.scenario, sky, between)
            readers.append(page.take)
        if readers:
            for block in sky.each_block():
                for read in readers:
                    read(block)
        if plot_file is not None:
            page_stream.write(page.html())
    for path in (save_file, plot_file, out_file):
        if path is not None and out.is_terminal:
            out.print(f"wrote {path}", markup=False)


def _saved(opened: _Opened, path: Path) -> SavedTimeline:
    """The sky, written into a file and opened from there."""
    from controller.timeline import kept
    from controller.timeline_file import TimelineWriter

    with TimelineWriter(path, opened.source) as writer:
        return writer.finish(kept(opened.sky, writer))


@contextmanager
def _writing(path: Path) -> Iterator[IO[str]]:
    """A text file that is whole or not there at all. Raises InputError where it cannot be written."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _line_writer(scenario: Scenario, timeline: Timeline, stream: IO[str]) -> Reader:
    from controller.faults import FaultSchedule
    from controller.record.plan_export import block_lines

    faults = FaultSchedule.from_scenario(scenario, timeline)

    def write(block: Block) -> None:
        for line in block_lines(timeline, block, faults):
            stream.write(line + "\n")

    return write


def _page(scenario: Scenario, timeline: Timeline, between: Sequence[tuple[str, str]]) -> SkyPage:
    from controller.faults import FaultSchedule
    from controller.record.sky_page import SkyPage

    _check_nodes(timeline, [name for pair in between for name in pair])
    grounds = [ground.name for ground in scenario.grounds]
    pairs = list(between) or ([(grounds[0], grounds[1])] if len(grounds) > 1 else [])
    return SkyPage(scenario, timeline, FaultSchedule.from_scenario(scenario, timeline), pairs)


@click.command()
@click.argument("scenario")
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json", "ics"]), default="table", show_default=True
)
@click.option("--kind", type=click.Choice(["isl", "gsl"]), help="Default: both; in the table and the calendar, gsl.")
@_node
@_duration
@_start
def contacts(
    scenario: str, form: str, kind: str | None, nodes: tuple[str, ...], duration_s: float | None, start_s: float | None
) -> None:
    """Print the contact plan of a scenario or of a saved timeline: a row a scheduled link interval."""
    from controller.record import contact_export as export
    from controller.timeline import LinkKind

    if form == "ics" and kind == "isl":
        raise click.UsageError("a calendar holds the contacts of ground nodes; --format ics goes without --kind isl")
    with _opened(scenario, duration_s, start_s) as opened:
        head = opened.sky
        _check_nodes(head, nodes)
        shown = kind or ("gsl" if form in ("table", "ics") else None)
        rows = export.contacts(head, None if shown is None else LinkKind[shown.upper()], nodes)
        if form == "csv":
            click.echo(export.contacts_csv(rows), nl=False)
        elif form == "json":
            click.echo(export.contacts_json(rows))
        elif form == "ics":
            click.echo(export.contacts_ics(head, rows).encode(), nl=False)  # bytes: its lines end in CRLF
        elif shown == "isl":
            table(("A", "B", "Start (UTC)", "End (UTC)", "Duration", "Min range", "Volume"), map(_isl_row, rows))
        else:
            grounds = frozenset(node.name for node in head.nodes[head.n_satellite :])
            headings = ("Ground", "Satellite", "Start (UTC)", "End (UTC)", "Duration", "Max el.", "Min range", "Volume")
            table(headings, (_pass_row(contact, grounds) for contact in rows))


def _pass_row(contact: Contact, grounds: frozenset[str]) -> tuple[str, ...]:
    """A pass, for people."""
    from controller.record.words import size, span

    elevation = "–" if contact.max_elevation_deg is None else f"{contact.max_elevation_deg:.1f}°"
    return (
        *contact.ground_first(grounds),
        f"{contact.start_utc:%Y-%m-%d %H:%M:%S}",
        f"{contact.end_utc:%H:%M:%S}",
        span(contact.duration_s),
        elevation,
        f"{contact.min_range_m / 1e3:.1f} km",
        size(contact.volume_bytes),
    )


def _isl_row(contact: Contact) -> tuple[str, ...]:
    """A link between satellites, for people."""
    _, _, *times, _, reach, volume = _pass_row(contact, frozenset())
    return contact.a, contact.b, *times, reach, volume


@click.command()
@click.argument("scenario")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@_node
@_duration
@_start
def eclipses(scenario: str, form: str, nodes: tuple[str, ...], duration_s: float | None, start_s: float | None) -> None:
    """Print when satellites see less than the whole Sun, in a scenario or a saved timeline."""
    from controller.record import eclipse_export as export
    from controller.record.words import span

    with _opened(scenario, duration_s, start_s) as opened:
        head = opened.sky
        _check_nodes(head, nodes)
        rows = export.eclipses(head, nodes)
        if form == "csv":
            click.echo(export.eclipses_csv(rows), nl=False)
        elif form == "json":
            click.echo(export.eclipses_json(rows))
        else:
            table(
                ("Satellite", "Start (UTC)", "End (UTC)", "Duration", "In umbra", "Beta"),
                (
                    (
                        row.node,
                        f"{row.start_utc:%Y-%m-%d %H:%M:%S}",
                        f"{row.end_utc:%H:%M:%S}",
                        span(row.duration_s),
                        span(row.umbra_duration_s) if row.umbra_start_utc is not None else "–",
                        f"{row.beta_deg:.1f}°",
                    )
                    for row in rows
                ),
            )


COMMANDS = (plan, contacts, eclipses)
