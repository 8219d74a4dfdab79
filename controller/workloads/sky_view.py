"""What a load asks of a run's sky: who is near whom, and when ground nodes change satellites. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.timeline import LinkKind, Role, Timeline

INSTANT_S = 1e-6


class SkyView:
    """One timeline, asked for by names. It knows of no faults: nobody plans them."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._index_of = {node.name: index for index, node in enumerate(timeline.nodes)}

    def names(self, role: Role) -> list[str]:
        """The nodes of a role, in the order of the scenario."""
        return [node.name for node in self._timeline.nodes if node.role is role]

    @property
    def span_s(self) -> tuple[float, float]:
        """The first and the last step, since the epoch."""
        return float(self._timeline.t_s[0]), float(self._timeline.t_s[-1])

    def serving(self, ground: str, t_s: float) -> str:
        """The satellite at the end of a ground node's shortest link; where it has none, the nearest satellite."""
        sky, here = self._timeline.sky(self._step(t_s)), self._index_of[ground]
        links = self._timeline.links
        a, b = links.a[sky.link], links.b[sky.link]
        rows = np.flatnonzero((links.kind[sky.link] == LinkKind.GSL) & ((a == here) | (b == here)))
        if not len(rows):
            return self.nearest(ground, self.names(Role.SATELLITE), t_s)
        row = rows[np.argmin(sky.delay_us[rows])]
        return self._timeline.nodes[int(b[row] if a[row] == here else a[row])].name

    def nearest(self, node: str, among: Sequence[str], t_s: float) -> str:
        """Of some nodes the one with the shortest straight line to a node; that node itself where it is one of them."""
        places_m = self._timeline.sky(self._step(t_s)).r_ecef_m
        indices = np.array([self._index_of[name] for name in among])
        offsets_m = places_m[:, indices] - places_m[:, self._index_of[node], None]
        distances_m = np.nan_to_num(np.linalg.norm(offsets_m, axis=0), nan=np.inf)  # a node that has left the sky
        return among[int(np.argmin(distances_m))]

    def hand_offs(self, ground: str, start_s: float, end_s: float) -> int:
        """How often a ground node has taken another satellite after start_s, until end_s."""
        contacts, here = self._timeline.contacts, self._index_of[ground]
        own = (contacts.kind == LinkKind.GSL) & ((contacts.a == here) | (contacts.b == here))
        began_s = contacts.start_s[own]
        return int(((began_s > max(start_s, self.span_s[0])) & (began_s <= end_s)).sum())

    def _step(self, t_s: float) -> int:
        """The step that holds at a moment: the first before the run, the last after it."""
        step = int(np.searchsorted(self._timeline.t_s, t_s + INSTANT_S, side="right")) - 1
        return min(max(step, 0), self._timeline.n_step - 1)
