"""Julian dates in two parts, a day and a fraction, so that microseconds survive.

UT1 is taken as UTC: they differ by less than 0.9 s, which turns the Earth by up to 420 m at the equator.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from controller.timeline import FloatArray

DAY_S = 86_400.0
J2000_JD = 2_451_545.0  # 2000-01-01 12:00
DAYS_A_JULIAN_CENTURY = 36_525.0
_UNIX_EPOCH_JD = 2_440_587.5  # 1970-01-01 00:00
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class JulianDates:
    """Instants as day + fraction. Shapes: both (n_t,). `day` ends in .5 (a midnight)."""

    day: FloatArray
    fraction: FloatArray

    @property
    def days_since_j2000(self) -> tuple[FloatArray, FloatArray]:
        """Days since 2000-01-01 12:00, still in two parts."""
        return self.day - J2000_JD, self.fraction

    @property
    def centuries(self) -> FloatArray:
        """Julian centuries since J2000."""
        whole, part = self.days_since_j2000
        return (whole + part) / DAYS_A_JULIAN_CENTURY


def julian_dates(epoch_utc: datetime, t_s: FloatArray) -> JulianDates:
    """The instants t_s (n_t,) after an aware epoch."""
    since = epoch_utc - _UNIX_EPOCH
    fraction = (since.seconds + since.microseconds * 1e-6 + np.asarray(t_s, np.float64)) / DAY_S
    carried = np.floor(fraction)
    return JulianDates(_UNIX_EPOCH_JD + since.days + carried, fraction - carried)
