"""What a step of the time of day does to a run's clocks: nothing. Run by test_clock.py in a guest, whose clock it is.

Not called test_…: on a machine with other work its clock is not ours to set, and these tests refuse to.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from controller.fabric.probes import ProbePair, Prober, ProbeResult
from controller.record.read import read_record
from tests.kernel.world import MBIT, PORT, Link, World, opened_world, plan, wait_for
from tests.unit.test_emulation import START_S, STEP_S, emulation_of, ten_steps

HOUR_S = 3600.0
STEPS_S = (HOUR_S, -2 * HOUR_S, 0.6, -0.6, HOUR_S)
EVERY_S = 0.4  # so often the clock is set while something runs
DELAY_MS, RTT_MS = 20.0, 40.0
EARLY_MS = 5.0  # two clocks are not read at one instant when the machine is busy; far less than any delay here
LATE_MS = 2_000.0  # now and then: the guest stops whenever the machine is busy
USUALLY_LATE_MS = 50.0
STOPPED_S = 0.3  # longer than a round trip of 200 ms
_STAMP = struct.Struct("=IQ")  # number, monotonic clock in ns


@pytest.fixture(autouse=True)
def mended() -> None:
    """The guest takes the place of the machine that other tests here have. Nobody else's clock is ever set."""
    assert "User Mode Linux" in Path("/proc/cpuinfo").read_text()


@pytest.fixture(params=["delay-line", "netem"])
def pair(request: pytest.FixtureRequest) -> Iterator[World]:
    """Two nodes of one port, routed to each other and patched."""
    with opened_world(str(request.param), n_node=2, n_port=1) as world:
        world.route((0, 1, 0), (1, 0, 0))
        world.shaper.apply(plan(Link(0, 1, int(DELAY_MS * 1e3), 100 * MBIT)))
        yield world


