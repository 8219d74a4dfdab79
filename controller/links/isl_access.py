"""When inter-satellite links are usable: line of sight, range, latitude, slew, and the time to acquire a partner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.columns import joined, taken
from controller.links.isl import IslPairs
from controller.orbit.crossings import Spans, spans
from controller.orbit.frames import WGS84_A_M, ecef_to_geodetic
from controller.orbit.track import Track
from controller.scenario.link_model import IslPolicy
from controller.timeline import BoolArray, FloatArray, IntArray

_SCAN_CELLS = 250_000
_DISTANCE_SCALE_M = 1e6
_LATITUDE_SCALE_DEG = 10.0


@dataclass(frozen=True)
class IslView:
    """Pairs of satellites of one track, or of two, and the policy that says when they may be linked."""

    track_a: Track
    track_b: Track
    policy: IslPolicy
    reach_m: float  # how far a link closes; inf for any range

    def margin(self, pairs: IslPairs, row: IntArray, t_s: FloatArray) -> FloatArray:
        """What is left of the tightest of the policy's bounds, below zero where it is broken. Shapes: (n,), (n,)."""
        a, b = self.track_a.at(pairs.a[row], t_s), self.track_b.at(pairs.b[row], t_s)
        return self._margin(a.r_m.T, a.v_m_s.T, b.r_m.T, b.v_m_s.T, pairs.is_cross_plane[row])

    def usable(self, pairs: IslPairs, start_s: float, end_s: float, scan_s: float) -> Spans:
        """When pairs may be linked, edges within 10 ms. `scan_s` is the time between samples."""
        n_scan = max(3, int(np.ceil((end_s - start_s) / scan_s)) + 1)
        t_s = np.linspace(start_s, end_s, n_scan)
        a, b = self.track_a.teme(t_s), self.track_b.teme(t_s)
        at_once = max(1, _SCAN_CELLS // n_scan)
        parts = [Spans(np.empty(0, np.int64), np.empty(0), np.empty(0))]
        for first in range(0, len(pairs.a), at_once):
            own = slice(first, first + at_once)
            of_a, of_b = pairs.a[own], pairs.b[own]
            samples = self._margin(
                a.r_m[:, :, of_a].transpose(1, 0, 2),
                a.v_m_s[:, :, of_a].transpose(1, 0, 2),
                b.r_m[:, :, of_b].transpose(1, 0, 2),
                b.v_m_s[:, :, of_b].transpose(1, 0, 2),
                pairs.is_cross_plane[own],
            )

            def margin(row: IntArray, at_s: FloatArray, first: int = first) -> FloatArray:
                return self.margin(pairs, first + row, at_s)

            found = spans(margin, samples, t_s)
            parts.append(Spans(first + found.row, found.start_s, found.end_s))
        return joined(parts)

    def _margin(
        self, r_a_m: FloatArray, v_a_m_s: FloatArray, r_b_m: FloatArray, v_b_m_s: FloatArray, is_cross_plane: BoolArray
    ) -> FloatArray:
        """As `margin`. Shapes: (3, …) each, is_cross_plane (…) or its last axis.

        Line of sight: the point of the segment closest to the Earth's centre stays above grazing_altitude_m over a
        sphere of WGS 84's equatorial radius. Cross-plane links are off while either end is above the latitude given.
        Slew is how fast the line turns among the stars: |r × v| ÷ r² of the one end about the other.
        """
        policy = self.policy
        away_m = r_b_m - r_a_m
        square_m2 = np.maximum(np.sum(away_m**2, axis=0), 1e-6)
        projection_m2 = np.sum(r_a_m * away_m, axis=0)
        along = np.clip(-projection_m2 / square_m2, 0.0, 1.0)
        closest_m2 = np.sum(r_a_m**2, axis=0) + along * (2.0 * projection_m2 + along * square_m2)
        margin: FloatArray = (np.sqrt(closest_m2) - (WGS84_A_M + policy.grazing_altitude_m)) / _DISTANCE_SCALE_M
        reach_m = min(self.reach_m, policy.max_range_m or np.inf)
        if np.isfinite(reach_m):
            margin = np.minimum(margin, (reach_m - np.sqrt(square_m2)) / _DISTANCE_SCALE_M)
        if policy.cross_plane_max_latitude_deg < 90.0 and is_cross_plane.any():
            highest_deg = np.maximum(_latitude_deg(r_a_m), _latitude_deg(r_b_m))
            low = (policy.cross_plane_max_latitude_deg - highest_deg) / _LATITUDE_SCALE_DEG
            margin = np.where(is_cross_plane, np.minimum(margin, low), margin)
        if policy.max_slew_deg_s is not None:
            turn = np.cross(away_m, v_b_m_s - v_a_m_s, axis=0)
            slew_deg_s = np.degrees(np.sqrt(np.sum(turn**2, axis=0)) / square_m2)
            margin = np.minimum(margin, 1.0 - slew_deg_s / policy.max_slew_deg_s)
        return margin


def _latitude_deg(r_m: FloatArray) -> FloatArray:
    """How far from the equator, on WGS 84. Shape (3, …) → (…)."""
    return np.abs(ecef_to_geodetic(np.moveaxis(r_m, 0, -1)).latitude_deg)


def acquired(usable: Spans, policy: IslPolicy, start_s: float) -> Spans:
    """What is left of intervals when a new pairing first takes its time. One that is up at start_s has had it."""
    begins_s = np.where(usable.start_s > start_s, usable.start_s + policy.acquisition_s, usable.start_s)
    left = Spans(usable.row, begins_s, usable.end_s)
    return taken(left, left.end_s > left.start_s)
