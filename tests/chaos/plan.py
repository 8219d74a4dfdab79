"""What is done to a run, drawn from one seed before anything starts: its load, and its faults. Pure.

The same seed draws the same plan. What comes of it is not the same each time: which process is where when a moment of
the plan comes is the machine's doing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeAlias

from tests.chaos.sky import GATEWAYS, GROUNDS, NODES, SATELLITES

JOBS_PER_S, OBJECTS_PER_S = 0.9, 0.2
POLICIES = ("earliest-result", "data-local", "spread")
LIES = (
    "wrong-hash", "wrong-size", "wrong-crc", "endless", "oversized", "headers", "empty-chunks", "no-header",
    "false-result", "unknown-result", "planted-result", "garbage",
)  # fmt: skip


@dataclass(frozen=True)
class Put:
    """An object is stored at a node on the ground, and kept at so many satellites."""

    at_s: float
    number: int
    via: str
    size_bytes: int
    replicas: int


@dataclass(frozen=True)
class Submit:
    """A job is handed in."""

    at_s: float
    id: str
    via: str
    on_node: str  # empty: a policy chooses, or there is none and it runs where it is handed in
    policy: str
    kind: str  # "script" or "exec"
    run_s: float
    inputs: tuple[int, ...]  # numbers of objects
    output_bytes: int
    steps: int  # it keeps a checkpoint after each of them
    fails: int  # its first starts that end badly
    max_attempts: int
    priority: int
    deadline_s: float  # of the wall clock; 0: none
    keeps_outputs: bool


@dataclass(frozen=True)
class Wish:
    """Something is wished of a job: "cancel", "suspend" or "resume"."""

    at_s: float
    job: str
    verb: str


@dataclass(frozen=True)
class Fault:
    """Links are taken or get worse for a while. `duration_s` is of the wall clock."""

    at_s: float
    kind: str  # "blackout" or "degrade"
    target: str
    mode: str
    duration_s: float


@dataclass(frozen=True)
class End:
    """An agent is ended, by a signal; its first process starts it again."""

    at_s: float
    node: str
    signal: str


@dataclass(frozen=True)
class Resume:
    """The controller is killed, all nodes with it, and the run resumed so much later."""

    at_s: float
    pause_s: float


@dataclass(frozen=True)
class Fill:
    """The disk under all stores is full for a while."""

    at_s: float
    duration_s: float


@dataclass(frozen=True)
class Hog:
    """A node on the ground has its store filled up by somebody, for a while."""

    at_s: float
    node: str
    duration_s: float


@dataclass(frozen=True)
class Corrupt:
    """A byte of a replica changes on its disk; which, `draw` chooses among those that are there."""

    at_s: float
    draw: float


@dataclass(frozen=True)
class Lie:
    """Somebody with a node's key tells another node lies."""

    at_s: float
    liar: str
    to: str
    what: str


Deed: TypeAlias = Put | Submit | Wish | Fault | End | Resume | Fill | Hog | Corrupt | Lie


@dataclass(frozen=True)
class Plan:
    """All deeds, in order of time."""

    seed: int
    seconds: float
    deeds: tuple[Deed, ...]

    KINDS: ClassVar = (Put, Submit, Wish, Fault, End, Resume, Fill, Hog, Corrupt, Lie)

    def text(self) -> str:
        """The plan, a line a deed."""
        return "\n".join(map(line, self.deeds))

    @property
    def digest(self) -> str:
        """Two plans are the same if these are."""
        return hashlib.sha256(self.text().encode()).hexdigest()[:12]

    def of(self, kind: type) -> list[Deed]:
        """The deeds of one kind."""
        return [deed for deed in self.deeds if isinstance(deed, kind)]


def line(deed: Deed) -> str:
    """A deed in one line."""
    told = (f"{field.name}={getattr(deed, field.name)}" for field in fields(deed) if field.name != "at_s")
    return f"{deed.at_s:6.1f} s  {type(deed).__name__.lower():8}{'  '.join(told)}"


def drawn(seed: int, seconds: float, links: Sequence[tuple[str, str]], without: Sequence[str] = ()) -> Plan:
    """The plan of a seed. `links`: who is ever joined to whom; `without`: kinds of deeds that are left out."""
    chance = random.Random(f"skyrack chaos {seed} {seconds}")
    deeds = [*_load(chance, seconds), *_faults(chance, seconds, links)]
    if "keep" in without:
        deeds = [replace(deed, replicas=0) if isinstance(deed, Put) else deed for deed in deeds]
    deeds = [deed for deed in deeds if type(deed).__name__.lower() not in without]
    return Plan(seed, seconds, tuple(sorted(deeds, key=lambda deed: (deed.at_s, line(deed)))))


