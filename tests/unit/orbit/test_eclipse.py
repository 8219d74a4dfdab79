from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from controller.orbit.eclipse import eclipses
from controller.orbit.elements import walker_orbits
from controller.orbit.julian import JulianDates, julian_dates
from controller.orbit.sun import SUN_RADIUS_M, sun_mod_m
from controller.orbit.track import states, track
from controller.scenario.model import Walker
from controller.timeline import EclipseTable, FloatArray
from tests.unit.orbit.motions import EARTH_RADIUS_M, circular_track, verification_cases

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
PERIOD_550_KM_S = 95.65 * 60.0
# Published for a cylinder's shadow and a Sun at rest: 2·asin(6378.137 / 6928.137) = 134.04° of 95.65 min. A cone's
# penumbra and umbra lie on both sides of it, and their mean 0.0024° wider. The Sun goes on by 0.03° meanwhile.
ECLIPSE_TOLERANCE_MIN = 0.01
CRITICAL_BETA_TOLERANCE_DEG = 0.01
EDGE_TOLERANCE_S = 0.01
BETA_TOLERANCE_DEG = 1e-3
HALF_CONE_DEG = 0.2666  # the Sun's mean semidiameter of 16′, which parts the umbra's edge and the penumbra's


def sun_of(t_s: float) -> FloatArray:
    """The Sun at an instant. Shape (3,)."""
    sun_m: FloatArray = sun_mod_m(julian_dates(EPOCH, np.array([t_s])))[0]
    return sun_m


def orbits_with_beta(beta_deg: FloatArray, end_s: float) -> EclipseTable:
    """Eclipses of circular orbits at 550 km whose planes are tilted away from the Sun of the epoch by beta_deg (n,)."""
    toward = sun_of(0.0) / np.linalg.norm(sun_of(0.0))
    aside = np.cross([0.0, 0.0, 1.0], toward)
    aside /= np.linalg.norm(aside)
    beta = np.radians(beta_deg)[:, None]
    normal = np.sin(beta) * toward + np.cos(beta) * np.cross(toward, aside)
    inclination_deg = np.degrees(np.arccos(normal[:, 2]))
    raan_deg = np.degrees(np.arctan2(normal[:, 0], -normal[:, 1]))
    # Begin in the light: where the satellite is nearest to the Sun.
    node = np.stack((np.cos(np.radians(raan_deg)), np.sin(np.radians(raan_deg)), np.zeros(len(raan_deg))), axis=-1)
    noon_deg = np.degrees(np.arctan2(np.cross(normal, node) @ toward, node @ toward))
    return eclipses(circular_track(EPOCH, 550e3, inclination_deg, raan_deg, noon_deg, end_s), 0.0, end_s)


def shadow_margins_m(r_m: FloatArray, dates: JulianDates) -> tuple[FloatArray, FloatArray]:
    """How deep satellites are inside the penumbra's and the umbra's cone, by tangents. Shapes: (n, 3) → (n,) twice.

    The product draws discs instead.
    """
    sun_m = sun_mod_m(dates)
    distance_m = np.linalg.norm(sun_m, axis=-1)
    toward = sun_m / distance_m[:, None]
    behind_m = -np.sum(r_m * toward, axis=-1)
    beside_m = np.linalg.norm(r_m + behind_m[:, None] * toward, axis=-1)
    outer = np.arcsin((SUN_RADIUS_M + EARTH_RADIUS_M) / distance_m)
    inner = np.arcsin((SUN_RADIUS_M - EARTH_RADIUS_M) / distance_m)
    return (
        np.where(behind_m > 0.0, EARTH_RADIUS_M + behind_m * np.sin(outer) - beside_m * np.cos(outer), -1e7),
        np.where(behind_m > 0.0, EARTH_RADIUS_M - behind_m * np.sin(inner) - beside_m * np.cos(inner), -1e7),
    )


