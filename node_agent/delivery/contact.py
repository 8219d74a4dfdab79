"""Contacts with other nodes: one at a time with each, shared by all who have something to do there.

A contact begins with a knock at the node's door. It is two connections: one carries calls, on the other the node is
asked for a sign of life twice a second. (On the first the sign would stand in line behind megabytes in the sender's
socket.) When one is late, the door is knocked at again: if that is heard, while the sign that was asked for before
still is not, there has been a gap, and TCP does not know that it is over; it would go on waiting, up to as long as the
gap was. Then, and when nothing is heard for three seconds, the contact is over, and everything done over it is broken
off at once. Nothing of an earlier one (TCP's timers, its back-off, what its sockets still hold) delays the next.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from node_agent.delivery.peer import Peer, Resolver, meaning
from node_agent.errors import Break
from node_agent.security import wire

T = TypeVar("T")
Sign: TypeAlias = grpc.aio.UnaryUnaryCall[Any, health_pb2.HealthCheckResponse]

PULSE_EVERY_S = 0.5
SILENT_S = 3.0
LATE_S = 0.4  # at least: a lost packet is sent again by then
KNOCK_EVERY_S = 0.05
IDLE_S = 2.0
HELLO_ROUND_TRIPS = 5
"""TCP's handshake, that of TLS, HTTP/2's settings, a call and its answer; and one to spare."""
_NOBODY = bytes(16)
"""A struct sockaddr of the family AF_UNSPEC, which is 0."""
_libc = ctypes.CDLL(None, use_errno=True)
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})


@dataclass(frozen=True)
class Door:
    """Where a node's agent listens."""

    node: str
    host: str
    port: int

    async def knock(self, deadline_s: float) -> float:
        """Return as soon as the node's kernel answers: the round trip, in seconds. Raises Break.

        TCP sends a second SYN a second after one that was lost in the dark; so another one goes out every
        KNOCK_EVERY_S.
        """
        loop = asyncio.get_running_loop()
        deadline_mono_s = loop.time() + deadline_s
        knocks: set[asyncio.Task[float]] = set()
        try:
            while loop.time() < deadline_mono_s:
                knocks.add(asyncio.create_task(self._connect()))
                done, knocks = await asyncio.wait(knocks, timeout=KNOCK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                for knock in done:
                    error = knock.exception()
                    if error is None:
                        return knock.result()
                    if isinstance(error, OSError):
                        raise Break(self._why_not(error)) from error
                    raise error
            raise Break(f"no answer from {self.node}")
        finally:
            for knock in knocks:
                knock.cancel()
            if knocks:
                await asyncio.wait(knocks)

    def hang_up(self) -> None:
        """Reset the connections to the node.

        Else the kernel goes on with what is left in each, up to megabytes that nobody waits for any more, and takes the
        link for that from the next contact: gRPC closes a socket only when all it wrote has gone. It has no setting for
        this, so the process's sockets are looked through, and those are disconnected, as connect(2) has it.
        """
        for path in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if os.readlink(path).startswith("socket:"):
                    with socket.socket(fileno=os.dup(int(path.name))) as connection:
                        if self._is_at(connection.getpeername()):
                            _libc.connect(connection.fileno(), _NOBODY, len(_NOBODY))

    def _is_at(self, address: object) -> bool:
        """gRPC's sockets are IPv6, with IPv4 addresses mapped into it."""
        return isinstance(address, tuple) and address[:2] in (
            (self.host, self.port),
            (f"::ffff:{self.host}", self.port),
        )

    async def _connect(self) -> float:
        began_mono_s = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as door:
            door.setblocking(False)
            await asyncio.get_running_loop().sock_connect(door, (self.host, self.port))
        return time.monotonic() - began_mono_s

    def _why_not(self, error: OSError) -> str:
        if error.errno in _NO_ROUTE:
            return f"no route to {self.node}"
        if error.errno == errno.ECONNREFUSED:
            return f"nothing listens at {self.node} yet"
        return f"no answer from {self.node}"


class Pulse:
    """The signs of life of a node, and how long one takes: mean and deviation as in RFC 6298."""

    def __init__(self, door: Door, channel: grpc.aio.Channel, round_trip_s: float) -> None:
        self._door = door
        self._health = health_pb2_grpc.HealthStub(channel)
        self._hello_s = wire.HELLO_DEADLINE_S + HELLO_ROUND_TRIPS * round_trip_s
        self._mean_s = self._deviation_s = 0.0

    @property
    def is_felt(self) -> bool:
        """Whether there has been a sign."""
        return self._mean_s > 0

    async def until_silent(self) -> str:
        """Return when there are no more: how that showed."""
        try:
            took_s = await self._next(self._hello_s, late_s=self._hello_s)
            self._mean_s, self._deviation_s = took_s, took_s / 2
            while True:
                await asyncio.sleep(PULSE_EVERY_S)
                took_s = await self._next(SILENT_S, late_s=max(LATE_S, self._mean_s + 4 * self._deviation_s))
                self._deviation_s += (abs(took_s - self._mean_s) - self._deviation_s) / 4
                self._mean_s += (took_s - self._mean_s) / 8
        except Break as silence:
            return str(silence)

    async def _next(self, deadline_s: float, late_s: float) -> float:
        """Ask for a sign and wait for it; how long it took, in seconds. Raises Break."""
        began_mono_s = time.monotonic()
        sign: Sign = self._health.Check(health_pb2.HealthCheckRequest(), timeout=deadline_s)
        try:
            if not await self._comes(sign, deadline_s, late_s):
                raise Break(f"no answer from {self._door.node}")
            if (await sign).status != health_pb2.HealthCheckResponse.SERVING:
                raise Break(f"{self._door.node} is shutting down")
        except grpc.aio.AioRpcError as error:
            raise Break(meaning(self._door.node, error)) from error
        finally:
            sign.cancel()
        return time.monotonic() - began_mono_s

    async def _comes(self, sign: Sign, deadline_s: float, late_s: float) -> bool:
        """Whether a sign that was asked for comes, soon or late."""
        coming = asyncio.create_task(_ended(sign))
        knocking = None
        try:
            await asyncio.wait({coming}, timeout=late_s)
            if not coming.done() and late_s < deadline_s:
                knocking = asyncio.create_task(self._door.knock(deadline_s - late_s))
                await asyncio.wait({coming, knocking}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                await asyncio.wait({coming}, timeout=late_s / 2)
            return coming.done()
        finally:
            for task in filter(None, (coming, knocking)):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


class Contact:
    """One contact, from the first knock that was heard to its end."""

    def __init__(self, door: Door, channels: Sequence[grpc.aio.Channel], pulse: Pulse) -> None:
        self.peer = Peer(door.node, channels[0])
        self.users = 0
        self._door = door
        self._channels = channels
        self._pulse = pulse
        self._silence = asyncio.create_task(self._until_silent(), name=f"pulse of {door.node}")

    @property
    def is_over(self) -> bool:
        """Whether the node has fallen silent, or the contact was closed."""
        return self._silence.done()

    async def do(self, action: Callable[[Peer], Awaitable[T]], on_heard: Callable[[], None] | None) -> T:
        """Do something with the node. Raises Break within three seconds of its falling silent, wherever that is."""
        work = asyncio.ensure_future(action(self.peer))
        self.users += 1
        try:
            await asyncio.wait({work, self._silence}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.users -= 1
            if on_heard is not None and self._pulse.is_felt:
                on_heard()
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

    async def _until_silent(self) -> str:
        how = await self._pulse.until_silent()
        self._door.hang_up()
        return how


class Contacts:
    """This agent's contacts."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._contacts: dict[str, asyncio.Task[Contact]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def do(
        self, node: str, action: Callable[[Peer], Awaitable[T]], on_heard: Callable[[], None] | None = None
    ) -> T:
        """Do something with a node, in the contact that there is or in a new one; on_heard hears of it afterwards if
        the node's agent has answered at all.

        Raises Break within two seconds if nobody hears the knock, within two and some round trips if nobody answers
        then, and within three when it falls silent later.
        """
        contact = await self._to(node)
        try:
            return await contact.do(action, on_heard)
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
        door = Door(node, *await self._resolver.address(node))
        round_trip_s = await door.knock(wire.HELLO_DEADLINE_S)
        target = f"ipv4:{door.host}:{door.port}"
        channels = [self._resolver.channel(node, target, wire.CLIENT_OPTIONS) for _ in ("calls", "pulse")]
        return Contact(door, channels, Pulse(door, channels[1], round_trip_s))

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


async def _ended(sign: Sign) -> None:
    """Wait for an answer, whatever it is."""
    await sign.code()
