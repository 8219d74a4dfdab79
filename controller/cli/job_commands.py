"""Commands for jobs: submit, explain, jobs, watch, logs, suspend, resume-job, cancel."""

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
via_option = click.option("--via", required=True, metavar="GATEWAY", help="The node on the ground that takes it.")
jurisdiction_option = click.option(
    "--jurisdiction", "jurisdictions", multiple=True, metavar="CC", help="Where it may lie, as CN; again for more."
)
transit_option = click.option("--transit", is_flag=True, help="Links of nodes outside may carry it, as ciphertext.")
job_argument = click.argument("job_id", metavar="JOB")
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
PINNED = "pinned"


@click.command()
@click.option("--script", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A Python script.")
@click.option("--command", "command_line", help="A shell command of the node's image, in place of a script.")
@click.option("--wasm", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A WebAssembly module.")
@via_option
@click.option("--on", "on_node", default="", metavar="NODE", help="The node that runs it. Default: the gateway.")
@click.option("--policy", default="", metavar="NAME", help="earliest-result, data-local, spread or pinned chooses it.")
@click.option("--pin-to", "pinned_to", multiple=True, metavar="NODE", help="Of policy pinned; again for the next best.")
@click.option(
    "--input", "inputs", multiple=True, metavar="OBJECT[@NODE]", help="An object at the gateway, or where it lies."
)
@click.option("--arg", "arguments", multiple=True, help="An argument of the program.")
@click.option("--env", "environment", multiple=True, metavar="KEY=VALUE", help="A variable of its environment.")
@click.option("--checkpoint", default="", metavar="OBJECT", help="What it finds as SKYRACK_CHECKPOINT at first.")
@click.option("--keep-outputs", is_flag=True, help="Leave outputs in the node's store.")
@click.option("--wall-s", default=0.0, help="Limit of wall-clock seconds.")
@click.option("--cpu-s", default=0.0, help="Limit of CPU seconds.")
@click.option("--memory-bytes", default=0, help="Limit of memory.")
@click.option("--disk-bytes", default=0, help="Limit of its scratch folder.")
@click.option("--fuel", default=0, help="Limit of a module's fuel, about one an instruction.")
@click.option("--network", is_flag=True, help="Its processes may use the network.")
@click.option("--priority", default=0, help="Of jobs that wait on a node, the highest goes first.")
@click.option("--attempts", default=0, help="How often it may be started if it fails. Default: once.")
@click.option("--deadline-s", default=0.0, help="Seconds of the sky from now in which it must be done.")
@jurisdiction_option
@transit_option
@click.option("--id", "job_id", help="Your own id: submitting it again changes nothing.")
@click.option("--wait", is_flag=True, help="Wait for the job's end; the exit status is 1 unless it succeeds.")
@run_option
@json_option
def submit(
    script: Path | None,
    command_line: str | None,
    wasm: Path | None,
    via: str,
    on_node: str,
    policy: str,
    pinned_to: tuple[str, ...],
    inputs: tuple[str, ...],
    arguments: tuple[str, ...],
    environment: tuple[str, ...],
    checkpoint: str,
    keep_outputs: bool,
    wall_s: float,
    cpu_s: float,
    memory_bytes: int,
    disk_bytes: int,
    fuel: int,
    network: bool,
    priority: int,
    attempts: int,
    deadline_s: float,
    jurisdictions: tuple[str, ...],
    transit: bool,
    job_id: str | None,
    wait: bool,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Submit a job to a gateway, for a node. Inputs are files named in SKYRACK_INPUTS, outputs what is left in
    SKYRACK_OUTPUT_DIR."""
    if [script, command_line, wasm].count(None) != 2:
        raise InputError("a job is one of --script FILE.py, --command 'LINE' and --wasm FILE")
    if on_node and (policy or pinned_to):
        raise InputError("--on names the node, --policy and --pin-to have it chosen: give one of them")
    if deadline_s < 0 or attempts < 0:
        raise InputError("--deadline-s and --attempts count from 0 on")
    spec = jobs_pb2.JobSpec(
        id=job_id or f"job-{secrets.token_hex(4)}",
        on_node=on_node,
        inputs=[jobs_pb2.JobInput(object=o, at_node=n) for o, _, n in (item.partition("@") for item in inputs)],
        arguments=arguments,
        environment=dict(_variable(each) for each in environment),
        keep_outputs_on_node=keep_outputs,
        limits=jobs_pb2.JobLimits(
            wall_s=wall_s, cpu_s=cpu_s, memory_bytes=memory_bytes, disk_bytes=disk_bytes, fuel=fuel
        ),
        network=network,
        priority=priority,
        max_attempts=attempts,
        checkpoint_object=checkpoint,
        jurisdictions=jurisdictions,
        transit=transit,
    )
    request = controller_pb2.ViaSubmitRequest(
        via=via, policy=policy or (PINNED if pinned_to else ""), pinned_to=pinned_to, deadline_s=deadline_s
    )
    with client_of(run_id) as client:
        if script is not None:
            spec.script_object = client.put(via, script).object
        elif wasm is not None:
            spec.wasm_object = client.put(via, wasm).object
        else:
            spec.command.argv.extend(["sh", "-c", command_line or ""])
        request.spec.CopyFrom(spec)
        told = client.submit(request)
        if wait:
            for told in client.watch(spec.id):
                if not as_json and out.is_terminal:
                    out.print(f"{state_of(told)}: {told.job.reason}", markup=False)
    show(told, as_json)
    if wait and state_of(told) != "SUCCEEDED":
        raise SkyrackError(f"job {spec.id} ended as {state_of(told)}: {told.job.reason}")


@click.command()
@job_argument
@run_option
@json_option
def explain(job_id: str, run_id: str | None, as_json: bool) -> None:
    """Tell why a job is where it is: what placement said of every node, the best first."""
    with client_of(run_id) as client:
        told = client.explain(job_id)
    if as_json:
        verdicts = [
            {
                "node": verdict.node,
                "feasible": verdict.feasible,
                "reason": verdict.reason,
                "score": verdict.score if verdict.feasible else None,
                "result_at_s": verdict.result_at_s if verdict.HasField("result_at_s") else None,
            }
            for verdict in told.verdicts
        ]
        head = {"job": job_id, "policy": told.policy or None, "chosen": told.chosen or None, "at_s": told.at_s}
        click.echo(json.dumps({**head, "state": state_of(told.job), "verdicts": verdicts}, indent=2))
        return
    rows = [
        (
            verdict.node,
            "chosen" if verdict.node == told.chosen else "feasible" if verdict.feasible else "refused",
            verdict.reason,
            f"{verdict.score:.3f}" if verdict.feasible else "–",
            f"t = {verdict.result_at_s:.1f} s" if verdict.HasField("result_at_s") else "–",
        )
        for verdict in told.verdicts
    ]
    how = f"by {told.policy}" if told.policy else "as it was asked for"
    table(("Node", "Verdict", "Reason", "Score", "Result at"), rows, f"{job_id}, {how}, at t = {told.at_s:.1f} s")


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
        rows = [(e.job.spec.id, e.via, node_of(e), e.policy or "–", state_of(e), why(e)) for e in entries]
        table(("Job", "Via", "On", "By", "State", "Reason"), rows)


@click.command()
@job_argument
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
@job_argument
@click.option("--stderr", "of_stderr", is_flag=True, help="What it wrote to standard error.")
@click.option("--follow", is_flag=True, help="Go on until the job is final.")
@run_option
@json_option
def logs(job_id: str, of_stderr: bool, follow: bool, run_id: str | None, as_json: bool) -> None:
    """Print what a job has written."""
    stream = jobs_pb2.LOG_STREAM_STDERR if of_stderr else jobs_pb2.LOG_STREAM_STDOUT
    with client_of(run_id) as client:
        parts = client.read_log(job_id, stream, follow=follow)
        if as_json:
            text = b"".join(parts).decode(errors="replace")
            click.echo(json.dumps({"job": job_id, "stream": "stderr" if of_stderr else "stdout", "text": text}))
            return
        for part in parts:
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()


@click.command()
@job_argument
@run_option
@json_option
def suspend(job_id: str, run_id: str | None, as_json: bool) -> None:
    """Have a job stand still until `resume-job`: its slot goes to others, its memory stays."""
    with client_of(run_id) as client:
        show(client.suspend(job_id), as_json)


@click.command(name="resume-job")
@job_argument
@run_option
@json_option
def resume_job(job_id: str, run_id: str | None, as_json: bool) -> None:
    """Let a suspended job go on. (`resume` is the sky's.)"""
    with client_of(run_id) as client:
        show(client.resume_job(job_id), as_json)


@click.command()
@job_argument
@run_option
@json_option
def cancel(job_id: str, run_id: str | None, as_json: bool) -> None:
    """Ask for a job's end."""
    with client_of(run_id) as client:
        show(client.cancel(job_id), as_json)


def state_of(told: controller_pb2.JobAtGateway) -> str:
    """The word for a job's state; of one that no node could take, REFUSED."""
    if told.job.state == jobs_pb2.JOB_STATE_UNSPECIFIED:
        return "REFUSED"
    return jobs_pb2.JobState.Name(told.job.state).removeprefix("JOB_STATE_")


def node_of(told: controller_pb2.JobAtGateway) -> str:
    """The node that runs a job, and who has custody of it on the way there."""
    node, custodian = told.job.spec.on_node or told.via, told.job.custodian
    return node if custodian in ("", node, told.via) or state_of(told) in FINAL else f"{node} (at {custodian})"


def why(told: controller_pb2.JobAtGateway) -> str:
    """The reason of a job's state, with what the emulator knows of it."""
    return "; ".join(filter(None, (told.job.reason, told.cause)))


def document(told: controller_pb2.JobAtGateway) -> dict[str, Any]:
    """A job as the JSON that `submit`, `jobs`, `watch` and `cancel` print."""
    job = told.job
    has_ended = state_of(told) in FINAL
    return {
        "job": job.spec.id,
        "state": state_of(told),
        "reason": why(told),
        "via": told.via,
        "node": job.spec.on_node or told.via,
        "policy": told.policy or None,
        "custodian": job.custodian or None,
        "attempt": job.attempt,
        "exit_status": job.exit_status if has_ended else None,
        "signal": (job.signal or None) if has_ended else None,
        "stdout": job.stdout.decode(errors="replace"),
        "stderr": job.stderr.decode(errors="replace"),
        "outputs": [
            {"name": output.name, "object": output.object, "size_bytes": output.size_bytes, "node": output.at_node}
            for output in job.outputs
        ],
        "moved_bytes": job.moved_bytes,
        "usage": {
            "cpu_s": job.usage.cpu_s,
            "wall_s": job.usage.wall_s,
            "peak_memory_bytes": job.usage.peak_memory_bytes,
            "fuel": job.usage.fuel,
        },
        "checkpoint": job.checkpoint_object or None,
    }


def show(told: controller_pb2.JobAtGateway, as_json: bool) -> None:
    """Print one job."""
    if as_json:
        click.echo(json.dumps(document(told), indent=2))
        return
    out.print(f"{told.job.spec.id} on {node_of(told)}: {state_of(told)} ({why(told)})", markup=False)
    sys.stdout.write(told.job.stdout.decode(errors="replace"))
    for output in told.job.outputs:
        out.print(
            f"output {output.name}: {output.object} ({output.size_bytes} bytes at {output.at_node})", markup=False
        )


def _variable(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise InputError(f"--env {text!r}: must be KEY=VALUE")
    return key, value


COMMANDS = (submit, explain, jobs, watch, logs, suspend, resume_job, cancel)
