"""Eclipses: when the Earth hides a part of the Sun, or all of it, from satellites."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from controller.orbit.crossings import Spans, spans
from controller.orbit.julian import julian_dates
from controller.orbit.sun import beta_deg, discs, sun_mod_m
from controller.orbit.track import Track
from controller.timeline import EclipseTable, Float32Array, FloatArray, IntArray

# A track's knots are dense enough for every swing of an orbit, and twice as many samples for every eclipse: they are
# 30 s apart in low orbit, at most 2° of a turn.
_SAMPLES_A_KNOT = 2.0
_CELLS_AT_ONCE = 250_000  # samples times satellites that are worked on at once, which bounds the memory


def eclipses(track: Track, start_s: float, end_s: float) -> EclipseTable:
    """All eclipses between two instants, cut at both, by satellite (its place in the track) and start.

    Edges are contacts of the discs of the Sun and of a spherical Earth, within 10 ms of that geometry. An eclipse ends
    where a satellite's track ends.
    """
    t_s = np.linspace(start_s, end_s, max(3, int(np.ceil((end_s - start_s) / track.knot_step_s * _SAMPLES_A_KNOT)) + 1))
    samples, umbra_samples = _samples(track, t_s)
    parts = []
    at_once = max(1, _CELLS_AT_ONCE // len(t_s))
    for first in range(0, track.n_satellite, at_once):
        own = slice(first, first + at_once)
        partial = _shaded(track, first, samples[:, own], t_s, umbra=False)
        total = _shaded(track, first, umbra_samples[:, own], t_s, umbra=True)
        parts.append(_table(track, partial, total))
    return EclipseTable(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(EclipseTable)))


def _samples(track: Track, t_s: FloatArray) -> tuple[Float32Array, Float32Array]:
    """How deep all satellites are in the penumbra and in the umbra, as `_depth` has it. Shapes: both (n_t, n_sat)."""
    penumbra, umbra = (np.empty((len(t_s), track.n_satellite), np.float32) for _ in range(2))
    at_once = max(1, _CELLS_AT_ONCE // track.n_satellite)
    for first in range(0, len(t_s), at_once):
        steps = slice(first, first + at_once)
        sun_m = sun_mod_m(julian_dates(track.epoch_utc, t_s[steps]))
        seen = discs(track.teme(t_s[steps]).r_m, sun_m[:, :, None])
        penumbra[steps] = seen.earth_radius + seen.sun_radius - seen.separation
        umbra[steps] = seen.earth_radius - seen.sun_radius - seen.separation
    return penumbra, umbra


def _shaded(track: Track, first: int, samples: Float32Array, t_s: FloatArray, *, umbra: bool) -> Spans:
    """When the satellites from `first` on are in the penumbra or the umbra. Shape: samples (n_t, n_sat of these)."""
    sign = -1.0 if umbra else 1.0

    def depth(row: IntArray, at_s: FloatArray) -> FloatArray:
        """How far the Earth's disc is over the Sun's near edge, or over its far edge, in radians."""
        sun_m = sun_mod_m(julian_dates(track.epoch_utc, at_s))
        seen = discs(track.at(row + first, at_s).r_m.T, sun_m.T)
        return seen.earth_radius + sign * seen.sun_radius - seen.separation

    found = spans(depth, samples.astype(np.float64), t_s)
    satellite = found.row + first
    return Spans(satellite, found.start_s, np.minimum(found.end_s, track.end_s[satellite]))


def _table(track: Track, partial: Spans, total: Spans) -> EclipseTable:
    """Eclipses with their umbras, each of which lies within one eclipse."""
    umbra_start_s, umbra_end_s = np.full((2, len(partial.row)), np.nan)
    if len(total.row):
        # A key that grows with satellite and time alike.
        before_s = min(partial.start_s.min(), total.start_s.min())
        length_s = total.end_s.max() - before_s + 1.0
        starts, within = (each.row * length_s + (each.start_s - before_s) for each in (partial, total))
        eclipse = np.searchsorted(starts, within, side="right") - 1
        np.fmin.at(umbra_start_s, eclipse, total.start_s)
        np.fmax.at(umbra_end_s, eclipse, np.minimum(total.end_s, partial.end_s[eclipse]))
    middle_s = (partial.start_s + partial.end_s) / 2.0
    motion = track.at(partial.row, middle_s)
    sun_m = sun_mod_m(julian_dates(track.epoch_utc, middle_s))
    return EclipseTable(
        partial.row, partial.start_s, partial.end_s, umbra_start_s, umbra_end_s,
        beta_deg(motion.r_m, motion.v_m_s, sun_m),
    )  # fmt: skip
