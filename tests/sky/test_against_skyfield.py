"""Our sky against Skyfield's (Brandon Rhodes; its own frames, precession, nutation, UT1, and JPL's ephemeris DE421).

Both have SGP4 from the same package; everything after it is independent. Skyfield is run without polar motion.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skyfield_data
from skyfield.api import EarthSatellite, load, load_file, wgs84
from skyfield.sgp4lib import TEME

from controller.links.passes import GroundView
from controller.links.sites import Sites
from controller.orbit.eclipse import eclipses
from controller.orbit.elements import Orbit, tle_orbits, walker_orbits
from controller.orbit.frames import ecef_to_geodetic
from controller.orbit.julian import julian_dates
from controller.orbit.sun import satellite_illumination_ratio, sun_mod_m
from controller.orbit.track import Track, track
from controller.scenario.model import Ground, Walker
from controller.scenario.tle import parse_tle
from controller.timeline import FloatArray

# Asked for are 0.02° of elevation, 1 s of rise and set, 0.5 km of range, 3 s of an eclipse's edges, 0.02° of the Sun.
# These are what holds while UT1 is near UTC, and so close that a wrong constant shows.
ELEVATION_TOLERANCE_DEG = 0.002
RISE_TOLERANCE_S = 0.6
MASK_TOLERANCE_DEG = 0.002
RANGE_TOLERANCE_M = 20.0
RANGE_RATE_TOLERANCE_M_S = 0.5
ECLIPSE_EDGE_TOLERANCE_S = 0.5
SUN_TOLERANCE_DEG = 0.012
SUN_DISTANCE_TOLERANCE_RATIO = 1e-4
# And these while UT1 − UTC is as large as leap seconds let it become.
LARGE_UT1_ELEVATION_TOLERANCE_DEG, LARGE_UT1_RANGE_TOLERANCE_M = 0.03, 500.0
GEODETIC_TOLERANCE_DEG, ALTITUDE_TOLERANCE_M = 0.002, 10.0

TLE_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "tle"
needs_tle = pytest.mark.skipif(not TLE_FOLDER.is_dir(), reason=f"the shared element sets are not at {TLE_FOLDER}")
EPOCH = datetime(2022, 9, 15, tzinfo=UTC)
RUN_S = 43_200.0
MASK_DEG = 10.0
TIMES = load.timescale(builtin=True)


@pytest.fixture(scope="module")
def ephemeris() -> Iterator[Any]:
    """JPL's DE421, as skyfield-data brings it along."""
    # Its own path function warns of the age of another of its files.
    kernel = load_file(Path(skyfield_data.__file__).parent / "data" / "de421.bsp")
    yield kernel
    kernel.close()


def at(epoch: datetime, t_s: FloatArray) -> Any:
    """Skyfield's instants, to the microsecond."""
    return TIMES.from_datetimes([epoch + timedelta(seconds=float(t)) for t in t_s])


def random_orbits(n_each: int) -> list[Orbit]:
    """Random satellites of the three real constellations."""
    rng = np.random.default_rng(2022)
    chosen = []
    for constellation in ("Iridium", "OneWeb", "Starlink"):
        orbits = tle_orbits(parse_tle((TLE_FOLDER / f"{constellation}.tle").read_text()))
        chosen += [orbits[i] for i in rng.permutation(len(orbits))[:n_each]]
    return chosen


def flown(orbits: list[Orbit], epoch: datetime, end_s: float) -> Track:
    """A track of satellites without names."""
    return track([""] * len(orbits), orbits, epoch, 0.0, end_s)


def random_places(n: int) -> list[Ground]:
    """Random ground nodes all over the Earth, and one near the pole."""
    rng = np.random.default_rng(7)
    latitude_deg, longitude_deg = np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n))), rng.uniform(-180.0, 180.0, n)
    latitude_deg[0] = 89.9
    return [
        Ground(name=f"place-{i}", role="gateway", latitude_deg=lat, longitude_deg=lon, altitude_m=alt)
        for i, (lat, lon, alt) in enumerate(zip(latitude_deg, longitude_deg, rng.uniform(0.0, 4e3, n), strict=True))
    ]


