"""Limits of nodes, each tried by going beyond it: the node that does is held, the agent in it lives on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.agents import AgentClient
from controller.errors import SkyrackError
from controller.runs import MACHINE, RunPlace
from controller.runtime.choose import open_runtime
from controller.runtime.contract import Runtime
from tests.runtimes.test_contract import (
    CPU_LIMIT,
    DEADLINE_S,
    MEMORY_BYTES,
    PIDS_LIMIT,
    STORE_BYTES,
    answers,
    executed,
    ignore,
    specs_of,
    wait_for,
)

KILLED = 137  # 128 + SIGKILL, as a shell has it
BURN_S = 2.0
CPU_TOLERANCE = 0.15  # a period of the quota at both ends, on a busy machine

TAKE_MEMORY = f"""
taken = bytearray()
while len(taken) < {2 * MEMORY_BYTES}:
    taken += bytes(range(256)) * 4096
print("took it all")
"""
TAKE_PROCESSES = """
import os
count = 0
reads, writes = os.pipe()
try:
    while count < 1000:
        if not os.fork():
            os.close(writes)
            os.read(reads, 1)  # until the parent ends
            os._exit(0)
        count += 1
except OSError as error:
    print(count, error.strerror)
"""
BURN = f"""
import os, time
until = time.monotonic() + {BURN_S}
if not os.fork():
    while time.monotonic() < until: pass
    os._exit(0)
while time.monotonic() < until: pass
os.wait()
times = os.times()
print(times.user + times.system + times.children_user + times.children_system)
"""


@pytest.fixture(scope="module")
def lived_in(kind: str) -> Iterator[tuple[Runtime, RunPlace]]:
    """Two nodes that run."""
    runtime = open_runtime(kind, MACHINE.run)
    with RunPlace.create("test", Path("/out"), 2) as place:
        try:
            runtime.start(specs_of(place, 2), ignore)
            wait_for(lambda: all(answers(place.control_dir(index) / "control.sock") for index in range(2)))
            yield runtime, place
        finally:
            runtime.remove(place.run_id)


def test_memory_beyond_the_limit_is_not_had(lived_in: tuple[Runtime, RunPlace]) -> None:
    """What takes twice the node's memory is killed, and nothing else is."""
    runtime, place = lived_in
    ended = executed(lived_in, "python3", "-c", TAKE_MEMORY)
    assert (ended.returncode, ended.stdout) == (KILLED, b"")
    assert runtime.alive(place.run_id) == {"node0", "node1"}
    assert answers(place.control_dir(1) / "control.sock")


def test_processes_beyond_the_limit_are_refused(lived_in: tuple[Runtime, RunPlace]) -> None:
    """A node has at most so many processes, its agent's threads among them."""
    ended = executed(lived_in, "python3", "-c", TAKE_PROCESSES)
    count, reason = ended.stdout.decode().split(" ", 1)
    assert PIDS_LIMIT // 2 < int(count) < PIDS_LIMIT
    assert reason.strip() == "Resource temporarily unavailable"


def test_no_more_than_the_share_of_a_cpu_is_had(lived_in: tuple[Runtime, RunPlace]) -> None:
    """Two processes that compute without a pause get together what the node may have."""
    began_mono_s = time.monotonic()
    ended = executed(lived_in, "python3", "-c", BURN)
    assert float(ended.stdout) < CPU_LIMIT * (time.monotonic() - began_mono_s) * (1 + CPU_TOLERANCE)
    assert float(ended.stdout) > 0


async def test_an_object_beyond_the_quota_is_refused(lived_in: tuple[Runtime, RunPlace]) -> None:
    """Objects fill the store up to its quota; one more is refused before its bytes are taken, and the others stay."""
    _, place = lived_in
    async with AgentClient(place.control_dir(0) / "control.sock", "node0") as agent:
        await agent.wait_ready(DEADLINE_S, data_plane=False)
        kept = await agent.put_bytes(b"k" * (STORE_BYTES // 2))
        with pytest.raises(SkyrackError, match=r"quota|full|room"):
            await agent.put_bytes(b"x" * (STORE_BYTES // 2 + 1))
        assert (await agent.stat(kept.object)).committed_bytes == STORE_BYTES // 2
