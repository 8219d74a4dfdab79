"""Where satellites are at any instant: SGP4 at knots some tens of seconds apart, and a polynomial between them.

An orbit is so smooth that the polynomial of degree 7 through the eight knots about an instant errs by far less than a
millimetre, at a small part of what SGP4 costs. SGP4 itself is rougher in two places, where the polynomial rounds it
off: resonant deep-space orbits have kinks each 720 minutes (up to 0.2 m), and drag that brings the eccentricity down to
1e-6 is held there (up to some 40 m). All satellites are done at once, and arrays have them as their last
axis: (n_t, 3, n_sat).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from scipy.sparse import csr_array
from sgp4.api import SGP4_ERRORS, SatrecArray

from controller.errors import InputError
from controller.orbit.elements import Orbit, fastest_rad_s
from controller.orbit.frames import EARTH_TURN_RAD_S, gmst_rad, teme_to_ecef_m
from controller.orbit.julian import JulianDates, julian_dates
from controller.timeline import BoolArray, FloatArray, IntArray

_MEANINGS = {0: "the result is no place near the Earth", **SGP4_ERRORS}
_FARTHEST_KM = 1e6  # SGP4 is for what circles the Earth; its gravity rules to about here

# Degree 7 errs by at most 1.1e-3 of r·(angle between knots)^8 (the remainder of Lagrange's form at mid-knot):
# 3e-6 m in low orbit.
_KNOT_ANGLE_RAD = 0.065
_KNOT_MAX_S = 600.0
_STENCIL = 8
_BEFORE = _STENCIL // 2 - 1  # knots of the stencil before the one at or below the instant


def _basis() -> tuple[FloatArray, FloatArray]:
    """Lagrange's polynomials over knots at -3 … 4, and their derivatives, as coefficients. Shapes: (8 powers, 8)."""
    at = np.arange(_STENCIL) - _BEFORE
    basis = np.zeros((_STENCIL, _STENCIL))
    for k in range(_STENCIL):
        others = np.delete(at, k)
        basis[:, k] = np.polynomial.polynomial.polyfromroots(others) / np.prod(at[k] - others)
    slope = np.zeros_like(basis)
    slope[:-1] = basis[1:] * np.arange(1, _STENCIL)[:, None]
    return basis, slope


_BASIS, _SLOPE = _basis()


def states(orbits: Sequence[Orbit], dates: JulianDates) -> tuple[IntArray, FloatArray, FloatArray]:
    """SGP4 itself: error codes (n_sat, n_t), positions in metres and velocities in m/s, TEME (n_sat, n_t, 3)."""
    error, r_km, v_km_s = SatrecArray(orbits).sgp4(dates.day, dates.fraction)
    # SGP4 has no code for elements that lead it to no number at all, or to nowhere near the Earth.
    failed = (error != 0) | ~(np.abs(r_km) < _FARTHEST_KM).all(axis=-1)
    return np.where(failed & (error == 0), -1, error).astype(np.int64), r_km * 1000.0, v_km_s * 1000.0


@dataclass(frozen=True)
class Motion:
    """Positions and velocities in one frame. Shapes: alike, (n_t, 3, n_sat) of `Track.blocks`, (n, 3) of `Track.at`."""

    r_m: FloatArray
    v_m_s: FloatArray


