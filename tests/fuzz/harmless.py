"""What keeps fuzzed jobs from doing harm: of a message that hands in a job the program is looked at, and replaced.

As root in a test, a job is root. So a command is one of a few that do nothing, whatever else the message says. Scripts
and modules need no look: they are objects, and no object of `world` does anything either.
"""

from __future__ import annotations

import random
import re
from typing import Final

from google.protobuf.descriptor import Descriptor

from protos.skyrack.v1 import jobs_pb2
from tests.fuzz.generator import parsed
from tests.fuzz.world import ALLOWED, ALLOWED_VARIABLE

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def harmless(request: Descriptor, data: bytes, draw: random.Random) -> bytes:
    """The bytes of a message, or others where an agent would read a job out of them that might do something."""
    if request is not jobs_pb2.SubmitRequest.DESCRIPTOR:
        return data
    read = parsed(request, data)
    if not isinstance(read, jobs_pb2.SubmitRequest) or is_harmless(read.spec):
        return data
    if read.spec.HasField("command"):
        read.spec.command.argv[:] = draw.choice(ALLOWED)
    read.spec.environment.clear()
    return read.SerializeToString()


def is_harmless(spec: jobs_pb2.JobSpec) -> bool:
    """Whether a job may be handed in as it is."""
    argv = [*spec.command.argv]
    does_nothing = not argv or any(argv[: len(allowed)] == allowed for allowed in ALLOWED)
    # Variables may change what a program does: the loader's, Python's. With one that is malformed, the job is refused.
    names = {*spec.environment} - {ALLOWED_VARIABLE}
    return does_nothing and (not names or not all(map(_VARIABLE.fullmatch, names)))
