"""What tests of plans share."""

from __future__ import annotations

import numpy as np
import pytest

from controller.planner import plan
from controller.scenario import load_scenario
from controller.timeline import FloatArray, Timeline


@pytest.fixture(scope="package")
def timeline() -> Timeline:
    """The preset's, computed once."""
    return plan(load_scenario("iridium-66"))


def positions_m(timeline: Timeline) -> FloatArray:
    """All places. Shape (n_t, 3, n_node)."""
    return np.concatenate([timeline.blocks[i].r_ecef_m for i in range(len(timeline.blocks))])
