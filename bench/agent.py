"""What an agent costs and carries: `python -m bench.agent`. Ratios in one run count; the machine's own speed varies.

Two agents on loopback addresses.
"""

from __future__ import annotations

import asyncio
import datetime
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from controller.agents import AgentClient
from controller.authority import Authority, Subject
from node_agent.security import wire
from node_agent.security.identity import Credentials, Identity, make_key, take_certificate
from protos.skyrack.v1 import jobs_pb2

ADDRESSES = {"gw": "127.88.0.1", "sat": "127.88.0.2"}
ROLES = {"gw": "gateway", "sat": "satellite"}
BARE_ADDRESS, BARE_PORT = "127.88.0.3", 7071
HANDSHAKES = 50
JOBS = 40
MAX_OVERHEAD_MS = 25
SUBMITS = 1000
MIN_SUBMITS = 150
REST_S = 10.0


def start(folder: Path, name: str, store_bytes: int = 2**31) -> subprocess.Popen[bytes]:
    """An agent as a process."""
    argv = [sys.executable, "-m", "node_agent", "--name", name, "--address", ADDRESSES[name]]
    argv += ["--role", ROLES[name], "--store", str(folder / name), f"--store-bytes={store_bytes}"]
    argv += ["--control-socket", str(folder / f"{name}.sock"), *(f"--peer={k}={v}" for k, v in ADDRESSES.items())]
    return subprocess.Popen(argv, stderr=subprocess.DEVNULL)


async def seconds(action: Callable[[], Awaitable[object]]) -> float:
    """How long it takes."""
    started_s = time.perf_counter()
    await action()
    return time.perf_counter() - started_s


class InPlace:
    """The helpers of somebody whose memory is of no account."""

    async def make_key(self, folder: str, name: str) -> None:
        """Make the next key."""
        make_key(Path(folder), name)

    async def take_certificate(
        self, folder: str, name: str, role: str, certificate_pem: str, authority_pem: str
    ) -> None:
        """Put a certificate to use."""
        take_certificate(Path(folder), name, role, certificate_pem.encode(), authority_pem.encode())


async def certified(folder: Path, authority: Authority) -> Credentials:
    """Somebody with a certificate: both ends of the bare stream."""
    credentials = Credentials(folder / "bare", Identity("bare", "gateway", BARE_ADDRESS), InPlace())
    request_pem = await credentials.request(renew=False)
    issued = authority.issue(request_pem, Subject("bare", "gateway", BARE_ADDRESS), datetime.datetime.now(datetime.UTC))
    await credentials.accept(issued.certificate_pem, authority.pem)
    return credentials


async def run_job(client: AgentClient, spec: jobs_pb2.JobSpec) -> None:
    """Submit and wait."""
    await client.submit(spec)
    await client.wait_final(spec.id, 60)


async def handshake_s(credentials: Credentials) -> float:
    """From nothing to the first answer of an agent, TLS and HTTP/2 included, both ends on this machine."""
    async with wire.open_channel(credentials, "gw", f"ipv4:{ADDRESSES['gw']}:{wire.DATA_PORT}", ()) as channel:
        ask = health_pb2_grpc.HealthStub(channel).Check
        return await seconds(lambda: ask(health_pb2.HealthCheckRequest(), timeout=10))


async def measure(gw: AgentClient, sat: AgentClient, credentials: Credentials) -> None:
    """All figures, one line each."""
    info = await gw.info()
    before_s = info.cpu_s
    await asyncio.sleep(REST_S)
    after = await gw.info()
    print(f"start: {before_s:.2f} s of CPU, {info.resident_bytes / 1e6:.1f} MB resident")
    print(f"rest:  {100 * (after.cpu_s - before_s) / REST_S:.3f} % of a core")

    hello_s = [await handshake_s(credentials) for _ in range(HANDSHAKES)]
    cpu_s = ((await gw.info()).cpu_s - after.cpu_s) / HANDSHAKES
    print(
        f"contact: {1e3 * statistics.median(hello_s):.1f} ms to the first answer, {1e3 * cpu_s:.1f} ms of the agent's"
    )

    await measure_jobs(gw)
    await measure_submits(gw, sat)


