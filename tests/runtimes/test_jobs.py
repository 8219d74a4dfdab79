"""Jobs in real nodes of both runtimes: users of their own, apart from the agent and its node."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator

import pytest

from controller.agents import AgentClient
from controller.runs import MACHINE, RunPlace
from controller.runtime.agent_command import FIRST_JOB_UID, JOB_USERS
from controller.runtime.choose import open_runtime
from controller.runtime.contract import NodeSpec, Runtime
from protos.skyrack.v1.jobs_pb2 import JOB_STATE_SUCCEEDED, JobSpec
from tests.runtimes.test_contract import DEADLINE_S, executed, ignore, specs_of

LOOK = """
import json, os, socket
seen = {"uid": os.getuid(), "groups": os.getgroups()}
for path in ("objects", "logs", "scratch", "lock", "identity", "identity/credentials.pem", "journal.db"):
    path = "/var/lib/skyrack/" + path
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).close()
        seen[path] = "reached"
    except OSError as error:
        seen[path] = error.strerror
try:
    socket.socket(socket.AF_UNIX).connect("/run/skyrack/control.sock")
    seen["control"] = "reached"
except OSError as error:
    seen["control"] = error.strerror
try:
    socket.create_connection(("127.0.0.1", 9), 5)
except OSError as error:
    seen["network"] = error.strerror
import numpy
seen["sum"] = int(numpy.arange(4).sum())
print(json.dumps(seen))
"""


@pytest.fixture
async def node1(kind: str) -> AsyncIterator[tuple[Runtime, RunPlace, AgentClient]]:
    """The second node of a run: a gateway, so that it takes jobs from the control plane."""
    runtime = open_runtime(kind, MACHINE.run)
    with RunPlace.create("test", MACHINE.run, 2) as place:
        try:
            specs = specs_of(place, 2)
            await asyncio.to_thread(runtime.start, [specs[0], _gateway(specs[1])], ignore)
            async with AgentClient(place.control_dir(1) / "control.sock", "node1") as agent:
                await agent.wait_ready(DEADLINE_S, data_plane=False)
                yield runtime, place, agent
        finally:
            await asyncio.to_thread(runtime.remove, place.run_id)


def _gateway(spec: NodeSpec) -> NodeSpec:
    return dataclasses.replace(spec, role="gateway")


async def test_a_job_is_apart_from_its_node(node1: tuple[Runtime, RunPlace, AgentClient]) -> None:
    """It is a user that no other node's jobs are, reaches nothing of the agent's, and has no network unless it asks."""
    _, _, agent = node1
    for network in (False, True):
        spec = JobSpec(id=f"look-{network}", command=JobSpec.Command(argv=["python3", "-c", LOOK]), network=network)
        await agent.submit(spec)
        job = await agent.wait_final(spec.id, DEADLINE_S)
        assert job.state == JOB_STATE_SUCCEEDED, job
        seen = json.loads(job.stdout)
        user = FIRST_JOB_UID + JOB_USERS
        assert (seen.pop("uid"), seen.pop("groups"), seen.pop("sum")) == (user, [], 6)
        assert (seen.pop("network") == "Permission denied") != network
        assert set(seen.values()) == {"Permission denied"}, seen


async def test_nothing_of_a_job_stays_in_its_node(node1: tuple[Runtime, RunPlace, AgentClient]) -> None:
    """Neither a daemon without its environment, session and parent, nor what it has left where all may write."""
    runtime, place, agent = node1
    listed = "ls -A /tmp /dev/shm | grep -v :"
    before = await asyncio.to_thread(executed, (runtime, place), "sh", "-c", f"{listed}; true")
    script = "env -i setsid sh -c 'env -i setsid sleep 3331 & exit'; mkdir -m 700 -p /tmp/a/b; echo x > /dev/shm/left"
    await agent.submit(JobSpec(id="stays", command=JobSpec.Command(argv=["sh", "-c", script])))
    job = await agent.wait_final("stays", DEADLINE_S)
    assert job.state == JOB_STATE_SUCCEEDED, job
    look = f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 333[1]'; {listed}"
    left = await asyncio.to_thread(executed, (runtime, place), "sh", "-c", look)
    # Where the tree of the tests lies below /tmp, so does what nodes see of it.
    assert left.stdout.decode().split() == ["0", *before.stdout.decode().split()]
