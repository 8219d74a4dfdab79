"""Commands that bring a run up, look at it, enter its nodes and take it down."""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from controller.cli.terminal import TerminalNarrator, out, summary_tables, table
from controller.errors import InputError, SkyrackError
from controller.narrator import Narrator

if TYPE_CHECKING:
    from controller.launch import RunOptions, Workload

Command = TypeVar("Command", bound=Callable[..., Any])
END_GRACE_S = 60.0
DEMO_DURATION_S = 110.0


def run_options(command: Command) -> Command:
    """The options that `run`, `up` and `demo` share."""
    for option in (
        click.option("--runtime", type=click.Choice(["docker", "namespace"]), default="docker", show_default=True),
        click.option("--shaper", type=click.Choice(["auto", "netem", "delay-line"]), default="auto", show_default=True),
        click.option(
            "--out", "out_dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the record."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("scenario")
@run_options
@click.option("--duration", "duration_s", type=float, help="Seconds; default: the scenario's.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json at the end.")
def run(
    scenario: str, runtime: str, shaper: str, out_dir: Path | None, duration_s: float | None, as_json: bool
) -> None:
    """Run a scenario to its end, and write its record and report."""
    from controller.launch import RunOptions

    options = RunOptions(scenario, runtime, shaper, duration_s, out_dir)
    _run_to_end(options, as_json, TerminalNarrator(quiet_in_pipe=True), None)


@click.command()
@click.argument("scenario", default="iridium-66")
@run_options
@click.option("--duration", "duration_s", type=float, default=DEMO_DURATION_S, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json at the end.")
def demo(scenario: str, runtime: str, shaper: str, out_dir: Path | None, duration_s: float, as_json: bool) -> None:
    """Run a scenario with the hot-spot workload: the same search on the ground and in orbit, and across a blackout."""
    from controller.launch import RunOptions
    from controller.workloads.hot_spots import hot_spots

    narrator = TerminalNarrator(quiet_in_pipe=False)
    options = RunOptions(scenario, runtime, shaper, duration_s, out_dir)
    _run_to_end(options, as_json, narrator, lambda emulation: hot_spots(emulation, narrator))


def _run_to_end(options: RunOptions, as_json: bool, narrator: Narrator, workload: Workload | None) -> None:
    """Launch in the foreground, and print what came of it."""
    from controller.launch import launch

    try:
        ended = asyncio.run(launch(options, narrator, workload))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if as_json:
        click.echo(json.dumps(ended.summary, indent=2))
    else:
        summary_tables(ended.summary)
        out.print(f"record: {ended.out_dir}\nreport: {ended.out_dir / 'report.html'}", markup=False)


@click.command()
@click.argument("scenario")
@run_options
@click.option("--duration", "duration_s", type=float, help="Seconds of moving sky; its last state stays after that.")
def up(scenario: str, runtime: str, shaper: str, out_dir: Path | None, duration_s: float | None) -> None:
    """Bring a scenario up in the background; return when every node answers."""
    from controller.launch import default_out_dir
    from controller.scenario.load import load_scenario

    options = ["--runtime", runtime, "--shaper", shaper]
    if duration_s is not None:
        options += ["--duration", str(duration_s)]
    checked = load_scenario(scenario, duration_s)
    folder = (out_dir or default_out_dir(checked)).resolve()
    narrator = TerminalNarrator(quiet_in_pipe=True)
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "controller", "serve", scenario, "--out", str(folder), "--tell", str(writer), *options],
        pass_fds=(writer,),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with os.fdopen(reader) as told:
            run_id = _hear(told, narrator)
    except BaseException:  # a failure, or an interrupt: what has not come up shall not come up later
        child.terminate()
        child.wait(END_GRACE_S)
        raise
    out.print(f"run {run_id} is up; record: {folder}", markup=False)
    child.returncode = 0  # it lives on without us


def _hear(told: Iterable[str], narrator: Narrator) -> str:
    """Listen to a controller that starts, until it is up. The run's id. Raises SkyrackError as the controller did."""
    for line in told:
        match json.loads(line):
            case ["ready", run_id]:
                return str(run_id)
            case ["error", exit_status, message]:
                error = SkyrackError(message)
                error.exit_status = exit_status
                raise error
            case ["progress", what, done, total]:
                narrator.progress(what, done, total)
            case ["say", text]:
                narrator.say(text)
    raise SkyrackError("the controller ended before the nodes were up; `skyrack run` in the foreground shows why")


@click.command(hidden=True)
@click.argument("scenario")
@run_options
@click.option("--duration", "duration_s", type=float)
@click.option("--tell", "tell_fd", type=int, required=True)
def serve(
    scenario: str, runtime: str, shaper: str, out_dir: Path | None, duration_s: float | None, tell_fd: int
) -> None:
    """The background half of `up`: tells its parent through a pipe how it goes, until it is ready."""
    from controller.launch import RunOptions, launch

    parent = PipeNarrator(tell_fd)
    try:
        asyncio.run(
            launch(
                RunOptions(scenario, runtime, shaper, duration_s, out_dir, hold=True),
                parent,
                on_ready=lambda emulation: parent.ready(emulation.place.run_id),
            )
        )
    except SkyrackError as error:
        parent.tell("error", error.exit_status, str(error))
        raise
    except Exception:
        if out_dir is not None and out_dir.is_dir():  # nobody reads our standard error
            (out_dir / "controller.log").write_text(traceback.format_exc())
        raise


class PipeNarrator:
    """Tells a parent process, a JSON line each, until it has been told that all is ready."""

    def __init__(self, fd: int) -> None:
        self._stream = os.fdopen(fd, "w")

    def progress(self, what: str, done: int, total: int) -> None:
        """Pass it on."""
        self.tell("progress", what, done, total)

    def say(self, text: str) -> None:
        """Pass it on."""
        self.tell("say", text)

    def ready(self, run_id: str) -> None:
        """The last word."""
        self.tell("ready", run_id)
        self._stream.close()

    def tell(self, *fields: object) -> None:
        """Write one line. A parent that has gone is no reason to end: the run is looked at with `skyrack status`."""
        if self._stream.closed:
            return
        try:
            self._stream.write(json.dumps(fields) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@click.command()
@click.option("--run", "run_id", help="The run's id, when several are up.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(run_id: str | None, as_json: bool) -> None:
    """Show the run: its nodes, links, probes and faults now."""
    from google.protobuf.json_format import MessageToDict

    from controller.cli.runs_of import client_of

    with client_of(run_id) as client:
        told = client.status()
    if as_json:
        document = MessageToDict(told, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        click.echo(json.dumps(document, indent=2))
        return
    out.print(
        f"run {told.run_id}  {told.scenario}  {told.phase}  t = {told.t_s:.1f} of {told.duration_s:g} s  ({told.utc})\n"
        f"{told.runtime}, {told.shaper} ({told.shaper_reason})  {told.overruns} overruns\n"
        f"links up: {told.isls_up} ISLs, {told.links_up - told.isls_up} GSLs   record: {told.out_dir}",
        markup=False,
    )
    for fault in told.faults:
        out.print(f"fault: {fault}", markup=False)
    ground = [node for node in told.nodes if node.role != "satellite"]
    lit = sum(node.illumination_ratio > 0 for node in told.nodes if node.role == "satellite")
    out.print(f"satellites: {len(told.nodes) - len(ground)}, {lit} in sunlight", markup=False)
    table(("Ground node", "Role", "Address", "Links", "Blackout"), _ground_rows(ground))
    rows = [
        (f"{p.a} – {p.b}", _rtt(p.commanded_rtt_us), _rtt(p.measured_rtt_us)) for p in told.probes
    ]  # fmt: skip
    table(("Probe", "Commanded RTT (ms)", "Measured RTT (ms)"), rows)


def _ground_rows(nodes: list[Any]) -> list[tuple[object, ...]]:
    """A row a ground node."""
    return [(node.name, node.role, node.address, node.links_up, node.blackout or "–") for node in nodes]


def _rtt(rtt_us: int) -> str:
    """Milliseconds, or a dash."""
    return "–" if rtt_us < 0 else f"{rtt_us / 1e3:.2f}"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--run", "run_id", help="The run's id, when several are up.")
def exec_(node: str, command: tuple[str, ...], run_id: str | None) -> None:
    """Run a command in a node: skyrack exec NODE -- COMMAND…. Its exit status is the command's."""
    from controller.cli.runs_of import the_run
    from controller.launch import open_runtime

    place, runtime = the_run(run_id), open_runtime("docker")
    nodes = runtime.alive(place.run_id)
    if node not in nodes:
        near = difflib.get_close_matches(node, sorted(nodes), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else " (`skyrack status` lists them)"
        raise InputError(f"there is no node {node!r} in run {place.run_id}{hint}")
    sys.exit(runtime.exec(place.run_id, node, command))


@click.command()
@click.option("--all", "everything", is_flag=True, help="Every run on this machine, and what killed ones left.")
@click.option("--run", "run_id", help="The run's id, when several are up.")
def down(everything: bool, run_id: str | None) -> None:
    """Take the run down: it writes its report, and all that it made is removed."""
    from controller.cli.runs_of import the_run
    from controller.launch import end_run, sweep

    ended = sweep(everything=True) if everything else end_run(the_run(run_id))
    out.print(f"removed: {', '.join(ended) if ended else 'nothing was left'}", markup=False)


exec_.name = "exec"
COMMANDS = (run, up, serve, demo, status, exec_, down)
