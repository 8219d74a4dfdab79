"""The faults of a plan, done to a run. For the machine of its own (`machine`), as root."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc

from controller.api.client import ControllerClient
from controller.errors import InputError, SkyrackError
from controller.processes import command_line
from controller.runtime.agent_command import NODE_UID
from node_agent.objects.catalog import PUT
from protos.skyrack.v1 import controller_pb2
from tests.chaos import machine
from tests.chaos.liar import LEFT
from tests.chaos.plan import Corrupt, End, Fault, Fill, Hog, Lie, Resume
from tests.chaos.promises import object_name
from tests.chaos.sky import GATEWAYS, GROUNDS, NODES, STORE_BYTES, TIME_SCALE
from tests.commands import HERE, SOURCE

T = TypeVar("T")

RUNS, STORES = Path("/run/skyrack"), Path("/var/lib/skyrack")
RESUME_S, END_S, LIE_S = 180.0, 20.0, 90.0
MEETING_S = 60.0
"""So long two nodes that may meet are waited for: an hour of the sky."""

HOG_LEAVES_BYTES = 1000


@dataclass(frozen=True)
class Place:
    """Where a run is."""

    run_id: str

    @property
    def api_socket(self) -> Path:
        """Where its controller answers."""
        return RUNS / self.run_id / "api.sock"

    def store(self, node: str) -> Path:
        """What the agent of a node keeps."""
        return STORES / self.run_id / "n" / str(NODES.index(node))

    def kept(self, node: str, name: str) -> Path | None:
        """The file of an object that a node keeps for good, as its journal has it; None also while that is written."""
        journal = self.store(node) / "journal.db"
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
            for (reasons,) in db.execute("SELECT reasons FROM objects WHERE name = ?", (name,)):
                if PUT in json.loads(reasons):
                    return self.store(node) / "objects" / name.removeprefix("sha256:")
        return None

    @property
    def controller_db(self) -> Path:
        """What the controller keeps."""
        return STORES / self.run_id / "controller.db"

    @property
    def controller(self) -> int:
        """The controller's process."""
        pid: int = json.loads((RUNS / self.run_id / "run.json").read_text())["pid"]
        return pid

    def first_process(self, node: str) -> int | None:
        """The first process of a node, if it lives."""
        with suppress(FileNotFoundError):
            for line in (RUNS / self.run_id / "nodes.jsonl").read_text().splitlines():
                born = json.loads(line)
                if born["name"] == node and command_line(born["pid"]):
                    return int(born["pid"])
        return None

    def agent(self, node: str) -> int | None:
        """The agent of a node, if it lives: of what its first process has forked, what is the agent's user and no
        other program."""
        first = self.first_process(node)
        if first is None:
            return None
        with suppress(OSError):
            for pid in map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split()):
                status = Path(f"/proc/{pid}/status").read_text()
                uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
                if set(uids) == {str(NODE_UID)} and command_line(pid) == command_line(first):
                    return pid
        return None


