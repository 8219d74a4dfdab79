"""Round trips measured all along a run, each held against what was commanded when its probe left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.fabric.probes import ProbePair, Prober, ProbeResult
from controller.record.model import Sample
from controller.record.recorder import Recorder
from controller.runtime.contract import NodeHandle
from controller.schedule import NO_ROUTE, Commanded, Pace, RoundTrips, Schedule

INTERVAL_S = 1.0
TIMEOUT_S = 2.0
COMMANDS_KEPT = 64  # those that a probe under way may have left under, also with short steps


@dataclass(frozen=True)
class Probed:
    """The newest answer of a probe pair. None: no path was commanded, or nothing came back."""

    a: str
    b: str
    commanded_rtt_us: int | None
    measured_rtt_us: float | None


class Probing:
    """The probes of one run: `command` from the loop, answers from the prober's thread into the record."""

    def __init__(
        self,
        schedule: Schedule,
        handles: Mapping[str, NodeHandle],
        recorder: Recorder,
    ) -> None:
        self._schedule, self._pairs, self._recorder = schedule, schedule.probe_pairs, recorder
        pairs, index_of = self._pairs, schedule.index_of
        ends = np.array([(index_of[a], index_of[b]) for a, b in pairs], np.int64).reshape(-1, 2)
        self._a, self._b = ends[:, 0], ends[:, 1]
        self._commands: deque[tuple[float, RoundTrips]] = deque(maxlen=COMMANDS_KEPT)
        self._newest: dict[int, Probed] = {}
        self._pace = Pace(0.0, 1.0, 0.0)
        self._prober = Prober([_ends(handles[a], handles[b]) for a, b in pairs], INTERVAL_S, TIMEOUT_S, self._on_result)

    def start(self, pace: Pace, state: Commanded) -> None:
        """Probe from now on, at the pace of the run."""
        self._pace = pace
        self.command(state)
        self._prober.start()

    def command(self, state: Commanded) -> None:
        """From now on, this is what probes are held against."""
        self._commands.append((time.monotonic(), self._schedule.round_trips(state, self._a, self._b)))

    def newest(self) -> list[Probed]:
        """The newest answer of every pair that has one."""
        return list(self._newest.values())

    def stop(self) -> None:
        """End the probing, within seconds. Idempotent."""
        self._prober.stop()

    def _on_result(self, result: ProbeResult) -> None:
        a, b = self._pairs[result.pair]
        commands = list(self._commands)
        older = (trips for since_mono_s, trips in reversed(commands) if since_mono_s <= result.sent_mono_s)
        trips = next(older, commands[0][1])
        rtt_us, hops = int(trips.rtt_us[result.pair]), int(trips.hops[result.pair])
        commanded_rtt_us = None if rtt_us == NO_ROUTE else rtt_us
        self._newest[result.pair] = Probed(a, b, commanded_rtt_us, result.rtt_us)
        self._recorder.sample(
            Sample(
                t_s=self._pace.t_s(result.sent_mono_s),
                kind="link" if hops == 1 else "path",
                a=a,
                b=b,
                hops=max(hops, 0),
                commanded_rtt_us=commanded_rtt_us,
                measured_rtt_us=result.rtt_us,
            )
        )


def _ends(asks: NodeHandle, answers: NodeHandle) -> ProbePair:
    return ProbePair(asks.network_namespace, asks.spec.address, answers.spec.address)
