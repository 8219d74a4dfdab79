from __future__ import annotations

import numpy as np
import pytest

from controller.links.sites import Sites
from controller.orbit.frames import ecef_to_geodetic
from controller.scenario.model import Ground


def mover(*waypoints: tuple[float, float, float, float], start: tuple[float, float] = (0.0, 170.0)) -> Ground:
    """A ship or an aircraft; waypoints are (at_s, latitude, longitude, altitude)."""
    keys = ("at_s", "latitude_deg", "longitude_deg", "altitude_m")
    table = [dict(zip(keys, waypoint, strict=True)) for waypoint in waypoints]
    return Ground.model_validate(
        {
            "name": "ship",
            "role": "terminal",
            "latitude_deg": start[0],
            "longitude_deg": start[1],
            "waypoints": table,
        }
    )


def test_a_mover_follows_the_great_circle_across_the_antimeridian_and_stays_at_the_last() -> None:
    """From 170° E to 170° W along the equator: half way at 180°; after its last waypoint it stands still."""
    sites = Sites.of([mover((100.0, 0.0, -170.0, 1_000.0))])
    t_s = np.array([0.0, 25.0, 50.0, 100.0, 500.0])
    stands = sites.stands(t_s)
    place = ecef_to_geodetic(stands.r_m[:, :, 0])
    assert np.mod(place.longitude_deg, 360.0) == pytest.approx([170.0, 175.0, 180.0, 190.0, 190.0])
    assert place.altitude_m == pytest.approx([0.0, 250.0, 500.0, 1_000.0, 1_000.0], abs=1e-6)
    speed_m_s = np.linalg.norm(stands.v_m_s[:, :, 0], axis=-1)
    assert speed_m_s[1] == pytest.approx(np.radians(20.0) / 100.0 * 6_378_137.0, rel=1e-3)
    assert speed_m_s[4] == 0.0


def test_over_the_pole_is_a_straight_way() -> None:
    """From 80° N 0° to 80° N 180° the great circle leads over the pole."""
    sites = Sites.of([mover((100.0, 80.0, 180.0, 0.0), start=(80.0, 0.0))])
    place = ecef_to_geodetic(sites.stand(np.zeros(1, np.int64), np.array([50.0])).r_m)
    assert place.latitude_deg == pytest.approx([90.0])


def test_fixed_and_moving_nodes_stand_side_by_side() -> None:
    """All at once and one by one give the same places and the same axes, which are square to each other."""
    fixed = Ground.model_validate(
        {"name": "g", "role": "gateway", "latitude_deg": -33.0, "longitude_deg": 151.0, "altitude_m": 20.0}
    )
    sites = Sites.of([fixed, mover((60.0, 10.0, 175.0, 0.0))])
    t_s = np.array([0.0, 30.0])
    every = sites.stands(t_s)
    for ground in (0, 1):
        one = sites.stand(np.full(2, ground), t_s)
        assert every.r_m[:, :, ground] == pytest.approx(one.r_m)
        assert every.v_m_s[:, :, ground] == pytest.approx(one.v_m_s)
        for name in ("east", "north", "up"):
            assert getattr(every.axes, name)[:, :, ground] == pytest.approx(getattr(one.axes, name))
        axes = np.stack((one.axes.east, one.axes.north, one.axes.up), axis=1)
        assert axes @ axes.transpose(0, 2, 1) == pytest.approx(np.broadcast_to(np.eye(3), (2, 3, 3)), abs=1e-12)
        assert np.cross(one.axes.east, one.axes.north) == pytest.approx(one.axes.up)
