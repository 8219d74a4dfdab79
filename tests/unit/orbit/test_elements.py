from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skyfield.api import EarthSatellite, load

from controller.orbit.elements import Orbit, constellation_orbits, element_age_warnings, omm_orbits, tle_orbits
from controller.scenario.omm import parse_omm
from controller.scenario.tle import parse_tle
from controller.timeline import FloatArray
from tests.unit.scenario import vanguard
from tests.unit.scenario.text import GOOD, parsed, with_elements

ONE_ORBIT_DAYS = 1.0 / 10.848_691_64  # of Vanguard 1
# Both formats print the same digits; what differs is how a day of the year and a date are kept, to 1 µs or 7 mm.
SAME_ELEMENTS_TOLERANCE_M = 0.02
INDEPENDENT_TOLERANCE_M = 0.02


def positions_m(orbit: Orbit) -> FloatArray:
    """Positions in TEME over one turn from the epoch of Vanguard 1's elements. Shape (n_t, 3)."""
    fraction = 0.203_338_80 + np.linspace(0.0, ONE_ORBIT_DAYS, 25)
    error, r_km, _ = orbit.sgp4_array(np.full(25, 2_459_135.5), fraction)  # 2020-10-13 00:00
    assert not error.any()
    return np.asarray(r_km) * 1e3


@pytest.mark.parametrize("extension", vanguard.BY_EXTENSION)
def test_an_omm_flies_where_its_tle_does(extension: str) -> None:
    """CelesTrak's JSON, XML and CSV of Vanguard 1 give the positions of its TLE."""
    (from_tle,) = tle_orbits(parse_tle(vanguard.TLE))
    (from_omm,) = omm_orbits(parse_omm(vanguard.BY_EXTENSION[extension], extension))
    assert np.abs(positions_m(from_omm) - positions_m(from_tle)).max() < SAME_ELEMENTS_TOLERANCE_M


def test_an_omm_flies_where_skyfield_says() -> None:
    """Skyfield's own reading of the same OMM gives the same positions."""
    (ours,) = omm_orbits(parse_omm(vanguard.JSON, ".json"))
    theirs = EarthSatellite.from_omm(load.timescale(builtin=True), vanguard.FIELDS).model
    assert np.abs(positions_m(ours) - positions_m(theirs)).max() < INDEPENDENT_TOLERANCE_M


def test_a_catalogue_number_of_nine_digits_flies() -> None:
    """What no TLE has room for changes nothing of the orbit; angles may be below 0."""
    (omm,) = parse_omm(vanguard.JSON, ".json")
    turned = replace(omm, catalogue="799500000", raan_deg=omm.raan_deg - 360.0, mean_anomaly_deg=-154.7644)
    one, other = omm_orbits([omm, turned])
    assert np.abs(positions_m(one) - positions_m(other)).max() < SAME_ELEMENTS_TOLERANCE_M


@pytest.mark.parametrize(("key", "file", "text"), [("tle", "v.tle", vanguard.TLE), ("omm", "v.csv", vanguard.CSV)])
def test_a_constellation_has_the_orbits_of_its_file(tmp_path: Path, key: str, file: str, text: str) -> None:
    """Whichever the format, there is an orbit a satellite."""
    (tmp_path / file).write_text(text)
    scenario = parsed(with_elements(key, file), tmp_path)
    (orbit,) = constellation_orbits(scenario.constellations[0], scenario.epoch)
    assert orbit.ecco == pytest.approx(0.1845686, abs=1e-9)


@pytest.mark.parametrize(
    ("epoch", "n_warning"),
    [("2020-10-14", 0), ("2020-11-12", 0), ("2020-11-13", 1), ("2020-09-13", 1), ("2020-09-14", 0)],
)
def test_elements_of_another_month_are_warned_of(tmp_path: Path, epoch: str, n_warning: int) -> None:
    """More than 30 days from the run, before or after, one line names file, object, age, consequence and remedy."""
    (tmp_path / "v.tle").write_text(vanguard.TLE)
    warnings = element_age_warnings(parsed(with_elements("tle", "v.tle").replace("2026-01-01", epoch), tmp_path))
    assert len(warnings) == n_warning
    for line in warnings:
        for word in ("v.tle: 1 of 1", "more than 30 days", "VANGUARD 1:2", "kilometres a day", "towards 2020-10-13"):
            assert word in line


def test_a_walker_pattern_is_of_the_scenarios_own_day() -> None:
    """Walker elements hold at the epoch and never warn."""
    assert element_age_warnings(parsed(GOOD)) == ()
