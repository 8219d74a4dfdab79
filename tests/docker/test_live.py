"""A run that is up, steered and measured through the command line alone, on real containers."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import HERE, environment, wait_until

SCENARIO = """
name = "four"
epoch = 2026-01-01T00:00:00Z
duration_s = 900.0
step_s = 1.0

[[constellation]]
name = "ring"
walker = { pattern = "star", total = 4, planes = 1, phasing = 0, altitude_m = 20_000_000, inclination_deg = 86.4 }
isl = { topology = "ring", rate_bps = 100_000_000 }
"""
A, B, C, D = (f"ring-p00s0{slot}" for slot in range(4))
LINK = f"{A}~{B}"
SET_RTT_US = 80_000
RTT_TOLERANCE_US = 10_000  # of a user-space shaper on a machine that has other things to do
SECTION_HEADER = 0x0A0D0D0A


class Run:
    """A run that is up."""

    def __init__(self, run_id: str, record: Path) -> None:
        self.run_id, self.record = run_id, record

    def skyrack(self, *arguments: object, exit_status: int = 0) -> str:
        """What a command about it prints."""
        return HERE.skyrack(*arguments, "--run", self.run_id, exit_status=exit_status).stdout

    def document(self, *arguments: object) -> Any:
        """What a command about it answers as JSON."""
        return json.loads(self.skyrack(*arguments, "--json"))

    def measured_us(self, a: str, b: str) -> list[int]:
        """Three round trips, each close to what is commanded."""
        probes = self.document("probe", a, b, "--count", 3)["probes"]
        assert len(probes) == 3
        for each in probes:
            assert abs(each["measured_rtt_us"] - each["commanded_rtt_us"]) < RTT_TOLERANCE_US
        return [each["measured_rtt_us"] for each in probes]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Four satellites in Docker."""
    scenario, record = tmp_path / "four.toml", tmp_path / "record"
    scenario.write_text(SCENARIO)
    HERE.skyrack("up", scenario, "--out", record)
    up = Run(json.loads((record / "manifest.json").read_text())["run_id"], record)
    yield up
    if not HERE.nothing_is_left(up.run_id):
        up.skyrack("down")


def packets_of(path: Path) -> int:
    """How many enhanced packet blocks a pcapng file has; every block is whole."""
    data, offset, packets = path.read_bytes(), 0, 0
    assert struct.unpack_from("<I", data) == (SECTION_HEADER,)
    while offset < len(data):
        kind, length = struct.unpack_from("<II", data, offset)
        assert struct.unpack_from("<I", data, offset + length - 4) == (length,)
        packets += kind == 6
        offset += length
    assert offset == len(data)
    return packets


def test_a_run_is_steered_and_measured(run: Run, tmp_path: Path) -> None:
    """Pause, step, seek, resume; a link set and cleared; a fault injected and cleared; probes and captures: what each
    says is what packets meet, the record has all of it, and nothing is left."""
    paused = run.document("pause")
    status = run.document("status")
    assert (status["paused"], status["t_s"], status["time_scale"], status["start_s"]) == (True, paused["t_s"], 1.0, 0.0)
    assert run.document("step", "5")["step"] == paused["step"] + 5
    assert run.document("seek", "600")["t_s"] == 600.0
    assert run.document("status")["t_s"] == 600.0

    geometry = run.document("link", "show", A, B)["geometry"]
    view = run.document("link", "set", A, B, "--delay-ms", SET_RTT_US // 2 / 1000)
    assert view["commanded"] == view["read_back_a_to_b"] == {**geometry, "delay_us": SET_RTT_US // 2}
    assert "set: " in run.skyrack("status")
    # the way round over C and D is the longer one also now
    assert all(abs(rtt_us - SET_RTT_US) < RTT_TOLERANCE_US for rtt_us in run.measured_us(A, B))

    path = tmp_path / "link.pcapng"
    with subprocess.Popen(
        [sys.executable, "-m", "controller", "capture", LINK, "--out", str(path), "--seconds", "60", "--json",
         "--run", run.run_id],
        stdout=subprocess.PIPE, env=environment(),
    ) as capturing:  # fmt: skip
        wait_until("the capture listens", lambda: path.exists() and path.stat().st_size > 0)
        run.measured_us(A, B)
        capturing.send_signal(signal.SIGINT)
        told, _ = capturing.communicate(timeout=30)
        assert capturing.returncode == 0
    assert packets_of(path) == json.loads(told)["frames"] >= 12, "three echoes and answers, each at both ports"

    assert run.document("link", "clear", A, B)["link"]["read_back_a_to_b"] == geometry
    fault = run.document("fault", "inject", "blackout", LINK, "--mode", "carrier")
    assert run.document("fault", "list")["faults"][0]["active"]
    view = run.document("link", "show", A, B)
    assert (view["geometry"]["up"], view["commanded"]["up"], view["read_back_a_to_b"]["up"]) == (True, False, False)
    assert min(run.measured_us(A, B)) > 2 * geometry["delay_us"] + RTT_TOLERANCE_US, "over C and D"
    assert run.document("fault", "clear", fault["id"]) == {"cleared": 1}
    assert all(abs(rtt_us - 2 * geometry["delay_us"]) < RTT_TOLERANCE_US for rtt_us in run.measured_us(A, B))
    run.document("fault", "inject", "node-down", D)
    (down,) = (node["down"] for node in run.document("status")["nodes"] if node["name"] == D)
    assert down == f"{D} is down until it is cleared"
    assert {each["measured_rtt_us"] for each in run.document("probe", A, D, "--count", "2")["probes"]} == {None}
    run.document("fault", "clear", D)

    resumed = run.document("resume")
    wait_until("the sky goes on", lambda: run.document("status")["t_s"] > resumed["t_s"] + 1.5)
    assert not run.document("status")["paused"]
    run.skyrack("step", exit_status=2)
    run.skyrack("capture", A, "--out", tmp_path / "absent" / "x.pcapng", exit_status=2)
    run.skyrack("down")
    assert HERE.nothing_is_left(run.run_id)
    kinds = {json.loads(line)["kind"] for line in (run.record / "events.jsonl").read_text().splitlines()}
    assert kinds >= {
        "sky-paused", "sky-sought", "sky-resumed", "link-set", "link-cleared", "fault-injected", "fault-cleared",
        "fault-on", "fault-off", "run-ended",
    }  # fmt: skip
    summary = json.loads((run.record / "summary.json").read_text())
    assert summary["overruns"] == 0
    assert summary["frames_dropped"] is None or summary["frames_dropped"]["overrun"] == 0
    assert "Frames that did not arrive" in (run.record / "report.html").read_text() or summary["frames_dropped"] is None
