from __future__ import annotations

import numpy as np
import pytest

from controller.links.coverage import Coverage, Grid, coverage
from controller.timeline import FloatArray

EARTH_A_M, EARTH_B_M = 6_378_137.0, 6_356_752.314245
CAP_TOLERANCE_RATIO = 0.01  # of a cap's area: the Earth is no sphere, and its cells are 0.5° wide
LEO_550_M = 6_928_137.0


def over(latitude_deg: FloatArray, longitude_deg: FloatArray, radius_m: float) -> FloatArray:
    """Satellites by geocentric latitude and longitude, all at one instant. Shape (1, 3, n)."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    unit = np.stack((np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)))
    return (radius_m * unit)[None]


def test_a_satellite_sees_the_cap_of_the_textbook() -> None:
    """Share of the Earth in view above 10°, 25° and 40° from 550 km: (1 − cos λ)/2, cos(λ + ε) = R cos ε / r.

    Wertz, Space Mission Analysis and Design, 3rd ed., section 5.2, eq. 5-26 to 5-28.
    """
    for mask_deg in (10.0, 25.0, 40.0):
        # At the equator, where the Earth's radius is the equatorial one, the textbook's sphere fits.
        mask = np.radians(mask_deg)
        central = np.arccos(EARTH_A_M * np.cos(mask) / LEO_550_M) - mask
        seen = coverage(Grid.of(0.5), mask_deg, over(np.array([0.0]), np.array([-179.0]), LEO_550_M))
        assert seen.share_of_earth_ratio == pytest.approx((1 - np.cos(central)) / 2, rel=CAP_TOLERANCE_RATIO)


def test_every_cell_agrees_with_a_plain_computation() -> None:
    """Elevation from the gradient of the ellipsoid, for each cell and satellite by itself, says the same."""
    random = np.random.default_rng(3)
    n_t, n_satellite = 3, 40
    direction = random.normal(size=(n_t, 3, n_satellite))
    radius_m = random.uniform(6.8e6, 4.2e7, (n_t, 1, n_satellite))
    r_m = direction / np.linalg.norm(direction, axis=1, keepdims=True) * radius_m
    grid = Grid.of(6.0)
    seen = coverage(grid, 12.5, r_m)
    expected = np.zeros((n_t, *grid.shape), np.int64)
    for i, latitude_deg in enumerate(grid.latitude_deg):
        for k, longitude_deg in enumerate(grid.longitude_deg):
            latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
            normal = np.array(
                [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)]
            )
            # The point of an ellipsoid whose normal is n: A²n / |A n|, A the half axes.
            axes = np.array([EARTH_A_M, EARTH_A_M, EARTH_B_M])
            here_m = axes**2 * normal / np.linalg.norm(axes * normal)
            sight_m = r_m - here_m[:, None]
            elevation_deg = np.degrees(
                np.arcsin(np.einsum("x,txs->ts", normal, sight_m) / np.linalg.norm(sight_m, axis=1))
            )
            expected[:, i, k] = (elevation_deg >= 12.5).sum(axis=1)
    assert np.array_equal(seen.satellites_seen, expected.sum(axis=0))
    assert np.array_equal(seen.instants_seen, (expected > 0).sum(axis=0))
    assert np.array_equal(seen.mean_satellites, expected.mean(axis=0))
    area = np.cos(np.radians(grid.latitude_deg))[:, None] * np.ones(grid.shape)
    assert seen.mean_over_earth == pytest.approx(np.average(expected.mean(axis=0), weights=area))


def test_the_poles_and_the_antimeridian_are_no_edges() -> None:
    """Over the north pole all longitudes are seen alike; over 180° east and west are seen alike."""
    grid = Grid.of(2.0)
    north = coverage(grid, 10.0, over(np.array([90.0]), np.array([0.0]), LEO_550_M))
    assert np.all(north.instants_seen == north.instants_seen[:, :1])
    assert north.instants_seen[-1].all()
    assert not north.instants_seen[:80].any()
    edge = coverage(grid, 10.0, over(np.array([0.0]), np.array([180.0]), LEO_550_M)).instants_seen
    assert np.array_equal(edge, edge[:, ::-1])
    assert edge[45, 0]
    assert edge[45, -1]


def test_instants_add_up() -> None:
    """Part by part is the same as all at once, and a satellite that is gone sees nothing."""
    grid = Grid.of(5.0)
    r_m = np.concatenate([over(np.array([0.0, 30.0]), np.array([lon, lon + 9.0]), LEO_550_M) for lon in (0.0, 40.0)])
    whole = coverage(grid, 10.0, r_m)
    parts = coverage(grid, 10.0, r_m[:1]).plus(coverage(grid, 10.0, r_m[1:]))
    assert (parts.n_instant, whole.n_instant) == (2, 2)
    assert np.array_equal(parts.satellites_seen, whole.satellites_seen)
    assert np.array_equal(parts.share_ratio, whole.share_ratio)
    gone = r_m.copy()
    gone[:, :, 1] = np.nan
    assert np.array_equal(
        coverage(grid, 10.0, gone).satellites_seen, coverage(grid, 10.0, r_m[:, :, :1]).satellites_seen
    )


def test_no_satellites_cover_nothing() -> None:
    """Nor does no instant; neither divides by zero."""
    grid = Grid.of(10.0)
    for r_m in (np.full((2, 3, 1), np.nan), np.empty((2, 3, 0)), np.empty((0, 3, 5))):
        nothing: Coverage = coverage(grid, 10.0, r_m)
        assert nothing.share_of_earth_ratio == 0.0
        assert not nothing.mean_satellites.any()