@dataclass(frozen=True)
class Track:
    """Satellites through a stretch of time. Shapes: knots (n_knot, 3, n_sat), TEME; end_s and reasons (n_sat,)."""

    epoch_utc: datetime
    first_knot_s: float  # since the epoch
    knot_step_s: float
    r_teme_m: FloatArray
    end_s: FloatArray  # when an orbit has decayed: from then on there is no position; inf for one that lasts
    reasons: tuple[str, ...]  # why, empty for one that lasts

    @property
    def n_satellite(self) -> int:
        """How many satellites there are."""
        return int(self.r_teme_m.shape[2])

    def teme(self, t_s: FloatArray) -> Motion:
        """All satellites at increasing instants (n_t,), inertial."""
        knot, share = self._place(t_s)
        first, last = int(knot[0]) - _BEFORE, int(knot[-1]) + _STENCIL - _BEFORE
        knots = self.r_teme_m[first:last].reshape(last - first, -1)
        columns = (knot - _BEFORE - first)[:, None] + np.arange(_STENCIL)
        starts = np.arange(0, columns.size + 1, _STENCIL)
        powers = share[:, None] ** np.arange(_STENCIL)
        moved = [
            (csr_array(((powers @ basis).ravel(), columns.ravel(), starts), shape=(len(t_s), last - first)) @ knots)
            for basis in (_BASIS, _SLOPE / self.knot_step_s)
        ]
        motion = Motion(*(each.reshape(len(t_s), 3, -1) for each in moved))
        gone = np.flatnonzero(self.end_s <= t_s[-1])
        if len(gone):
            over = t_s[:, None] >= self.end_s[gone]
            for array in (motion.r_m, motion.v_m_s):
                array[:, :, gone] = np.where(over[:, None, :], np.nan, array[:, :, gone])
        return motion

    def ecef(self, t_s: FloatArray) -> Motion:
        """All satellites at increasing instants (n_t,), turned with the Earth."""
        motion = self.teme(t_s)
        angle = gmst_rad(julian_dates(self.epoch_utc, t_s))[:, None]
        cos, sin = np.cos(angle), np.sin(angle)
        for array in (motion.r_m, motion.v_m_s):
            x = array[:, 0].copy()
            array[:, 0] = cos * x + sin * array[:, 1]
            array[:, 1] = cos * array[:, 1] - sin * x
        motion.v_m_s[:, 0] += EARTH_TURN_RAD_S * motion.r_m[:, 1]
        motion.v_m_s[:, 1] -= EARTH_TURN_RAD_S * motion.r_m[:, 0]
        return motion

    def at(self, satellite: IntArray, t_s: FloatArray) -> Motion:
        """Some satellites, each at its own instant, inertial. Shapes: (n,), (n,) → (n, 3). NaN after an end."""
        knot, share = self._place(t_s)
        knots = self.r_teme_m[(knot - _BEFORE)[:, None] + np.arange(_STENCIL), :, satellite[:, None]]
        powers = share[:, None] ** np.arange(_STENCIL)
        r_m = np.einsum("nk,nkx->nx", powers @ _BASIS, knots)
        v_m_s = np.einsum("nk,nkx->nx", powers @ (_SLOPE / self.knot_step_s), knots)
        r_m[t_s >= self.end_s[satellite]] = np.nan
        return Motion(r_m, v_m_s)

    def ecef_at(self, satellite: IntArray, t_s: FloatArray) -> Motion:
        """Some satellites, each at its own instant, turned with the Earth. Shapes: (n,), (n,) → (n, 3)."""
        motion = self.at(satellite, t_s)
        angle = gmst_rad(julian_dates(self.epoch_utc, t_s))
        r_m, v_m_s = teme_to_ecef_m(motion.r_m, angle), teme_to_ecef_m(motion.v_m_s, angle)
        v_m_s[:, 0] += EARTH_TURN_RAD_S * r_m[:, 1]
        v_m_s[:, 1] -= EARTH_TURN_RAD_S * r_m[:, 0]
        return Motion(r_m, v_m_s)

    def _place(self, t_s: FloatArray) -> tuple[IntArray, FloatArray]:
        """The knot at or below each instant, and how far it is to the next, from 0 to 1."""
        along = (t_s - self.first_knot_s) / self.knot_step_s
        knot = np.clip(np.floor(along).astype(np.int64), _BEFORE, len(self.r_teme_m) - (_STENCIL - _BEFORE))
        return knot, along - knot


