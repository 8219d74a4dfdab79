from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sgp4.api import SatrecArray

from controller.cli.main import skyrack
from controller.errors import InputError
from controller.orbit.elements import constellation_orbits, element_age_warnings
from controller.scenario import Scenario, load_scenario, preset_names, preset_text
from controller.scenario.load import preset_data_files, preset_summary
from controller.scenario.omm import OmmSet
from controller.timeline import FloatArray

# Satellites, planes, altitude in km and inclination, as published: the sources stand in the presets' own comments.
SHELLS = {
    "iridium-66": (66, 6, 780, 86.4),
    "oneweb-648": (648, 18, 1_200, 87.9),
    "starlink-shell1": (1_584, 72, 550, 53.0),
    "kuiper-630": (1_156, 34, 630, 51.9),
    "guowang-508": (3_600, 60, 508, 55.0),
    "telesat-polar": (78, 6, 1_015, 98.98),
}
# The mean Sun's right ascension, Astronomical Almanac section C: at J2000, and a day.
MEAN_SUN_DEG, MEAN_SUN_DEG_DAY = 280.460, 0.9856474
# The inclination is of first order in J2 and given to 0.01°; SGP4 goes further. Two minutes of local time a year.
SUN_SYNCHRONOUS_TOLERANCE_DEG_DAY = 0.002
LOCAL_TIME_TOLERANCE_DEG = 0.1  # 24 s of local time
# arXiv:2511.19468, section 2.2: cluster radius 1 km, neighbours 100 to 200 m apart. J2's short periods, which differ
# from one satellite to the next, take mean elements up to 15 m from that.
SUNCATCHER_RADIUS_M, SUNCATCHER_NEIGHBOURS_M, J2_TOLERANCE_M = 1_000.0, (100.0, 200.0), 15.0


def test_the_presets_are_those_that_are_promised() -> None:
    """Nine scenarios come along, each with a line that says what it is, short enough for a table."""
    assert set(preset_names()) == {*SHELLS, "three-body-12", "suncatcher-81", "eo-sso-8"}
    for name in preset_names():
        assert 20 < len(preset_summary(name)) <= 95
        assert preset_summary(name) in preset_text(name)


@pytest.mark.parametrize("name", SHELLS)
def test_a_shell_has_the_published_orbit(name: str) -> None:
    """Satellites, planes, altitude and inclination are those of the filings."""
    (constellation,) = load_scenario(name).constellations
    walker = constellation.walker
    assert walker is not None
    assert (walker.total, walker.planes, walker.altitude_m / 1e3, walker.inclination_deg) == SHELLS[name]


@pytest.mark.parametrize("name", ["starlink-shell1", "kuiper-630", "guowang-508"])
def test_no_two_satellites_of_a_shell_come_close(name: str) -> None:
    """The phasing keeps satellites on circular orbits at least 25 km apart (criterion of arXiv:2109.13994)."""
    walker = load_scenario(name).constellations[0].walker
    assert walker is not None
    least = least_separation(walker.planes, walker.slots, walker.phasing, walker.inclination_deg)
    assert least * (6_378.137 + walker.altitude_m / 1e3) > 25.0


def test_the_separation_of_circular_orbits_is_the_published_one() -> None:
    """Kuiper's 610 km shell, 36 planes of 36 at 42° with phasing 11: 55.89 km (J. Liang et al., arXiv:2109.13994)."""
    assert least_separation(36, 36, 11, 42.0) * 6_988.137 == pytest.approx(55.89, abs=0.01)


