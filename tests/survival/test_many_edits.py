"""A run that is edited ten thousand times in a row is at the end what the edits say, no slower, and hardly larger."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

from controller.api.client import ControllerClient
from controller.fabric.plan import LOSS_DECIMALS
from controller.record.read import read_record
from protos.skyrack.v1.controller_pb2 import InjectFaultRequest, LinkOverride, LinkState, LinkView
from tests.commands import wait_until
from tests.survival.machine import Machine
from tests.survival.runs import RTT_TOLERANCE_US, A, B, C, D, up

EDITS = 10_000
SEED = 20260101
LINKS = [(A, B), (B, C), (C, D), (A, D)]
TARGETS = [*(f"{a}~{b}" for a, b in LINKS), A, B, C, D]
AT_ONCE = 8  # faults in force: more of them leave no link to edit
EDIT_EVENTS = ("link-set", "link-cleared", "fault-injected", "fault-cleared")
CPU_S = 60.0  # of the controller; on a machine that is idle an edit takes hardly longer
SETTLE_S = 30.0
GROWTH_BYTES = 16 << 20


class Editor:
    """Sets and clears links, injects and clears faults at random, and holds every answer to what is in force."""

    def __init__(self, client: ControllerClient) -> None:
        self._client, self._random = client, random.Random(SEED)
        self._faults: list[str] = []

    def edit(self) -> None:
        """One edit."""
        kinds: list[Callable[[], None]] = [self._set, self._clear, self._inject, self._heal]
        self._random.choices(kinds, weights=(4, 2, 2, 2))[0]()

    def clear_all(self) -> None:
        """Leave everything to geometry again."""
        while self._faults:
            self._heal()
        for a, b in LINKS:
            self._client.clear_link(a, b)

    def _set(self) -> None:
        pick = self._random
        a, b = pick.choice(LINKS)
        asked = {
            "delay_us": pick.randrange(0, 300_000),
            "rate_bps": pick.randrange(1_000, 10**9),
            "loss_ratio": pick.choice([0.0, pick.random()]),
            "up": pick.random() < 0.8,
        }
        names = pick.sample(sorted(asked), pick.randint(1, len(asked)))
        override = LinkOverride(a=a, b=b, **{name: asked[name] for name in names})  # type: ignore[arg-type]
        holds(self._client.set_link(override))

    def _clear(self) -> None:
        holds(self._client.clear_link(*self._random.choice(LINKS)).link)

    def _inject(self) -> None:
        pick = self._random
        if len(self._faults) >= AT_ONCE:
            self._heal()
            return
        kind, target = pick.choice(["blackout", "degrade", "node-down"]), pick.choice(TARGETS)
        request = InjectFaultRequest(kind=kind, target=target)
        if kind == "degrade":
            request.extra_delay_s, request.rate_ratio, request.loss_ratio = pick.random(), 0.5, pick.random()
        elif kind == "blackout":
            request.mode = pick.choice(["silent", "reject", "carrier"])
        else:
            request.target = pick.choice([A, B, C, D])
        self._faults.append(self._client.inject_fault(request).id)

    def _heal(self) -> None:
        if self._faults:
            cleared = self._client.clear_fault(self._faults.pop(self._random.randrange(len(self._faults))))
            assert cleared.cleared == 1


def holds(view: LinkView) -> None:
    """Hold what is in force, each way, to what is commanded."""
    commanded = LinkState()
    commanded.CopyFrom(view.commanded)
    commanded.rate_bps = commanded.rate_bps // 8 * 8  # the kernel counts whole bytes
    commanded.loss_ratio = round(commanded.loss_ratio, LOSS_DECIMALS)
    assert view.read_back_a_to_b == view.read_back_b_to_a == commanded


def test_ten_thousand_edits(machine: Machine, tmp_path: Path) -> None:
    """Every edit holds when it is answered, and the last thousand cost what the first did; when all is cleared,
    every link is geometry's, probes say so, and the controller has not grown by more than the history of faults."""
    run_id = up(machine, tmp_path)
    socket = machine.commands.root / "run/skyrack" / run_id / "api.sock"
    with ControllerClient(socket) as client:
        editor = Editor(client)
        spent_s = [cpu_s(machine, run_id)]  # after so many thousand
        for thousand in range(EDITS // 1000):
            for _ in range(1000):
                editor.edit()
            spent_s.append(cpu_s(machine, run_id))
            if thousand == 0:
                at_first_bytes = memory_bytes(machine, run_id)
        grown_bytes = memory_bytes(machine, run_id) - at_first_bytes
        for a, b in LINKS:
            holds(client.show_link(a, b))
        editor.clear_all()
        status = client.status()
        assert (list(status.faults), list(status.overrides), list(client.list_faults().faults)) == ([], [], [])
        for a, b in LINKS:
            view = client.show_link(a, b)
            holds(view)
            assert view.commanded == view.geometry
            # What was sent over a slow link before is still on its way, and nothing overtakes it.
            wait_until(f"a probe from {a} to {b} is right", partial(is_right, client, view), SETTLE_S)
    took_s = [after - before for before, after in pairwise(spent_s)]
    said = f"{[round(each, 2) for each in took_s]} s of CPU a thousand, grown by {grown_bytes / 2**20:.1f} MiB"
    assert sum(took_s) < CPU_S, said
    assert min(took_s[-3:]) < 2 * min(took_s[:3]), said
    assert grown_bytes < GROWTH_BYTES, said
    machine.commands.skyrack("down")
    assert machine.commands.leftovers(run_id) == []
    events = read_record(tmp_path / "record").events
    assert sum(event.kind in EDIT_EVENTS for event in events) > EDITS * 3 // 4, "some clear what was not set"
    assert (tmp_path / "record" / "report.html").exists(), said


def is_right(client: ControllerClient, view: LinkView) -> bool:
    """Whether two probes in a row take what geometry says."""
    probes = list(client.probe(view.a, view.b, 2))
    assert [probe.commanded_rtt_us for probe in probes] == [2 * view.geometry.delay_us] * 2
    return all(abs(probe.measured_rtt_us - probe.commanded_rtt_us) < RTT_TOLERANCE_US for probe in probes)


def cpu_s(machine: Machine, run_id: str) -> float:
    """CPU time that the controller of a run has spent (proc(5), stat, fields 14 and 15)."""
    stat = (machine.commands.root / f"proc/{machine.controller(run_id)}/stat").read_text()
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory_bytes(machine: Machine, run_id: str) -> int:
    """What the controller of a run holds."""
    pid = machine.controller(run_id)
    status = (machine.commands.root / f"proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
