"""Objects kept as fragments over shaped links, in nodes without an engine, through the command line alone."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import HERE, up, wait_until

SCENARIO = """
name = "coded"
epoch = 2026-01-01T00:00:00Z
duration_s = 600.0
seed = 7

[[constellation]]
name = "grid"
walker = { pattern = "delta", total = 9, planes = 3, phasing = 1, altitude_m = 8_000_000, inclination_deg = 60.0 }
isl = { topology = "plus-grid", rate_bps = 200_000_000 }
max_gsl = 2
jurisdiction = "EC"

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47
min_elevation_deg = 5.0
jurisdiction = "EC"

[[ground]]
name = "singapore"
role = "gateway"
latitude_deg = 1.35
longitude_deg = 103.82
min_elevation_deg = 5.0
jurisdiction = "EC"
"""
skyrack, document = HERE.skyrack, HERE.document


@pytest.fixture
def run_id(tmp_path: Path) -> Iterator[str]:
    """The run, up; it is taken down."""
    with up(tmp_path, SCENARIO) as run_id:
        yield run_id


def files_of(run_id: str, name: str) -> list[Path]:
    """Where nodes of a run have an object on disk."""
    return list(Path("/var/lib/skyrack").glob(f"{run_id}/n/*/objects/{name.removeprefix('sha256:')}"))


def test_a_file_survives_as_fragments(run_id: str, tmp_path: Path) -> None:
    """Put as 4+2 over three planes; a fragment cut short on its disk is read around, and computed again by its node;
    with two nodes killed it is whole; a third loss is told; removed, it lies at who is lost alone, as is told."""
    of_run = ("--run", run_id)
    data, back = tmp_path / "data", tmp_path / "back"
    data.write_bytes(os.urandom(5_000_000))
    put = document("put", data, "--via", "quito", "--erasure", "4+2", *of_run)
    name, fragments = put["object"], put["fragments"]
    assert (put["may_lose"], {each["state"] for each in fragments}) == (2, {"kept"})
    planes = Counter(each["node"].partition("s")[0] for each in fragments)
    assert (len({each["node"] for each in fragments}), max(planes.values())) == (6, 2)
    wait_until("gateways keep none", lambda: all(len(files_of(run_id, each["object"])) == 1 for each in fragments))
    assert not files_of(run_id, name)

    submit = ("submit", "--via", "quito", "--command", "wc -c < $SKYRACK_INPUTS", "--input", name, "--wait", *of_run)
    refused = skyrack(*submit, exit_status=2)
    assert f"{name} is kept as 4+2 fragments, and whole nowhere: `skyrack get` it to a file" in refused.stderr

    os.truncate(files_of(run_id, fragments[1]["object"])[0], 1000)
    skyrack("get", name, "--via", "singapore", "--out", back, *of_run)
    assert back.read_bytes() == data.read_bytes()
    wait_until(
        "its node has computed it again",
        lambda: any(event["kind"] == "repaired" for event in document("audit", *of_run)["events"]),
    )
    events = [event for event in document("audit", *of_run)["events"] if event["of"] == fragments[1]["object"]]
    assert [(event["node"], event["kind"]) for event in events] == [
        (fragments[1]["node"], "damaged"), (fragments[1]["node"], "repaired"),
    ]  # fmt: skip
    assert "computed from the fragments at" in events[1]["reason"]
    assert document("stat", name, *of_run)["coded"]["may_lose"] == 2

    handles = {node["name"]: node["handle"] for node in document("status", *of_run)["nodes"]}
    for number in (0, 2):
        os.kill(int(handles[fragments[number]["node"]]), signal.SIGKILL)
    wait_until("two are lost", lambda: document("stat", name, *of_run)["coded"]["may_lose"] == 0)
    back.unlink()
    skyrack("get", name, "--via", "quito", "--out", back, *of_run)
    assert back.read_bytes() == data.read_bytes()
    os.kill(int(handles[fragments[5]["node"]]), signal.SIGKILL)
    wait_until("three are lost", lambda: document("stat", name, *of_run)["coded"]["may_lose"] == -1)
    refused = skyrack("get", name, "--via", "quito", "--out", tmp_path / "none", *of_run, exit_status=1)
    assert "needs 4 of its 6 fragments, and 3 can be had" in refused.stderr
    assert all(f"fragment {number} at {fragments[number]['node']}" in refused.stderr for number in (0, 2, 5))
    assert not (tmp_path / "none").exists()

    skyrack("put", back, "--via", "quito", *of_run)
    assert "5000000" in skyrack(*submit).stdout

    gone = document("rm", name, "--via", "singapore", *of_run)
    assert (gone["was_here"], gone["waits_for"]) == (True, [fragments[number]["node"] for number in (0, 2, 5)])
    assert not any(files_of(run_id, fragments[number]["object"]) for number in (1, 3, 4))


def test_what_cannot_be_coded_is_one_message(run_id: str, tmp_path: Path) -> None:
    """Exit status 2; nothing was begun."""
    of_run = ("--run", run_id)
    data, empty = tmp_path / "data", tmp_path / "empty"
    data.write_bytes(b"some bytes")
    empty.touch()
    for file, code, words in (
        (empty, "4+2", "0 bytes are too few for 4 fragments"),
        (data, "11+2", "10 bytes are too few for 11 fragments"),
        (data, "0+2", "both must be 1 or more"),
        (data, "4+6", "4+6 fragments of sha256:"),
    ):
        refused = skyrack("put", file, "--via", "quito", "--erasure", code, *of_run, exit_status=2)
        assert words in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert not document("jobs", *of_run)["jobs"]
    listed = document("objects", *of_run)
    assert (listed["objects"], listed["coded"]) == ([], [])
