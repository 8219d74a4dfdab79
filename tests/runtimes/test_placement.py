"""Placement on a small real sky, in nodes without an engine, through the command line alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import HERE, up, wait_until

SCENARIO = """
name = "placed"
epoch = 2026-01-01T00:00:00Z
duration_s = 600.0
seed = 7

[[constellation]]
name = "ring"
walker = { pattern = "star", total = 6, planes = 1, phasing = 0, altitude_m = 8_000_000, inclination_deg = 86.4 }
isl = { topology = "ring", rate_bps = 100_000_000 }
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
jurisdiction = "SG"
"""
skyrack, document = HERE.skyrack, HERE.document


@pytest.fixture
def run_id(tmp_path: Path) -> Iterator[str]:
    """The run, up; it is taken down."""
    with up(tmp_path, SCENARIO) as run_id:
        yield run_id


def test_a_job_is_placed_explained_and_kept_within_its_jurisdiction(run_id: str) -> None:
    """It runs where its result is back soonest; who lies outside is refused with one message, and in the audit."""
    of_run = ("--run", run_id)
    placed = ("--policy", "earliest-result", "--deadline-s", 120, "--id", "placed-1", *of_run)
    submit = ("submit", "--via", "quito", "--command", 'echo "$SKYRACK_NODE"')
    job = document(*submit, *placed, "--wait")
    assert (job["state"], job["policy"]) == ("SUCCEEDED", "earliest-result")
    assert job["stdout"].strip() == job["node"]
    told = document("explain", "placed-1", *of_run)
    assert told["chosen"] == job["node"]
    assert len(told["verdicts"]) == 8
    assert told["verdicts"][0]["node"] == job["node"]
    assert {v["node"] for v in told["verdicts"] if "stands on the ground" in v["reason"]} == {"quito", "singapore"}
    assert document(*submit, *placed)["node"] == job["node"], "the same id again changes nothing"
    assert "exists" in skyrack(*submit, "--id", "placed-1", *of_run, exit_status=2).stderr

    refused = skyrack(*submit, "--jurisdiction", "SG", "--id", "abroad", *of_run, exit_status=2)
    assert refused.stderr == "skyrack: abroad: quito lies in EC, outside SG\n"
    outside = ("submit", "--via", "singapore", "--command", "true", "--jurisdiction", "SG", "--policy", "spread")
    refused = skyrack(*outside, "--id", "nowhere", *of_run, exit_status=2)
    assert "no node can take it: 2 not of those that the policy chooses from, 6 outside" in refused.stderr
    assert document("explain", "nowhere", *of_run)["state"] == "REFUSED"
    denied = [event for event in document("audit", *of_run)["events"] if event["kind"] == "denied"]
    assert [(event["node"], event["what"], event["of"]) for event in denied] == [
        ("controller", "submit", "abroad"),
        ("controller", "submit", "nowhere"),
    ]
    assert [each["job"] for each in document("jobs", *of_run)["jobs"]] == ["placed-1"]


def test_a_lost_satellite_is_refused_and_its_work_goes_elsewhere(run_id: str) -> None:
    """A node that a fault puts down is no candidate; `pinned` takes the next of the list."""
    of_run = ("--run", run_id)
    submit = ("submit", "--via", "quito", "--command", "true", "--wait", *of_run)
    near = document(*submit, "--policy", "earliest-result")["node"]
    far = f"ring-p00s{(int(near[-2:]) + 3) % 6:02d}"
    skyrack("fault", "inject", "node-down", far, *of_run)
    wait_until("it is down", lambda: bool(document("status", *of_run)["faults"]))
    job = document(*submit, "--id", "pinned-1", "--pin-to", far, "--pin-to", near)
    assert (job["state"], job["node"], job["policy"]) == ("SUCCEEDED", near, "pinned")
    verdicts = {v["node"]: v["reason"] for v in document("explain", "pinned-1", *of_run)["verdicts"]}
    assert "is down" in verdicts[far]


def test_a_killed_controller_knows_its_jobs_when_it_is_resumed(run_id: str) -> None:
    """After kill -9 and `up --resume`: why a job is where it is, its end, and what was denied."""
    of_run = ("--run", run_id)
    line = ("--command", "sleep 2; echo done", "--policy", "spread", "--id", "slow")
    node = document("submit", "--via", "quito", *line, *of_run)["node"]
    skyrack("submit", "--via", "quito", "--command", "true", "--jurisdiction", "SG", *of_run, exit_status=2)
    told = document("explain", "slow", *of_run)
    os.kill(json.loads(Path(f"/run/skyrack/{run_id}/run.json").read_text())["pid"], signal.SIGKILL)
    skyrack("up", "--resume", run_id)
    again = document("explain", "slow", *of_run)
    assert (again["verdicts"], again["chosen"], again["policy"]) == (told["verdicts"], node, "spread")
    job = json.loads(skyrack("watch", "slow", "--json", *of_run).stdout)
    assert (job["state"], job["stdout"], job["policy"]) == ("SUCCEEDED", "done\n", "spread")
    assert "denied" in {event["kind"] for event in document("audit", *of_run)["events"]}
