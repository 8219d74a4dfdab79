"""An open load, computed ahead: who asks for what, when, from a seed. Pure.

Arrivals are a Poisson process: users that know nothing of each other, and do not wait for one another's answers
(B. Schroeder, A. Wierman and M. Harchol-Balter, "Open versus closed: a cautionary tale", Proc. NSDI 2006).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from controller.errors import InputError
from controller.workloads.catalogue import workload_named

SEED_LIMIT = 2**31


@dataclass(frozen=True)
class Share:
    """One kind of job in a mix."""

    workload: str
    size: int
    weight: float  # how many of this kind, against the weights of the others


@dataclass(frozen=True)
class Load:
    """What a trace is drawn from. Raises InputError for one that cannot be."""

    rate_per_min: float
    jobs: int
    mix: tuple[Share, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.jobs > 0 or not 0 < self.rate_per_min < 1e6 or self.seed < 0:
            raise InputError(
                f"{self.jobs} jobs at {self.rate_per_min:g} a minute, seed {self.seed}: there must be jobs and a rate, "
                "and the seed is 0 or more"
            )


@dataclass(frozen=True)
class Arrival:
    """One job of a trace."""

    number: int  # from 0
    at_s: float  # of the wall clock, since the load began: packets and jobs take real time
    workload: str
    size: int
    seed: int  # of its input or its work
    terminal: str  # where it is asked for
    satellite: str  # where its scene lies


DEFAULT_MIX = "hot-spots:3,changes:2,compress:2,classify:2,hash:1,matrix:1,files:1"


def parsed_mix(text: str) -> tuple[Share, ...]:
    """A mix as users write it: `hot-spots:3,hash@64:1`, name, size and weight. Raises InputError."""
    shares = []
    for part in text.split(","):
        kind, _, weight_text = part.strip().partition(":")
        name, _, size_text = kind.partition("@")
        workload = workload_named(name)
        try:
            weight, size = float(weight_text or 1), int(size_text or workload.size)
        except ValueError:
            raise InputError(f"--mix {part!r}: write NAME[@SIZE][:WEIGHT], for example hot-spots:3") from None
        if not 0 < weight < 1e9:
            raise InputError(f"--mix {part!r}: the weight must be above 0")
        if size < workload.least:
            raise InputError(f"--mix {part!r}: the size must be {workload.least} {workload.size_is} or more")
        shares.append(Share(name, size, weight))
    if len({(share.workload, share.size) for share in shares}) < len(shares):
        raise InputError(f"--mix {text!r}: a kind of job is in it twice")
    return tuple(shares)


def trace(load: Load, terminals: Sequence[str], satellites: Sequence[str]) -> tuple[Arrival, ...]:
    """The jobs of a load, in the order of their arrival. The same arguments give the same trace."""
    # A stream of its own for each thing that is drawn: another mix leaves the moments as they are.
    gaps, kinds, places, scenes, seeds = (np.random.default_rng([load.seed, number]) for number in range(5))
    at_s = np.cumsum(gaps.exponential(60.0 / load.rate_per_min, load.jobs))
    weights = np.array([share.weight for share in load.mix])
    chosen = kinds.choice(len(load.mix), load.jobs, p=weights / weights.sum())
    return tuple(
        Arrival(
            number=number,
            at_s=round(float(at_s[number]), 6),
            workload=load.mix[chosen[number]].workload,
            size=load.mix[chosen[number]].size,
            seed=int(seeds.integers(SEED_LIMIT)),
            terminal=terminals[int(places.integers(len(terminals)))],
            satellite=satellites[int(scenes.integers(len(satellites)))],
        )
        for number in range(load.jobs)
    )


def lines(arrivals: Sequence[Arrival]) -> str:
    """A trace as JSON lines, one an arrival."""
    return "".join(json.dumps(asdict(arrival)) + "\n" for arrival in arrivals)


def digest(arrivals: Sequence[Arrival]) -> str:
    """What names a trace: "sha256:…" of its lines."""
    return f"sha256:{hashlib.sha256(lines(arrivals).encode()).hexdigest()}"
