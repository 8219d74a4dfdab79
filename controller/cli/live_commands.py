"""Commands for a run that is up: the sky's clock, links, faults, probes, captures."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.cli.runs_of import client_of, live_with, the_run
from controller.cli.terminal import out, table
from controller.errors import InputError
from protos.skyrack.v1 import controller_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

Command = TypeVar("Command", bound=Callable[..., Any])
ratio = click.FloatRange(0.0, 1.0)
run_option = click.option("--run", "run_id", help="The run's id, when several are up.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


def live_options(command: Command) -> Command:
    """The options that all of these commands share."""
    return run_option(json_option(command))


# --- the sky's clock ---


@click.command()
@live_options
def pause(run_id: str | None, as_json: bool) -> None:
    """Let the sky stand: links stay as they are, packets go on."""
    with client_of(run_id) as client:
        _show_clock(client.pause(), as_json)


@click.command()
@live_options
def resume(run_id: str | None, as_json: bool) -> None:
    """Let the sky go on from where it stands."""
    with client_of(run_id) as client:
        _show_clock(client.resume(), as_json)


@click.command()
@click.argument("steps", metavar="[N]", type=click.IntRange(1, 2**31 - 1), default=1)
@live_options
def step(steps: int, run_id: str | None, as_json: bool) -> None:
    """Go N steps on while the sky is paused, as one change."""
    with client_of(run_id) as client:
        _show_clock(client.step(steps), as_json)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("t_s", metavar="T", type=float)
@live_options
def seek(t_s: float, run_id: str | None, as_json: bool) -> None:
    """Go to T seconds since the epoch, forth or back, as one change."""
    with client_of(run_id) as client:
        _show_clock(client.seek(t_s), as_json)


def _show_clock(clock: controller_pb2.SkyClock, as_json: bool) -> None:
    if as_json:
        _print_json(clock)
        return
    how = "paused" if clock.paused else "going on"
    out.print(f"t = {clock.t_s:.1f} s ({clock.utc}), step {clock.step} of {clock.last_step}, {how}", markup=False)


# --- links ---


@click.group()
def link() -> None:
    """Look at a link, or set it over what geometry and faults make of it."""


@link.command("show")
@click.argument("a")
@click.argument("b")
@live_options
def link_show(a: str, b: str, run_id: str | None, as_json: bool) -> None:
    """Show what geometry has, what is set, what is commanded, and what is in force."""
    with client_of(run_id) as client:
        _show_link(client.show_link(a, b), as_json)


@link.command("set")
@click.argument("a")
@click.argument("b")
@click.option("--delay-ms", type=float, help="One way.")
@click.option("--rate-bps", type=int, help="Bits a second.")
@click.option("--loss", "loss_ratio", type=ratio, help="Part of the frames, 0 to 1.")
@click.option("--up/--down", "is_up", default=None, help="Up: no fault takes it. Down: taken, and nodes are told.")
@live_options
def link_set(
    a: str,
    b: str,
    delay_ms: float | None,
    rate_bps: int | None,
    loss_ratio: float | None,
    is_up: bool | None,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Have the links between two nodes so, both ways, until they are cleared.

    What is left out stays as geometry and faults have it.
    """
    if delay_ms is not None and not 0.0 <= delay_ms <= 10_000.0:
        raise InputError(f"--delay-ms {delay_ms:g}: must be from 0 to 10_000")
    override = controller_pb2.LinkOverride(
        a=a,
        b=b,
        delay_us=None if delay_ms is None else round(delay_ms * 1e3),
        rate_bps=rate_bps,
        loss_ratio=loss_ratio,
        up=is_up,
    )
    with client_of(run_id) as client:
        _show_link(client.set_link(override), as_json)


@link.command("clear")
@click.argument("a")
@click.argument("b")
@live_options
def link_clear(a: str, b: str, run_id: str | None, as_json: bool) -> None:
    """Leave the links between two nodes to geometry and faults again."""
    with client_of(run_id) as client:
        cleared = client.clear_link(a, b)
    if as_json:
        _print_json(cleared)
        return
    out.print("cleared" if cleared.was_set else "it was not set", markup=False)
    _show_link(cleared.link, as_json=False)


