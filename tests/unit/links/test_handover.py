from __future__ import annotations

import numpy as np
import pytest

from controller.links.handover import Holds, handovers
from controller.links.passes import Passes
from controller.orbit.frames import Look
from controller.scenario.model import Ground
from controller.timeline import FloatArray, IntArray


def ground(**keys: object) -> Ground:
    """A ground node of which only the policy matters."""
    return Ground.model_validate({"name": "g", "role": "gateway", "latitude_deg": 0.0, "longitude_deg": 0.0, **keys})


def passes(*rows: tuple[int, int, float, float]) -> Passes:
    """Rows of (ground, satellite, rise, set)."""
    table = np.array(rows, np.float64)
    return Passes(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3])


def blind(ground: IntArray, satellite: IntArray, t_s: FloatArray) -> Look:
    """Nobody looks: the policy goes by time alone."""
    raise AssertionError("longest needs no look")


def rows(holds: Holds) -> list[tuple[int, int, int, int, float, float]]:
    """Rows of (ground, satellite, antenna, port, start, end)."""
    columns = (holds.ground, holds.satellite, holds.antenna, holds.gsl_port, holds.start_s, holds.end_s)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_satellite_is_kept_until_it_sets_and_then_the_longest_is_taken() -> None:
    """The one that stays longest at the start is kept, though a longer one rises meanwhile; that is taken next."""
    table = passes((0, 0, -5.0, 10.0), (0, 1, 0.0, 20.0), (0, 2, 5.0, 90.0), (0, 3, 15.0, 60.0))
    found = handovers(table, [ground()], [4] * 4, blind, 0.0, 50.0)
    assert rows(found) == [(0, 1, 0, 0, 0.0, 20.0), (0, 2, 0, 0, 20.0, 50.0)]


def test_a_gap_ends_with_the_next_rise_to_the_instant() -> None:
    """Where nothing is above the mask there is no link, until something rises."""
    table = passes((0, 0, 0.0, 10.0), (0, 1, 12.34, 20.0))
    assert [row[4:] for row in rows(handovers(table, [ground()], [4, 4], blind, 0.0, 50.0))] == [
        (0.0, 10.0),
        (12.34, 20.0),
    ]


def test_who_is_first_has_it_and_who_was_refused_gets_the_port_when_it_is_free() -> None:
    """One port: the first ground node of the scenario has it; the other waits for its end, and takes what is left."""
    table = passes((0, 0, 0.0, 10.0), (1, 0, 0.0, 30.0))
    found = handovers(table, [ground(), ground()], [1], blind, 0.0, 50.0)
    assert rows(found) == [(0, 0, 0, 0, 0.0, 10.0), (1, 0, 0, 0, 10.0, 30.0)]


def test_a_satellite_without_ground_ports_is_never_taken() -> None:
    """max_gsl = 0 makes a satellite of the sky alone."""
    assert rows(handovers(passes((0, 0, 0.0, 10.0)), [ground()], [0], blind, 0.0, 50.0)) == []


def test_two_antennas_join_two_satellites() -> None:
    """Antennas take the best and the second best; ports are the lowest free ones."""
    table = passes((0, 0, 0.0, 10.0), (0, 1, 0.0, 20.0), (0, 2, 0.0, 15.0))
    found = handovers(table, [ground(antennas=2)], [2] * 3, blind, 0.0, 50.0)
    assert rows(found) == [(0, 1, 0, 0, 0.0, 20.0), (0, 2, 1, 0, 0.0, 15.0)]


def test_an_overlap_makes_before_it_breaks() -> None:
    """One of two antennas is kept for the next satellite, taken overlap_s before the present one sets."""
    table = passes((0, 0, 0.0, 10.0), (0, 1, 2.0, 20.0), (0, 2, 17.0, 40.0))
    found = handovers(table, [ground(antennas=2, overlap_s=3.0)], [1] * 3, blind, 0.0, 50.0)
    assert rows(found) == [(0, 0, 0, 0, 0.0, 10.0), (0, 1, 1, 0, 7.0, 20.0), (0, 2, 0, 0, 17.0, 40.0)]


@pytest.mark.parametrize(("policy", "satellite"), [("longest", 2), ("highest", 0), ("nearest", 1)])
def test_the_policy_chooses(policy: str, satellite: int) -> None:
    """The longest by its set, the highest by its elevation, the nearest by its range, at the moment of handover."""

    def look(ground: IntArray, satellite: IntArray, t_s: FloatArray) -> Look:
        assert set(t_s) == {5.0}
        elevation_deg, range_m = np.array([80.0, 40.0, 20.0]), np.array([9e5, 8e5, 2e6])
        return Look(np.zeros(len(ground)), elevation_deg[satellite], range_m[satellite], np.zeros(len(ground)))

    table = passes((0, 0, 5.0, 10.0), (0, 1, 5.0, 20.0), (0, 2, 5.0, 30.0))
    found = handovers(table, [ground(handover=policy)], [1] * 3, look, 0.0, 9.0)
    assert rows(found)[0][1] == satellite


def test_no_antenna_and_no_port_is_used_twice_at_once_in_a_crowd() -> None:
    """Random passes of 20 ground nodes over 30 satellites: each antenna and each port has one link at a time."""
    random = np.random.default_rng(7)
    n = 600
    rise_s = random.uniform(-50.0, 950.0, n)
    table = passes(*zip(random.integers(0, 20, n), random.integers(0, 30, n), rise_s, rise_s + 80.0, strict=True))
    grounds = [ground(antennas=2 + i % 2, overlap_s=float(i % 3)) for i in range(20)]
    found = handovers(table, grounds, [3] * 30, blind, 0.0, 1_000.0)
    assert len(found.ground) > 300
    for key, port in ((found.ground, found.antenna), (found.satellite, found.gsl_port)):
        order = np.lexsort((found.start_s, port, key))
        same = (np.diff(key[order]) == 0) & (np.diff(port[order]) == 0)
        assert np.all(found.start_s[order][1:][same] >= found.end_s[order][:-1][same])
    assert found.antenna.max() == 2
    assert found.gsl_port.max() == 2
