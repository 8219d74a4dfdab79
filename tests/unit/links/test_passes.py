from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from controller.links.passes import GroundView, Passes
from controller.links.sites import Sites
from controller.orbit.elements import walker_orbits
from controller.orbit.frames import ecef_to_geodetic
from controller.orbit.track import Track, track
from controller.scenario.model import Ground, Walker
from controller.timeline import BoolArray, FloatArray

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WALKER = Walker(pattern="delta", total=24, planes=6, phasing=1, altitude_m=550_000.0, inclination_deg=53.0)
END_S = 6_000.0
EDGE_S = 0.01
"""Rise and set are to be found to 10 ms."""


@pytest.fixture(scope="module")
def flown() -> Track:
    """Twenty-four satellites for one orbit."""
    return track([""] * 24, walker_orbits(WALKER, EPOCH), EPOCH, 0.0, END_S)


def ground(**keys: object) -> Ground:
    """A ground node at 45° N 10° E, or elsewhere."""
    return Ground.model_validate(
        {"name": "g", "role": "terminal", "latitude_deg": 45.0, "longitude_deg": 10.0, "min_elevation_deg": 5.0, **keys}
    )


def view(flown: Track, *grounds: Ground, reach_m: float = np.inf) -> GroundView:
    """What ground nodes see."""
    mask_deg = np.array([each.min_elevation_deg for each in grounds])
    return GroundView(Sites.of(grounds), flown, mask_deg, np.full(len(grounds), reach_m))


def assert_edges(found: Passes, satellite: int, is_seen: BoolArray, t_s: FloatArray) -> int:
    """A satellite's passes over the one ground node begin and end where dense samples change; how many edges."""
    own = found.satellite == satellite
    edges_s = np.sort(np.concatenate((found.rise_s[own], found.set_s[own])))
    edges_s = edges_s[(edges_s > t_s[0]) & (edges_s < t_s[-1])]
    change = np.flatnonzero(is_seen[1:] != is_seen[:-1])
    assert len(edges_s) == len(change)
    assert np.all((edges_s > t_s[change] - EDGE_S) & (edges_s < t_s[change + 1] + EDGE_S))
    return len(change)


def dense(flown: Track, one: GroundView, satellite: int, t_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Azimuth and elevation in degrees and range in metres, from positions alone, another way than the product's."""
    stand = one.sites.stands(t_s)
    away_m = flown.ecef(t_s).r_m[:, :, satellite] - stand.r_m[:, :, 0]
    range_m = np.linalg.norm(away_m, axis=-1)
    place = ecef_to_geodetic(stand.r_m[:, :, 0])
    latitude, longitude = np.radians(place.latitude_deg), np.radians(place.longitude_deg)
    up = np.stack((np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)), -1)
    east = np.stack((-np.sin(longitude), np.cos(longitude), np.zeros_like(latitude)), -1)
    north = np.cross(up, east)
    azimuth = np.arctan2(np.sum(away_m * east, -1), np.sum(away_m * north, -1))
    return np.degrees(azimuth) % 360.0, np.degrees(np.arcsin(np.sum(away_m * up, -1) / range_m)), range_m


@pytest.mark.parametrize("place", [(45.0, 10.0), (90.0, 0.0), (-90.0, 77.0), (-10.0, 180.0), (52.9, -179.99)])
def test_passes_begin_and_end_where_dense_samples_do(flown: Track, place: tuple[float, float]) -> None:
    """Of every satellite, wherever the ground node is: at a pole, at the antimeridian, at the edge of coverage."""
    one = view(flown, ground(latitude_deg=place[0], longitude_deg=place[1]))
    found = one.passes(0.0, END_S, 20.0)
    t_s = np.arange(0.0, END_S + 0.1, 1.0)
    n_edge = sum(assert_edges(found, k, dense(flown, one, k, t_s)[1] >= 5.0, t_s) for k in range(24))
    assert (n_edge > 10) == (abs(place[0]) < 90.0)