def step(by_s: float) -> None:
    """Set the time of day forth or back."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + by_s)


@contextmanager
def steps() -> Iterator[None]:
    """Set the clock again and again meanwhile."""

    def make() -> None:
        for by_s in STEPS_S:
            time.sleep(EVERY_S)
            step(by_s)

    stepping = threading.Thread(target=make)
    stepping.start()
    yield
    assert not stepping.is_alive(), "what is tested ended before the last step"
    stepping.join()


def test_the_clock_of_the_guest_is_ours() -> None:
    """A step is one: the tests below show something."""
    before_s, before_mono_s = time.time(), time.monotonic()
    step(HOUR_S)
    assert time.time() - before_s > HOUR_S - 1.0
    assert time.monotonic() - before_mono_s < HOUR_S / 2


def test_delays(pair: World) -> None:
    """Frames sent all along while the clock is set forth and back take their delay, none is lost or overtakes."""
    target, count, every_s = (pair.nodes[1].address, PORT), 240, 0.01
    with pair.udp(0, 0) as source, pair.udp(1, PORT) as sink:
        delay_ms = []
        numbers = []

        def receive() -> None:
            sink.settimeout(2 * LATE_MS * 1e-3)
            for _ in range(count):
                number, sent_ns = _STAMP.unpack(sink.recv(64))
                delay_ms.append((time.monotonic_ns() - sent_ns) * 1e-6)
                numbers.append(number)

        receiving = threading.Thread(target=receive)
        receiving.start()
        with steps():
            for number in range(count):
                source.sendto(_STAMP.pack(number, time.monotonic_ns()), target)
                time.sleep(every_s)
            receiving.join(10.0)
    assert numbers == list(range(count))
    assert_about(DELAY_MS, delay_ms)


def test_a_frame_that_waits_for_the_delay_line_while_the_clock_is_set() -> None:
    """It has the stamp of another time: it counts from when it is taken, and is not early, by its delay or more."""
    delay_us = 500_000
    with opened_world("delay-line", n_node=2, n_port=1) as world:
        world.route((0, 1, 0), (1, 0, 0))
        world.shaper.apply(plan(Link(0, 1, delay_us, 100 * MBIT)))
        line = world.shaper._process.pid  # type: ignore[attr-defined]
        with world.udp(0, 0) as source, world.udp(1, PORT) as sink:
            sink.settimeout(10.0)
            for by_s in STEPS_S:
                os.kill(line, signal.SIGSTOP)
                sent_mono_s = time.monotonic()
                source.sendto(b"x", (world.nodes[1].address, PORT))
                time.sleep(0.05)
                step(by_s)
                os.kill(line, signal.SIGCONT)
                sink.recv(64)
                took_ms = (time.monotonic() - sent_mono_s) * 1e3
                assert delay_us * 1e-3 - EARLY_MS < took_ms < delay_us * 1e-3 + LATE_MS, by_s


def test_round_trips(pair: World) -> None:
    """Probes are answered, each in the commanded time."""
    results: list[ProbeResult] = []
    prober = Prober([probe_pair(pair)], 0.05, 5.0, results.append)
    try:
        prober.start()
        with steps():
            time.sleep(EVERY_S * (len(STEPS_S) + 0.5))
        wait_for(lambda: len(results) > 20, "probes are settled")
    finally:
        prober.stop()
    assert_about(RTT_MS, [-1.0 if result.rtt_us is None else result.rtt_us * 1e-3 for result in results])


def test_an_answer_that_waits_for_the_prober_while_the_clock_is_set() -> None:
    """It has the stamp of another time: it counts as of when it is read."""
    results: list[ProbeResult] = []
    with opened_world("netem", n_node=2, n_port=1) as world:
        world.route((0, 1, 0), (1, 0, 0))
        world.shaper.apply(plan(Link(0, 1, 100_000, 100 * MBIT)))
        prober = Prober([probe_pair(world)], 3600.0, 5.0, results.append)
        stop = f"kill -STOP {os.getpid()}; sleep {STOPPED_S}; date -s '+1 hour' >&2; kill -CONT {os.getpid()}"
        try:
            with subprocess.Popen(["sh", "-c", stop], stderr=subprocess.DEVNULL):
                prober.start()
                wait_for(lambda: bool(results), "the probe is settled")
        finally:
            prober.stop()
    (result,) = results
    assert result.rtt_us is not None
    assert 200.0 - EARLY_MS < result.rtt_us * 1e-3 < 200.0 + STOPPED_S * 1e3 + LATE_MS


async def test_steps_of_the_sky(tmp_path: Path) -> None:
    """Every step of a run comes at its time, and the record's times are the sky's."""
    with emulation_of(tmp_path, ten_steps(), time_scale=30.0) as (emulation, _):
        began_mono_s = time.monotonic()
        running = asyncio.create_task(emulation.run(hold=False))
        for by_s in STEPS_S:
            await asyncio.sleep(EVERY_S)
            step(by_s)
            assert emulation.t_s == pytest.approx(
                START_S + (time.monotonic() - began_mono_s) * 30.0, abs=0.03 * LATE_MS
            )
        await running
        assert time.monotonic() - began_mono_s == pytest.approx(9 * STEP_S / 30.0, abs=LATE_MS * 1e-3)
    record = read_record(tmp_path)
    assert [each.t_s for each in record.steps] == [START_S + STEP_S * number for number in range(1, 10)]
    assert all(0.0 <= each.late_ms < LATE_MS for each in record.steps)
    moments = [event.t_s for event in record.events]
    assert moments == sorted(moments)


def assert_about(commanded_ms: float, measured_ms: Sequence[float]) -> None:
    """None is early, most are hardly late, and none is later than a busy machine makes it."""
    assert np.min(measured_ms) > commanded_ms - EARLY_MS
    assert np.median(measured_ms) < commanded_ms + USUALLY_LATE_MS
    assert np.max(measured_ms) < commanded_ms + LATE_MS


def probe_pair(world: World) -> ProbePair:
    """From the first node to the second."""
    asks, answers = world.nodes
    return ProbePair(asks.network_namespace, asks.address, answers.address)
