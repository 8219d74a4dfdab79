"""Round trips measured all along a run, each held against what was commanded when its probe left."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from controller.errors import SkyrackError
from controller.fabric.probes import ProbePair, Prober, ProbeResult
from controller.record.model import Sample
from controller.record.recorder import Recorder
from controller.runtime.contract import NodeHandle
from controller.schedule import NO_ROUTE, Commanded, Pace, RoundTrips, Schedule

INTERVAL_S = 1.0
TIMEOUT_S = 2.0
ASKED_INTERVAL_S = 0.2  # of probes that a user asks for
ANSWER_S = 5.0  # beyond its time-out: a prober settles every probe
COMMANDS_KEPT = 64  # those that a probe under way may have left under, also with short steps


@dataclass(frozen=True)
class Probed:
    """The newest answer of a probe pair. None: no path was commanded, or nothing came back."""

    a: str
    b: str
    commanded_rtt_us: int | None
    measured_rtt_us: float | None


class _Held:
    """What round trips between some pairs were commanded to be, from when on. Shapes: a and b (n_pair,)."""

    def __init__(self, schedule: Schedule, pairs: Sequence[tuple[str, str]]) -> None:
        index_of = schedule.index_of
        ends = np.array([(index_of[a], index_of[b]) for a, b in pairs], np.int64).reshape(-1, 2)
        self._schedule, self._a, self._b = schedule, ends[:, 0], ends[:, 1]
        self._commands: deque[tuple[float, RoundTrips]] = deque(maxlen=COMMANDS_KEPT)

    def command(self, state: Commanded) -> None:
        """From now on it is this."""
        self._commands.append((time.monotonic(), self._schedule.round_trips(state, self._a, self._b)))

    def at(self, mono_s: float, pair: int) -> tuple[int | None, int]:
        """The round trip of a pair in µs, None without a path, and its hops."""
        commands = list(self._commands)
        older = (trips for since_mono_s, trips in reversed(commands) if since_mono_s <= mono_s)
        trips = next(older, commands[0][1])
        rtt_us, hops = int(trips.rtt_us[pair]), int(trips.hops[pair])
        return (None if rtt_us == NO_ROUTE else rtt_us), max(hops, 0)


class Probing:
    """The probes of one run: `command` from the loop, answers from the prober's thread into the record."""

    def __init__(
        self,
        schedule: Schedule,
        handles: Mapping[str, NodeHandle],
        recorder: Recorder,
    ) -> None:
        self._schedule, self._pairs, self._recorder = schedule, schedule.probe_pairs, recorder
        self._handles, pairs = handles, self._pairs
        self._held = _Held(schedule, pairs)
        self._asked: list[_Held] = []  # of pairs that a user asks for at the moment
        self._state: Commanded | None = None
        self._newest: dict[int, Probed] = {}
        self._paces: deque[tuple[float, Pace]] = deque(maxlen=COMMANDS_KEPT)
        self._prober = Prober([_ends(handles[a], handles[b]) for a, b in pairs], INTERVAL_S, TIMEOUT_S, self._on_result)

    def start(self, pace: Pace, state: Commanded) -> None:
        """Probe from now on, at the pace of the run."""
        self.turn(pace)
        self.command(state)
        self._prober.start()

    def turn(self, pace: Pace) -> None:
        """From now on the sky's time goes by like this."""
        self._paces.append((time.monotonic(), pace))

    def command(self, state: Commanded) -> None:
        """From now on, this is what probes are held against."""
        self._state = state
        for held in (self._held, *self._asked):
            held.command(state)

    async def measure(self, a: str, b: str, count: int) -> AsyncGenerator[Probed, None]:
        """So many round trips from a to b from now on, each as it is settled; the record has nothing of them.

        Raises SkyrackError if the prober cannot be.
        """
        if self._state is None:
            raise SkyrackError("the run is still starting")
        held = _Held(self._schedule, [(a, b)])
        held.command(self._state)
        loop, settled = asyncio.get_running_loop(), asyncio.Queue[ProbeResult]()
        prober = Prober(
            [_ends(self._handles[a], self._handles[b])], ASKED_INTERVAL_S, TIMEOUT_S,
            lambda result: _hand_over(loop, settled, result),
        )  # fmt: skip
        self._asked.append(held)
        try:
            prober.start()
            for _ in range(count):
                try:
                    async with asyncio.timeout(TIMEOUT_S + ANSWER_S):
                        result = await settled.get()
                except TimeoutError:
                    raise SkyrackError("the prober does not settle its probes") from None
                commanded_rtt_us, _ = held.at(result.sent_mono_s, 0)
                yield Probed(a, b, commanded_rtt_us, result.rtt_us)
        finally:
            self._asked.remove(held)
            await asyncio.to_thread(prober.stop)

    def newest(self) -> list[Probed]:
        """The newest answer of every pair that has one."""
        return list(self._newest.values())

    def check(self) -> None:
        """Raise what has ended the probing before its time."""
        self._prober.check()

    def stop(self) -> None:
        """End the probing, within seconds. Idempotent."""
        self._prober.stop()

    def _on_result(self, result: ProbeResult) -> None:
        a, b = self._pairs[result.pair]
        commanded_rtt_us, hops = self._held.at(result.sent_mono_s, result.pair)
        paces = list(self._paces)
        older = (pace for since_mono_s, pace in reversed(paces) if since_mono_s <= result.sent_mono_s)
        pace = next(older, paces[0][1])
        self._newest[result.pair] = Probed(a, b, commanded_rtt_us, result.rtt_us)
        self._recorder.sample(
            Sample(
                t_s=pace.t_s(result.sent_mono_s),
                kind="link" if hops == 1 else "path",
                a=a,
                b=b,
                hops=hops,
                commanded_rtt_us=commanded_rtt_us,
                measured_rtt_us=result.rtt_us,
            )
        )


def _hand_over(loop: asyncio.AbstractEventLoop, settled: asyncio.Queue[ProbeResult], result: ProbeResult) -> None:
    loop.call_soon_threadsafe(settled.put_nowait, result)


def _ends(asks: NodeHandle, answers: NodeHandle) -> ProbePair:
    return ProbePair(asks.network_namespace, asks.spec.address, answers.spec.address)
