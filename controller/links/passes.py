"""Access between ground and satellites: when a satellite is above a ground node's mask and within its link's reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.columns import joined, taken
from controller.links.sites import Sites
from controller.orbit.crossings import Spans, spans
from controller.orbit.frames import Look, look
from controller.orbit.track import Track
from controller.timeline import FloatArray, IntArray

# Of a ground node, scanned against all satellites at once: as many pairs and instants as stay near the processor.
_SCAN_CELLS = 500_000
_PROFILE_SAMPLES = 256
_REACH_SCALE_M = 1e6


@dataclass(frozen=True)
class Passes:
    """Access intervals. Shapes: all (n_pass,), in order of ground node, satellite and time. Seconds since the epoch."""

    ground: IntArray
    satellite: IntArray  # within the track
    rise_s: FloatArray  # the start of the scan where the satellite is up already
    set_s: FloatArray  # the end of the scan where it stays up

    @classmethod
    def none(cls) -> Passes:
        """A table without rows."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0))


@dataclass(frozen=True)
class GroundView:
    """Ground nodes and the satellites of one track. Shapes: mask and reach (n_gnd,)."""

    sites: Sites
    track: Track
    mask_deg: FloatArray
    reach_m: FloatArray  # how far a link closes; inf for any range

    def look(self, ground: IntArray, satellite: IntArray, t_s: FloatArray) -> Look:
        """Pairs, each at its own instant. Shapes: all (n,)."""
        stand, there = self.sites.stand(ground, t_s), self.track.ecef_at(satellite, t_s)
        return look(stand.axes, there.r_m - stand.r_m, there.v_m_s - stand.v_m_s)

    def passes(self, start_s: float, end_s: float, scan_s: float) -> Passes:
        """All passes between two instants, their rise and set within 10 ms. `scan_s` is the time between samples."""
        n_scan = max(3, int(np.ceil((end_s - start_s) / scan_s)) + 1)
        t_s = np.linspace(start_s, end_s, n_scan)
        n_ground, n_satellite = len(self.sites.grounds), self.track.n_satellite
        satellites_m = self.track.ecef(t_s).r_m
        square_m2 = np.einsum("txn,txn->tn", satellites_m, satellites_m)
        stands = self.sites.stands(t_s)
        at_once = max(1, _SCAN_CELLS // (n_scan * n_satellite))
        found = []
        for first in range(0, n_ground, at_once):
            own = np.arange(first, min(first + at_once, n_ground))
            samples = self._scan(own, satellites_m, square_m2, stands.r_m, stands.axes.up)

            def margin(row: IntArray, at_s: FloatArray, first: int = first) -> FloatArray:
                return self._margin(first + row // n_satellite, row % n_satellite, at_s)

            found.append(self._of_rows(spans(margin, samples, t_s), first))
        return self._above_horizons(joined([Passes.none(), *found]))

    def _of_rows(self, found: Spans, first: int) -> Passes:
        ground, satellite = np.divmod(found.row, self.track.n_satellite)
        return Passes(first + ground, satellite, found.start_s, found.end_s)

    def _scan(
        self, own: IntArray, satellites_m: FloatArray, square_m2: FloatArray, r_m: FloatArray, up: FloatArray
    ) -> FloatArray:
        """The margin as `_margin` has it, of some ground nodes and all satellites at all instants: (n_t, n_pair)."""
        here_m, here_up = r_m[:, :, own].transpose(0, 2, 1), up[:, :, own].transpose(0, 2, 1)
        range_m = np.matmul(here_m, satellites_m)
        range_m *= -2.0
        range_m += square_m2[:, None, :]
        range_m += np.sum(here_m**2, axis=-1)[:, :, None]
        np.sqrt(range_m, out=range_m)
        height_m = np.matmul(here_up, satellites_m)
        height_m -= np.sum(here_m * here_up, axis=-1)[:, :, None]
        height_m /= range_m
        height_m -= np.sin(np.radians(self.mask_deg[own]))[:, None]
        if np.isfinite(self.reach_m[own]).any():
            np.minimum(height_m, (self.reach_m[own][:, None] - range_m) / _REACH_SCALE_M, out=height_m)
        margins: FloatArray = height_m.reshape(len(height_m), -1)
        return margins

    def _margin(self, ground: IntArray, satellite: IntArray, t_s: FloatArray) -> FloatArray:
        """The sine of the elevation above that of the mask, or what is left of the reach if that is less."""
        stand, there_m = self.sites.stand(ground, t_s), self.track.ecef_at(satellite, t_s).r_m
        away_m = there_m - stand.r_m
        range_m = np.linalg.norm(away_m, axis=-1)
        above = np.sum(away_m * stand.axes.up, axis=-1) / range_m - np.sin(np.radians(self.mask_deg[ground]))
        margin: FloatArray = np.minimum(above, (self.reach_m[ground] - range_m) / _REACH_SCALE_M)
        return margin

    def _above_horizons(self, passes: Passes) -> Passes:
        """The parts of passes that are above their ground nodes' horizon profiles; the same where there are none."""
        profiles = [np.array(ground.horizon_deg).reshape(-1, 2) for ground in self.sites.grounds]
        has_profile = np.array([len(profile) > 0 for profile in profiles], np.bool_)
        mine = has_profile[passes.ground]
        if not mine.any():
            return passes
        whole, cut = taken(passes, ~mine), taken(passes, mine)

        def margin(row: IntArray, at_s: FloatArray) -> FloatArray:
            seen = self.look(cut.ground[row], cut.satellite[row], at_s)
            lowest_deg = np.empty(len(row))
            for ground in np.unique(cut.ground[row]):
                own = cut.ground[row] == ground
                azimuth_deg, elevation_deg = profiles[ground].T
                lowest_deg[own] = np.interp(seen.azimuth_deg[own], azimuth_deg, elevation_deg, period=360.0)
            return (seen.elevation_deg - lowest_deg) / 90.0

        times_s = np.linspace(cut.rise_s, cut.set_s, _PROFILE_SAMPLES)
        rows = np.tile(np.arange(len(cut.ground)), _PROFILE_SAMPLES)
        left = spans(margin, margin(rows, times_s.ravel()).reshape(times_s.shape), times_s)
        parts = Passes(cut.ground[left.row], cut.satellite[left.row], left.start_s, left.end_s)
        together = joined([whole, parts])
        return taken(together, np.lexsort((together.rise_s, together.satellite, together.ground)))
