from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from controller.links.isl import IslPairs
from controller.links.isl_access import IslView
from controller.links.passes import GroundView
from controller.links.sites import Sites
from controller.scenario.link_model import IslPolicy
from controller.scenario.model import Ground
from tests.unit.orbit.motions import circular_track

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
RANGE_TOLERANCE_KM = 0.06  # published to 0.1 km


@pytest.mark.parametrize(("mask_deg", "slant_km"), [(10.0, 1815.7), (25.0, 1123.4), (40.0, 812.1)])
def test_slant_range_where_a_satellite_at_550_km_crosses_the_mask(mask_deg: float, slant_km: float) -> None:
    """At rise and set of a pass over a mask of 10°, 25°, 40° the range is 1,815.7, 1,123.4, 812.1 km.

    Published: the law of cosines on a sphere of 6,378.137 km. The equator of WGS 84 is such a circle.
    """
    ground = Ground(name="quito", role="gateway", latitude_deg=0.0, longitude_deg=-78.5, min_elevation_deg=mask_deg)
    flown = circular_track(EPOCH, 550e3, np.zeros(1), np.zeros(1), np.array([50.0]), 6_200.0)
    view = GroundView(Sites.of([ground]), flown, np.array([mask_deg]), np.array([np.inf]))
    found = view.passes(0.0, 6_200.0, 15.0)
    assert len(found.rise_s) == 1
    for edge_s in (found.rise_s, found.set_s):
        seen = view.look(found.ground, found.satellite, edge_s)
        assert seen.elevation_deg == pytest.approx([mask_deg], abs=1e-3)
        assert seen.range_m / 1e3 == pytest.approx([slant_km], abs=RANGE_TOLERANCE_KM)


def test_the_longest_link_at_550_km_over_80_km_of_air() -> None:
    """Satellites that drift apart lose sight of each other at 5,016.6 km: 2·√(6928.137² − 6458.137²).

    Two satellites of one circle run against each other, so that they part, and meet again on the other side.
    """
    flown = circular_track(EPOCH, 550e3, np.array([0.0, 180.0]), np.array([0.0, 180.0]), np.zeros(2), 5_739.0)
    view = IslView(flown, flown, IslPolicy(grazing_altitude_m=80_000.0), np.inf)
    ends = [(0, 1, 0, 1), (1, 0, 0, 1)]
    found = view.usable(IslPairs.of(ends), 0.0, 5_739.0, 15.0)
    here, there = (flown.at(np.full(len(found.row), satellite), found.end_s).r_m for satellite in (0, 1))
    range_km = np.linalg.norm(there - here, axis=-1) / 1e3
    inner = found.end_s < 5_739.0
    assert inner.sum() >= 4
    assert range_km[inner] == pytest.approx(5016.6, abs=RANGE_TOLERANCE_KM)
    # A link is the same from both ends.
    one, other = (found.row == row for row in (0, 1))
    assert found.start_s[one] == pytest.approx(found.start_s[other], abs=1e-3)
    assert found.end_s[one] == pytest.approx(found.end_s[other], abs=1e-3)
