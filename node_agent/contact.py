"""Contacts with other nodes: one at a time with each, shared by all who have something to do there.

A contact is two connections: one carries calls, the other a sign of life every second. It ends when that stays away,
and everything done over it is broken off at once. Nothing of an earlier one (TCP's timers, back-off) delays the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node_agent import wire
from node_agent.peer import Break, Peer, Resolver, meaning

T = TypeVar("T")
Pulse: TypeAlias = grpc.aio.UnaryStreamCall[Any, health_pb2.HealthCheckResponse]

KNOCK_EVERY_S = 0.2
IDLE_S = 2.0
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})


class Contact:
    """One contact, from its first answer to its end."""

    def __init__(self, node: str, channels: tuple[grpc.aio.Channel, ...], pulse: Pulse) -> None:
        self.peer = Peer(node, channels[0])
        self.users = 0
        self._channels = channels
        self._silence = asyncio.create_task(_until_silent(node, pulse), name=f"pulse of {node}")

    @property
    def is_over(self) -> bool:
        """Whether the node has fallen silent, or the contact was closed."""
        return self._silence.done()

    async def do(self, action: Callable[[Peer], Awaitable[T]]) -> T:
        """Do something with the node. Raises Break within three seconds of its falling silent, wherever that is."""
        work = asyncio.ensure_future(action(self.peer))
        self.users += 1
        try:
            await asyncio.wait({work, self._silence}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.users -= 1
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        if work.cancelled():
            raise Break(f"no answer from {self.peer.node}" if self._silence.cancelled() else self._silence.result())
        return work.result()

    async def close(self) -> None:
        """End it. Idempotent."""
        self._silence.cancel()
        await asyncio.wait({self._silence})
        for channel in self._channels:
            await channel.close()


class Contacts:
    """This agent's contacts."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._contacts: dict[str, asyncio.Task[Contact]] = {}
        self._dark: set[str] = set()  # who did not answer last time
        self._closing: set[asyncio.Task[None]] = set()

    async def do(self, node: str, action: Callable[[Peer], Awaitable[T]]) -> T:
        """Do something with a node, in the contact that there is or in a new one.

        Raises Break within two seconds if it does not answer, and within three when it falls silent later.
        """
        contact = await self._to(node)
        try:
            return await contact.do(action)
        finally:
            if not contact.users:
                self._later(self._leave(node, contact))

    async def close(self) -> None:
        """End all of them."""
        for closing in self._closing:
            closing.cancel()
        dialling = list(self._contacts.values())
        for task in dialling:
            task.cancel()
        for each in await asyncio.gather(*dialling, return_exceptions=True):
            if isinstance(each, Contact):
                await each.close()

    async def _to(self, node: str) -> Contact:
        task = self._contacts.get(node)
        if task is not None and task.done() and (task.exception() is not None or task.result().is_over):
            if task.exception() is None:
                self._later(task.result().close())
            task = None
        if task is None:
            task = self._contacts[node] = asyncio.create_task(self._dial(node), name=f"dial {node}")
        return await asyncio.shield(task)

    async def _dial(self, node: str) -> Contact:
        try:
            host, port = await self._resolver.address(node)
            if node in self._dark:
                await _knock(node, host, port)
            contact = await self._meet(node, f"ipv4:{host}:{port}")
        except Break:
            self._dark.add(node)
            raise
        self._dark.discard(node)
        return contact

    async def _meet(self, node: str, target: str) -> Contact:
        pulse_channel = self._resolver.channel(node, target, wire.PULSE_OPTIONS)
        channel = self._resolver.channel(node, target, wire.DATA_OPTIONS)
        try:
            pulse = health_pb2_grpc.HealthStub(pulse_channel).Watch(
                health_pb2.HealthCheckRequest(), timeout=wire.STREAM_DEADLINE_S
            )
            channel.get_state(try_to_connect=True)  # both dial at once: round trips are long up there
            await _first_answer(node, pulse)
        except BaseException:
            await channel.close()
            await pulse_channel.close()
            raise
        return Contact(node, (channel, pulse_channel), pulse)

    async def _leave(self, node: str, contact: Contact) -> None:
        """Close a contact that nobody uses any more."""
        await asyncio.sleep(IDLE_S)
        if contact.users:
            return
        task = self._contacts.get(node)
        if task is not None and task.done() and task.exception() is None and task.result() is contact:
            del self._contacts[node]
        await contact.close()

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _knock(node: str, host: str, port: int) -> None:
    """Return as soon as the node's kernel answers. Raises Break.

    TCP sends a second SYN a second after one that was lost in the dark; so another one goes out every KNOCK_EVERY_S.
    """
    loop = asyncio.get_running_loop()
    deadline_mono_s = loop.time() + wire.HELLO_DEADLINE_S
    knocks: set[asyncio.Task[None]] = set()
    try:
        while loop.time() < deadline_mono_s:
            knocks.add(asyncio.create_task(_connect(host, port)))
            done, knocks = await asyncio.wait(knocks, timeout=KNOCK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            for knock in done:
                error = knock.exception()
                if error is None:
                    return
                if isinstance(error, OSError):
                    raise Break(_why_not(node, error)) from error
                raise error
        raise Break(f"no answer from {node}")
    finally:
        for knock in knocks:
            knock.cancel()
        if knocks:
            await asyncio.wait(knocks)


async def _connect(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as door:
        door.setblocking(False)
        await asyncio.get_running_loop().sock_connect(door, (host, port))


def _why_not(node: str, error: OSError) -> str:
    if error.errno in _NO_ROUTE:
        return f"no route to {node}"
    if error.errno == errno.ECONNREFUSED:
        return f"nothing listens at {node} yet"
    return f"no answer from {node}"


async def _first_answer(node: str, pulse: Pulse) -> None:
    try:
        await asyncio.wait_for(pulse.read(), wire.HELLO_DEADLINE_S)
    except TimeoutError:
        raise Break(f"no answer from {node}") from None
    except grpc.aio.AioRpcError as error:
        raise Break(meaning(node, error)) from error


async def _until_silent(node: str, pulse: Pulse) -> str:
    """Return when the node gives no sign of life any more: how that showed."""
    try:
        with contextlib.suppress(asyncio.InvalidStateError):
            while await pulse.read() is not grpc.aio.EOF:
                continue
    except grpc.aio.AioRpcError as error:
        return meaning(node, error)
    return f"{node} is shutting down"