def test_the_eclipse_at_550_km_lasts_35_61_minutes_when_the_sun_is_in_the_plane() -> None:
    """At beta 0 the mean of penumbra and umbra is 35.61 min of a turn of 95.65 min."""
    found = orbits_with_beta(np.array([0.0]), PERIOD_550_KM_S)
    assert len(found.satellite) == 1
    penumbra_min = (found.end_s - found.start_s) / 60.0
    umbra_min = (found.umbra_end_s - found.umbra_start_s) / 60.0
    assert (penumbra_min + umbra_min) / 2.0 == pytest.approx([35.61], abs=ECLIPSE_TOLERANCE_MIN)
    # Each edge is crossed while the satellite turns by the Sun's width.
    assert found.umbra_start_s - found.start_s == pytest.approx([2.0 * HALF_CONE_DEG / 360.0 * 5739.0], rel=0.03)
    assert found.end_s - found.umbra_end_s == pytest.approx(found.umbra_start_s - found.start_s, rel=1e-3)
    assert found.beta_deg == pytest.approx([0.0], abs=0.05)


def test_there_is_no_eclipse_above_beta_67_02() -> None:
    """At 550 km the highest beta with an umbra and that with a penumbra lie about asin(6378.137 / 6928.137) = 67.02°.

    Orbits are 0.005° of beta apart. The two are half a Sun's width off that of a cylinder, either way.
    """
    found = orbits_with_beta(np.arange(66.0, 68.0, 0.005), PERIOD_550_KM_S)
    penumbral_deg = found.beta_deg.max()
    umbral_deg = found.beta_deg[np.isfinite(found.umbra_start_s)].max()
    assert (penumbral_deg + umbral_deg) / 2.0 == pytest.approx(67.02, abs=CRITICAL_BETA_TOLERANCE_DEG)
    assert (penumbral_deg - umbral_deg) / 2.0 == pytest.approx(HALF_CONE_DEG, abs=CRITICAL_BETA_TOLERANCE_DEG)
    assert len(orbits_with_beta(np.array([68.0, 75.0, 90.0]), PERIOD_550_KM_S).satellite) == 0


def test_an_eclipse_that_only_grazes_the_penumbra_is_found_between_samples() -> None:
    """Orbits all about the highest beta have eclipses from some seconds on, without an umbra, each of them found."""
    found = orbits_with_beta(np.arange(67.1, 67.3, 0.0005), PERIOD_550_KM_S)
    duration_s = found.end_s - found.start_s
    assert duration_s.min() < 20.0  # samples are 15 s apart
    assert np.isnan(found.umbra_start_s).all()
    # Half the duration grows with the root of how far beta is below the highest: no gap in the series.
    order = np.argsort(found.beta_deg)
    assert np.all(np.diff(found.beta_deg[order]) < 0.001)
    assert np.all(np.diff(duration_s[order]) < 0.5)


def test_edges_are_those_of_the_true_geometry_of_sgp4() -> None:
    """Within 10 ms before and after each edge, SGP4's position is in and out of the shadow's cone."""
    walker = Walker(pattern="delta", total=60, planes=12, phasing=1, altitude_m=550_000.0, inclination_deg=53.0)
    orbits, end_s = walker_orbits(walker, EPOCH), 11_000.0
    found = eclipses(track([""] * 60, orbits, EPOCH, 0.0, end_s), 0.0, end_s)
    assert len(found.satellite) > 100
    n_edge = 0
    for edges_s, cone, sign in (
        (found.start_s, 0, 1.0), (found.end_s, 0, -1.0), (found.umbra_start_s, 1, 1.0), (found.umbra_end_s, 1, -1.0),
    ):  # fmt: skip
        for satellite, edge_s in zip(found.satellite, edges_s, strict=True):
            if not 0.0 < edge_s < end_s:  # cut, or NaN
                continue
            dates = julian_dates(EPOCH, edge_s + np.array([-EDGE_TOLERANCE_S, EDGE_TOLERANCE_S]))
            depth_m = shadow_margins_m(states([orbits[satellite]], dates)[1][0], dates)[cone]
            assert sign * depth_m[0] < 0.0 < sign * depth_m[1]
            n_edge += 1
    assert n_edge > 350

    # Beta, as the angle between the Sun and the plane's normal at mid-eclipse.
    for satellite, middle_s, beta_deg in zip(
        found.satellite, (found.start_s + found.end_s) / 2.0, found.beta_deg, strict=True
    ):
        _, r_m, v_m_s = states([orbits[satellite]], julian_dates(EPOCH, np.array([middle_s])))
        normal, toward = np.cross(r_m[0, 0], v_m_s[0, 0]), sun_of(middle_s)
        cosine = normal @ toward / (np.linalg.norm(normal) * np.linalg.norm(toward))
        assert beta_deg == pytest.approx(90.0 - math.degrees(math.acos(cosine)), abs=BETA_TOLERANCE_DEG)


