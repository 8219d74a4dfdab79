"""Makes the calls: bytes as they are through gRPC, whatever the method takes, and what came of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc

from node_agent.security.access import EMULATOR
from node_agent.security.wire import DATA_PORT
from tests.agent.fleet import Fleet
from tests.agent.identities import identity
from tests.fuzz.cases import CALLERS, Case, Manner

CALL_DEADLINE_S: Final = 30.0
"""For any call: Cancel may wait ten seconds for a program to end."""

PATIENCE_S: Final = 0.15
"""So long a caller listens that has not said it is done, or to what may go on for ever."""

MOST_ANSWERS: Final = 200
ANSWERED: Final = "answered"
OWN_WORDS: Final = "Internal error from Core"
"""What gRPC's client says itself, in place of the answer, when that came before it had sent everything."""

ALLOWED: Final = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
WORDLESS: Final = "grpc.health."  # gRPC's own service gives no reasons
TOO_MANY_WORDS: Final = "metadata size"  # of the client's refusal
MOST_WORDS: Final = 1_200  # a name is told up to its hundredth character, which may take ten to print
Channel: TypeAlias = Any  # the stubs know typed calls alone


@dataclass(frozen=True)
class Outcome:
    """How a call ended; no code where the caller had left before."""

    code: grpc.StatusCode | None
    details: str
    answers: int
    took_s: float

    @property
    def label(self) -> str:
        """For a report: the code, or whether there was an answer before the caller left."""
        return self.code.name if self.code else ANSWERED if self.answers else "left"

    def wrong(self, case: Case) -> str:
        """What is wrong with it, if something is."""
        if self.code is None or self.code is grpc.StatusCode.OK:
            return ""
        if self.code not in ALLOWED:
            return f"{self.code.name}: {self.details[:400]!r} after {self.took_s:.1f} s"
        if not self.details and not case.method.name.startswith(WORDLESS):
            return f"{self.code.name} without a word"
        if TOO_MANY_WORDS in self.details:
            return f"an answer in more words than gRPC lets through: {self.details[:200]!r}"
        if len(self.details) > MOST_WORDS:
            return f"{self.code.name} in {len(self.details)} characters: {self.details[:100]!r}…"
        return ""


class Callers:
    """All who may call the agents of a fleet, one connection each. To be closed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known = {
            role: identity(fleet.folder / "callers", fleet.authority, f"other-{role}", role, jurisdiction="CN")
            for role in CALLERS
            if role != EMULATOR.role
        }
        self._channels: dict[tuple[str, str], Channel] = {}

    async def close(self) -> None:
        """End all connections."""
        for channel in self._channels.values():
            await channel.close()

    def channel(self, node: str, caller: str) -> Channel:
        """A connection of its own."""
        agent = self._fleet[node]
        if caller == EMULATOR.role:
            options = (("grpc.use_local_subchannel_pool", 1),)
            return grpc.aio.insecure_channel(f"unix:{agent.control_socket}", options=options)
        return self._known[caller].channel(f"ipv4:{agent.address}:{DATA_PORT}", node)

    async def make(self, case: Case) -> Outcome:
        """Make a call. Raises nothing of what comes of it."""
        began_mono_s = time.monotonic()
        vanishes = case.manner is Manner.VANISHES
        if vanishes:
            channel = self.channel(case.node, case.caller)
        else:
            key = case.node, case.caller
            channel = self._channels.get(key) or self._channels.setdefault(key, self.channel(*key))
        # What one message says goes out with its end, as clients of methods that take one do it.
        is_one = len(case.frames) == 1 and case.manner is Manner.PROPER
        path, timeout = case.path, CALL_DEADLINE_S
        if is_one:
            call = channel.unary_stream(path)(case.frames[0], timeout=timeout)
        else:
            call = channel.stream_stream(path)(timeout=timeout)
        try:
            if not is_one:
                await self._say(call, case)
            code, answers = await self._listen(call, case)
            details = "" if code is None else (await call.details() or "")
            if details == OWN_WORDS:  # what it said first is lost
                code, details = None, ""
        finally:
            call.cancel()
            if vanishes:
                await channel.close()
        return Outcome(code, details, answers, time.monotonic() - began_mono_s)

    async def _say(self, call: Any, case: Case) -> None:
        last = len(case.frames) // 2 if case.manner is Manner.CANCELS else len(case.frames)
        with suppress(asyncio.InvalidStateError, grpc.aio.InternalError, grpc.aio.AioRpcError):  # it answered early
            for frame in case.frames[:last]:
                await call.write(frame)
            if case.manner is Manner.PROPER:
                await call.done_writing()

    async def _listen(self, call: Any, case: Case) -> tuple[grpc.StatusCode | None, int]:
        """How the call ended, if it did, and how many answers came."""
        endless = case.method.of.server_streaming or case.manner is Manner.SILENT
        if case.manner in (Manner.CANCELS, Manner.VANISHES):
            return None, 0
        for answers in range(MOST_ANSWERS):
            try:
                async with asyncio.timeout(PATIENCE_S if endless else None):
                    if await call.read() is grpc.aio.EOF:
                        break
            except TimeoutError:
                return None, answers
            except grpc.aio.AioRpcError:
                break
        else:
            return None, MOST_ANSWERS
        return await call.code(), answers
