"""One chaos run: `python -m tests.chaos.run --seed N [--seconds S]`, as root.

Brings a constellation up by the real command line, on a machine of its own; has load and faults befall it as the seed
has drawn them; heals it, waits until everything has come to its end; kills all of it once more, and has the checker
look at what is on its disks. Exit status: 0 when nothing is wrong, 1 with all that is.

The same seed gives the same plan of load and faults. What meets what is the machine's doing, and differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import machine, plan
from tests.chaos.checker import Checker, read
from tests.chaos.harm import Harm, Place
from tests.chaos.load import Load
from tests.chaos.plan import Corrupt, Deed, End, Fault, Fill, Hog, Lie, Plan, Put, Resume, Submit, Wish
from tests.chaos.promises import Promises
from tests.chaos.sky import NODES, scenario
from tests.chaos.witness import Witness
from tests.commands import HERE

SECONDS = 60.0
SETTLE_S = 300.0
"""So long after the last fault everything may take to come to its end: contacts are up to two minutes apart, and so are
attempts to reach a node of which nobody foresees that it can be reached."""

LATE_S = 150.0
WITHOUT = ("keep", "corrupt", "hog", "lie", "fill", "resume", "end", "fault", "wish")


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    plan: Plan
    violations: list[str]
    figures: dict[str, Any]
    tales: list[str]  # what everybody tells of the jobs among them


class Scene:
    """One run, from `up` to `down`."""

    def __init__(self, folder: Path, seed: int, seconds: float, without: Sequence[str], witness: Witness) -> None:
        self._folder, self._began_mono_s, self._witness = folder, time.monotonic(), witness
        path = folder / "chaos.toml"
        path.write_text(scenario(seed, 2 * (seconds + SETTLE_S)))
        found = json.loads(HERE.skyrack("contacts", path, "--format", "json").stdout)
        links = sorted({(each["a"], each["b"]) for each in found})
        self.plan = plan.drawn(seed, seconds, links, without)
        self.say(f"seed {seed}: {len(self.plan.deeds)} deeds, plan {self.plan.digest}")
        said = HERE.skyrack("up", path, "--runtime", "namespace", "--out", folder / "record").stdout
        self.place = Place(said.split()[1])
        self.promises = Promises(seed)
        self._load = Load(self.place.api_socket, seed, folder, self.promises)
        self._harm = Harm(self.place, folder, self.say, self._replicated)
        self._do: dict[type, Callable[[Any], None]] = {
            Put: self._load.put, Submit: self._load.submit, Wish: self._load.wish, Fault: self._harm.fault,
            End: self._harm.end, Resume: self._harm.resume, Fill: self._harm.fill, Hog: self._harm.hog,
            Corrupt: self._harm.corrupt, Lie: self._harm.lie,
        }  # fmt: skip

    def say(self, text: str) -> None:
        """Tell what happens, and when."""
        sys.stdout.write(f"{time.monotonic() - self._began_mono_s:6.1f} s  {text}\n")
        sys.stdout.flush()

    def play(self) -> None:
        """All deeds of the plan, each at its time, in a thread of its own; after: all of them are done."""
        self._load.prepare()
        self._began_mono_s = time.monotonic()
        threads = []
        for deed in self.plan.deeds:
            time.sleep(max(0.0, self._began_mono_s + deed.at_s - time.monotonic()))
            if not isinstance(deed, Put | Submit):
                self.say(plan.line(deed))
            threads.append(threading.Thread(target=self._done, args=(deed,), name=plan.line(deed), daemon=True))
            threads[-1].start()
        deadline_mono_s = time.monotonic() + LATE_S
        for thread in threads:
            thread.join(max(0.0, deadline_mono_s - time.monotonic()))
            if thread.is_alive():
                self._harm.failed.append(f"not done in time: {thread.name}")

    def settle(self) -> None:
        """Heal, and wait until nothing is open any more, or for too long."""
        self._harm.heal()
        self.say("healed")
        deadline_mono_s = time.monotonic() + SETTLE_S
        told_mono_s = time.monotonic()
        while open_jobs := [*self._open(), *([] if self._harm.scrub() else ["damaged objects"])]:
            if time.monotonic() > deadline_mono_s:
                self.say(f"not settled: {open_jobs}")
                return
            if time.monotonic() > told_mono_s + 20.0:
                told_mono_s = time.monotonic()
                self.say(f"still open: {len(open_jobs)}, as {open_jobs[:4]}")
            time.sleep(1.0)
        self.say("settled")

    def end(self, keep: Path | None) -> Outcome:
        """Kill everything once more, look at what is left of it, and remove that. A copy goes to `keep`, if given."""
        gone = [name for name in NODES if self.place.agent(name) is None]
        os.kill(self.place.controller, signal.SIGKILL)
        _wait_until(lambda: not any(map(self.place.first_process, NODES)), 30.0)
        _wait_until(lambda: not self._witness.living, 10.0)
        ledgers = read({name: self.place.store(name) for name in NODES}, self.place.controller_db)
        checker = Checker(ledgers, self.promises, self._witness.starts, self._harm.kills, self._harm.left)
        wrong = checker.violations()
        known = {*self.promises.jobs, *ledgers.stands}
        tales = [checker.tale(job_id) for job_id in sorted(known) if any(job_id in each for each in wrong)]
        violations = [
            *(f"the agent of {name} does not live at the end" for name in gone),
            *(f"not done: {each}" for each in self._harm.failed),
            *(f"not acknowledged in time: {each}" for each in self.promises.given_up),
            *(f"refused: {each}" for each in self.promises.refused),
            *wrong,
        ]
        if keep is not None:
            shutil.copytree(self.place.store(NODES[0]).parents[1], keep, symlinks=True, dirs_exist_ok=True)
            for record in self._folder.glob("record*"):
                shutil.copytree(record, keep / record.name, dirs_exist_ok=True)
        HERE.skyrack("down", "--run", self.place.run_id)
        left = HERE.leftovers_but_nodes(self.place.run_id)
        violations += [f"left over: {each}" for each in left]
        figures = checker.figures() | {"kills": len(self._harm.kills), "lies": len(self._harm.lies)}
        return Outcome(self.plan, violations, figures, tales)

    def _done(self, deed: Deed) -> None:
        try:
            self._do[type(deed)](deed)
        except Exception as error:  # noqa: BLE001 — whatever it is, it is a finding
            self._harm.failed.append(f"{plan.line(deed)}: {error!r}")

    def _replicated(self) -> set[str]:
        """The objects of which a copy besides the first is said to be wanted."""
        return {promise.object for promise in self.promises.puts.values() if promise.keep_jobs}

    def _open(self) -> list[str]:
        """Jobs that are not at their end somewhere, and results that are not back."""
        found = []
        for name in NODES:
            with suppress(sqlite3.OperationalError):  # it is being written
                db = sqlite3.connect(f"file:{self.place.store(name) / 'journal.db'}?mode=ro", uri=True, timeout=5.0)
                rows = db.execute("SELECT id, final FROM job WHERE NOT final OR due_back").fetchall()
                kept = db.execute("SELECT name, reasons FROM objects WHERE instr(reasons, '\"job ')").fetchall()
                db.close()
                found += [f"{job_id} at {name}{' due back' if final else ''}" for job_id, final in rows]
                found += [f"{object_name[:15]} at {name} for {reasons}" for object_name, reasons in kept]
        return found


def played(seed: int, seconds: float, without: Sequence[str] = (), keep: Path | None = None) -> Outcome:
    """A whole run. Before: this is a machine of its own."""
    with tempfile.TemporaryDirectory(prefix="skyrack-chaos-") as folder, Witness(machine.WITNESS) as witness:
        scene = Scene(Path(folder), seed, seconds, without, witness)
        try:
            scene.play()
            scene.settle()
        except BaseException:
            HERE.skyrack("down", "--run", scene.place.run_id)
            raise
        return scene.end(keep)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="A constellation under load and faults, drawn from a seed.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long load and faults go on")
    parser.add_argument("--without", action="append", default=[], choices=WITHOUT, help="leave a kind of deeds out")
    parser.add_argument("--plan", action="store_true", help="print the plan before it is played")
    parser.add_argument("--keep", type=Path, help="a folder to leave stores and records in")
    asked = parser.parse_args()
    machine.be_alone()
    outcome = played(asked.seed, asked.seconds, asked.without, asked.keep)
    if asked.plan:
        print(outcome.plan.text())
    print(json.dumps(outcome.figures))
    for tale in outcome.tales:
        print(tale)
    for violation in outcome.violations:
        print(f"WRONG: {violation}")
    print(f"seed {asked.seed}: {len(outcome.violations)} wrong")
    return 1 if outcome.violations else 0


def _wait_until(condition: Callable[[], bool], wait_s: float) -> None:
    deadline_mono_s = time.monotonic() + wait_s
    while not condition() and time.monotonic() < deadline_mono_s:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
