"""Where satellites are, all of them at all times at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sgp4.api import SGP4_ERRORS, SatrecArray

from controller.errors import InputError
from controller.orbit.elements import Orbit
from controller.orbit.julian import julian_dates
from controller.timeline import FloatArray

_MEANINGS = {0: "the result is not a number", **SGP4_ERRORS}


@dataclass(frozen=True)
class Ephemeris:
    """Positions and velocities. Shapes: both (n_sat, n_t, 3)."""

    r_teme_m: FloatArray
    v_teme_m_s: FloatArray


def propagate(names: Sequence[str], orbits: Sequence[Orbit], epoch_utc: datetime, t_s: FloatArray) -> Ephemeris:
    """Satellites at the instants t_s (n_t,) after the epoch.

    Raises InputError with the satellite's name, the instant and the meaning, where SGP4 has no position to give: a
    decayed satellite, or elements that no orbit has.
    """
    dates = julian_dates(epoch_utc, t_s)
    error, r_km, v_km_s = SatrecArray(orbits).sgp4(dates.day, dates.fraction)
    # SGP4 has no code for elements that lead it to no number at all.
    failed = (error != 0) | ~np.isfinite(r_km).all(axis=-1)
    if failed.any():
        lost = np.flatnonzero(failed.any(axis=1))
        lines = []
        for satellite in lost[:10]:
            step = int(np.argmax(failed[satellite]))
            at = (epoch_utc + timedelta(seconds=float(t_s[step]))).strftime("%Y-%m-%dT%H:%M:%SZ")
            code = int(error[satellite, step])
            lines.append(
                f"satellite {names[satellite]!r} has no position at {at}: SGP4 error {code}, {_MEANINGS[code]}: by "
                "then its orbit has decayed, or its elements are out of date; leave it out with select, or move epoch "
                "towards that of its elements"
            )
        if len(lost) > len(lines):
            lines.append(f"… and {len(lost) - len(lines)} more satellites")
        raise InputError("\n".join(lines))
    r_km *= 1000.0
    v_km_s *= 1000.0
    return Ephemeris(r_km, v_km_s)
