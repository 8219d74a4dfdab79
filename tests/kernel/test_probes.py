"""The prober: steady, exact, and never fooled by a late answer."""

from __future__ import annotations

import numpy as np

from controller.fabric.probes import ProbePair, Prober, ProbeResult
from tests.kernel.world import Link, World, dark, plan, wait_for


def _pair(world: World, source: int, destination: str) -> ProbePair:
    return ProbePair(world.nodes[source].network_namespace, world.nodes[source].address, destination)


def test_every_probe_is_settled_once_and_in_turn(pair: World) -> None:
    """Each pair is probed once an interval, and each probe has one result: a round trip, or none."""
    pair.shaper.apply(plan(Link(0, 1, delay_us=10_000)))
    results: list[ProbeResult] = []
    asked = [_pair(pair, 0, "10.77.0.2"), _pair(pair, 1, "10.77.0.1"), _pair(pair, 0, "10.77.9.9")]
    prober = Prober(asked, 0.05, 1.0, results.append)
    prober.start()
    wait_for(lambda: len(results) >= 120, "120 results")
    prober.stop()
    prober.stop()  # idempotent
    for number in range(3):
        mine = [each for each in results if each.pair == number]
        assert np.median(np.diff(sorted(each.sent_mono_s for each in mine))) > 0.04
        assert abs(np.median(np.diff(sorted(each.sent_mono_s for each in mine))) - 0.05) < 0.01
        assert all((each.rtt_us is None) == (number == 2) for each in mine)


def test_a_late_answer_is_not_taken_for_a_later_probes(pair: World) -> None:
    """Answers that come after their time are no answers, though more probes were sent since."""
    pair.shaper.apply(plan(Link(0, 1, delay_us=60_000)))
    results: list[ProbeResult] = []
    prober = Prober([_pair(pair, 0, "10.77.0.2")], 0.02, 0.1, results.append)
    prober.start()
    wait_for(lambda: len(results) >= 40, "40 results")
    prober.stop()
    assert all(each.rtt_us is None for each in results)


def test_a_blackout_is_told_and_then_its_end(pair: World) -> None:
    """Probes into a blackout have no round trip; after it they have one again."""
    results: list[ProbeResult] = []
    prober = Prober([_pair(pair, 0, "10.77.0.2")], 0.02, 0.1, results.append)
    prober.start()
    try:
        wait_for(lambda: len(results) >= 5, "results in the dark")
        assert all(each.rtt_us is None for each in results)
        pair.shaper.apply(plan(Link(0, 1, delay_us=1_000)))
        wait_for(lambda: results[-1].rtt_us is not None, "an answer")
        pair.shaper.apply(dark(0, 1))
        wait_for(lambda: results[-1].rtt_us is None, "the dark again")
    finally:
        prober.stop()
