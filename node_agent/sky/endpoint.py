"""What programs in the node are told of the sky: HTTP/1.1 with JSON, on the node's loopback alone.

Each answer is of the moment in which it is asked for. Few clients at a time, short requests, GET and HEAD only; after
an answer the connection is closed. docs/images.md has every answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import TypeAlias

from node_agent.security.identity import Identity
from node_agent.sky.sky import Sky
from node_agent.sky.whereabouts import IN_ORBIT, ON_THE_GROUND, whereabouts
from protos.skyrack.v1 import node_pb2

MAX_CLIENTS = 32
"""At a time; as many more are told to come again."""

MAX_REQUEST_BYTES = 8 * 1024
REQUEST_DEADLINE_S = 10.0
ANSWER_DEADLINE_S = 10.0
HEARTBEAT_S = 15.0
"""So often a client of /events hears something, though nothing happens."""

EVENTS = "/events"
_S = 1_000_000_000
_NO_END_EMU_NS = 2**63 - 1

Document: TypeAlias = dict[str, object]


class _Unfit(Exception):  # noqa: N818 - an answer, not a defect
    """What is answered in place of what was asked for."""

    def __init__(self, status: HTTPStatus, error: str, *headers: str) -> None:
        super().__init__(error)
        self.status, self.headers = status, headers


class Endpoint:
    """One node's. Of one event loop."""

    def __init__(self, identity: Identity, sky: Sky) -> None:
        self._identity, self._sky = identity, sky
        self._answers: dict[str, Callable[[], Document]] = {
            "/": self._about,
            "/clock": self._clock,
            "/place": self._place,
            "/contacts": self._contacts,
            "/peers": self._peers,
        }
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> None:
        """Serve from now on. Before: the node has that address. Raises OSError."""
        self._server = await asyncio.start_server(self._met, host, port, limit=MAX_REQUEST_BYTES)

    async def close(self) -> None:
        """Serve no more. Idempotent."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    # --- a client ---

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        self._clients.add(client)
        try:
            if len(self._clients) <= 2 * MAX_CLIENTS:  # the rest hears nothing
                await self._serve(reader, writer, is_busy=len(self._clients) > MAX_CLIENTS)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it has gone, or takes too long
        finally:
            await _hang_up(writer)
            self._clients.discard(client)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_busy: bool) -> None:
        is_head = False
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                method, path = await _request(reader)
            is_head = method == "HEAD"
            if is_busy:
                busy = f"{MAX_CLIENTS} others are being answered: ask again in a second"
                raise _Unfit(HTTPStatus.SERVICE_UNAVAILABLE, busy, "Retry-After: 1")
            if path == EVENTS and not is_head:
                await self._tell_events(writer)
                return
            answer = _head(HTTPStatus.OK, "text/event-stream") if path == EVENTS else _json(self._document(path))
        except _Unfit as unfit:
            answer = _error(unfit)
        await _send(writer, answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if is_head else answer)

    async def _tell_events(self, writer: asyncio.StreamWriter) -> None:
        """The node's links now, and again whenever they change, as server-sent events (WHATWG HTML, 9.2)."""
        await _send(writer, _head(HTTPStatus.OK, "text/event-stream"))
        told: object = None
        while True:
            with suppress(_Unfit):
                peers = self._peers()
                if peers["peers"] != told:
                    told = peers["peers"]
                    await _send(writer, f"event: peers\ndata: {json.dumps(peers)}\n\n".encode())
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._links_change()
            except TimeoutError:
                await _send(writer, b": all is as it was\n\n")

    async def _links_change(self) -> None:
        """Wait until a contact begins or ends, or something else is told."""
        now_emu_ns = self._sky.now_emu_ns
        edges = [edge for each in self._sky.told.contacts for edge in (each.start_emu_ns, each.end_emu_ns)]
        ahead = [edge for edge in edges if now_emu_ns is not None and now_emu_ns < edge < _NO_END_EMU_NS]
        waits = [asyncio.create_task(self._sky.changed())]
        waits += [asyncio.create_task(self._sky.until(min(ahead)))] if ahead else []
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # --- answers ---

    def _document(self, path: str) -> Document:
        if path not in self._answers:
            known = ", ".join((*self._answers, EVENTS))
            raise _Unfit(HTTPStatus.NOT_FOUND, f"there is nothing at {path}; there is {known}")
        return self._answers[path]()

    def _about(self) -> Document:
        who = self._identity
        about = {"node": who.name, "role": who.role, "address": who.address, "jurisdiction": who.jurisdiction or None}
        return {**about, "paths": [*self._answers, EVENTS]}

    def _clock(self) -> Document:
        return {"t_s": self._now_emu_ns() / _S, "scale": self._sky.told.clock.scale}

    def _place(self) -> Document:
        points = IN_ORBIT if self._identity.role == "satellite" else ON_THE_GROUND
        here = whereabouts(self._sky.told.places, self._now_emu_ns(), points)
        if here is None:
            raise _Unfit(HTTPStatus.SERVICE_UNAVAILABLE, "this node has no place: it has left the sky")
        return {
            "t_s": here.at_emu_ns / _S,
            "r_ecef_m": [round(value, 3) for value in here.r_ecef_m],
            "latitude_deg": round(here.latitude_deg, 8),
            "longitude_deg": round(here.longitude_deg, 8),
            "altitude_m": round(here.altitude_m, 3),
            "illumination_ratio": round(here.illumination_ratio, 6),
        }

    def _contacts(self) -> Document:
        now_emu_ns = self._now_emu_ns()
        ahead = [each for each in self._sky.told.contacts if now_emu_ns < each.end_emu_ns]
        return {"t_s": now_emu_ns / _S, "contacts": [_contact(each, now_emu_ns) for each in ahead]}

    def _peers(self) -> Document:
        now_emu_ns = self._now_emu_ns()
        now = [each for each in self._sky.told.contacts if each.start_emu_ns <= now_emu_ns < each.end_emu_ns]
        return {"t_s": now_emu_ns / _S, "peers": [_contact(each, now_emu_ns) for each in now]}

    def _now_emu_ns(self) -> int:
        now_emu_ns = self._sky.now_emu_ns
        if now_emu_ns is None:
            untold = "the emulator has told nothing of the sky yet: ask again in a second"
            raise _Unfit(HTTPStatus.SERVICE_UNAVAILABLE, untold, "Retry-After: 1")
        return now_emu_ns