def content(seed: int, number: int, size_bytes: int) -> bytes:
    """The bytes of an object."""
    return random.Random(f"object {seed} {number}").randbytes(size_bytes)


def _load(chance: random.Random, seconds: float) -> list[Deed]:
    puts = [
        Put(
            at_s=round(chance.uniform(0.0, 0.6 * seconds), 1),
            number=number,
            via=chance.choice(GATEWAYS),
            size_bytes=chance.choice([0, 1, 100_000, 300_000, 1_000_000, 2_000_000]),
            replicas=chance.choice([0, 0, 1, 2, 3]),
        )
        for number in range(max(3, round(OBJECTS_PER_S * seconds)))
    ]
    deeds: list[Deed] = [*puts]
    for number in range(max(5, round(JOBS_PER_S * seconds))):
        job = _job(chance, seconds, f"j{number:03d}", puts)
        deeds.append(job)
        verb = chance.choices(["", "cancel", "suspend"], [80, 10, 10])[0]
        if verb:
            wished_s = round(job.at_s + chance.uniform(0.0, 20.0), 1)
            deeds.append(Wish(wished_s, job.id, verb))
            if verb == "suspend":
                deeds.append(Wish(round(wished_s + chance.uniform(1.0, 20.0), 1), job.id, "resume"))
    return deeds


def _job(chance: random.Random, seconds: float, job_id: str, puts: Sequence[Put]) -> Submit:
    where = chance.choices(["satellite", "policy", "here"], [60, 25, 15])[0]
    max_attempts = chance.choice([0, 0, 0, 1, 3])
    via = chance.choice(GROUNDS)
    near = [put for put in puts if put.via == via]
    among = puts if chance.random() < 0.3 else near
    inputs = chance.sample(among, min(len(among), chance.choice([0, 0, 1, 1, 2])))
    # What lies at another node on the ground may never be reached from where the job is: contacts bound it.
    deadlines_s = [0.0] * 6 + [8.0, 30.0, 60.0] if all(put.via == via for put in inputs) else [40.0, 80.0]
    return Submit(
        at_s=round(chance.uniform(0.0, seconds), 1),
        id=job_id,
        via=via,
        on_node=chance.choice(SATELLITES) if where == "satellite" else "",
        policy=chance.choice(POLICIES) if where == "policy" else "",
        kind=chance.choice(["script", "exec"]),
        run_s=chance.choice([0.0, 0.0, 0.5, 2.0, 5.0]),
        inputs=tuple(sorted(put.number for put in inputs)),
        output_bytes=chance.choice([0, 10, 10, 50_000, 500_000]),
        steps=chance.choice([0, 0, 0, 4]),
        fails=chance.choice([0, 0, 0, 1]) if max_attempts != 3 else chance.choice([0, 1, 2, 3]),
        max_attempts=max_attempts,
        priority=chance.choice([0, 0, 1, 5]),
        deadline_s=chance.choice(deadlines_s),
        keeps_outputs=chance.random() < 0.15,
    )


def _faults(chance: random.Random, seconds: float, links: Sequence[tuple[str, str]]) -> list[Deed]:
    def times(a_minute: float) -> list[float]:
        count = max(1, round(a_minute * seconds / 60.0))
        return [round(chance.uniform(0.05, 1.0) * seconds, 1) for _ in range(count)]

    deeds: list[Deed] = []
    for at_s in times(5):
        mode = chance.choice(["silent", "reject", "carrier"])
        deeds.append(Fault(at_s, "blackout", chance.choice(NODES), mode, round(chance.uniform(1.0, 12.0), 1)))
    for at_s in times(3):
        target = "~".join(chance.choice(links))
        deeds.append(Fault(at_s, "blackout", target, "silent", round(chance.uniform(1.0, 12.0), 1)))
    deeds += [
        Fault(at_s, "degrade", chance.choice(NODES), "", round(chance.uniform(2.0, 15.0), 1)) for at_s in times(3)
    ]
    deeds += [End(at_s, chance.choice(NODES), "KILL") for at_s in times(8)]
    deeds += [End(at_s, chance.choice(NODES), "TERM") for at_s in times(2)]
    deeds += [Resume(round(chance.uniform(0.3, 0.8) * seconds, 1), round(chance.uniform(0.0, 3.0), 1))]
    deeds += [Fill(at_s, round(chance.uniform(2.0, 6.0), 1)) for at_s in times(1)]
    deeds += [Hog(at_s, chance.choice(GROUNDS), round(chance.uniform(4.0, 12.0), 1)) for at_s in times(1)]
    deeds += [Corrupt(at_s, chance.random()) for at_s in times(3)]
    for at_s in times(6):
        liar, to = chance.sample(chance.choice(links), 2)
        deeds.append(Lie(at_s, liar, to, chance.choice(LIES)))
    return deeds