async def measure_jobs(gw: AgentClient) -> None:
    """What a job costs over its process."""
    true = jobs_pb2.JobSpec.Command(argv=["true"])
    bare_job_s = statistics.median(
        [await seconds(lambda: asyncio.to_thread(subprocess.run, ["true"], check=True)) for _ in range(JOBS)]
    )
    for on_node in ("", "sat"):
        specs = [jobs_pb2.JobSpec(id=f"empty-{on_node}-{n}", on_node=on_node, command=true) for n in range(JOBS)]
        took_s = statistics.median([await seconds(partial(run_job, gw, spec)) for spec in specs])
        limit = "" if on_node else f" (at most {MAX_OVERHEAD_MS} allowed)"
        print(
            f"job:   an empty one at {on_node or 'gw'} takes {1e3 * took_s:.1f} ms, "
            f"{1e3 * (took_s - bare_job_s):.1f} over a bare subprocess's {1e3 * bare_job_s:.1f}{limit}"
        )


def bare_inserts_a_second(folder: Path) -> float:
    """A loop of SQLite that inserts a row and commits it, synced: the floor that a durable submit stands on."""
    db = sqlite3.connect(folder / "bare.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE job (id TEXT PRIMARY KEY, brief BLOB)")
    started_s = time.perf_counter()
    for number in range(SUBMITS):
        db.execute("INSERT INTO job VALUES (?, ?)", (f"ack-{number}", bytes(500)))
    took_s = time.perf_counter() - started_s
    db.close()
    return SUBMITS / took_s


async def submits_a_second(gw: AgentClient, at_once: int) -> float:
    """How many jobs are acknowledged a second, so many being asked for at a time."""
    true = jobs_pb2.JobSpec.Command(argv=["true"])
    specs = [jobs_pb2.JobSpec(id=f"ack-{at_once}-{n}", command=true) for n in range(SUBMITS)]

    async def submit() -> None:
        while specs:
            await gw.submit(specs.pop())

    return SUBMITS / await seconds(lambda: asyncio.gather(*(submit() for _ in range(at_once))))


async def measure_submits(gw: AgentClient, sat: AgentClient) -> None:
    """How many jobs an agent takes charge of a second, beside what SQLite itself does alone."""
    await gw.submit(jobs_pb2.JobSpec(id="occupied", command=jobs_pb2.JobSpec.Command(argv=["sleep", "600"])))
    with tempfile.TemporaryDirectory(prefix="skyrack-bench-") as folder:
        bare = await asyncio.to_thread(bare_inserts_a_second, Path(folder))
    one, many = await submits_a_second(gw, 1), await submits_a_second(gw, 64)
    print(
        f"submit: {many:.0f} acknowledged a second (at least {MIN_SUBMITS} wanted), {one:.0f} one after the other; "
        f"a bare insert and commit {bare:.0f}, ratio {many / bare:.3f}"
    )
    print(
        f"after all: {(await gw.info()).resident_bytes / 1e6:.1f} and {(await sat.info()).resident_bytes / 1e6:.1f} MB"
    )


async def main() -> None:
    """Start, measure, end."""
    with tempfile.TemporaryDirectory(prefix="skyrack-bench-") as name:
        folder = Path(name)
        agents = [start(folder, node) for node in ADDRESSES]
        try:
            async with AsyncExitStack() as stack:
                gw, sat = [await stack.enter_async_context(AgentClient(folder / f"{n}.sock", n)) for n in ADDRESSES]
                authority = Authority.of("bencharun", folder / "authority")
                for client, node in ((gw, "gw"), (sat, "sat")):
                    await client.wait_ready(30)
                    await client.certify(authority, Subject(node, ROLES[node], ADDRESSES[node]))
                    await client.wait_ready(30, data_plane=True)
                await measure(gw, sat, await certified(folder, authority))
        finally:
            for agent in agents:
                agent.kill()
                agent.wait(10)


if __name__ == "__main__":
    asyncio.run(main())
