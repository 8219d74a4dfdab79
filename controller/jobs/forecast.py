"""What a run foresees of paths between its nodes: those that are there now, and the contacts to come."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from controller.jobs.contact_graph import Arrivals, ContactGraph, Forward
from controller.schedule import NO_ROUTE, Commanded, Schedule

ALWAYS_S = 60.0  # so long what is said of a path that is there holds without being said again


class Forecast:
    """Whom nodes hand over what is bound for others; each answer is of the moment in which it is asked for."""

    def __init__(self, schedule: Schedule, state: Callable[[], Commanded], time_scale: float = 1.0) -> None:
        self._schedule, self._state, self._time_scale = schedule, state, time_scale

    def forwards(self, pairs: Iterable[tuple[str, str]], t_s: float) -> dict[tuple[str, str], Forward]:
        """For what is at the first node of each pair and bound for the second; for those between too, for their part.

        A pair that no contact of the run brings together has none.
        """
        found: dict[tuple[str, str], Forward] = {}
        asked = list(dict.fromkeys(pairs))
        state = self._state()
        joined = self._joined(state, asked)
        arrivals: dict[str, Arrivals] = {}
        graph: ContactGraph | None = None
        for holder, to in asked:  # grows while it is walked
            if (holder, to) in joined:
                until_s = (t_s // ALWAYS_S + 2) * ALWAYS_S  # the same for a while
                found[holder, to] = Forward(to, to, 0.0, until_s)
                continue
            if holder not in arrivals:
                graph = graph or ContactGraph.of(self._schedule.timeline, t_s, state, self._time_scale)
                arrivals[holder] = graph.search(holder, t_s)
            forward = arrivals[holder].forward(to)
            if forward is None:
                continue
            # What may go now is told once, and not each second anew.
            found[holder, to] = forward if forward.not_before_s > t_s else replace(forward, not_before_s=0.0)
            onward = (forward.via_node, to)
            if forward.via_node != to and onward not in asked:
                asked.append(onward)
                joined |= self._joined(state, [onward])
        return found

    def _joined(self, state: Commanded, pairs: list[tuple[str, str]]) -> set[tuple[str, str]]:
        """The pairs between which a path leads now."""
        if not pairs:
            return set()
        index_of = self._schedule.index_of
        a, b = (np.array([index_of[name] for name in end]) for end in zip(*pairs, strict=True))
        hops = self._schedule.round_trips(state, a, b).hops
        return {pair for pair, n_hop in zip(pairs, hops.tolist(), strict=True) if n_hop != NO_ROUTE}
