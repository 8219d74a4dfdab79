"""What an object costs on its way from one agent to another: `python -m bench.objects`.

It is given to a gateway, goes on to a satellite, and is on disk there, checked, when the clock stops. Beside it, in
turn, runs a bare gRPC stream of chunks of that size under the same TLS, between two processes that use no disk.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from bench.agent import ADDRESSES, BARE_ADDRESS, BARE_PORT, ROLES, certified, start
from controller.agents import AgentClient
from controller.authority import Authority, Subject
from node_agent.objects.transfer import LARGE_CHUNK_BYTES
from node_agent.security import wire
from node_agent.security.identity import Credentials
from protos.skyrack.v1 import jobs_pb2, objects_pb2, objects_pb2_grpc

SCENE_BYTES = 256 * 2**20
ROUNDS = 5
LARGE_BYTES = 2**30
MIN_RATIO = 0.6
MAX_RESIDENT_BYTES = 64_000_000
DEADLINE_S = 120.0


async def bare_s(credentials: Credentials, chunk: bytes) -> float:
    """How long SCENE_BYTES take through a bare stream."""

    async def requests() -> AsyncIterator[objects_pb2.PutRequest]:
        for _ in range(SCENE_BYTES // len(chunk)):
            yield objects_pb2.PutRequest(chunk=chunk)

    async with wire.open_channel(credentials, "bare", f"ipv4:{BARE_ADDRESS}:{BARE_PORT}", ()) as channel:
        started_s = time.perf_counter()
        await objects_pb2_grpc.ObjectsStub(channel).Put(requests(), timeout=DEADLINE_S, wait_for_ready=True)
        return time.perf_counter() - started_s


async def carried_s(gw: AgentClient, name: str, job_id: str) -> float:
    """How long an object takes from the gateway's disk to the satellite's, with the job that keeps it there."""
    keep = objects_pb2.ObjectTerms(holders=["sat"])
    spec = jobs_pb2.JobSpec(id=job_id, on_node="sat", keep=keep, inputs=[jobs_pb2.JobInput(object=name)])
    started_s = time.perf_counter()
    await gw.submit(spec)
    job = await gw.wait_final(job_id, DEADLINE_S)
    took_s = time.perf_counter() - started_s
    if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
        raise RuntimeError(f"{job_id}: {job.reason}")
    return took_s


def random_file(path: Path, size_bytes: int) -> Path:
    """A file that no other is like."""
    with path.open("wb") as file:
        for _ in range(0, size_bytes, 2**20):
            file.write(os.urandom(2**20))
    return path


def peak_bytes(first_process: int) -> int:
    """The most memory that an agent has had so far."""
    children = Path(f"/proc/{first_process}/task/{first_process}/children").read_text().split()
    agent = min(map(int, children)) if children else first_process
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{agent}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def start_bare(folder: Path) -> subprocess.Popen[bytes]:
    """The far end of the bare stream, as a process."""
    return subprocess.Popen([sys.executable, "-m", "bench._bare_stream", str(folder)])


async def measure(folder: Path, gw: AgentClient, agents: dict[str, int], credentials: Credentials) -> None:
    """All figures."""
    chunk = os.urandom(LARGE_CHUNK_BYTES)  # what an object comes in on a fast link
    ratios = []
    for number in range(ROUNDS):
        name = (await gw.put_file(random_file(folder / "scene", SCENE_BYTES))).object
        before_s = await bare_s(credentials, chunk)
        took_s = await carried_s(gw, name, f"scene-{number}")
        after_s = await bare_s(credentials, chunk)
        ratios.append((before_s + after_s) / 2 / took_s)
        print(
            f"stream: {SCENE_BYTES / took_s / 1e6:.0f} MB/s from disk to disk, checked and synced; bare "
            f"{SCENE_BYTES / before_s / 1e6:.0f} and {SCENE_BYTES / after_s / 1e6:.0f}; ratio {ratios[-1]:.2f}"
        )
    print(f"stream: median ratio {statistics.median(ratios):.2f} (at least {MIN_RATIO} wanted)")
    (folder / "scene").unlink()
    name = (await gw.put_file(random_file(folder / "large", LARGE_BYTES))).object
    took_s = await carried_s(gw, name, "large")
    peaks = ", ".join(f"{node} {peak_bytes(pid) / 1e6:.1f} MB" for node, pid in agents.items())
    print(f"memory: at most {peaks} for {LARGE_BYTES / 1e6:.0f} MB (less than {MAX_RESIDENT_BYTES / 1e6:.0f} wanted)")
    print(f"        in {took_s:.1f} s, {LARGE_BYTES / took_s / 1e6:.0f} MB/s")


async def main() -> None:
    """Start, measure, end."""
    with tempfile.TemporaryDirectory(prefix="skyrack-bench-") as name:
        folder = Path(name)
        authority = Authority.of("bencharun", folder / "authority")
        credentials = await certified(folder, authority)
        agents = {node: start(folder, node, store_bytes=4 * LARGE_BYTES) for node in ADDRESSES}
        bare = start_bare(folder)
        try:
            async with AsyncExitStack() as stack:
                clients = {}
                for node in ADDRESSES:
                    client = await stack.enter_async_context(AgentClient(folder / f"{node}.sock", node))
                    await client.wait_ready(30)
                    await client.certify(authority, Subject(node, ROLES[node], ADDRESSES[node]))
                    await client.wait_ready(30, data_plane=True)
                    clients[node] = client
                await measure(folder, clients["gw"], {node: agent.pid for node, agent in agents.items()}, credentials)
        finally:
            for process in (bare, *agents.values()):
                process.kill()
                process.wait(10)


if __name__ == "__main__":
    asyncio.run(main())
