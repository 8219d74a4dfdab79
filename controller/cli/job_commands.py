"""Commands for objects and jobs: put, get, submit, jobs, watch, cancel."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any

import click

from controller.cli.runs_of import client_of
from controller.cli.terminal import out, table
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import controller_pb2, jobs_pb2

run_option = click.option("--run", "run_id", help="The run's id, when several are up.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
via_option = click.option("--via", required=True, metavar="GATEWAY", help="The gateway that takes it.")
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@via_option
@run_option
@json_option
def put(file: Path, via: str, run_id: str | None, as_json: bool) -> None:
    """Store a file as an object at a gateway."""
    with client_of(run_id) as client:
        info = client.put(via, file)
    if as_json:
        click.echo(json.dumps({"object": info.object, "size_bytes": info.size_bytes, "node": via}))
    else:
        out.print(f"{info.object}  {info.size_bytes} bytes at {via}", markup=False)


@click.command()
@click.argument("name", metavar="OBJECT")
@via_option
@click.option("--out", "out_file", required=True, type=click.Path(dir_okay=False, path_type=Path))
@run_option
@json_option
def get(name: str, via: str, out_file: Path, run_id: str | None, as_json: bool) -> None:
    """Fetch an object that a gateway holds into a file, checked against its name."""
    part = out_file.with_name(out_file.name + ".part")
    try:
        with client_of(run_id) as client, part.open("wb") as stream:
            size_bytes = client.get(via, name, stream)
        part.replace(out_file)
    except OSError as error:
        raise InputError(f"cannot write {out_file}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        click.echo(json.dumps({"object": name, "size_bytes": size_bytes, "file": str(out_file)}))
    else:
        out.print(f"{out_file}: {size_bytes} bytes", markup=False)


@click.command()
@click.option("--script", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A Python script.")
@click.option("--command", "command_line", help="A shell command of the node's image, in place of a script.")
@via_option
@click.option("--on", "on_node", default="", metavar="NODE", help="The node that runs it. Default: the gateway.")
@click.option(
    "--input", "inputs", multiple=True, metavar="OBJECT[@NODE]", help="An object at the gateway, or where it lies."
)
@click.option("--arg", "arguments", multiple=True, help="An argument of the script.")
@click.option("--keep-outputs", is_flag=True, help="Leave outputs in the node's store.")
@click.option("--wall-s", default=0.0, help="Limit of wall-clock seconds.")
@click.option("--memory-bytes", default=0, help="Limit of memory of a process.")
@click.option("--id", "job_id", help="Your own id: submitting it again changes nothing.")
@click.option("--wait", is_flag=True, help="Wait for the job's end; the exit status is 1 unless it succeeds.")
@run_option
@json_option
def submit(
    script: Path | None,
    command_line: str | None,
    via: str,
    on_node: str,
    inputs: tuple[str, ...],
    arguments: tuple[str, ...],
    keep_outputs: bool,
    wall_s: float,
    memory_bytes: int,
    job_id: str | None,
    wait: bool,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Submit a job to a gateway, for a node. Inputs are files named in SKYRACK_INPUTS, outputs what is left in
    SKYRACK_OUTPUT_DIR."""
    if (script is None) == (command_line is None):
        raise InputError("a job is either --script FILE.py or --command 'LINE'")
    spec = jobs_pb2.JobSpec(
        id=job_id or f"job-{secrets.token_hex(4)}",
        on_node=on_node,
        inputs=[jobs_pb2.JobInput(object=o, at_node=n) for o, _, n in (item.partition("@") for item in inputs)],
        arguments=arguments,
        keep_outputs_on_node=keep_outputs,
        limits=jobs_pb2.JobLimits(wall_s=wall_s, memory_bytes=memory_bytes),
    )
    with client_of(run_id) as client:
        if script is not None:
            spec.script_object = client.put(via, script).object
        else:
            spec.command.argv.extend(["sh", "-c", command_line or ""])
        told = client.submit(via, spec)
        if wait:
            for told in client.watch(spec.id):
                if not as_json and out.is_terminal:
                    out.print(f"{state_of(told)}: {told.job.reason}", markup=False)
    show(told, as_json)
    if wait and state_of(told) != "SUCCEEDED":
        raise SkyrackError(f"job {spec.id} ended as {state_of(told)}: {told.job.reason}")


@click.command()
@run_option
@json_option
def jobs(run_id: str | None, as_json: bool) -> None:
    """List the jobs of all gateways."""
    with client_of(run_id) as client:
        entries = client.jobs()
    if as_json:
        click.echo(json.dumps({"jobs": [document(entry) for entry in entries]}, indent=2))
    else:
        rows = [(e.job.spec.id, e.via, e.job.spec.on_node or e.via, state_of(e), why(e)) for e in entries]
        table(("Job", "Via", "On", "State", "Reason"), rows)


@click.command()
@click.argument("job_id", metavar="JOB")
@run_option
@json_option
def watch(job_id: str, run_id: str | None, as_json: bool) -> None:
    """Follow a job until it is final: a line a change, or with --json the job at its end."""
    told: controller_pb2.JobAtGateway | None = None
    with client_of(run_id) as client:
        for told in client.watch(job_id):
            if not as_json:
                out.print(f"{state_of(told)}: {why(told)}", markup=False)
    if as_json and told is not None:
        show(told, as_json)


@click.command()
@click.argument("job_id", metavar="JOB")
@run_option
@json_option
def cancel(job_id: str, run_id: str | None, as_json: bool) -> None:
    """Ask for a job's end."""
    with client_of(run_id) as client:
        show(client.cancel(job_id), as_json)


def state_of(told: controller_pb2.JobAtGateway) -> str:
    """The word for a job's state."""
    return jobs_pb2.JobState.Name(told.job.state).removeprefix("JOB_STATE_")


def why(told: controller_pb2.JobAtGateway) -> str:
    """The reason of a job's state, with what the emulator knows of it."""
    return "; ".join(filter(None, (told.job.reason, told.cause)))


def document(told: controller_pb2.JobAtGateway) -> dict[str, Any]:
    """A job as the JSON that `submit`, `jobs`, `watch` and `cancel` print."""
    job = told.job
    return {
        "job": job.spec.id,
        "state": state_of(told),
        "reason": why(told),
        "via": told.via,
        "node": job.spec.on_node or told.via,
        "attempt": job.attempt,
        "exit_status": job.exit_status if state_of(told) in FINAL else None,
        "stdout": job.stdout.decode(errors="replace"),
        "stderr": job.stderr.decode(errors="replace"),
        "outputs": [
            {"name": output.name, "object": output.object, "size_bytes": output.size_bytes, "node": output.at_node}
            for output in job.outputs
        ],
        "moved_bytes": job.moved_bytes,
    }


def show(told: controller_pb2.JobAtGateway, as_json: bool) -> None:
    """Print one job."""
    if as_json:
        click.echo(json.dumps(document(told), indent=2))
        return
    out.print(
        f"{told.job.spec.id} on {told.job.spec.on_node or told.via}: {state_of(told)} ({why(told)})", markup=False
    )
    sys.stdout.write(told.job.stdout.decode(errors="replace"))
    for output in told.job.outputs:
        out.print(
            f"output {output.name}: {output.object} ({output.size_bytes} bytes at {output.at_node})", markup=False
        )


COMMANDS = (put, get, submit, jobs, watch, cancel)
