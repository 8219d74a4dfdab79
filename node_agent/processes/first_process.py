"""The agent's end of the socket to the node's first process (`init`), which has the means that the agent lacks."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from node_agent.processes.init import HELPER_DEADLINE_S, MESSAGE_BYTES
from node_agent.processes.proctree import Tree
from node_agent.processes.program import Task
from node_agent.processes.users import Users

_DEADLINE_S = 30.0
_FULL_S = 0.005
_DEATH_S = 2.0
_AGENT = Tree(None, "")  # no job's


@dataclass(frozen=True)
class ProgramEnd:
    """How a program ended. Nothing of its tree lives any more."""

    returncode: int  # minus the signal, if one ended it
    cpu_s: float  # its own, and that of children it waited for
    peak_bytes: int  # of its own memory, or of the largest of these children's
    before_bytes: int  # what the process may have had before it became the program, which counts as its own


@dataclass(frozen=True)
class Measure:
    """What a job has at a moment."""

    disk_bytes: int
    memory_bytes: int


class Program:
    """A job's program, from its start."""

    def __init__(self, pid: int, end: asyncio.Task[ProgramEnd]) -> None:
        self.pid = pid
        self.end = end
        """Done with the program, and with all that it has started. Raises OSError if some of that cannot be ended."""


class FirstProcess:
    """What the agent asks of it. Every call raises OSError for what cannot be done, TimeoutError if no answer comes."""

    def __init__(self, channel: socket.socket, users: Users | None) -> None:
        self.users = users
        self._channel = channel
        channel.setblocking(False)

    async def start(self, tree: Tree, task: Task, stdout: int, stderr: int) -> Program:
        """Start a program that writes to these two descriptors."""
        fd = task.to_file()
        try:
            reply = await self._ask(tree, {"do": "start"}, (fd, stdout, stderr))
        finally:
            os.close(fd)
        try:
            answer, _ = await _heard(reply, _DEADLINE_S)
        except BaseException:
            reply.close()
            raise
        return Program(answer["pid"], asyncio.create_task(_ended(reply)))

    async def signal(self, tree: Tree, number: signal.Signals) -> None:
        """Signal all processes of a job. After: none lives (SIGKILL), none runs (SIGSTOP)."""
        await self._help(tree, "signal", number=number)

    async def measure(self, tree: Tree, folder: str) -> Measure:
        """What lies in a job's folder, and what its processes have in memory, shared pages counted once."""
        answer, _ = await self._help(tree, "measure", path=folder)
        return Measure(**answer)

    async def open_up(self, tree: Tree, folder: str) -> None:
        """Make what a job has left in a folder readable to the agent."""
        await self._help(tree, "open up", path=folder)

    async def open(self, tree: Tree, path: str) -> int:
        """A descriptor to read a job's regular file from."""
        _, fd = await self._help(tree, "open", path=path)
        assert fd is not None
        return fd

    async def clear(self, tree: Tree, folder: str) -> None:
        """Remove what is the job's in a folder and in the folders that a node's users share."""
        await self._help(tree, "clear", path=folder)

    async def make_key(self, folder: str, name: str) -> None:
        """Make a key for the agent; see `identity`."""
        await self._help(_AGENT, "make key", path=folder, name=name)

    async def take_certificate(
        self, folder: str, name: str, role: str, certificate_pem: str, authority_pem: str
    ) -> None:
        """Put a certificate of the agent's to use; see `identity`."""
        pems = {"certificate_pem": certificate_pem, "authority_pem": authority_pem}
        await self._help(_AGENT, "take certificate", path=folder, name=name, role=role, **pems)

    @asynccontextmanager
    async def mending(self, k: int, m: int, index: int) -> AsyncIterator[socket.socket]:
        """A socket to a helper that computes a fragment of k + m for as long as it is asked; see `objects.mending`."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                request = {"do": "mend", "k": k, "m": m, "index": index}
                reply = await self._ask(_AGENT, request, (theirs.fileno(),))
            with reply:
                ours.setblocking(False)
                yield ours

    async def _help(self, tree: Tree, do: str, **fields: Any) -> tuple[dict[str, Any], int | None]:  # noqa: ANN401
        reply = await self._ask(tree, {"do": do, **fields}, ())
        with reply:
            return await _heard(reply, _DEADLINE_S + HELPER_DEADLINE_S)

    async def _ask(self, tree: Tree, request: dict[str, Any], fds: tuple[int, ...]) -> socket.socket:
        """Send a request. Where its answers come."""
        message = json.dumps({**request, "user": tree.user, "mark": tree.mark}).encode()
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        answers.setblocking(False)
        try:
            with theirs:
                async with asyncio.timeout(_DEADLINE_S):
                    while True:
                        try:
                            socket.send_fds(self._channel, [message], [theirs.fileno(), *fds])
                        except BlockingIOError:
                            await asyncio.sleep(_FULL_S)
                        else:
                            return answers
        except BaseException:
            answers.close()
            raise


async def _ended(reply: socket.socket) -> ProgramEnd:
    with reply:
        answer, _ = await _heard(reply, None)
    return ProgramEnd(**answer)


async def _heard(reply: socket.socket, deadline_s: float | None) -> tuple[dict[str, Any], int | None]:
    """The next answer, and the descriptor that came with it. Raises OSError with what it says went wrong."""
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                message, fds, _, _ = socket.recv_fds(reply, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                await _readable(reply)
            else:
                break
    if not message:
        # As a rule the first process has been killed, and this one is about to be: nothing may come of it before.
        await asyncio.sleep(_DEATH_S)
        raise OSError(errno.EIO, "ended without an answer")
    answer = json.loads(message)
    if "error" in answer:
        for fd in fds:
            os.close(fd)
        raise OSError(answer["errno"], answer["error"])
    return answer, fds[0] if fds else None


async def _readable(reply: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(reply, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(reply)