def _contact(contact: node_pb2.Contact, now_emu_ns: int) -> Document:
    return {
        "peer": contact.peer,
        "start_s": contact.start_emu_ns / _S,
        "end_s": None if contact.end_emu_ns == _NO_END_EMU_NS else contact.end_emu_ns / _S,
        "delay_us": contact.delay_us,
        "rate_bps": contact.rate_bps,
        "is_up": contact.start_emu_ns <= now_emu_ns,
    }


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and path of a request (RFC 9112, 3). Raises _Unfit, IncompleteReadError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        too_long = f"a request may have {MAX_REQUEST_BYTES} bytes"
        raise _Unfit(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, too_long) from None
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise _Unfit(HTTPStatus.BAD_REQUEST, 'a request begins with a line such as "GET /place HTTP/1.1"')
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        raise _Unfit(HTTPStatus.METHOD_NOT_ALLOWED, f"{method}: only GET and HEAD are answered", "Allow: GET, HEAD")
    return method, target.partition("?")[0]


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    async with asyncio.timeout(ANSWER_DEADLINE_S):
        await writer.drain()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection once all that was sent is on its way, or the client takes too long."""
    writer.close()
    try:
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def _head(status: HTTPStatus, kind: str, *headers: str) -> bytes:
    first = f"HTTP/1.1 {status.value} {status.phrase}"
    common = (f"Content-Type: {kind}", "Cache-Control: no-store", "Connection: close")
    return "\r\n".join((first, *common, *headers, "", "")).encode("latin-1")


def _json(document: Document, status: HTTPStatus = HTTPStatus.OK, *headers: str) -> bytes:
    body = json.dumps(document).encode() + b"\n"
    return _head(status, "application/json", f"Content-Length: {len(body)}", *headers) + body


def _error(unfit: _Unfit) -> bytes:
    return _json({"error": str(unfit)}, unfit.status, *unfit.headers)
