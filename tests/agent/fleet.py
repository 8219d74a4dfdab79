"""Real agents on loopback addresses with certificates of one authority, and a link that is slow and can vanish."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import google_crc32c
import grpc
import pytest

from controller.agents import AgentClient
from controller.authority import Authority, Subject
from node_agent.security.wire import DATA_PORT, PUT_ACCEPTED
from protos.skyrack.v1 import jobs_pb2, jobs_pb2_grpc, node_pb2, node_pb2_grpc, objects_pb2, objects_pb2_grpc
from tests.agent.identities import RUN_ID, identity

READY_DEADLINE_S = 60.0
DONE_DEADLINE_S = 60.0
ROLES = {"gw": "gateway", "term": "terminal"}
_SUBNETS = itertools.count()


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, deadline_s: float = DONE_DEADLINE_S
) -> None:
    """Wait for a condition; fails after the deadline."""
    deadline_mono_s = time.monotonic() + deadline_s
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert time.monotonic() < deadline_mono_s, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.02)


class Agent:
    """One agent beneath its first process, both of which can be killed and started again over the same store."""

    def __init__(
        self, folder: Path, subject: Subject, options: list[str], authority: Authority, within: tuple[str, ...] = ()
    ) -> None:
        name, role, address = subject.name, subject.role, subject.address
        self.name = name
        self.address = address
        self.subject = subject
        self.authority = authority
        self.store = folder / name
        self.control_socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        self._argv = [*within, sys.executable, "-m", "node_agent", "--name", name, "--role", role, "--address", address]
        self._argv += ["--control-socket", str(self.control_socket), "--store", str(self.store), *options]
        self.process: subprocess.Popen[bytes] | None = None
        self._meeting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the process; does not wait for it. If it has no certificate, it is given one when it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._argv, stderr=log)
        self._meeting = asyncio.create_task(self._meet())

    async def _meet(self) -> None:
        async with AgentClient(self.control_socket, self.name) as client:
            await client.wait_ready(READY_DEADLINE_S)
            if not (self.store / "identity" / "credentials.pem").exists():
                await client.certify(self.authority, self.subject)

    def pids(self) -> list[int]:
        """The agent itself, if it lives, and what is being forked for its jobs: all have the first process's command
        line. The agent is the oldest."""
        assert self.process is not None
        first, children = Path(f"/proc/{self.process.pid}"), ""
        with suppress(OSError):
            children = (first / f"task/{self.process.pid}/children").read_text()
        return [pid for pid in map(int, children.split()) if command_line(pid) == command_line(self.process.pid)]

    def pid(self) -> int:
        """The agent itself, which lives: others that look like it are about to be programs of jobs."""
        return min(self.pids())

    def signal(self, number: signal.Signals) -> None:
        """Send the agent itself a signal."""
        os.kill(self.pid(), number)

    def kill(self) -> None:
        """kill -9 of the first process, and wait until the agent is gone too. Idempotent."""
        if self._meeting is not None:
            self._meeting.cancel()
        if self.process is not None:
            left = self.pids()
            self.process.kill()
            self.process.wait(10)
            self.process = None
            until_mono_s = time.monotonic() + 10
            while any(command_line(pid) for pid in left):
                assert time.monotonic() < until_mono_s, f"{left} outlive their first process"
                time.sleep(0.005)

    async def ready(self) -> None:
        """Return when both planes answer."""
        if self._meeting is not None:
            await self._meeting
        async with AgentClient(self.control_socket, self.name) as client:
            await client.wait_ready(READY_DEADLINE_S, data_plane=True)

    async def restart(self) -> None:
        """kill -9 and start again."""
        self.kill()
        self.start()
        await self.ready()


class Fleet:
    """Agents on a loopback subnet of their own. Leaves no process behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.agents: dict[str, Agent] = {}
        self._subnet = f"127.{100 + os.getpid() % 100}.{(os.getpid() // 100 + next(_SUBNETS)) % 250}"
        self._stack = AsyncExitStack()
        self.authority = Authority.of(RUN_ID, folder / RUN_ID / "authority")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for agent in self.agents.values():
            agent.kill()
            sys.stderr.write(f"--- {agent.name}\n{agent.log.read_text()}")

    def address(self, host: int) -> str:
        """An address of this fleet's subnet."""
        return f"{self._subnet}.{host}"

    async def launch(
        self,
        *nodes: str,
        options: tuple[str, ...] = (),
        via: dict[str, str] | None = None,
        seen_from: dict[str, dict[str, str]] | None = None,
        jurisdictions: dict[str, str] | None = None,
        within: tuple[str, ...] = (),
    ) -> None:
        """Start agents, named "gw…" (gateways), "term…" (terminals) or else (satellites), and wait until they answer.

        They know each other, those in `via` at the address given there; `seen_from` has what single nodes see so.
        `within` is a command that runs each.
        """
        peers = {name: self.address(1 + number) for number, name in enumerate([*self.agents, *nodes])}
        for name in nodes:
            address = peers[name]
            seen = peers | (via or {}) | (seen_from or {}).get(name, {})
            known = [f"--peer={other}={where}" for other, where in seen.items()]
            jurisdiction = (jurisdictions or {}).get(name, "")
            known += [f"--jurisdiction={jurisdiction}"] if jurisdiction else []
            role = next((role for prefix, role in ROLES.items() if name.startswith(prefix)), "satellite")
            subject = Subject(name, role, address, jurisdiction)
            self.agents[name] = Agent(self.folder, subject, [*known, *options], self.authority, within)
            self.agents[name].start()
        await asyncio.gather(*(agent.ready() for agent in self.agents.values()))

    def __getitem__(self, name: str) -> Agent:
        return self.agents[name]

    async def client(self, name: str) -> AgentClient:
        """The controller's client to an agent, until the fleet ends."""
        return await self._stack.enter_async_context(AgentClient(self[name].control_socket, name))

    async def tell_time(self, name: str, emu_ns: int, scale: float = 1.0) -> None:
        """Tell an agent the time of the sky, as the emulator does."""
        clock = node_pb2.NodeClock(emu_ns=emu_ns, at_mono_ns=time.monotonic_ns(), scale=scale)
        async with grpc.aio.insecure_channel(f"unix:{self[name].control_socket}") as channel:
            await node_pb2_grpc.NodeStub(channel).SetSky(node_pb2.Sky(clock=clock), timeout=20)

    async def link(self, name_at: int, to: str, rate_bps: float) -> Link:
        """A slow link: who dials the address `name_at` reaches the agent `to`."""
        link = Link(self.address(name_at), to, rate_bps)
        await self._stack.enter_async_context(link.open())
        return link

    async def data_plane(
        self, name: str, *, as_role: str = "gateway", as_name: str = "", jurisdiction: str = ""
    ) -> DataPlane:
        """Another node's view of an agent, until the fleet ends."""
        who = identity(
            self.folder / "clients", self.authority, as_name or f"other-{as_role}", as_role, jurisdiction=jurisdiction
        )
        channel = who.channel(f"ipv4:{self[name].address}:{DATA_PORT}", name)
        await self._stack.enter_async_context(channel)
        return DataPlane(channel)

    async def is_served(self, name: str) -> bool:
        """Whether an agent lives and serves who may be served."""
        return await (await self.data_plane(name)).committed_bytes("sha256:" + "0" * 64) == 0


