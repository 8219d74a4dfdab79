"""Commands for objects: put, get, objects, stat, rm, pin, unpin, scrub."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from controller.cli.job_commands import (
    FINAL,
    json_option,
    jurisdiction_option,
    run_option,
    state_of,
    transit_option,
    via_option,
)
from controller.cli.runs_of import client_of
from controller.cli.terminal import TerminalNarrator, out, table
from controller.errors import InputError, SkyrackError
from protos.skyrack.v1 import controller_pb2, objects_pb2

if TYPE_CHECKING:
    from controller.api.client import ControllerClient

TELL_EVERY_S = 10.0

object_argument = click.argument("name", metavar="OBJECT")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@via_option
@click.option("--on", "on_nodes", multiple=True, metavar="NODE", help="A node that shall keep it; again for more.")
@click.option("--replicas", default=0, help="So many nodes shall keep it, chosen over planes.")
@click.option("--erasure", metavar="K+M", help="Keep it as K + M fragments, at a node each; any K of them give it.")
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
    erasure: str | None,
    jurisdictions: tuple[str, ...],
    transit: bool,
    is_pinned: bool,
    no_wait: bool,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Store a file as an object at a gateway, and have it kept at other nodes, or as fragments at other nodes alone."""
    if erasure is not None:
        if on_nodes or replicas or is_pinned:
            raise InputError(
                "--erasure has fragments kept at nodes that it chooses: no --on, --replicas or --pin with it"
            )
        terms = objects_pb2.ObjectTerms(jurisdictions=jurisdictions, transit=transit)
        _put_coded(file, via, _code_of(erasure), terms, run_id, no_wait=no_wait, as_json=as_json)
        return
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
        with client_of(run_id) as client, part.open("wb") as stream, _told(client, name):
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
    """List the objects of the nodes on the ground, and those that are kept as fragments."""
    with client_of(run_id) as client:
        answer = client.objects(via)
    found = answer.objects
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
        click.echo(json.dumps({"objects": listed, "coded": [_document(each) for each in answer.coded]}, indent=2))
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
    rows += [
        (
            each.object,
            f"{each.k}+{each.m} nodes",
            each.size_bytes,
            "",
            " ".join(each.jurisdictions) or "anywhere",
            " ".join(fragment.node for fragment in each.fragments),
            _may_lose(each),
        )
        for each in answer.coded
    ]
    table(("Object", "At", "Bytes", "", "May lie in", "Holders", ""), rows)


@click.command()
@object_argument
@run_option
@json_option
def stat(name: str, run_id: str | None, as_json: bool) -> None:
    """What the run knows of an object: who holds it; of one that is kept as fragments, how each stands."""
    with client_of(run_id) as client:
        known = client.stat(name)
    coded = known.coded if known.HasField("coded") else None
    if as_json:
        document = {"object": name, "size_bytes": known.size_bytes, "nodes": list(known.at_nodes)}
        click.echo(json.dumps(document | {"coded": _document(coded) if coded else None}, indent=2))
        return
    whole_at = f", whole at {', '.join(known.at_nodes)}" if known.at_nodes else ""
    out.print(f"{name}: {known.size_bytes} bytes{whole_at}", markup=False)
    if coded:
        out.print(f"{coded.k}+{coded.m} fragments of {coded.fragment_bytes} bytes, {_may_lose(coded)}", markup=False)
        rows = [(index, each.object, each.node, each.state, each.reason) for index, each in enumerate(coded.fragments)]
        table(("", "Fragment", "At", "State", "Reason"), rows)


@click.command()
@object_argument
@via_option
@run_option
@json_option
def rm(name: str, via: str, run_id: str | None, as_json: bool) -> None:
    """Remove an object from a gateway; one that is kept as fragments, from all their nodes."""
    with client_of(run_id) as client:
        gone = client.delete(via, name)
    if as_json:
        document = {"object": name, "node": via, "was_here": gone.was_here, "waits_for": list(gone.waits_for)}
        click.echo(json.dumps(document))
        return
    out.print(f"{name}: {'removed from' if gone.was_here else 'was not at'} {via}", markup=False)
    if gone.waits_for:
        out.print(f"its fragments go at the next contact with {', '.join(gone.waits_for)}", markup=False)


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
        found = [each.info for each in client.objects(via).objects if each.info.object == name]
        if not found:
            raise InputError(f"{name} is not at {via} (`skyrack objects --via {via}` lists what is)")
        terms = found[0].terms
        terms.pinned = is_pinned
        info = client.set_terms(via, name, terms)
    if as_json:
        click.echo(json.dumps({"object": name, "node": via, "pinned": info.terms.pinned}))
    else:
        out.print(f"{name} is {'pinned' if info.terms.pinned else 'not pinned'} at {via}", markup=False)


