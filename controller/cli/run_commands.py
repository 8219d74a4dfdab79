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
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

from controller import owner
from controller.cli.terminal import TerminalNarrator, out, summary_tables, table
from controller.errors import InputError, SkyrackError
from controller.narrator import Narrator

if TYPE_CHECKING:
    from controller.launch import RunOptions, Workload

Command = TypeVar("Command", bound=Callable[..., Any])
END_GRACE_S = 60.0
DEMO_DURATION_S = 110.0
RUNTIMES = ("auto", "docker", "namespace")


class Asked(TypedDict):
    """What the options of `run` and `up` give, as RunOptions has it."""

    scenario: str | None
    timeline: Path | None
    resume: str | None
    start_s: float | None
    duration_s: float | None
    time_scale: float | None
    runtime: str
    shaper: str
    out_dir: Path | None


def run_options(command: Command) -> Command:
    """The options that `run`, `up` and `demo` share."""
    for option in (
        click.option(
            "--runtime",
            type=click.Choice(RUNTIMES),
            default="auto",
            show_default=True,
            help="How nodes live; auto: in Docker where it answers, else in namespaces.",
        ),
        click.option(
            "--shaper",
            type=click.Choice(["auto", "netem", "delay-line"]),
            default="auto",
            show_default=True,
            help="What shapes links; auto: netem where the kernel has it, else a process in user space.",
        ),
        click.option(
            "--out", "out_dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the record."
        ),
    ):
        command = option(command)
    return command


def sky_options(command: Command) -> Command:
    """The argument and the options by which `run` and `up` know their sky."""
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    for option in (
        click.option(
            "--time-scale", type=float, help="Seconds of the sky a second of the clock; packets stay in real time."
        ),
        click.option(
            "--duration", "duration_s", type=float, help="Seconds of the sky's time; default: the scenario's."
        ),
        click.option("--start", "start_s", type=float, help="Seconds after the epoch; default: the scenario's."),
        click.option("--resume", metavar="RUN", help="Go on with a run whose controller was killed, stores and all."),
        click.option("--timeline", type=path, help="Replay a saved timeline; it holds its scenario."),
        click.argument("scenario", required=False),
    ):
        command = option(command)
    return command


def be_root(runtime: str) -> None:
    """Let an ordinary user be root of namespaces of his own, which is all that nodes without an engine need.

    Before: nothing has been imported that starts a thread. Starts skyrack anew where it changes something.
    """
    if os.geteuid() != 0 and runtime != "docker":
        owner.become_root_of_own(sys.argv[1:])


@click.command()
@sky_options
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print summary.json at the end.")
def run(as_json: bool, **asked: Unpack[Asked]) -> None:
    """Run a scenario to its end, and write its record and report."""
    be_root(asked["runtime"])
    from controller.launch import RunOptions

    _run_to_end(RunOptions(**asked), as_json, TerminalNarrator(quiet_in_pipe=True), None)


@click.command()
@click.argument("scenario", default="iridium-66")
@run_options
@click.option("--duration", "duration_s", type=float, default=DEMO_DURATION_S, show_default=True, help="Seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json at the end.")
def demo(scenario: str, runtime: str, shaper: str, out_dir: Path | None, duration_s: float, as_json: bool) -> None:
    """Run a scenario with the hot-spot workload: the same search on the ground and in orbit, and across a blackout."""
    be_root(runtime)
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
@sky_options
@run_options
def up(**asked: Unpack[Asked]) -> None:
    """Bring a scenario up in the background; return when every node answers.

    When its time is over, the sky's last state stays.
    """
    be_root(asked["runtime"])
    from controller.launch import RunOptions, out_dir_of

    options = RunOptions(**asked)
    folder = out_dir_of(options)
    argv = [] if options.scenario is None else [options.scenario]
    for name, value in (
        ("runtime", options.runtime),
        ("shaper", options.shaper),
        ("start", options.start_s),
        ("duration", options.duration_s),
        ("time-scale", options.time_scale),
        ("timeline", options.timeline),
        ("resume", options.resume),
    ):
        argv += [] if value is None else [f"--{name}", str(value)]
    narrator = TerminalNarrator(quiet_in_pipe=True)
    reader, writer = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "controller", "serve", "--out", str(folder), "--tell", str(writer), *argv],
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
        if not run_id:
            status = child.wait(END_GRACE_S)
            raise SkyrackError(
                f"the controller ended with status {status} before the nodes were up; `skyrack run` in the foreground "
                "shows why"
            )
    except BaseException:  # a failure, or an interrupt: what has not come up shall not come up later
        child.terminate()
        child.wait(END_GRACE_S)
        raise
    out.print(f"run {run_id} is up; record: {folder}", markup=False)
    child.returncode = 0  # it lives on without us


def _hear(told: Iterable[str], narrator: Narrator) -> str:
    """Listen to a controller that starts, until it is up, or ends without a word: the run's id, or nothing.

    Raises SkyrackError as the controller did.
    """
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
    return ""


