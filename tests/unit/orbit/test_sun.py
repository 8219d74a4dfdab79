from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.orbit.frames import local_axes
from controller.orbit.julian import julian_dates
from controller.orbit.sun import (
    ASTRONOMICAL_UNIT_M,
    SUN_RADIUS_M,
    Discs,
    beta_deg,
    discs,
    ground_illumination_ratio,
    satellite_illumination_ratio,
    sun_mod_m,
    visible_ratio,
)
from controller.timeline import BoolArray, FloatArray
from tests.unit.orbit.motions import EARTH_RADIUS_M

SUN_TOLERANCE_AU = 5e-6  # the example's own rounding
FLOAT32_TOLERANCE_RATIO = 1e-6
# The discs are drawn flat, though each is a cap of the sphere of directions: the Earth's is up to 70° wide.
FLAT_DISCS_TOLERANCE_RATIO = 5e-4


def sun_on_x_m(n: int) -> FloatArray:
    """The Sun at rest, an astronomical unit away. Shape (n, 3)."""
    return np.tile([ASTRONOMICAL_UNIT_M, 0.0, 0.0], (n, 1))


def behind_m(depth_m: FloatArray, beside_m: FloatArray) -> FloatArray:
    """Satellites behind the Earth as seen from the Sun on the x axis. Shapes: (n_t, n) twice → (n_t, 3, n)."""
    return np.stack((-depth_m, 0.6 * beside_m, 0.8 * beside_m), axis=1)


def in_cylinder(r_m: FloatArray, sun_m: FloatArray) -> BoolArray:
    """The oracle: a shadow as wide as the Earth, all the way. Shapes as of satellite_illumination_ratio."""
    toward = sun_m / np.linalg.norm(sun_m, axis=-1, keepdims=True)
    along_m = np.einsum("tx,txn->tn", toward, r_m)
    beside_m = np.linalg.norm(r_m - along_m[:, None] * toward[:, :, None], axis=1)
    shadow: BoolArray = (along_m < 0.0) & (beside_m < EARTH_RADIUS_M)
    return shadow


def test_sun_matches_vallado_example_5_1() -> None:
    """2006-04-02 00:00: (0.9771945, 0.1924424, 0.0834308) AU (Vallado, 4th ed., example 5-1)."""
    sun_au = sun_mod_m(julian_dates(datetime(2006, 4, 2, tzinfo=UTC), np.zeros(1)))[0] / ASTRONOMICAL_UNIT_M
    assert sun_au == pytest.approx([0.9771945, 0.1924424, 0.0834308], abs=SUN_TOLERANCE_AU)


def test_the_sun_turns_at_the_published_solstices_and_equinoxes() -> None:
    """2026: equinox 03-20 14:46, solstice 06-21 08:25, equinox 09-23 00:06, solstice 12-21 20:50 UT (USNO).

    Within 15 min, in which the Sun moves 0.01°.
    """
    for instant, longitude_deg in (
        (datetime(2026, 3, 20, 14, 46, tzinfo=UTC), 0.0),
        (datetime(2026, 6, 21, 8, 25, tzinfo=UTC), 90.0),
        (datetime(2026, 9, 23, 0, 6, tzinfo=UTC), 180.0),
        (datetime(2026, 12, 21, 20, 50, tzinfo=UTC), 270.0),
    ):
        x, y, z = sun_mod_m(julian_dates(instant, np.zeros(1)))[0]
        tilt = math.radians(23.436)
        ecliptic_deg = math.degrees(math.atan2(math.cos(tilt) * y + math.sin(tilt) * z, x))
        assert math.remainder(ecliptic_deg - longitude_deg, 360.0) == pytest.approx(0.0, abs=0.0104)


def test_the_suns_disc_is_as_wide_as_the_almanac_says() -> None:
    """At an astronomical unit its radius is 959.63″ (Auwers, in the Astronomical Almanac), 959.2″ with the IAU's."""
    seen = discs(np.zeros((3, 1)) + 1.0, sun_on_x_m(1).T)
    assert np.degrees(seen.sun_radius) * 3600.0 == pytest.approx([959.63], abs=0.6)