def test_a_pass_that_barely_clears_the_mask_between_two_samples_is_found(flown: Track) -> None:
    """With the mask 0.01° under the highest point of a pass, the few seconds above it are found in scans of 20 s."""
    low = view(flown, ground())
    table = low.passes(0.0, END_S, 20.0)
    inner = np.flatnonzero((table.rise_s > 0.0) & (table.set_s < END_S))
    assert len(inner) > 5
    for row in inner[:10]:
        t_s = np.arange(table.rise_s[row], table.set_s[row], 0.05)
        satellite = int(table.satellite[row])
        elevation_deg = dense(flown, low, satellite, t_s)[1]
        mask_deg = float(elevation_deg.max()) - 0.01
        found = view(flown, ground(min_elevation_deg=mask_deg)).passes(0.0, END_S, 20.0)
        mine = found.satellite == satellite
        peak_s = float(t_s[np.argmax(elevation_deg)])
        assert np.any((found.rise_s[mine] < peak_s) & (peak_s < found.set_s[mine]))
        above_s = np.ptp(t_s[elevation_deg >= mask_deg])
        length_s = (found.set_s - found.rise_s)[mine & (found.rise_s < peak_s) & (found.set_s > peak_s)]
        assert length_s == pytest.approx([above_s], abs=0.15)


def test_a_horizon_profile_cuts_passes(flown: Track) -> None:
    """Behind a mountain of 30° between west and north nothing is seen; elsewhere the mask holds."""
    profile = ((0.0, 5.0), (179.9, 5.0), (180.0, 30.0), (359.9, 30.0))
    one = view(flown, ground(horizon_deg=profile))
    found = one.passes(0.0, END_S, 20.0)
    t_s = np.arange(0.0, END_S + 0.1, 1.0)
    at_deg, height_deg = np.array(profile).T
    n_edge = 0
    for satellite in range(24):
        azimuth_deg, elevation_deg, _ = dense(flown, one, satellite, t_s)
        lowest_deg = np.interp(azimuth_deg, at_deg, height_deg, period=360.0)
        n_edge += assert_edges(found, satellite, elevation_deg >= np.maximum(lowest_deg, 5.0), t_s)
    assert n_edge > 10


def test_a_budget_that_does_not_reach_ends_passes_early(flown: Track) -> None:
    """With a reach of 1,200 km access needs both the mask and the range."""
    one = view(flown, ground(), reach_m=1_200_000.0)
    found = one.passes(0.0, END_S, 20.0)
    t_s = np.arange(0.0, END_S + 0.1, 1.0)
    n_edge = 0
    for satellite in range(24):
        _, elevation_deg, range_m = dense(flown, one, satellite, t_s)
        n_edge += assert_edges(found, satellite, (elevation_deg >= 5.0) & (range_m <= 1_200_000.0), t_s)
    assert n_edge > 4


def test_a_moving_terminal_sees_from_where_it_is(flown: Track) -> None:
    """An aircraft at 250 m/s along the equator of its great circle: its passes are those of its own track."""
    waypoints = [{"at_s": END_S, "latitude_deg": 48.0, "longitude_deg": 30.0, "altitude_m": 11_000.0}]
    one = view(flown, ground(waypoints=waypoints))
    found = one.passes(0.0, END_S, 20.0)
    t_s = np.arange(0.0, END_S + 0.1, 1.0)
    assert sum(assert_edges(found, k, dense(flown, one, k, t_s)[1] >= 5.0, t_s) for k in range(24)) > 10
    fixed = view(flown, ground()).passes(0.0, END_S, 20.0)
    assert len(fixed.ground) != len(found.ground) or np.abs(fixed.set_s - found.set_s).max() > 10.0


def test_range_rate_is_the_slope_of_range(flown: Track) -> None:
    """Half a second before and after, the range has changed as its rate says; for a moving terminal too."""
    waypoints = [{"at_s": END_S, "latitude_deg": 48.0, "longitude_deg": 30.0, "altitude_m": 11_000.0}]
    one = view(flown, ground(), ground(waypoints=waypoints))
    nodes, satellites = np.repeat([0, 1], 24), np.tile(np.arange(24), 2)
    at_s = np.full(48, 3_000.0)
    before, now, after = (one.look(nodes, satellites, at_s + shift_s) for shift_s in (-0.5, 0.0, 0.5))
    assert now.range_rate_m_s == pytest.approx(after.range_m - before.range_m, abs=0.01)