def test_eclipses_are_complete_and_in_order() -> None:
    """Samples a second apart, by cones, of SGP4 itself: in an eclipse where there is one, and nowhere else."""
    walker = Walker(pattern="star", total=12, planes=6, phasing=1, altitude_m=1_200_000.0, inclination_deg=87.9)
    orbits, end_s = walker_orbits(walker, EPOCH), 14_000.0
    found = eclipses(track([""] * 12, orbits, EPOCH, 0.0, end_s), 0.0, end_s)
    assert np.all(np.lexsort((found.start_s, found.satellite)) == np.arange(len(found.satellite)))
    t_s = np.arange(0.0, end_s, 1.0)
    dates = julian_dates(EPOCH, t_s)
    for satellite in range(12):
        own = found.satellite == satellite
        depths_m = shadow_margins_m(states([orbits[satellite]], dates)[1][0], dates)
        for depth_m, starts_s, ends_s in (
            (depths_m[0], found.start_s[own], found.end_s[own]),
            (depths_m[1], found.umbra_start_s[own], found.umbra_end_s[own]),
        ):
            told = np.any((t_s[:, None] >= starts_s) & (t_s[:, None] <= ends_s), axis=1)
            sure = np.abs(depth_m) > 1_000.0
            assert np.array_equal(told[sure], depth_m[sure] > 0.0)


def test_a_run_that_begins_and_ends_in_the_dark_cuts_its_eclipses() -> None:
    """What is going on at the start and at the end begins and ends there, umbras too."""
    whole = orbits_with_beta(np.array([0.0]), PERIOD_550_KM_S)
    walker = Walker(pattern="delta", total=40, planes=1, phasing=0, altitude_m=550_000.0, inclination_deg=30.0)
    flown = track([""] * 40, walker_orbits(walker, EPOCH), EPOCH, 500.0, 600.0)
    found = eclipses(flown, 500.0, 600.0)
    assert whole.start_s[0] > 0.0
    assert (found.start_s.min(), found.end_s.max()) == (500.0, 600.0)
    dark = (found.start_s == 500.0) & (found.end_s == 600.0)
    assert dark.sum() > 10
    assert np.all(found.umbra_start_s[dark] == 500.0)
    assert np.all(found.umbra_end_s[dark] == 600.0)


def test_a_geostationary_satellite_has_its_season_of_eclipses() -> None:
    """At the equinox an eclipse of 69.4 min at local midnight, half-light to half-light; at the solstice none.

    Independent value: 2·asin(6378.137 / 42164) = 17.4° of a turn of 1436 min.
    """
    walker = Walker(pattern="delta", total=1, planes=1, phasing=0, altitude_m=35_786_000.0, inclination_deg=0.0)
    for month, n_eclipse in ((3, 1), (6, 0)):
        epoch = datetime(2026, month, 20, 12, tzinfo=UTC)
        found = eclipses(track([""], walker_orbits(walker, epoch), epoch, 0.0, 86_164.0), 0.0, 86_164.0)
        assert len(found.satellite) == n_eclipse
        half_light_min = (found.end_s - found.start_s + found.umbra_end_s - found.umbra_start_s) / 120.0
        assert half_light_min == pytest.approx([69.4] * n_eclipse, abs=0.5)


def test_an_eclipse_ends_with_its_satellite() -> None:
    """A satellite that decays has no eclipses after its end."""
    (case,) = [case for case in verification_cases() if case.catalogue == "29141"]
    days = case.orbit.jdsatepoch - 2_440_587.5 + case.orbit.jdsatepochF
    epoch = datetime.fromtimestamp(days * 86_400.0, UTC)
    flown = track([""], [case.orbit], epoch, 0.0, 86_400.0)
    found = eclipses(flown, 0.0, 86_400.0)
    assert len(found.satellite) >= 4
    assert math.isfinite(flown.end_s[0])
    assert found.end_s.max() <= flown.end_s[0]
    assert np.all(found.umbra_end_s <= found.end_s)
    assert np.isfinite(found.beta_deg).all()