def track(names: Sequence[str], orbits: Sequence[Orbit], epoch_utc: datetime, start_s: float, end_s: float) -> Track:
    """Satellites from start_s to end_s after the epoch.

    Raises InputError with the satellite's name and the meaning, where SGP4 has no position to give at start_s: a
    decayed satellite, or elements that no orbit has. One that decays later has an end.
    """
    knot_step_s = min(_KNOT_MAX_S, _KNOT_ANGLE_RAD / fastest_rad_s(orbits))
    # Knots are counted from the epoch, so that a run that begins later sees the same sky.
    first_knot_s = (np.floor(start_s / knot_step_s) - _BEFORE) * knot_step_s
    n_knot = int(np.ceil((end_s - first_knot_s) / knot_step_s)) + _STENCIL - _BEFORE
    knot_s = first_knot_s + knot_step_s * np.arange(n_knot, dtype=np.float64)
    error, r_m, _ = states(orbits, julian_dates(epoch_utc, knot_s))
    r_teme_m = np.ascontiguousarray(r_m.transpose(1, 2, 0))
    ends_s, reasons = np.full(len(orbits), np.inf), [""] * len(orbits)
    failing = np.flatnonzero((error != 0).any(axis=1))
    lost: list[str] = []
    for satellite in failing.tolist():
        one = [orbits[satellite]]
        ends_s[satellite], code = _end(one, epoch_utc, knot_s[_BEFORE:], error[satellite, _BEFORE:] != 0)
        at = (epoch_utc + timedelta(seconds=float(ends_s[satellite]))).strftime("%Y-%m-%dT%H:%M:%SZ")
        reasons[satellite] = f"no position from {at}: SGP4 error {max(code, 0)}, {_MEANINGS[max(code, 0)]}"
        if ends_s[satellite] <= start_s:
            lost.append(
                f"satellite {names[satellite]!r} has {reasons[satellite]}: by then its orbit has decayed, or its "
                "elements are out of date; leave it out with select, or move epoch towards that of its elements"
            )
            continue
        _continue_smoothly(r_teme_m[:, :, satellite], error[satellite] != 0)
    if lost:
        more = [f"… and {len(lost) - 10} more satellites"] if len(lost) > 10 else []
        raise InputError("\n".join(lost[:10] + more))
    return Track(epoch_utc, first_knot_s, knot_step_s, r_teme_m, ends_s, tuple(reasons))


def _end(orbit: list[Orbit], epoch_utc: datetime, knot_s: FloatArray, failed: BoolArray) -> tuple[float, int]:
    """When SGP4 first stops giving one satellite's position, to 10 ms, and its error code then. Shapes: (n_knot,)."""

    def code_at(t_s: float) -> int:
        return int(states(orbit, julian_dates(epoch_utc, np.array([t_s])))[0][0, 0])

    if not failed.any():
        return np.inf, 0
    first = int(np.argmax(failed))
    low_s, high_s = float(knot_s[max(first - 1, 0)]), float(knot_s[first])
    while high_s - low_s > 0.01:
        middle_s = (low_s + high_s) / 2.0
        low_s, high_s = (middle_s, high_s) if code_at(middle_s) == 0 else (low_s, middle_s)
    return high_s, code_at(high_s)


def _continue_smoothly(knots_m: FloatArray, failed: BoolArray) -> None:
    """Give the knots about a stretch of good ones the values that these lead to, in place. Shape (n_knot, 3).

    So the stencils that reach beyond a satellite's end, or before its beginning, still fit the good knots: those from
    the start of the track until SGP4 first fails.
    """
    knot = np.arange(len(knots_m))
    first = int(np.max(knot[:_BEFORE][failed[:_BEFORE]], initial=-1)) + 1
    end = _BEFORE + int(np.argmax(failed[_BEFORE:])) if failed[_BEFORE:].any() else len(knots_m)
    good = knot[first:end]
    for near, beyond in ((good[:_STENCIL], knot[:first]), (good[-_STENCIL:], knot[end : end + _STENCIL])):
        fit = np.polynomial.polynomial.polyfit(near - near[0], knots_m[near], len(near) - 1)
        knots_m[beyond] = np.polynomial.polynomial.polyval(beyond - near[0], fit).T
    knots_m[end + _STENCIL :] = knots_m[end - 1]
