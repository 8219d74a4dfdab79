"""What the node knows of the sky: its clock, its contacts to come, whom to hand over what, where it is.

The emulator tells all of it at once; nothing here asks the network. It is kept in a file, for an agent that is started
again: the clock counts on the machine's, which goes on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from node_agent.errors import InvalidArgument
from node_agent.sky.checks import check_sky
from protos.skyrack.v1 import node_pb2

_S = 1_000_000_000
_MOST_NS = 2**63 - 1  # of the wire and the journal


class Sky:
    """The newest that was told. Of one event loop."""

    def __init__(self, file: Path) -> None:
        self.told = node_pb2.Sky()
        self._file = file
        self._changed = asyncio.Event()
        self._sought: Counter[str] = Counter()
        try:
            self.told.ParseFromString(file.read_bytes())
            check_sky(self.told)
        except (FileNotFoundError, DecodeError, InvalidArgument):
            self.told.Clear()

    def tell(self, told: node_pb2.Sky) -> None:
        """Know this from now on, and nothing older. Raises InvalidArgument, and knows what it knew."""
        check_sky(told)
        aside = self._file.with_suffix(".new")
        aside.write_bytes(told.SerializeToString())  # small, and not synced: after a crash of the machine no run lives
        os.replace(aside, self._file)
        self.told = told
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def now_emu_ns(self) -> int | None:
        """Nanoseconds since the scenario's epoch, in its own time; None before anybody has told the time."""
        if not self.told.HasField("clock"):
            return None
        clock = self.told.clock
        now_emu_ns = clock.emu_ns + round((time.monotonic_ns() - clock.at_mono_ns) * clock.scale)
        return min(max(now_emu_ns, -_MOST_NS), _MOST_NS)

    def forward_to(self, node: str) -> node_pb2.Forward | None:
        """Whom to hand what is bound for a node, and when; None where nobody has said so for now or later."""
        now_emu_ns = self.now_emu_ns
        for forward in self.told.forwards:
            if forward.to_node == node and (now_emu_ns is None or now_emu_ns < forward.until_emu_ns):
                return forward
        return None

    @contextmanager
    def seeking(self, node: str) -> Iterator[None]:
        """Something here is bound for a node: the emulator is to say whom to hand it, and when."""
        self._sought[node] += 1
        try:
            yield
        finally:
            self._sought[node] -= 1

    @property
    def sought(self) -> list[str]:
        """The nodes that something here is bound for, by name."""
        return sorted(node for node, count in self._sought.items() if count)

    async def changed(self) -> None:
        """Wait until something else is told."""
        await self._changed.wait()

    async def until(self, emu_ns: int) -> None:
        """Wait for a moment of the sky, however its clock is turned meanwhile."""
        while True:
            changed, now_emu_ns = self._changed, self.now_emu_ns
            if now_emu_ns is not None and now_emu_ns >= emu_ns:
                return
            stands = now_emu_ns is None or not self.told.clock.scale
            left_s = None if now_emu_ns is None or stands else (emu_ns - now_emu_ns) / self.told.clock.scale / _S
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):  # not wait_for, which may lose a cancellation
                    await changed.wait()
