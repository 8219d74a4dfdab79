"""Where ground nodes are at any instant: fixed on the Earth, or on their way along waypoints. ECEF throughout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from controller.orbit.frames import Axes, geodetic_to_ecef_m, local_axes
from controller.scenario.model import Ground
from controller.timeline import BoolArray, FloatArray, IntArray

_DIFFERENCE_S = 0.5


@dataclass(frozen=True)
class Stand:
    """Ground nodes, each at an instant. Shapes: all (n, 3)."""

    r_m: FloatArray
    v_m_s: FloatArray
    axes: Axes


@dataclass(frozen=True)
class Sites:
    """The ground nodes of a scenario. Shapes: places (n_gnd,)."""

    grounds: tuple[Ground, ...]
    latitude_deg: FloatArray
    longitude_deg: FloatArray
    altitude_m: FloatArray
    moves: BoolArray

    @classmethod
    def of(cls, grounds: Sequence[Ground]) -> Sites:
        """From the scenario's tables."""
        return cls(
            tuple(grounds),
            np.array([ground.latitude_deg for ground in grounds], np.float64),
            np.array([ground.longitude_deg for ground in grounds], np.float64),
            np.array([ground.altitude_m for ground in grounds], np.float64),
            np.array([bool(ground.waypoints) for ground in grounds], np.bool_),
        )

    def stand(self, ground: IntArray, t_s: FloatArray) -> Stand:
        """Some ground nodes, each at its own instant. Shapes: (n,), (n,)."""
        places = self._places(ground, t_s)
        r_m = geodetic_to_ecef_m(*places)
        v_m_s = np.zeros_like(r_m)
        moving = np.flatnonzero(self.moves[ground])
        if len(moving):
            ahead, behind = (
                geodetic_to_ecef_m(*self._places(ground[moving], t_s[moving] + shift_s))
                for shift_s in (_DIFFERENCE_S, -_DIFFERENCE_S)
            )
            v_m_s[moving] = (ahead - behind) / (2.0 * _DIFFERENCE_S)
        return Stand(r_m, v_m_s, local_axes(places[0], places[1]))

    def stands(self, t_s: FloatArray) -> Stand:
        """All ground nodes at all instants: as `stand`, with shapes (n_t, 3, n_gnd)."""
        n_t, n_ground = len(t_s), len(self.grounds)
        if not self.moves.any():
            one = self.stand(np.arange(n_ground), np.zeros(n_ground))
            return _shaped(one, lambda array: np.broadcast_to(array.T, (n_t, 3, n_ground)))
        every = self.stand(np.tile(np.arange(n_ground), n_t), np.repeat(t_s, n_ground))
        return _shaped(every, lambda array: array.reshape(n_t, n_ground, 3).transpose(0, 2, 1))

    def _places(self, ground: IntArray, t_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Latitudes and longitudes in degrees, altitudes in metres. Shapes: all (n,)."""
        latitude_deg, longitude_deg = self.latitude_deg[ground], self.longitude_deg[ground]
        altitude_m = self.altitude_m[ground]
        for mover in np.unique(ground[self.moves[ground]]):
            own = ground == mover
            latitude_deg[own], longitude_deg[own], altitude_m[own] = _on_the_way(self.grounds[mover], t_s[own])
        return latitude_deg, longitude_deg, altitude_m


def _shaped(stand: Stand, shape: Callable[[FloatArray], FloatArray]) -> Stand:
    axes = stand.axes
    return Stand(shape(stand.r_m), shape(stand.v_m_s), Axes(shape(axes.east), shape(axes.north), shape(axes.up)))


def _on_the_way(ground: Ground, t_s: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A moving node's places: it is at its own place at the epoch, at each waypoint in its time, and stays at the last.

    Between two it follows the great circle of the sphere at an even pace: slerp of the normals (Shoemake, SIGGRAPH
    1985). Altitudes are interpolated linearly.
    """
    points = [(0.0, ground.latitude_deg, ground.longitude_deg, ground.altitude_m)] if ground.waypoints[0].at_s else []
    points += [(w.at_s, w.latitude_deg, w.longitude_deg, w.altitude_m) for w in ground.waypoints]
    at_s, latitude_deg, longitude_deg, altitude_m = np.array(points).T
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    normal = np.stack((np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)), 1)
    leg = np.clip(np.searchsorted(at_s, t_s, side="right") - 1, 0, max(len(at_s) - 2, 0))
    onward = np.minimum(leg + 1, len(at_s) - 1)
    share = np.clip((t_s - at_s[leg]) / np.where(onward > leg, at_s[onward] - at_s[leg], 1.0), 0.0, 1.0)
    cross = np.linalg.norm(np.cross(normal[leg], normal[onward]), axis=-1)
    angle = np.arctan2(cross, np.sum(normal[leg] * normal[onward], axis=-1))
    small = np.sin(angle) < 1e-12
    sine = np.where(small, 1.0, np.sin(angle))
    first = np.where(small, 1.0 - share, np.sin((1.0 - share) * angle) / sine)
    second = np.where(small, share, np.sin(share * angle) / sine)
    on = first[:, None] * normal[leg] + second[:, None] * normal[onward]
    return (
        np.degrees(np.arctan2(on[:, 2], np.hypot(on[:, 0], on[:, 1]))),
        np.degrees(np.arctan2(on[:, 1], on[:, 0])),
        altitude_m[leg] + share * (altitude_m[onward] - altitude_m[leg]),
    )
