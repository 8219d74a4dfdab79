from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from controller.orbit.elements import tle_orbits
from controller.orbit.julian import julian_dates
from controller.orbit.track import states, track
from controller.scenario.tle import parse_tle

TRACK_TOLERANCE_M = 1e-3
DERIVATIVE_TOLERANCE_M_S = 1e-3
# SGP4's own velocity leaves out small terms of the derivative of its position: 0.3 m/s for a Starlink that drag brings
# down, metres a second for eccentric orbits.
SGP4_VELOCITY_TOLERANCE_M_S, NEARLY_CIRCULAR = 0.5, 0.003
TLE_FOLDER = Path(__file__).resolve().parents[4] / "shared" / "data" / "tle"


@pytest.mark.skipif(not TLE_FOLDER.is_dir(), reason=f"the shared element sets are not at {TLE_FOLDER}")
@pytest.mark.parametrize("constellation", ["Iridium", "OneWeb", "Starlink"])
def test_the_track_of_a_real_constellation_is_sgp4_to_the_millimetre(constellation: str) -> None:
    """60 random satellites of the sets of 2022-09-14, through 12 hours of the day after, all in one track."""
    rng = np.random.default_rng(8)
    orbits = tle_orbits(parse_tle((TLE_FOLDER / f"{constellation}.tle").read_text()))
    chosen = [orbits[i] for i in rng.permutation(len(orbits))[:60]]
    epoch = datetime(2022, 9, 15, tzinfo=UTC)
    flown = track([str(i) for i in range(len(chosen))], chosen, epoch, 0.0, 43_200.0)
    t_s = np.sort(rng.uniform(0.0, 43_200.0, 300))
    error, r_m, v_m_s = states(chosen, julian_dates(epoch, t_s))
    assert not error.any()
    motion = flown.teme(t_s)
    assert np.abs(motion.r_m - r_m.transpose(1, 2, 0)).max() < TRACK_TOLERANCE_M
    before_m, after_m = (states(chosen, julian_dates(epoch, t_s + shift_s))[1] for shift_s in (-0.2, 0.2))
    slope_m_s = (after_m - before_m).transpose(1, 2, 0) / 0.4
    assert np.abs(motion.v_m_s - slope_m_s).max() < DERIVATIVE_TOLERANCE_M_S
    circular = np.array([orbit.ecco < NEARLY_CIRCULAR for orbit in chosen])
    assert circular.mean() > 0.8
    off_m_s = np.abs(motion.v_m_s - v_m_s.transpose(1, 2, 0))[:, :, circular]
    assert off_m_s.max() < SGP4_VELOCITY_TOLERANCE_M_S