@contextmanager
def refused(code: grpc.StatusCode, words: str = "") -> Iterator[None]:
    """What is done here must be refused with this status, in these words among others."""
    with pytest.raises(grpc.aio.AioRpcError) as answer:
        yield
    assert (answer.value.code(), words in (answer.value.details() or "")) == (code, True), answer.value


class DataPlane:
    """What other nodes see of an agent."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.objects = objects_pb2_grpc.ObjectsStub(channel)
        self.jobs = jobs_pb2_grpc.JobsStub(channel)

    async def put(
        self,
        name: str,
        content: bytes,
        *,
        offset_bytes: int = 0,
        size_bytes: int | None = None,
        chunk_bytes: int = 65536,
        terms: objects_pb2.ObjectTerms | None = None,
        for_job: str = "",
    ) -> objects_pb2.ObjectInfo:
        """Put the content from an offset, under a name that may not be its own."""
        call = self.objects.Put(timeout=60)
        requests = put_requests(name, content, offset_bytes, size_bytes, chunk_bytes, terms, for_job)
        await call.write(await anext(requests))
        if PUT_ACCEPTED in dict(await call.initial_metadata()):
            with suppress(asyncio.InvalidStateError, grpc.aio.InternalError, grpc.aio.AioRpcError):  # it answered early
                async for request in requests:
                    await call.write(request)
                await call.done_writing()
        return await call

    async def keep(self, content: bytes, **terms: Any) -> str:
        """Put an object under its own name, and say it."""
        name = object_name(content)
        await self.put(name, content, terms=objects_pb2.ObjectTerms(**terms))
        return name

    async def stat(self, name: str) -> objects_pb2.ObjectInfo:
        """What the agent knows of an object."""
        return await self.objects.Stat(objects_pb2.StatRequest(object=name), timeout=20)

    async def listed(self) -> list[objects_pb2.ObjectInfo]:
        """All that it has."""
        return [info async for info in self.objects.List(objects_pb2.ListObjectsRequest(), timeout=20)]

    async def set_terms(self, name: str, **terms: Any) -> objects_pb2.ObjectInfo:
        """Change an object's terms."""
        request = objects_pb2.SetTermsRequest(object=name, terms=objects_pb2.ObjectTerms(**terms))
        return await self.objects.SetTerms(request, timeout=20)

    async def delete(self, name: str) -> bool:
        """Remove an object; whether it was there."""
        return (await self.objects.Delete(objects_pb2.DeleteObjectRequest(object=name), timeout=20)).was_here

    async def scrub(self, name: str = "") -> objects_pb2.ScrubReport:
        """Have it look at one object or all."""
        return await self.objects.Scrub(objects_pb2.ScrubRequest(object=name), timeout=60)

    async def committed_bytes(self, name: str) -> int:
        """What the agent says it keeps."""
        info = await self.objects.Stat(objects_pb2.StatRequest(object=name), timeout=20)
        return info.committed_bytes

    async def get(self, name: str, offset_bytes: int = 0, length_bytes: int = 0) -> bytes:
        """Read an object, or a range of one."""
        request = objects_pb2.GetRequest(object=name, offset_bytes=offset_bytes, length_bytes=length_bytes)
        chunks = [response async for response in self.objects.Get(request, timeout=60)][1:]
        assert all(response.crc32c == google_crc32c.value(response.chunk) for response in chunks)
        return b"".join([response.chunk for response in chunks])

    async def run(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.Job:
        """Submit, and wait for the end."""
        await self.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20)
        return [job async for job in self.jobs.Watch(jobs_pb2.WatchJobRequest(id=spec.id), timeout=DONE_DEADLINE_S)][-1]