def least_separation(planes: int, slots: int, phasing: int, inclination_deg: float) -> float:
    """The least distance ever between two satellites of a Walker delta on circular orbits of radius 1."""
    plane, slot = np.meshgrid(np.arange(1, planes // 2 + 1), np.arange(slots))
    node = math.tau * plane / planes
    phase = math.tau * (slot / slots + plane * phasing / (planes * slots))
    cos_i = math.cos(math.radians(inclination_deg))
    cos_between = cos_i**2 + (1.0 - cos_i**2) * np.cos(node)  # of the planes
    with np.errstate(over="ignore"):
        along = phase + 2.0 * np.arctan(cos_i * np.tan(node / 2.0))
    return float((2.0 * np.abs(np.sqrt((1.0 + cos_between) / 2.0) * np.sin(along / 2.0))).min())


@pytest.mark.parametrize(
    ("name", "local_times_h"),
    [("three-body-12", (10.5,)), ("eo-sso-8", (10.5, 13.5)), ("suncatcher-81", (18.0,))],
)
def test_a_sun_synchronous_preset_follows_the_sun(name: str, local_times_h: tuple[float, ...]) -> None:
    """SGP4 turns the node by 360° a year, and at the epoch it stands where the mean Sun gives its local time."""
    scenario = load_scenario(name)
    for constellation, local_time_h in zip(scenario.constellations, local_times_h, strict=True):
        orbit = constellation_orbits(constellation, scenario.epoch)[0]
        rate_deg_day = math.degrees(orbit.nodedot) * 1_440.0
        assert rate_deg_day == pytest.approx(360.0 / 365.2422, abs=SUN_SYNCHRONOUS_TOLERANCE_DEG_DAY)
        days = (scenario.epoch - datetime(2000, 1, 1, 12, tzinfo=UTC)) / timedelta(days=1)
        due_deg = MEAN_SUN_DEG + MEAN_SUN_DEG_DAY * days + (local_time_h - 12.0) * 15.0
        off_deg = (math.degrees(orbit.nodeo) - due_deg + 180.0) % 360.0 - 180.0
        assert abs(off_deg) < LOCAL_TIME_TOLERANCE_DEG


def formation() -> tuple[Scenario, list[tuple[int, int]]]:
    """Suncatcher, and its points (outwards, ahead) in the order of its satellites."""
    points = [(i, j) for i, j in product(range(-5, 6), repeat=2) if math.hypot(i, j) <= 5.0]
    return load_scenario("suncatcher-81"), points


def test_the_formation_is_the_lattice_that_its_comment_tells() -> None:
    """81 points of 100 m and 200 m become eccentricities and anomalies of one plane and one mean motion."""
    scenario, points = formation()
    sets = scenario.constellations[0].element_sets
    a_m = 6_378_137.0 + 650_000.0
    mean_motion_rev_day = math.sqrt(398_600.8e9 / a_m**3) * 86_400.0 / math.tau
    assert len(sets) == len(points) == 81
    assert element_age_warnings(scenario) == ()
    for element_set, (outwards, ahead) in zip(sets, points, strict=True):
        assert isinstance(element_set, OmmSet)
        assert element_set.mean_motion_rev_day == pytest.approx(mean_motion_rev_day, abs=1e-9)
        assert element_set.eccentricity == pytest.approx(100.0 * math.hypot(outwards, ahead) / a_m, abs=1e-12)
        anomaly = math.radians(element_set.mean_anomaly_deg)
        assert -a_m * element_set.eccentricity * math.cos(anomaly) == pytest.approx(100.0 * outwards, abs=1e-3)
        assert 2.0 * a_m * element_set.eccentricity * math.sin(anomaly) == pytest.approx(200.0 * ahead, abs=1e-3)


def flown_m(scenario: Scenario, first_orbit: int) -> FloatArray:
    """The formation's places in TEME over one of its orbits. Shape (81, n_t, 3)."""
    orbits = constellation_orbits(scenario.constellations[0], scenario.epoch)
    turns = (first_orbit + np.linspace(0.0, 1.0, 61)) / 14.7347
    error, r_km, _ = SatrecArray(orbits).sgp4(np.full(61, orbits[0].jdsatepoch), orbits[0].jdsatepochF + turns)
    assert not error.any()
    return np.asarray(r_km) * 1e3


@pytest.mark.parametrize("first_orbit", [0, 14])
def test_the_formation_keeps_together(first_orbit: int) -> None:
    """Flown with SGP4, all stay within 1 km of the middle one and neighbours 100 to 200 m apart, also a day later."""
    scenario, points = formation()
    r_m = flown_m(scenario, first_orbit)
    middle = points.index((0, 0))
    assert np.linalg.norm(r_m - r_m[middle], axis=-1).max() < SUNCATCHER_RADIUS_M + J2_TOLERANCE_M
    index = {point: number for number, point in enumerate(points)}
    pairs = [(index[i, j], index[n]) for i, j in points for n in ((i + 1, j), (i, j + 1)) if n in index]
    one, other = np.array(pairs).T
    apart_m = np.linalg.norm(r_m[one] - r_m[other], axis=-1)
    assert len(pairs) == 140
    assert apart_m.min() > SUNCATCHER_NEIGHBOURS_M[0] - J2_TOLERANCE_M
    assert apart_m.max() < SUNCATCHER_NEIGHBOURS_M[1] + J2_TOLERANCE_M


def test_element_sets_travel_with_their_preset() -> None:
    """Only the formation has a file beside it, which the scenario finds from anywhere."""
    files = {name: [file.name for file in preset_data_files(name)] for name in preset_names()}
    assert {name: found for name, found in files.items() if found} == {"suncatcher-81": ["suncatcher-81.csv"]}


def test_init_writes_a_preset_with_its_element_sets(tmp_path: Path) -> None:
    """Both files stand side by side and load from there; neither is overwritten."""
    path = tmp_path / "mine.toml"
    skyrack.main(["init", "suncatcher-81", "--out", str(path)], standalone_mode=False)
    assert len(load_scenario(str(path)).satellite_names) == 81
    path.unlink()
    with pytest.raises(InputError, match=r"suncatcher-81\.csv exists already"):
        skyrack.main(["init", "suncatcher-81", "--out", str(path)], standalone_mode=False)
    assert not path.exists()


def test_presets_says_what_each_is(capsys: pytest.CaptureFixture[str]) -> None:
    """`skyrack presets` names satellites, ground nodes, duration, and what the scenario is."""
    skyrack.main(["presets"], standalone_mode=False)
    text = capsys.readouterr().out
    for name in preset_names():
        (line,) = (line for line in text.splitlines() if f" {name} " in line)
        scenario = load_scenario(name)
        for word in (len(scenario.satellite_names), len(scenario.grounds), f"{scenario.duration_s:g}"):
            assert f" {word} " in line
        assert preset_summary(name) in line