def view_of(grounds: list[Ground], track_: Track) -> GroundView:
    """The ground nodes over a mask of 10°, at any range."""
    return GroundView(Sites.of(grounds), track_, np.full(len(grounds), MASK_DEG), np.full(len(grounds), np.inf))


def looks(ground: Ground, orbit: Orbit, instants: Any) -> tuple[FloatArray, ...]:
    """Skyfield's elevation and azimuth in degrees, range in m, range rate in m/s."""
    place = wgs84.latlon(ground.latitude_deg, ground.longitude_deg, elevation_m=ground.altitude_m)
    topocentric = (EarthSatellite.from_satrec(orbit, TIMES) - place).at(instants)
    elevation, azimuth, distance, _, _, rate = topocentric.frame_latlon_and_rates(place)
    return elevation.degrees, azimuth.degrees, distance.m, rate.m_per_s


def test_the_sun_is_where_de421_has_it(ephemeris: Any) -> None:
    """Every fourth day from 2020 to 2050, the apparent Sun in TEME, where satellites are."""
    epoch = datetime(2020, 1, 1, tzinfo=UTC)
    t_s = np.arange(0.0, 30.0 * 365.25 * 86_400.0, 4.1 * 86_400.0)
    theirs_m = ephemeris["earth"].at(at(epoch, t_s)).observe(ephemeris["sun"]).apparent().frame_xyz(TEME).m.T
    ours_m = sun_mod_m(julian_dates(epoch, t_s))
    sine = np.linalg.norm(np.cross(ours_m, theirs_m), axis=-1)
    apart_deg = np.degrees(np.arctan2(sine, np.sum(ours_m * theirs_m, axis=-1)))
    assert apart_deg.max() < SUN_TOLERANCE_DEG
    ratio = np.linalg.norm(ours_m, axis=-1) / np.linalg.norm(theirs_m, axis=-1)
    assert np.abs(ratio - 1.0).max() < SUN_DISTANCE_TOLERANCE_RATIO


@needs_tle
def test_elevation_azimuth_range_and_range_rate() -> None:
    """36 real satellites over 8 random places, whenever they are above the horizon at random instants of 12 hours."""
    orbits, grounds = random_orbits(12), random_places(8)
    view = view_of(grounds, flown(orbits, EPOCH, RUN_S))
    t_s = np.sort(np.random.default_rng(1).uniform(0.0, RUN_S, 300))
    instants, n_seen = at(EPOCH, t_s), 0
    for g, ground in enumerate(grounds):
        for s, orbit in enumerate(orbits):
            elevation_deg, azimuth_deg, range_m, rate_m_s = looks(ground, orbit, instants)
            up = elevation_deg > 0.0
            seen = view.look(np.full(up.sum(), g), np.full(up.sum(), s), t_s[up])
            assert seen.elevation_deg == pytest.approx(elevation_deg[up], abs=ELEVATION_TOLERANCE_DEG)
            # As an angle on the sky: azimuths crowd about the zenith.
            off_deg = np.mod(seen.azimuth_deg - azimuth_deg[up] + 180.0, 360.0) - 180.0
            off_deg *= np.cos(np.radians(elevation_deg[up]))
            assert off_deg == pytest.approx(0.0, abs=ELEVATION_TOLERANCE_DEG)
            assert seen.range_m == pytest.approx(range_m[up], abs=RANGE_TOLERANCE_M)
            assert seen.range_rate_m_s == pytest.approx(rate_m_s[up], abs=RANGE_RATE_TOLERANCE_M_S)
            n_seen += int(up.sum())
    assert n_seen > 1_000