def test_two_discs() -> None:
    """Apart: all of it. Covered: nothing. A small disc within: what it leaves. Equal discs by halves: a lens."""
    sun, earth = np.full(5, 1.0), np.array([2.0, 2.0, 0.5, 1.0, 1.0])
    free = visible_ratio(Discs(sun, earth, np.array([3.1, 0.9, 0.2, 1.0, 2.0])))
    lens = (2.0 * math.acos(0.5) - 0.5 * math.sqrt(3.0)) / math.pi  # two unit circles, a unit apart
    assert free == pytest.approx([1.0, 0.0, 0.75, 1.0 - lens, 1.0], abs=1e-12)


@pytest.mark.parametrize("radius_m", [6_778_137.0, 7_578_137.0, 42_164_000.0, 2e9])
def test_light_in_the_penumbra_is_what_rays_to_the_suns_disc_tell(radius_m: float) -> None:
    """Rays from the satellite to points all over the Sun's disc, each blocked by the Earth's sphere or not.

    From 400 km to beyond the umbra's tip, where the Earth leaves a ring.
    """
    n = 25
    shadow_m = EARTH_RADIUS_M + np.linspace(-1.2, 1.2, n) * radius_m * SUN_RADIUS_M / ASTRONOMICAL_UNIT_M
    beside_m = np.clip(shadow_m, 0.0, radius_m)
    r_m = behind_m(np.sqrt(radius_m**2 - beside_m**2)[None], beside_m[None])
    light = satellite_illumination_ratio(r_m, sun_on_x_m(1))[0]
    # Points spread evenly over a disc by the golden angle (Vogel, Math. Biosci. 44 (1979) 179), seen edge to edge.
    k = np.arange(100_000)
    ring, turn = SUN_RADIUS_M * np.sqrt((k + 0.5) / len(k)), k * math.pi * (3.0 - math.sqrt(5.0))
    surface_m = np.stack((np.full(len(k), ASTRONOMICAL_UNIT_M), ring * np.cos(turn), ring * np.sin(turn)), axis=-1)
    for satellite in range(n):
        ray = surface_m - r_m[0, :, satellite]
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        closest_m = np.linalg.norm(np.cross(r_m[0, :, satellite], ray), axis=-1)
        expected = np.mean(closest_m > EARTH_RADIUS_M)
        assert light[satellite] == pytest.approx(expected, abs=FLAT_DISCS_TOLERANCE_RATIO)
    assert np.ptp(light) > 0.1