async def put_requests(
    name: str,
    content: bytes,
    offset_bytes: int = 0,
    size_bytes: int | None = None,
    chunk_bytes: int = 65536,
    terms: objects_pb2.ObjectTerms | None = None,
    for_job: str = "",
) -> AsyncIterator[objects_pb2.PutRequest]:
    """The messages of a put."""
    size_bytes = len(content) if size_bytes is None else size_bytes
    header = objects_pb2.PutRequest.Header(
        object=name, size_bytes=size_bytes, offset_bytes=offset_bytes, terms=terms, for_job=for_job
    )
    yield objects_pb2.PutRequest(header=header)
    for start in range(offset_bytes, len(content), chunk_bytes):
        chunk = content[start : start + chunk_bytes]
        yield objects_pb2.PutRequest(chunk=chunk, crc32c=google_crc32c.value(chunk))


def object_name(content: bytes) -> str:
    """sha256:…"""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Link:
    """A TCP relay with a rate, that can fall silent: what it has taken is lost, and who dials hears nothing."""

    def __init__(self, address: str, to: str, rate_bps: float) -> None:
        self.address = address
        self.carried_bytes = 0
        self._to = to
        self._rate_bps = rate_bps
        self._dark = False
        self._relays: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Carry until closed."""
        listener = socket.create_server((self.address, DATA_PORT))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)  # little lies in flight
        server = await asyncio.start_server(self._dialled, sock=listener)
        try:
            yield
        finally:
            server.close()
            for task in list(self._relays):
                task.cancel()
            await asyncio.gather(*self._relays, return_exceptions=True)
            await server.wait_closed()

    def cut(self) -> None:
        """From now on, silence."""
        self._dark = True

    def heal(self) -> None:
        """Who dials now is heard. What was connected before stays dead."""
        for task in self._relays:
            task.cancel()
        self._dark = False

    async def _dialled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        far_writer: asyncio.StreamWriter | None = None
        try:
            if self._dark:
                await asyncio.Event().wait()
            far_reader, far_writer = await asyncio.open_connection(self._to, DATA_PORT, limit=32 * 1024)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, far_writer))
                both.create_task(self._carry(far_reader, writer))
        except (ConnectionError, ExceptionGroup, asyncio.CancelledError):
            pass  # an end has gone, or the link healed: this connection is over
        finally:
            for end in filter(None, (writer, far_writer)):
                end.transport.abort()
            self._relays.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(16 * 1024):
            await asyncio.sleep(len(piece) * 8 / self._rate_bps)
            if self._dark:
                await asyncio.Event().wait()
            self.carried_bytes += len(piece)
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


def command_line(pid: int) -> bytes:
    """Of a process that lives; else empty."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def processes_with(text: bytes) -> list[int]:
    """Ids of processes whose command line holds this."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and text in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