class Harm:
    """What befalls one run. Each method is a deed, for a thread of its own."""

    def __init__(
        self, place: Place, folder: Path, say: Callable[[str], None], replicated: Callable[[], set[str]]
    ) -> None:
        """`replicated`: the objects of which there are to be several copies."""
        self._place, self._folder, self._say, self._replicated = place, folder, say, replicated
        self.kills: list[tuple[float, str]] = []
        """When which node's agent was ended, or with an empty name all of them."""
        self.corrupted: list[Path] = []
        self._scrubbed: set[Path] = set()
        self.failed: list[str] = []
        """Deeds that could not be done."""
        self.lies: list[str] = []
        """What became of each lie."""
        self.lies_left: set[str] = set()
        """Objects of which something lies somewhere since."""

    def fault(self, deed: Fault) -> None:
        """Inject it; a fault that finds no controller does not happen."""
        request = controller_pb2.InjectFaultRequest(
            kind=deed.kind, target=deed.target, duration_s=deed.duration_s * TIME_SCALE
        )
        if deed.kind == "degrade":
            request.extra_delay_s, request.rate_ratio, request.loss_ratio = 0.1, 0.2, 0.02
        else:
            request.mode = deed.mode
        self._ask(f"{deed.kind} {deed.target}", lambda client: client.inject_fault(request))

    def end(self, deed: End) -> None:
        """End an agent."""
        pid = self._place.agent(deed.node)
        if pid is None:
            self._say(f"{deed.node} has no agent just now")
            return
        self.kills.append((time.monotonic(), deed.node))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if deed.signal == "KILL" else signal.SIGTERM)

    def resume(self, deed: Resume) -> None:
        """Kill the controller, and all nodes with it; have the run go on later. Where that is refused (the disk may be
        full), it is tried again."""
        self.kills.append((time.monotonic(), ""))
        os.kill(self._place.controller, signal.SIGKILL)
        time.sleep(deed.pause_s)  # how long nobody does anything about it: part of the plan
        began_mono_s = time.monotonic()
        argv = HERE.argv("up", "--resume", self._place.run_id, "--runtime", "namespace")
        while True:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=RESUME_S, check=False, cwd=self._folder)
            took_s = time.monotonic() - began_mono_s
            if done.returncode == 0:
                self._say(f"resumed within {took_s:.1f} s: {done.stdout.strip()}")
                return
            self._say(f"not resumed after {took_s:.1f} s: {done.stderr.strip()}")
            if took_s > RESUME_S:
                self.failed.append(f"resume: {done.returncode}: {done.stderr}")
                return
            time.sleep(1.0)

    def fill(self, deed: Fill) -> None:
        """Have the disk of all stores as small as what is on it, until it is over."""
        until_mono_s = time.monotonic() + deed.duration_s
        try:
            while time.monotonic() < until_mono_s:
                disk = os.statvfs(STORES)
                if disk.f_bfree:
                    _resize(f"{(disk.f_blocks - disk.f_bfree) * disk.f_frsize}")
                time.sleep(0.05)  # what is freed meanwhile is taken away again
        finally:
            _resize(machine.DISK)

    def hog(self, deed: Hog) -> None:
        """Fill up a node's quota with an object that nobody else asks for, and remove it."""
        store = self._place.store(deed.node) / "objects"
        used_bytes = sum(path.stat().st_size for path in store.iterdir())
        size_bytes = STORE_BYTES - used_bytes - HOG_LEAVES_BYTES
        if size_bytes <= 0:
            return
        path = self._folder / f"hog-{deed.node}"
        content = random.Random(deed.at_s).randbytes(size_bytes)
        path.write_bytes(content)
        if self._ask(f"hog {deed.node}", lambda client: client.put(deed.node, path)) is not None:
            time.sleep(deed.duration_s)
        path.unlink()
        # What has come of one that broke off goes too: nobody goes on with it.
        self._ask(f"unhog {deed.node}", lambda client: client.delete(deed.node, object_name(content)), insist=True)

    def corrupt(self, deed: Corrupt) -> None:
        """Flip a bit of a replica, in its file; another stays as it is. What goes with a job is none."""
        found = []
        for name in sorted(self._replicated()):
            paths = [path for node in NODES if (path := self._place.kept(node, name)) is not None]
            good = [path for path in paths if path.exists() and path.stat().st_size and path not in self.corrupted]
            found += good if len(good) > 1 else []
        if not found:
            self._say("no object has a replica yet")
            return
        path = found[int(deed.draw * len(found))]
        at_bytes = int(deed.draw * path.stat().st_size)
        with path.open("r+b", buffering=0) as file:
            (byte,) = os.pread(file.fileno(), 1, at_bytes)
            os.pwrite(file.fileno(), bytes([byte ^ 1]), at_bytes)
        self.corrupted.append(path)
        self._say(f"flipped a bit of byte {at_bytes} of {path.relative_to(STORES)}")

    def lie(self, deed: Lie) -> None:
        """Have a program in a node, with the node's own key, tell another lies, as soon as it reaches that."""
        until_mono_s = time.monotonic() + MEETING_S
        while "not reached" in self._tell(deed.liar, deed.to, deed.what) and time.monotonic() < until_mono_s:
            time.sleep(1.0)

    def scrub(self) -> bool:
        """Have those whose objects were corrupted look at them, satellites by a gateway that reaches them. Whether all
        did, and have them whole again or no longer."""
        for path in [path for path in self.corrupted if path not in self._scrubbed]:
            node = NODES[int(path.parts[-3])]
            if node in GROUNDS:
                report = self._ask(f"scrub {node}", lambda client, node=node: client.scrub(node, ""))  # type: ignore[misc]
                if report is not None and {*report.damaged} == {*report.repaired}:
                    self._scrubbed.add(path)
            elif any("objects, damaged" in self._tell(gateway, node, "scrub") for gateway in GATEWAYS):
                self._scrubbed.add(path)
        return self._scrubbed >= {*self.corrupted}

    def _tell(self, liar: str, to: str, what: str) -> str:
        first = self._place.first_process(liar)
        identity = self._place.store(liar) / "identity" / "credentials.pem"
        if first is None or not identity.exists():
            return "it is not there"
        argv = [
            "nsenter", f"--net=/proc/{first}/ns/net", sys.executable, "-m", "tests.chaos.liar",
            str(identity), to, f"10.64.0.{NODES.index(to) + 1}", what,
        ]  # fmt: skip
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=LIE_S, check=False, cwd=SOURCE)
        except subprocess.TimeoutExpired:
            self.failed.append(f"{what} of {liar} to {to}: it was kept busy for {LIE_S:.0f} s")
            return "too long"
        told = f"{what} of {liar} to {to}: {done.stdout.strip()}"
        if "not reached" in told:
            return told
        self._say(f"{told} {done.stderr.strip()}")
        self.lies.append(told)
        self.lies_left |= {word.split()[0] for word in done.stdout.split(LEFT)[1:]}
        if done.returncode:
            self.failed.append(f"{told} {done.stderr.strip()}")
        return told

    @property
    def left(self) -> set[str]:
        """Files that may lie in a store for its owner's sake: parts that lies have brought, damaged bytes set aside."""
        lies = {f"{name.removeprefix('sha256:')}.part" for name in self.lies_left}
        return lies | {f"damaged/{path.name}" for path in self.corrupted}

    def heal(self) -> None:
        """End all faults of links."""
        faults = self._ask("list faults", lambda client: client.list_faults(), insist=True)
        for fault in faults.faults if faults is not None else ():
            self._ask(f"clear {fault.id}", partial(ControllerClient.clear_fault, which=fault.id))

    def _ask(self, what: str, call: Callable[[ControllerClient], T], *, insist: bool = False) -> T | None:
        deadline_mono_s = time.monotonic() + RESUME_S
        while True:
            try:
                with ControllerClient(self._place.api_socket) as client:
                    return call(client)
            except (SkyrackError, InputError, grpc.RpcError) as error:
                if not insist or time.monotonic() > deadline_mono_s:
                    self._say(f"{what}: {error}")
                    return None
            time.sleep(0.5)


def _resize(size: str) -> None:
    """Make the disk of all stores so large; one that holds more than that by now stays as it is."""
    argv = ["mount", "-o", f"remount,size={size}", "none", str(STORES.parent)]
    subprocess.run(argv, check=False, capture_output=True, timeout=END_S)