def test_the_quick_way_tells_the_same_as_discs_drawn_for_all() -> None:
    """Random satellites from 200 km to 400,000 km, dates all over the year: cones and discs agree everywhere."""
    rng = np.random.default_rng(11)
    n_t, n = 40, 1_000
    sun_m = sun_mod_m(julian_dates(datetime(2026, 1, 1, tzinfo=UTC), np.linspace(0.0, 3.1e7, n_t)))
    r_m = rng.normal(size=(n_t, 3, n))
    r_m *= ((EARTH_RADIUS_M + 10.0 ** rng.uniform(5.3, 8.6, (n_t, n))) / np.linalg.norm(r_m, axis=1))[:, None]
    # Half of them about the shadow's edge, where light begins and ends.
    toward = sun_m / np.linalg.norm(sun_m, axis=-1, keepdims=True)
    aside = np.cross(toward, rng.normal(size=(n_t, n // 2, 3)).transpose(1, 0, 2)).transpose(1, 2, 0)
    depth_m = 10.0 ** rng.uniform(6.0, 8.0, (n_t, 1, n // 2))
    beside_m = EARTH_RADIUS_M + rng.uniform(-1.2, 1.2, depth_m.shape) * depth_m * SUN_RADIUS_M / ASTRONOMICAL_UNIT_M
    aside *= np.maximum(beside_m, 0.0) / np.linalg.norm(aside, axis=1, keepdims=True)
    r_m[:, :, : n // 2] = aside - depth_m * toward[:, :, None]
    light = satellite_illumination_ratio(r_m, sun_m)
    seen = discs(r_m, sun_m[:, :, None])
    drawn = visible_ratio(seen)
    assert light.dtype == np.float32
    assert np.abs(light - drawn).max() < FLOAT32_TOLERANCE_RATIO
    assert {0.0, 1.0} < set(light.ravel().tolist())


def test_the_cylinder_is_where_half_of_the_sun_is_left() -> None:
    """In low orbit the cone's half-light runs along the cylinder: they disagree within half a Sun's width alone."""
    rng = np.random.default_rng(12)
    r_m = rng.normal(size=(10, 3, 2_000))
    r_m *= 6_928_137.0 / np.linalg.norm(r_m, axis=1, keepdims=True)
    light = satellite_illumination_ratio(r_m, sun_on_x_m(10))
    shadow = in_cylinder(r_m, sun_on_x_m(10))
    seen = discs(r_m, sun_on_x_m(10)[:, :, None])
    near_edge = np.abs(seen.separation - seen.earth_radius) < 1.001 * seen.sun_radius
    assert np.array_equal(light[~near_edge] == 0.0, shadow[~near_edge])
    assert np.mean(light) == pytest.approx(np.mean(~shadow), abs=1e-3)
    assert 0.27 < np.mean(shadow) < 0.33  # the cap of half-angle 67.02°: (1 − cos 67.02°) / 2 = 0.305


def test_where_there_is_no_position_there_is_no_light() -> None:
    """A satellite that is gone has NaN, and its neighbours are none the worse for it."""
    r_m = behind_m(np.array([[7e6, -7e6, 7e6]]), np.zeros((1, 3)))
    r_m[0, :, 2] = np.nan
    light = satellite_illumination_ratio(np.repeat(r_m, 3, axis=0), sun_on_x_m(3))
    assert light[:, :2].tolist() == [[0.0, 1.0]] * 3
    assert np.isnan(light[:, 2]).all()
    assert satellite_illumination_ratio(np.empty((3, 3, 0)), sun_on_x_m(3)).shape == (3, 0)


@given(st.floats(-90.0, 90.0), st.floats(0.0, 360.0), st.floats(0.0, 360.0))
def test_beta_is_the_suns_height_over_the_plane(sun_deg: float, node_deg: float, along_deg: float) -> None:
    """Of a polar orbit beta is asin(cos δ · sin(Ω − α)) with its sign, wherever the satellite is on its turn."""
    node, along, height = np.radians([node_deg, along_deg, sun_deg])
    toward_node, up = np.array([np.cos(node), np.sin(node), 0.0]), np.array([0.0, 0.0, 1.0])
    r_m = 7e6 * (np.cos(along) * toward_node + np.sin(along) * up)
    v_m_s = 7.5e3 * (np.cos(along) * up - np.sin(along) * toward_node)
    sun_m = ASTRONOMICAL_UNIT_M * np.array([np.cos(height), 0.0, np.sin(height)])
    expected_deg = math.degrees(math.asin(np.cos(height) * np.sin(node)))
    assert beta_deg(r_m[None], v_m_s[None], sun_m[None]) == pytest.approx([expected_deg], abs=1e-5)


def test_sunset_on_the_ground() -> None:
    """Half of the Sun is above a level horizon 90° from the Sun; all a degree before, none a degree after."""
    up = local_axes(np.zeros(4), np.array([0.0, 89.0, 90.0, 91.0])).up
    light = ground_illumination_ratio(up.T[None], sun_on_x_m(1))
    assert light[0] == pytest.approx([1.0, 1.0, 0.5, 0.0], abs=1e-6)
    assert ground_illumination_ratio(np.empty((3, 3, 0)), sun_on_x_m(3)).shape == (3, 0)


def test_half_a_suns_radius_above_the_horizon_leaves_four_fifths() -> None:
    """A chord half a radius below the centre leaves 2/3 + √3/4π = 0.8045 of a disc, and above it 0.1955."""
    half_radius_deg = math.degrees(math.asin(SUN_RADIUS_M / ASTRONOMICAL_UNIT_M)) / 2.0
    up = local_axes(np.zeros(2), 90.0 + half_radius_deg * np.array([-1.0, 1.0])).up
    light = ground_illumination_ratio(up.T[None], sun_on_x_m(1))
    assert light[0] == pytest.approx([2.0 / 3.0 + math.sqrt(3.0) / (4.0 * math.pi), 0.1955], abs=1e-4)


def test_ground_nodes_may_move() -> None:
    """Each step has its own upward vectors: a ship that keeps up with the Sun stays in the light."""
    up = np.stack([local_axes(np.zeros(2), np.array([0.0, 30.0 * hour])).up.T for hour in range(6)])
    turned = np.radians(30.0 * np.arange(6))
    sun_m = ASTRONOMICAL_UNIT_M * np.stack((np.cos(turned), np.sin(turned), np.zeros(6)), axis=-1)
    light = ground_illumination_ratio(up, sun_m)
    assert light[:, 0].tolist() == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0, 0.0], abs=1e-6)
    assert light[:, 1].tolist() == [1.0] * 6
