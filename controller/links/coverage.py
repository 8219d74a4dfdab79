"""Coverage: for how much of the time, and by how many satellites at once, each part of the Earth is seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.spatial import KDTree

from controller.orbit.frames import WGS84_B_M, geodetic_to_ecef_m, local_axes
from controller.timeline import FloatArray, IntArray

_SATELLITES_AT_ONCE = 512
"""Bounds the memory that the pairs of satellites and cells take."""

_GEODETIC_MARGIN_DEG = 0.25
"""The ellipsoid's normal and the line from its centre are never farther apart: 0.192° at 45°."""


@dataclass(frozen=True)
class Grid:
    """Cells of equal angles all over the Earth, at sea level. Shapes: centres, (n_lat,) and (n_lon,)."""

    latitude_deg: FloatArray
    longitude_deg: FloatArray

    @classmethod
    def of(cls, cell_deg: float) -> Self:
        """Cells of about this size each way."""
        n_lat, n_lon = max(1, round(180.0 / cell_deg)), max(1, round(360.0 / cell_deg))
        return cls(
            -90.0 + (np.arange(n_lat, dtype=np.float64) + 0.5) * 180.0 / n_lat,
            -180.0 + (np.arange(n_lon, dtype=np.float64) + 0.5) * 360.0 / n_lon,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(n_lat, n_lon)."""
        return len(self.latitude_deg), len(self.longitude_deg)


@dataclass(frozen=True)
class Coverage:
    """What was seen at some instants. Shapes: (n_lat, n_lon)."""

    grid: Grid
    n_instant: int
    instants_seen: IntArray  # at which one satellite at least stood above the mask
    satellites_seen: IntArray  # summed over the instants

    @property
    def share_ratio(self) -> FloatArray:
        """Share of the instants at which a cell had a satellite above the mask."""
        return self.instants_seen / max(self.n_instant, 1)

    @property
    def mean_satellites(self) -> FloatArray:
        """Satellites above the mask at a time."""
        return self.satellites_seen / max(self.n_instant, 1)

    @property
    def share_of_earth_ratio(self) -> float:
        """The share, over all of the Earth's surface."""
        return self._over_earth(self.share_ratio)

    @property
    def mean_over_earth(self) -> float:
        """Satellites above the mask at a time, of a place anywhere on the Earth."""
        return self._over_earth(self.mean_satellites)

    def plus(self, other: Coverage) -> Coverage:
        """Of the instants of both, which are of one grid."""
        return Coverage(
            self.grid,
            self.n_instant + other.n_instant,
            self.instants_seen + other.instants_seen,
            self.satellites_seen + other.satellites_seen,
        )

    def _over_earth(self, values: FloatArray) -> float:
        """The mean by area: cells shrink towards the poles."""
        return float(np.average(values.mean(axis=1), weights=np.cos(np.radians(self.grid.latitude_deg))))


def coverage(grid: Grid, mask_deg: float, r_ecef_m: FloatArray) -> Coverage:
    """What satellites see that are at these places. Shape (n_t, 3, n_satellite); NaN is no satellite.

    Elevations are those above the plane that touches WGS 84, without refraction. Only cells near enough to a satellite
    are looked at, so the work grows with what is seen, not with cells × satellites.
    """
    latitude_deg, longitude_deg = np.meshgrid(grid.latitude_deg, grid.longitude_deg, indexing="ij")
    ground_m = geodetic_to_ecef_m(latitude_deg, longitude_deg, np.zeros_like(latitude_deg)).reshape(-1, 3)
    up = local_axes(latitude_deg, longitude_deg).up.reshape(-1, 3)
    up_at_ground_m = np.sum(up * ground_m, axis=1)
    cells = KDTree(ground_m)
    sine = np.sin(np.radians(mask_deg))
    instants_seen, satellites_seen = np.zeros(len(up), np.int64), np.zeros(len(up), np.int64)
    for now_m in r_ecef_m:
        satellite_m = now_m.T[~np.isnan(now_m[0])]
        seen = np.zeros(len(up), np.int64)
        for first in range(0, len(satellite_m), _SATELLITES_AT_ONCE):
            some_m = satellite_m[first : first + _SATELLITES_AT_ONCE]
            near = cells.sparse_distance_matrix(
                KDTree(some_m), _farthest_m(some_m, mask_deg), output_type="ndarray"
            )  # fields: i a cell, j a satellite, v their distance
            cell, satellite = near["i"], near["j"]
            height_m = np.einsum("nx,nx->n", up[cell], some_m[satellite]) - up_at_ground_m[cell]
            seen += np.bincount(cell[height_m >= sine * near["v"]], minlength=len(up))
        satellites_seen += seen
        instants_seen += seen > 0
    return Coverage(grid, len(r_ecef_m), instants_seen.reshape(grid.shape), satellites_seen.reshape(grid.shape))


def _farthest_m(satellite_m: FloatArray, mask_deg: float) -> float:
    """No satellite of these stands above the mask at a greater distance: the slant range of the highest one, over a
    sphere that lies inside the Earth, at a mask that allows for the ellipsoid."""
    mask = np.radians(max(mask_deg - _GEODETIC_MARGIN_DEG, -_GEODETIC_MARGIN_DEG))
    highest_m2 = float(np.max(np.sum(satellite_m**2, axis=1)))
    return float(np.sqrt(max(highest_m2 - (WGS84_B_M * np.cos(mask)) ** 2, 0.0)) - WGS84_B_M * np.sin(mask))