def test_what_leaving_out_ut1_costs() -> None:
    """In December 2005, when UT1 − UTC was −0.66 s (IERS), places stand up to 310 m from where they are in truth.

    That is below 0.5 km of range always; elevations of a satellite at 780 km err by up to 0.03°.
    """
    epoch = datetime(2005, 12, 15, tzinfo=UTC)
    walker = Walker(pattern="star", total=66, planes=6, phasing=2, altitude_m=780_000.0, inclination_deg=86.4)
    orbits, grounds = walker_orbits(walker, epoch), random_places(6)
    view = view_of(grounds, flown(orbits, epoch, 600.0))
    instants, worst_m = at(epoch, np.array([0.0, 300.0])), 0.0
    for g, ground in enumerate(grounds):
        for s, orbit in enumerate(orbits):
            elevation_deg, _, range_m, _ = looks(ground, orbit, instants)
            seen = view.look(np.full(2, g), np.full(2, s), np.array([0.0, 300.0]))
            assert seen.range_m == pytest.approx(range_m, abs=LARGE_UT1_RANGE_TOLERANCE_M)
            assert seen.elevation_deg == pytest.approx(elevation_deg, abs=LARGE_UT1_ELEVATION_TOLERANCE_DEG)
            worst_m = max(worst_m, float(np.abs(seen.range_m - range_m).max()))
    assert 200.0 < worst_m < 320.0


@needs_tle
def test_rise_and_set() -> None:
    """Every pass that Skyfield finds over a mask of 10° in 12 hours is found, and no other.

    Skyfield's search is good to half a second; at our edges its elevation is that of the mask.
    """
    orbits, grounds = random_orbits(6), random_places(4)
    found = view_of(grounds, flown(orbits, EPOCH, RUN_S)).passes(0.0, RUN_S, 20.0)
    n_pass = 0
    for g, ground in enumerate(grounds):
        place = wgs84.latlon(ground.latitude_deg, ground.longitude_deg, elevation_m=ground.altitude_m)
        for s, orbit in enumerate(orbits):
            satellite = EarthSatellite.from_satrec(orbit, TIMES)
            first, last = at(EPOCH, np.array([0.0, RUN_S]))
            instants, kinds = satellite.find_events(place, first, last, altitude_degrees=MASK_DEG)
            since_s = (instants.tt - first.tt) * 86_400.0
            own = (found.ground == g) & (found.satellite == s)
            rise_s, set_s = found.rise_s[own], found.set_s[own]
            # Skyfield has no event where a pass is cut by the start or the end.
            assert rise_s[rise_s > 0.0] == pytest.approx(since_s[kinds == 0], abs=RISE_TOLERANCE_S)
            assert set_s[set_s < RUN_S] == pytest.approx(since_s[kinds == 2], abs=RISE_TOLERANCE_S)
            edges_s = np.concatenate((rise_s[rise_s > 0.0], set_s[set_s < RUN_S]))
            if len(edges_s):
                elevation_deg = looks(ground, orbit, at(EPOCH, edges_s))[0]
                assert elevation_deg == pytest.approx(MASK_DEG, abs=MASK_TOLERANCE_DEG)
            n_pass += len(rise_s)
    assert n_pass > 100


@needs_tle
def test_places_under_satellites() -> None:
    """Latitude, longitude and height on WGS 84 of real satellites at random instants."""
    orbits = random_orbits(4)
    t_s = np.sort(np.random.default_rng(2).uniform(0.0, RUN_S, 50))
    ours = ecef_to_geodetic(flown(orbits, EPOCH, RUN_S).ecef(t_s).r_m.transpose(2, 0, 1))
    for s, orbit in enumerate(orbits):
        place = wgs84.geographic_position_of(EarthSatellite.from_satrec(orbit, TIMES).at(at(EPOCH, t_s)))
        assert ours.latitude_deg[s] == pytest.approx(place.latitude.degrees, abs=GEODETIC_TOLERANCE_DEG)
        off_deg = np.mod(ours.longitude_deg[s] - place.longitude.degrees + 180.0, 360.0) - 180.0
        off_deg *= np.cos(np.radians(place.latitude.degrees))
        assert off_deg == pytest.approx(0.0, abs=GEODETIC_TOLERANCE_DEG)
        assert ours.altitude_m[s] == pytest.approx(place.elevation.m, abs=ALTITUDE_TOLERANCE_M)