def _show_link(view: controller_pb2.LinkView, as_json: bool) -> None:
    if as_json:
        _print_json(view)
        return
    rows = [
        ("geometry", *_cells(view.geometry)),
        ("set", *_set_cells(view.override if view.HasField("override") else None)),
        ("commanded", *_cells(view.commanded)),
        (f"in force, from {view.a}", *_cells(view.read_back_a_to_b)),
        (f"in force, from {view.b}", *_cells(view.read_back_b_to_a)),
    ]
    title = f"{view.a} – {view.b}, {view.kind.upper()}, t = {view.t_s:.1f} s"
    table(("", "Link", "Delay (ms)", "Rate (Mbit/s)", "Loss"), rows, title)


def _cells(state: controller_pb2.LinkState) -> tuple[str, ...]:
    if not state.up:
        return ("down", "–", "–", "–")
    return ("up", f"{state.delay_us / 1e3:.3f}", f"{state.rate_bps / 1e6:g}", f"{state.loss_ratio:.4g}")


def _set_cells(override: controller_pb2.LinkOverride | None) -> tuple[str, ...]:
    if override is None:
        return ("–",) * 4
    return (
        ("up" if override.up else "down") if override.HasField("up") else "–",
        f"{override.delay_us / 1e3:.3f}" if override.HasField("delay_us") else "–",
        f"{override.rate_bps / 1e6:g}" if override.HasField("rate_bps") else "–",
        f"{override.loss_ratio:.4g}" if override.HasField("loss_ratio") else "–",
    )


# --- faults ---


@click.group()
def fault() -> None:
    """Put faults over the sky while the run is up, list them, clear them."""


@fault.command("inject")
@click.argument("kind", type=click.Choice(["blackout", "node-down", "degrade"]))
@click.argument("target", required=False, default="")
@click.option("--duration", "duration_s", type=float, help="Seconds of the sky; without, it stays until cleared.")
@click.option("--mode", type=click.Choice(["silent", "reject", "carrier"]), help="How links are taken.")
@click.option("--extra-delay-ms", type=float, help="Of degrade: one way.")
@click.option("--rate-ratio", type=ratio, help="Of degrade: what is left of the rate.")
@click.option("--loss", "loss_ratio", type=ratio, help="Of degrade: part of the frames that is lost.")
@click.option("--rate-per-hour", type=float, help="Come again and again, so often in the mean; needs --duration.")
@click.option(
    "--region", type=(float, float, float), metavar="LAT LON RADIUS_M", help="A part of the Earth in place of TARGET."
)
@live_options
def fault_inject(
    kind: str,
    target: str,
    duration_s: float | None,
    mode: str | None,
    extra_delay_ms: float | None,
    rate_ratio: float | None,
    loss_ratio: float | None,
    rate_per_hour: float | None,
    region: tuple[float, float, float] | None,
    run_id: str | None,
    as_json: bool,
) -> None:
    """A fault from now on. TARGET is a node, a link "a~b", or a plane "plane:NAME"."""
    asked = controller_pb2.InjectFaultRequest(
        kind=kind,
        target=target,
        mode=mode,
        duration_s=duration_s,
        rate_per_hour=rate_per_hour,
        extra_delay_s=None if extra_delay_ms is None else extra_delay_ms / 1e3,
        rate_ratio=rate_ratio,
        loss_ratio=loss_ratio,
    )
    if region is not None:
        asked.region.latitude_deg, asked.region.longitude_deg, asked.region.radius_m = region
    with client_of(run_id) as client:
        injected = client.inject_fault(asked)
    if as_json:
        _print_json(injected)
    else:
        out.print(f"fault {injected.id} from t = {injected.at_s:.1f} s", markup=False)


@fault.command("clear")
@click.argument("which", metavar="ID|TARGET")
@live_options
def fault_clear(which: str, run_id: str | None, as_json: bool) -> None:
    """End a fault for good, by its id, or all faults of a target."""
    with client_of(run_id) as client:
        cleared = client.clear_fault(which)
    if as_json:
        _print_json(cleared)
    else:
        out.print(f"cleared {cleared.cleared} fault{'' if cleared.cleared == 1 else 's'}", markup=False)


