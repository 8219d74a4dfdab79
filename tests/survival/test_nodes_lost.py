"""Nodes die under a run: it goes on without them, says so, and the rest of it works as before."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands import wait_until
from tests.survival.machine import Machine
from tests.survival.runs import RTT_TOLERANCE_US, A, B, C, D, up

NOTICED_S = 15.0


def test_a_killed_node_and_a_removed_container(machine: Machine, tmp_path: Path) -> None:
    """`kill -9` of a first process, a container removed by somebody: both are lost, in the status and once in the
    record. The others have their links as commanded, those over the lost ones too: a node's ports and routes are the
    kernel's. `down` leaves nothing of any of them."""
    commands, record = machine.commands, tmp_path / "record"
    run_id = up(machine, tmp_path)
    handles = {node["name"]: node["handle"] for node in commands.document("status")["nodes"]}
    first = commands.run("docker", "inspect", "--format", "{{.State.Pid}}", handles[B]).strip()
    machine.kill(int(first))
    commands.run("docker", "rm", "--force", handles[D])

    def down() -> dict[str, str]:
        return {node["name"]: node["down"] for node in commands.document("status")["nodes"] if node["down"]}

    wait_until("both are lost", lambda: down().keys() == {B, D}, NOTICED_S)
    assert all(words.startswith(f"{name} is lost since t = ") for name, words in down().items())
    assert f"{B} is lost" in commands.skyrack("status").stdout
    for asks, answers in ((A, C), (A, B)):
        for probe in commands.document("probe", asks, answers, "--count", 3)["probes"]:
            assert abs(probe["measured_rtt_us"] - probe["commanded_rtt_us"]) < RTT_TOLERANCE_US
    assert commands.skyrack("exec", A, "--", "echo", "here").stdout == "here\n"
    assert "there is no node" in commands.skyrack("exec", B, "--", "true", exit_status=2).stderr
    view = commands.document("link", "set", A, B, "--delay-ms", 40)
    assert view["read_back_a_to_b"] == view["read_back_b_to_a"] == view["commanded"]
    assert view["commanded"]["delay_us"] == 40_000
    commands.skyrack("down")
    assert commands.leftovers(run_id) == []
    events = [json.loads(line) for line in (record / "events.jsonl").read_text().splitlines()]
    assert sorted(event["node"] for event in events if event["kind"] == "node-lost") == [B, D]
    assert json.loads((record / "summary.json").read_text())["nodes_lost"] == 2
