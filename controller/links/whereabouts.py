"""Where every node of a scenario is, satellites and ground nodes alike, counted as the timeline counts them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controller.links.sites import Sites
from controller.orbit.track import Motion, Track
from controller.timeline import FloatArray, IntArray


@dataclass(frozen=True)
class Whereabouts:
    """The tracks of the constellations, one after another, then the ground nodes."""

    tracks: tuple[Track, ...]
    sites: Sites

    @property
    def starts(self) -> IntArray:
        """The first node of each track, then of the ground nodes. Shape (n_track + 1,)."""
        return np.cumsum([0, *(track.n_satellite for track in self.tracks)])

    def ecef(self, t_s: FloatArray) -> Motion:
        """All nodes at increasing instants. Shapes: (n_t,) → (n_t, 3, n_node)."""
        parts = [track.ecef(t_s) for track in self.tracks]
        if self.sites.grounds:
            stands = self.sites.stands(t_s)
            parts.append(Motion(stands.r_m, stands.v_m_s))
        if len(parts) == 1:
            return parts[0]
        return Motion(
            np.concatenate([part.r_m for part in parts], axis=2), np.concatenate([part.v_m_s for part in parts], axis=2)
        )

    def ecef_at(self, node: IntArray, t_s: FloatArray) -> Motion:
        """Some nodes, each at its own instant. Shapes: (n,), (n,) → (n, 3)."""
        r_m, v_m_s = np.empty((len(node), 3)), np.empty((len(node), 3))
        starts = self.starts
        owner = np.searchsorted(starts, node, side="right") - 1
        for number in np.unique(owner):
            own = np.flatnonzero(owner == number)
            local = node[own] - starts[number]
            if number < len(self.tracks):
                motion = self.tracks[number].ecef_at(local, t_s[own])
                r_m[own], v_m_s[own] = motion.r_m, motion.v_m_s
            else:
                stand = self.sites.stand(local, t_s[own])
                r_m[own], v_m_s[own] = stand.r_m, stand.v_m_s
        return Motion(r_m, v_m_s)
