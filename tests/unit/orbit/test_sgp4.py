from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.orbit.elements import walker_orbits
from controller.orbit.julian import julian_dates
from controller.orbit.track import states
from controller.scenario.model import Walker
from tests.searches import examples
from tests.unit.orbit.motions import verification_cases

# The sgp4 package's own bound for this set; the file prints 1e-8 km and 1e-9 km/s.
VERIFICATION_TOLERANCE_KM = 2e-7
VERIFICATION_TOLERANCE_KM_S = 1e-9
# SGP4 leaves terms of the second order of J2, some 1e-6 each, out of its short periods. Without J2 it were 1e-3.
ENERGY_TOLERANCE_RATIO = 1e-5
MU_WGS72_M3_S2, J2_WGS72, RADIUS_WGS72_M = 398_600.8e9, 0.001082616, 6_378_135.0
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def test_positions_and_velocities_match_the_sgp4_verification_set() -> None:
    """All that tcppver.out of AIAA 2006-6753 prints: 31 satellites (one of them twice), 666 rows.

    The file has 33 sections and 667 rows. That of object 33334 is none of its own: SGP4 refuses its elements with error
    3, and the file repeats the line before. Three sets, that one among them, have wrong checksums on purpose.
    """
    cases = verification_cases()
    assert len(cases) == 33
    assert sum(case.has_wrong_checksum for case in cases) == 3
    sound = [case for case in cases if case.catalogue != "33334"]
    assert len({case.catalogue for case in sound}) == 31
    n_row = 0
    for case in sound:
        error, r_m, v_m_s = states([case.orbit], case.dates)
        assert not error.any(), case.catalogue
        assert np.abs(r_m[0] / 1e3 - case.r_teme_km).max() < VERIFICATION_TOLERANCE_KM, case.catalogue
        assert np.abs(v_m_s[0] / 1e3 - case.v_teme_km_s).max() < VERIFICATION_TOLERANCE_KM_S, case.catalogue
        n_row += len(r_m[0])
    assert n_row == 666


def test_elements_that_no_orbit_has_are_told_by_a_code() -> None:
    """Object 33334 of the verification set is there to have an error: eccentricity out of range, SGP4's code 3."""
    (case,) = [case for case in verification_cases() if case.catalogue == "33334"]
    error, r_m, _ = states([case.orbit], case.dates)
    assert error.tolist() == [[3]]
    assert np.isnan(r_m).all()


@given(st.floats(300e3, 2_000e3), st.floats(0.0, 180.0), st.floats(0.0, 360.0))
@settings(max_examples=examples(50), deadline=None)
def test_the_energy_of_an_orbit_without_drag_is_kept(
    altitude_m: float, inclination_deg: float, raan_deg: float
) -> None:
    """Kinetic and potential energy, that of the Earth's flattening included, are the same all round an orbit.

    The potential is of μ and J2 (Vallado, 4th ed., eq. 8-19), of the constants of WGS 72 that SGP4 has.
    """
    walker = Walker(
        pattern="delta", total=1, planes=1, phasing=0,
        altitude_m=altitude_m, inclination_deg=inclination_deg, raan_deg=raan_deg,
    )  # fmt: skip
    _, r_m, v_m_s = states(walker_orbits(walker, EPOCH), julian_dates(EPOCH, np.linspace(0.0, 7_000.0, 141)))
    radius_m = np.linalg.norm(r_m[0], axis=-1)
    flattening = J2_WGS72 * (RADIUS_WGS72_M / radius_m) ** 2 * (1.5 * (r_m[0, :, 2] / radius_m) ** 2 - 0.5)
    energy = np.sum(v_m_s[0] ** 2, axis=-1) / 2.0 - MU_WGS72_M3_S2 / radius_m * (1.0 - flattening)
    assert np.ptp(energy) < ENERGY_TOLERANCE_RATIO * np.abs(np.mean(energy))
    assert np.mean(energy) == pytest.approx(
        -MU_WGS72_M3_S2 / (2.0 * (6_378_137.0 + altitude_m)), rel=ENERGY_TOLERANCE_RATIO
    )