@fault.command("list")
@live_options
def fault_list(run_id: str | None, as_json: bool) -> None:
    """List the faults that are in force or to come."""
    with client_of(run_id) as client:
        listed = client.list_faults()
    if as_json:
        _print_json(listed)
        return
    rows = [
        (
            each.id,
            each.kind,
            each.target,
            each.mode or "–",
            f"{each.at_s:.1f}",
            f"{each.until_s:.1f}" if each.HasField("until_s") else "–",
            "in force" if each.active else "to come",
            each.origin,
        )
        for each in listed.faults
    ]
    table(("Fault", "Kind", "Target", "Mode", "From (s)", "Until (s)", "Now", "Origin"), rows)


# --- measuring ---


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--count", type=click.IntRange(1, 1000), default=4, show_default=True, help="How many round trips.")
@live_options
def probe(a: str, b: str, count: int, run_id: str | None, as_json: bool) -> None:
    """Measure round trips from A to B now, beside the commanded ones."""
    measured = []
    with client_of(run_id) as client:
        for number, answer in enumerate(client.probe(a, b, count), 1):
            commanded_us, measured_us = (
                None if rtt_us < 0 else rtt_us for rtt_us in (answer.commanded_rtt_us, answer.measured_rtt_us)
            )
            measured.append({"commanded_rtt_us": commanded_us, "measured_rtt_us": measured_us})
            if not as_json:
                told = "no path" if commanded_us is None else f"{commanded_us / 1e3:.3f} ms"
                came = "no answer" if measured_us is None else f"{measured_us / 1e3:.3f} ms"
                out.print(f"{a} – {b} #{number}: measured {came}, commanded {told}", markup=False)
    if as_json:
        click.echo(json.dumps({"a": a, "b": b, "probes": measured}, indent=2))


@click.command()
@click.argument("target", metavar="NODE|A~B")
@click.option(
    "--out", "out_file", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A pcapng file."
)
@click.option("--seconds", "seconds_s", type=click.FloatRange(0.1, 86_400.0), default=10.0, show_default=True)
@click.option("--count", type=click.IntRange(1), help="End after so many frames.")
@live_options
def capture(
    target: str, out_file: Path, seconds_s: float, count: int | None, run_id: str | None, as_json: bool
) -> None:
    """Write the frames on a node's ports, or on both ports of a link, into a pcapng file.

    Ctrl-C ends it early. It ends by itself at its time, its count, or a file of 1 GiB. Inbound and outbound are as the
    node sees them.
    """
    place = the_run(run_id)
    live_with(place)
    from controller.fabric.capture import CapturePort, panel_of
    from controller.fabric.capture import capture as capture_frames

    with client_of(place.run_id) as client:
        ports = [CapturePort(port.number, f"{port.node} {port.name}") for port in client.find_ports(target)]
    try:
        with out_file.open("wb") as stream, _until_interrupted() as interrupted:
            done = capture_frames(
                panel_of(place.run_id), ports, stream, seconds_s=seconds_s, count=count, stopped=interrupted
            )
    except OSError as error:
        raise InputError(f"cannot write {out_file}: {error.strerror}") from error
    if as_json:
        document = {
            "file": str(out_file),
            "ports": [port.label for port in ports],
            "frames": done.frames,
            "size_bytes": done.size_bytes,
            "missed": done.missed,
            "is_full": done.is_full,
        }
        click.echo(json.dumps(document, indent=2))
        return
    full = "; the file is full" if done.is_full else ""
    missed = f"; {done.missed} missed: too many a second" if done.missed else ""
    out.print(f"{out_file}: {done.frames} frames, {done.size_bytes} bytes{missed}{full}", markup=False)


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a termination was asked for, which for so long is no more than that."""
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_json(message: Message) -> None:
    click.echo(json.dumps(_document(message), indent=2))


def _document(message: Message) -> dict[str, object]:
    """A message as JSON: its own names, numbers as numbers, null for what is absent."""
    document: dict[str, object] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            document[field.name] = [_document(each) for each in value]
        elif field.has_presence and not message.HasField(field.name):
            document[field.name] = None
        else:
            document[field.name] = _document(value) if field.message_type is not None else value
    return document


COMMANDS = (pause, resume, step, seek, link, fault, probe, capture)