def _code_of(text: str) -> tuple[int, int]:
    """k and m of "4+2"."""
    match = re.fullmatch(r"(\d{1,9})\+(\d{1,9})", text)
    if match is None:
        raise InputError(f"--erasure {text}: must be two numbers, as in 4+2")
    return int(match[1]), int(match[2])


def _put_coded(
    file: Path,
    via: str,
    code: tuple[int, int],
    terms: objects_pb2.ObjectTerms,
    run_id: str | None,
    *,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Have a file kept as fragments, and say where."""
    with client_of(run_id) as client:
        for coded in client.put_coded(via, file, *code, terms):
            told = coded
            if no_wait:
                break
            if not as_json and out.is_terminal:
                kept = sum(each.state == "kept" for each in coded.fragments)
                out.print(f"{kept} of {len(coded.fragments)} fragments are kept", markup=False)
    if as_json:
        click.echo(json.dumps(_document(told)))
    else:
        nodes = ", ".join(each.node for each in told.fragments)
        out.print(f"{told.object}  {told.size_bytes} bytes as {told.k}+{told.m} fragments at {nodes}", markup=False)


def _document(coded: controller_pb2.CodedObject) -> dict[str, object]:
    """An object that is kept as fragments, as JSON."""
    fragments = [
        {"object": each.object, "node": each.node, "state": each.state, "reason": each.reason}
        for each in coded.fragments
    ]
    return {
        "object": coded.object,
        "size_bytes": coded.size_bytes,
        "k": coded.k,
        "m": coded.m,
        "jurisdictions": list(coded.jurisdictions),
        "transit": coded.transit,
        "fragment_bytes": coded.fragment_bytes,
        "fragments": fragments,
        "may_lose": coded.may_lose,
    }


def _may_lose(coded: controller_pb2.CodedObject) -> str:
    """How many fragments may go, for people."""
    if coded.may_lose < 0:
        return f"{-coded.may_lose} too few to be read now"
    return f"{coded.may_lose} may be lost"


@contextmanager
def _told(client: ControllerClient, name: str) -> Iterator[None]:
    """While an object is brought to the gateway, say now and then how that stands."""
    narrator, is_over = TerminalNarrator(quiet_in_pipe=False), threading.Event()

    def tell() -> None:
        while not is_over.wait(TELL_EVERY_S):
            with suppress(SkyrackError):  # the run's end: who fetches says so
                for line in _under_way(client, name):
                    narrator.say(line)

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    try:
        yield
    finally:
        is_over.set()
        telling.join()


def _under_way(client: ControllerClient, name: str) -> Iterator[str]:
    """How each job stands that brings an object, or a fragment of it, to a gateway."""
    wanted = {name, *(each.object for each in client.stat(name).coded.fragments)}
    for each in client.jobs():
        spec = each.job.spec
        is_for_it = spec.id.startswith("fetch-") and spec.inputs[0].object in wanted
        if is_for_it and state_of(each) not in FINAL:
            yield f"from {spec.inputs[0].at_node}: {state_of(each)}, {each.job.reason}"


def _wait_until_kept(client: ControllerClient, job_id: str, as_json: bool) -> None:
    for told in client.watch(job_id):
        if not as_json and out.is_terminal:
            out.print(f"{told.job.spec.on_node}: {state_of(told)}, {told.job.reason}", markup=False)
        if state_of(told) in ("FAILED", "CANCELLED", "EXPIRED"):
            raise SkyrackError(f"{told.job.spec.on_node} does not keep it: {state_of(told)}, {told.job.reason}")


COMMANDS = (put, get, objects, stat, rm, pin, unpin, scrub)
