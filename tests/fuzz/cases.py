"""Cases: one call each, who makes it to which method, what it brings, and how it ends. A seed and a number name it."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from enum import Enum
from typing import Final

from node_agent.security.access import EMULATOR
from node_agent.security.identity import ROLES
from tests.agent.methods import METHODS, Method
from tests.fuzz.generator import Generator
from tests.fuzz.harmless import harmless
from tests.fuzz.world import NODES, World, valid

CALLERS: Final = (EMULATOR.role, *ROLES)
BEYOND_BYTES: Final = 4 * 2**20 + 1
MAX_FRAMES: Final = 40


class Kind(Enum):
    """What the messages of a case are."""

    VALID = "valid"
    FILLED = "filled"  # any fields with any values
    CHANGED = "a field changed"
    MUTATED = "bytes mutated"
    GARBAGE = "garbage"
    DISORDER = "disorder"  # messages that are missing, twice there, or in another order
    LARGE = "as large as may be"
    BEYOND = "beyond the limit"


class Manner(Enum):
    """How the caller goes about it."""

    PROPER = "proper"  # says all, is done, listens to the end
    SILENT = "silent"  # says all, and never that it is done
    CANCELS = "cancels"  # in the middle
    VANISHES = "vanishes"  # with its connection


_KINDS: Final = {
    Kind.VALID: 20, Kind.FILLED: 24, Kind.CHANGED: 24, Kind.MUTATED: 16, Kind.GARBAGE: 8, Kind.DISORDER: 8,
    Kind.LARGE: 0.2, Kind.BEYOND: 0.05,
}  # fmt: skip
_ANOTHER_PATH: Final = 0.01
_MANNERS: Final = {Manner.PROPER: 90, Manner.SILENT: 4, Manner.CANCELS: 5, Manner.VANISHES: 1}
# So that as many messages as others get go where most depends on them.
_WEIGHT: Final = {"skyrack.v1.Objects/Put": 4, "skyrack.v1.Jobs/Submit": 4, "skyrack.v1.Jobs/Return": 4}
_COSTLY: Final = {"skyrack.v1.Node/GetSigningRequest": 0.1, "skyrack.v1.Node/SetCertificate": 0.2}


@dataclass(frozen=True)
class Case:
    """One call."""

    seed: int
    number: int
    node: str
    caller: str
    method: Method
    path: str  # of the method, as a rule
    kind: Kind
    manner: Manner
    frames: tuple[bytes, ...]

    def __str__(self) -> str:
        return (
            f"seed {self.seed} number {self.number}: {self.caller} to {self.node}, {self.path[:100]}, "
            f"{self.kind.value}, {self.manner.value}, {len(self.frames)} messages of "
            f"{sum(map(len, self.frames))} bytes"
        )


def case(seed: int, number: int, pems: dict[str, tuple[bytes, bytes]] | None = None) -> Case:
    """The case of a number. `pems`: of each node its certificate and its authority's."""
    draw = random.Random(f"{seed} {number}")
    weights = [_WEIGHT.get(each.name, 1) * _COSTLY.get(each.name, 1) for each in METHODS]
    method = draw.choices(METHODS, weights)[0]
    on_control_plane = method.name.startswith("skyrack.v1.Node/") or draw.random() < 0.3
    caller = EMULATOR.role if on_control_plane else draw.choice(ROLES)
    kind = draw.choices([*_KINDS], [*_KINDS.values()])[0]
    manner = draw.choices([*_MANNERS], [*_MANNERS.values()])[0]
    node = draw.choices(NODES, (3, 1))[0]
    world = World.at(number, (pems or {}).get(node, (b"", b"")))
    frames = tuple(harmless(method.of.input_type, each, draw) for each in _frames(draw, method, kind, world))
    path = f"/{method.name}"
    if draw.random() < _ANOTHER_PATH:
        path += "".join(draw.choices(string.printable[:94], k=draw.choice((1, 10, 1_000))))
    return Case(seed, number, node, caller, method, path, kind, manner, frames[:MAX_FRAMES])


def _frames(draw: random.Random, method: Method, kind: Kind, world: World) -> list[bytes]:
    """The messages of a case, before any look at whether they might do harm."""
    generator, request = Generator(draw, world.known), method.of.input_type
    messages = valid(method.name, draw, world) or [generator.filled(request)]
    said = [message.SerializeToString() for message in messages]
    at = draw.randrange(len(said))
    match kind:
        case Kind.VALID:
            pass
        case Kind.FILLED:
            said = [generator.filled(request).SerializeToString() for _ in range(_many(draw, method))]
        case Kind.CHANGED:
            for _ in range(draw.choice((1, 1, 2, 3))):
                messages[at] = generator.with_changed_field(messages[at])
            said[at] = messages[at].SerializeToString()
        case Kind.MUTATED:
            said[at] = generator.mutated(said[at])
        case Kind.GARBAGE:
            said[at] = generator.garbage()
        case Kind.DISORDER:
            said = _disordered(draw, said)
        case Kind.LARGE:
            said[at] = generator.grown(messages[at], BEYOND_BYTES - 2 - draw.choice((0, 100, 10_000)))
        case Kind.BEYOND:
            said[at] = bytes(BEYOND_BYTES)
    return said


def _many(draw: random.Random, method: Method) -> int:
    return draw.choice((0, 1, 2, 5)) if method.of.client_streaming else 1


def _disordered(draw: random.Random, said: list[bytes]) -> list[bytes]:
    match draw.randrange(6):
        case 0:
            return []
        case 1:
            return [*said, *said]
        case 2:
            return said[::-1]
        case 3:
            return said[: draw.randrange(len(said))] + said[draw.randrange(len(said)) :]
        case 4:
            return said[:-1] + said[-1:] * MAX_FRAMES
        case _:
            return [said[0], *draw.sample(said, len(said))]