def shadow_depths_m(satellite: Any, ephemeris: Any, epoch: datetime, t_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How deep a satellite is within the penumbra's and the umbra's cone, from Skyfield's vectors alone. Shapes (n,).

    Cones of IAU 2015's Sun and a sphere of WGS 84's equatorial radius, in the celestial reference frame.
    """
    instants = at(epoch, t_s)
    r_m = satellite.at(instants).xyz.m.T
    sun_m = ephemeris["earth"].at(instants).observe(ephemeris["sun"]).apparent().xyz.m.T
    distance_m = np.linalg.norm(sun_m, axis=-1)
    toward = sun_m / distance_m[:, None]
    behind_m = -np.sum(r_m * toward, axis=-1)
    beside_m = np.linalg.norm(r_m + behind_m[:, None] * toward, axis=-1)
    sin_outer, sin_inner = (6.957e8 + 6_378_137.0) / distance_m, (6.957e8 - 6_378_137.0) / distance_m
    outer_m = (6_378_137.0 + behind_m * sin_outer) / np.sqrt(1.0 - sin_outer**2)
    inner_m = (6_378_137.0 - behind_m * sin_inner) / np.sqrt(1.0 - sin_inner**2)
    return np.where(behind_m > 0.0, outer_m - beside_m, -1e7), np.where(behind_m > 0.0, inner_m - beside_m, -1e7)


@needs_tle
def test_eclipses(ephemeris: Any) -> None:
    """Edges of penumbra and umbra of 45 real satellites in 12 hours, from Skyfield's vectors.

    A satellite that only grazes the shadow is out of it within less than that, and is not counted.
    """
    orbits = random_orbits(15)
    found = eclipses(flown(orbits, EPOCH, RUN_S), 0.0, RUN_S)
    n_edge = 0
    for s, orbit in enumerate(orbits):
        own = (found.satellite == s) & (found.umbra_end_s - found.umbra_start_s > 300.0)
        satellite = EarthSatellite.from_satrec(orbit, TIMES)
        for edges_s, cone, sign in (
            (found.start_s, 0, 1.0),
            (found.end_s, 0, -1.0),
            (found.umbra_start_s, 1, 1.0),
            (found.umbra_end_s, 1, -1.0),
        ):
            edge_s = edges_s[own & (edges_s > 0.0) & (edges_s < RUN_S)]
            if not len(edge_s):
                continue
            before_m = shadow_depths_m(satellite, ephemeris, EPOCH, edge_s - ECLIPSE_EDGE_TOLERANCE_S)[cone]
            after_m = shadow_depths_m(satellite, ephemeris, EPOCH, edge_s + ECLIPSE_EDGE_TOLERANCE_S)[cone]
            assert np.all(sign * before_m < 0.0)
            assert np.all(sign * after_m > 0.0)
            n_edge += len(edge_s)
    assert n_edge > 500


@needs_tle
def test_half_light_is_where_skyfield_has_sunset(ephemeris: Any) -> None:
    """Every 5 s for 3 hours, Skyfield's is_sunlit (the Sun's centre, a spherical Earth) is our more than half a Sun.

    But for the samples next to an edge, of which a satellite has some four.
    """
    t_s = np.arange(0.0, 10_800.0, 5.0)
    instants = at(EPOCH, t_s)
    orbits = random_orbits(5)
    r_m = flown(orbits, EPOCH, 10_800.0).teme(t_s).r_m
    light = satellite_illumination_ratio(r_m, sun_mod_m(julian_dates(EPOCH, t_s)))
    n_dark = 0
    for s, orbit in enumerate(orbits):
        theirs = EarthSatellite.from_satrec(orbit, TIMES).at(instants).is_sunlit(ephemeris)
        differ = (light[:, s] > 0.5) != theirs
        edges = np.flatnonzero(theirs[1:] != theirs[:-1])
        # Within half a second of an edge there is one sample at most, next to it.
        assert set(np.flatnonzero(differ).tolist()) <= {*edges.tolist(), *(edges + 1).tolist()}
        assert differ.sum() <= len(edges)
        n_dark += int(np.sum(~theirs))
    assert n_dark > 1_000