@click.command(hidden=True)
@sky_options
@run_options
@click.option("--tell", "tell_fd", type=int, required=True)
def serve(tell_fd: int, **asked: Unpack[Asked]) -> None:
    """The background half of `up`: tells its parent through a pipe how it goes, until it is ready."""
    from controller.launch import RunOptions, launch

    options, parent = RunOptions(**asked, hold=True), PipeNarrator(tell_fd)
    try:
        asyncio.run(launch(options, parent, on_ready=lambda emulation: parent.ready(emulation.place.run_id)))
    except SkyrackError as error:
        parent.tell("error", error.exit_status, str(error))
        raise
    except Exception as defect:
        if options.out_dir is not None and options.out_dir.is_dir():  # nobody reads our standard error
            (options.out_dir / "controller.log").write_text(traceback.format_exc())
        parent.tell("error", 1, f"the controller failed: {defect!r}")
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
    paused = ", paused" if told.paused else ""
    start = f" from t = {told.start_s:g} s" if told.start_s else ""
    scale = f", {told.time_scale:g} × real time" if told.time_scale != 1.0 else ""
    out.print(
        f"run {told.run_id}  {told.scenario}, {told.duration_s:g} s{start}{scale}  {told.phase}{paused}  "
        f"t = {told.t_s:.1f} s  ({told.utc})\n"
        f"{told.runtime}, {told.shaper} ({told.shaper_reason})  {told.overruns} overruns\n"
        f"links up: {told.isls_up} ISLs, {told.links_up - told.isls_up} GSLs   record: {told.out_dir}",
        markup=False,
    )
    for fault in told.faults:
        out.print(f"fault: {fault}", markup=False)
    for each in told.overrides:
        out.print(f"set: {each.a} – {each.b} (`skyrack link show {each.a} {each.b}`)", markup=False)
    ground = [node for node in told.nodes if node.role != "satellite"]
    lit = sum(node.illumination_ratio > 0 for node in told.nodes if node.role == "satellite")
    out.print(f"satellites: {len(told.nodes) - len(ground)}, {lit} in sunlight", markup=False)
    for node in told.nodes:
        if node.role == "satellite" and (node.down or node.blackout):
            out.print(node.down or node.blackout, markup=False)
    hosts = [node for node in told.nodes if node.HasField("program")]
    if hosts:
        running = sum(node.program.running for node in hosts)
        out.print(f"programs: {running} of {len(hosts)} run", markup=False)
    for node in hosts:
        if not node.program.running:
            why = f" ({node.program.reason})" if node.program.reason else ""
            status = f"has ended with exit status {node.program.exit_status}{why}"
            out.print(f"{node.name}: its program ({node.program.image}) {status}", markup=False)
    table(("Ground node", "Role", "Address", "Links", "Blackout or down"), _ground_rows(ground))
    rows = [
        (f"{p.a} – {p.b}", _rtt(p.commanded_rtt_us), _rtt(p.measured_rtt_us)) for p in told.probes
    ]  # fmt: skip
    table(("Probe", "Commanded RTT (ms)", "Measured RTT (ms)"), rows)


def _ground_rows(nodes: list[Any]) -> list[tuple[object, ...]]:
    """A row a ground node."""
    return [(node.name, node.role, node.address, node.links_up, node.down or node.blackout or "–") for node in nodes]


def _rtt(rtt_us: int) -> str:
    """Milliseconds, or a dash."""
    return "–" if rtt_us < 0 else f"{rtt_us / 1e3:.2f}"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--run", "run_id", help="The run's id, when several are up.")
@click.option("--agent", "of_agent", is_flag=True, help="Where the node runs an image of yours: beside the agent.")
def exec_(node: str, command: tuple[str, ...], run_id: str | None, of_agent: bool) -> None:
    """Run a command in a node: skyrack exec NODE -- COMMAND…. Its exit status is the command's.

    In a node that runs an image of yours, the command is one of that image's.
    """
    from controller.cli.runs_of import live_with, the_run
    from controller.runs import MACHINE
    from controller.runtime.choose import open_runtime

    place = the_run(run_id)
    live_with(place)
    runtime = open_runtime(place.runtime, MACHINE.run)
    nodes = runtime.alive(place.run_id)
    if node not in nodes:
        near = difflib.get_close_matches(node, sorted(nodes), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else " (`skyrack status` lists them)"
        raise InputError(f"there is no node {node!r} in run {place.run_id}{hint}")
    sys.exit(runtime.exec(place.run_id, node, command, of_agent=of_agent))


@click.command()
@click.option("--all", "everything", is_flag=True, help="Every run of this user's, and what killed ones left.")
@click.option("--run", "run_id", help="The run's id, when several are up.")
def down(everything: bool, run_id: str | None) -> None:
    """Take the run down: it writes its report, and all that it made is removed. Also what a killed run left is."""
    from controller.cli.runs_of import living_runs, the_run
    from controller.down import end_run, sweep

    if everything or not living_runs(run_id):
        removed, refusal = sweep(everything, only=None if everything else run_id)
        if not (removed or everything or refusal):
            the_run(run_id)  # raises: there is none
    else:
        removed, refusal = end_run(the_run(run_id))
    if removed or refusal is None:
        out.print(f"removed: {', '.join(removed) if removed else 'nothing was left'}", markup=False)
    if refusal is not None:
        raise refusal


exec_.name = "exec"
COMMANDS = (run, up, serve, demo, status, exec_, down)
