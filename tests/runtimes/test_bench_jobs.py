"""An open load from end to end, by the command line, on nodes without an engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import HERE

SCENARIO = """
name = "bench"
epoch = 2026-01-01T00:00:00Z
duration_s = 120.0
step_s = 1.0
seed = 7

[[constellation]]
name = "ring"
walker = { pattern = "star", total = 6, planes = 1, phasing = 0, altitude_m = 8_000_000, inclination_deg = 86.4 }
isl = { topology = "ring", rate_bps = 100_000_000 }
max_gsl = 2

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47
min_elevation_deg = 5.0

[[ground]]
name = "singapore"
role = "gateway"
latitude_deg = 1.35
longitude_deg = 103.82
min_elevation_deg = 5.0
"""
JOBS = 10
LOAD = ("--jobs", JOBS, "--rate-per-min", 60, "--seed", 3)
MIX = "hot-spots:2,changes@384,compress@256,classify@64,hash@4,matrix@128,files@32"
LITTLE_TOLERANCE_RATIO = 0.1  # the driver's clock and the agents', and the two ways of the submission


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """Six satellites and two gateways."""
    path = tmp_path / "bench.toml"
    path.write_text(SCENARIO)
    return path


def held(told: dict[str, Any], jobs: int) -> None:
    """Everything that must be so of a load on a sky without faults."""
    orbit, pipe = told["ways"]
    assert (orbit["way"], pipe["way"]) == ("in orbit", "bent pipe")
    for way in (orbit, pipe):
        assert way["jobs_by_state"] == {"SUCCEEDED": jobs}, way["failures"]
        assert (way["right"], way["failures"]) == (jobs, {})
        assert way["response_s"]["count"] == jobs
        assert 0 < way["response_s"]["p50"] <= way["response_s"]["p95"] <= way["response_s"]["p99"]
        assert way["phases_s"]["running"]["p50"] > 0
        assert way["littles_law_jobs"] == pytest.approx(way["jobs_in_system"], rel=LITTLE_TOLERANCE_RATIO)
    assert orbit["phases_s"]["returning"]["p50"] > 0, "results of the sky come down"
    assert told["first_way_against_second"]["scenes"] == orbit["insight_s"]["count"] > 0
    assert orbit["ground_link_bytes"] < pipe["ground_link_bytes"] / 4, "scenes stay in orbit"


def test_a_load_on_a_run_of_its_own(scenario: Path, tmp_path: Path) -> None:
    """Every result of both passes is the known one; figures are printed, recorded, and in the report; nothing stays."""
    out = tmp_path / "record"
    done = HERE.skyrack(
        "bench-jobs", scenario, "--runtime", "namespace", *LOAD, "--mix", MIX, "--out", out, "--json"
    )  # fmt: skip
    told = json.loads(done.stdout)
    held(told, JOBS)
    run_id = json.loads((out / "manifest.json").read_text())["run_id"]
    assert HERE.leftovers_but_nodes(run_id) == []
    summary = json.loads((out / "summary.json").read_text())
    assert [load["way"] for load in summary["loads"]] == ["in orbit", "bent pipe"]
    assert summary["loads"] == told["ways"]
    assert "Jobs under load" in (out / "report.html").read_text()
    (trace,) = out.glob("load-*-trace.jsonl")
    assert len(trace.read_text().splitlines()) == JOBS
    (jobs,) = out.glob("load-*-jobs.jsonl")
    rows = [json.loads(line) for line in jobs.read_text().splitlines()]
    assert len(rows) == 2 * JOBS
    for row in rows:
        assert row["wrong"] is None
        is_scene = row["arrival"]["workload"] not in ("hash", "matrix", "files")
        if row["way"] == "bent pipe":
            assert row["on_node"] in ("quito", "singapore")
        elif is_scene:
            assert row["on_node"] == row["arrival"]["satellite"]
        else:
            assert row["on_node"].startswith("ring-")


def test_a_load_on_a_run_that_is_up(scenario: Path, tmp_path: Path) -> None:
    """It is offered from the named node, one load after another, and the run stays up."""
    said = HERE.skyrack("up", scenario, "--runtime", "namespace", "--out", tmp_path / "record").stdout
    run_id = said.split()[1]
    try:
        load = ("bench-jobs", "--run", run_id, "--jobs", 3, "--rate-per-min", 120, "--mix", "hot-spots@512,hash@2",
                "--from", "singapore", "--out", tmp_path / "load")  # fmt: skip
        first, second = (json.loads(HERE.skyrack(*load, "--seed", seed, "--json").stdout) for seed in (5, 6))
        assert first["trace"] != second["trace"]
        for told in (first, second):
            assert [way["right"] for way in told["ways"]] == [3, 3]
        assert len(list((tmp_path / "load").glob("load-*.json"))) == 2
        refused = HERE.skyrack("bench-jobs", "--run", run_id, "--from", "quitto", exit_status=2).stderr
        assert "no node on the ground has that name; there are quito, singapore" in refused
        assert HERE.document("status", "--run", run_id)["phase"] in ("running", "holding")
        HERE.skyrack("pause", "--run", run_id)
        assert "skyrack resume" in HERE.skyrack("bench-jobs", "--run", run_id, exit_status=2).stderr
    finally:
        HERE.skyrack("down", "--run", run_id)
    assert HERE.leftovers_but_nodes(run_id) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a SCENARIO to be run, or with --run one that is up"),
        (("iridium-66", "--run", "x"), "name a SCENARIO to be run, or with --run one that is up"),
        (("iridium-66", "--mix", "hash:x"), "NAME[@SIZE][:WEIGHT]"),
        (("iridium-66", "--jobs", "0"), "there must be jobs and a rate"),
        (("iridium-66", "--from", "tokyo"), "there are suva, reykjavik, beijing, nairobi, punta-arenas"),
        (("--run", "nosuchid"), "run nosuchid does not live"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(arguments: tuple[str, ...], message: str) -> None:
    """One message, and the exit status of wrong input."""
    done = HERE.skyrack("bench-jobs", *arguments, exit_status=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
