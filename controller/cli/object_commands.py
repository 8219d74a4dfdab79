"""Commands for objects: put, get, objects, rm, pin, unpin, scrub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.job_commands import (
    json_option,
    jurisdiction_option,
    run_option,
    state_of,
    transit_option,
    via_option,
)
from controller.cli.runs_of import client_of
from controller.cli.terminal import out, table
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import controller_pb2, objects_pb2

if TYPE_CHECKING:
    from controller.api.client import ControllerClient

object_argument = click.argument("name", metavar="OBJECT")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@via_option
@click.option("--on", "on_nodes", multiple=True, metavar="NODE", help="A node that shall keep it; again for more.")
@click.option("--replicas", default=0, help="So many nodes shall keep it, chosen over planes.")
@jurisdiction_option
@transit_option
@click.option("--pin", "is_pinned", is_flag=True, help="It stays until it is unpinned.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it is where it shall be kept.")
@run_option
@json_option
def put(
    file: Path,
    via: str,
    on_nodes: tuple[str, ...],
    replicas: int,
    jurisdictions: tuple[str, ...],
    transit: bool,
    is_pinned: bool,
    no_wait: bool,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Store a file as an object at a gateway, and have it kept at other nodes."""
    if on_nodes and replicas:
        raise InputError("--on names the nodes, --replicas has them chosen: give one of them")
    if replicas < 0:
        raise InputError(f"--replicas {replicas}: must be 1 or more")
    terms = objects_pb2.ObjectTerms(jurisdictions=jurisdictions, transit=transit, pinned=is_pinned)
    nodes: list[str] = []
    with client_of(run_id) as client:
        info = client.put(via, file, terms if jurisdictions or is_pinned else None)
        if on_nodes or replicas:
            request = controller_pb2.KeepRequest(
                via=via, object=info.object, nodes=on_nodes, replicas=replicas, terms=terms
            )
            told = client.keep(request)
            nodes = [each.job.spec.on_node or via for each in told]
            if not no_wait:
                for each in told:
                    _wait_until_kept(client, each.job.spec.id, as_json)
    if as_json:
        document = {"object": info.object, "size_bytes": info.size_bytes, "node": via, "nodes": nodes}
        click.echo(json.dumps(document))
    else:
        where = f", kept at {', '.join(nodes)}" if nodes else ""
        out.print(f"{info.object}  {info.size_bytes} bytes at {via}{where}", markup=False)


@click.command()
@object_argument
@via_option
@click.option("--out", "out_file", required=True, type=click.Path(dir_okay=False, path_type=Path))
@run_option
@json_option
def get(name: str, via: str, out_file: Path, run_id: str | None, as_json: bool) -> None:
    """Fetch an object by way of a gateway into a file, checked against its name. Where another node has it, it is
    brought to the gateway first."""
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
@click.option("--via", default="", metavar="GATEWAY", help="One node on the ground. Default: all of them.")
@run_option
@json_option
def objects(via: str, run_id: str | None, as_json: bool) -> None:
    """List the objects of the nodes on the ground."""
    with client_of(run_id) as client:
        found = client.objects(via)
    if as_json:
        listed = [
            {
                "object": each.info.object,
                "node": each.node,
                "size_bytes": each.info.size_bytes,
                "committed_bytes": each.info.committed_bytes,
                "jurisdictions": list(each.info.terms.jurisdictions),
                "transit": each.info.terms.transit,
                "holders": list(each.info.terms.holders),
                "pinned": each.info.terms.pinned,
            }
            for each in found
        ]
        click.echo(json.dumps({"objects": listed}, indent=2))
        return
    rows = [
        (
            each.info.object,
            each.node,
            each.info.size_bytes,
            "" if each.info.committed_bytes == each.info.size_bytes else f"{each.info.committed_bytes} arrived",
            " ".join(each.info.terms.jurisdictions) or "anywhere",
            " ".join(each.info.terms.holders),
            "pinned" if each.info.terms.pinned else "",
        )
        for each in found
    ]
    table(("Object", "At", "Bytes", "", "May lie in", "Holders", ""), rows)


@click.command()
@object_argument
@via_option
@run_option
@json_option
def rm(name: str, via: str, run_id: str | None, as_json: bool) -> None:
    """Remove an object from a gateway."""
    with client_of(run_id) as client:
        was_here = client.delete(via, name)
    if as_json:
        click.echo(json.dumps({"object": name, "node": via, "was_here": was_here}))
    else:
        out.print(f"{name}: {'removed from' if was_here else 'was not at'} {via}", markup=False)


@click.command()
@object_argument
@via_option
@run_option
@json_option
def pin(name: str, via: str, run_id: str | None, as_json: bool) -> None:
    """Have an object stay at a gateway until it is unpinned."""
    _pin(name, via, run_id, as_json, is_pinned=True)


@click.command()
@object_argument
@via_option
@run_option
@json_option
def unpin(name: str, via: str, run_id: str | None, as_json: bool) -> None:
    """Let an object be removed again."""
    _pin(name, via, run_id, as_json, is_pinned=False)


@click.command()
@click.argument("name", metavar="[OBJECT]", default="")
@via_option
@run_option
@json_option
def scrub(name: str, via: str, run_id: str | None, as_json: bool) -> None:
    """Read an object of a gateway, or all, and hold each to its name. A damaged one is fetched from another holder;
    the exit status is 1 where it stays damaged."""
    with client_of(run_id) as client:
        report = client.scrub(via, name)
    left = sorted(set(report.damaged) - set(report.repaired))
    if as_json:
        document = {
            "node": via,
            "objects": report.objects,
            "bytes": report.bytes,
            "damaged": list(report.damaged),
            "repaired": list(report.repaired),
        }
        click.echo(json.dumps(document))
    else:
        told = f"{len(report.damaged)} damaged, {len(report.repaired)} repaired"
        out.print(f"{via}: {report.objects} objects, {report.bytes} bytes read: {told}", markup=False)
    if left:
        raise SkyrackError(f"damaged at {via}, and not repaired so far: {', '.join(left)}")


def _pin(name: str, via: str, run_id: str | None, as_json: bool, *, is_pinned: bool) -> None:
    with client_of(run_id) as client:
        found = [each.info for each in client.objects(via) if each.info.object == name]
        if not found:
            raise InputError(f"{name} is not at {via} (`skyrack objects --via {via}` lists what is)")
        terms = found[0].terms
        terms.pinned = is_pinned
        info = client.set_terms(via, name, terms)
    if as_json:
        click.echo(json.dumps({"object": name, "node": via, "pinned": info.terms.pinned}))
    else:
        out.print(f"{name} is {'pinned' if info.terms.pinned else 'not pinned'} at {via}", markup=False)


def _wait_until_kept(client: ControllerClient, job_id: str, as_json: bool) -> None:
    for told in client.watch(job_id):
        if not as_json and out.is_terminal:
            out.print(f"{told.job.spec.on_node}: {state_of(told)}, {told.job.reason}", markup=False)
        if state_of(told) in ("FAILED", "CANCELLED", "EXPIRED"):
            raise SkyrackError(f"{told.job.spec.on_node} does not keep it: {state_of(told)}, {told.job.reason}")


COMMANDS = (put, get, objects, rm, pin, unpin, scrub)
