"""Faults: what is masked over the geometry, and when. The sky itself never changes; a fault heals as its mask ends.

Times are the sky's, in seconds since the epoch. A step is commanded as its instant has it: an edge between two steps
holds from the next one on, unless the present step is commanded again for a moment within it.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from controller.errors import InputError
from controller.orbit.frames import ecef_to_geodetic
from controller.scenario.checks import nearest, target_problems
from controller.scenario.fault_model import Fault, Region
from controller.scenario.model import Scenario
from controller.timeline import BoolArray, FloatArray, IntArray, LinkTable, Node, Role, Sky, Timeline

MEAN_RADIUS_M = 6_371_008.8
"""The Earth's mean radius R1 (Moritz, Geodetic Reference System 1980); arcs on it are within 0.6 % of WGS 84's."""

_INSTANT_S = 1e-6
"""Instants closer than this are one: a step's is a product of floats."""

_LEAST_BPS = 8.0
"""A degraded link still carries a byte a second."""

_MOST_DELAY_US = 2**31 - 1
"""What a sky's delays can hold."""


@dataclass(frozen=True)
class ActiveFault:
    """A fault that is in force: one of its times, if it comes again and again."""

    id: str  # "f0" …
    target: str  # as Fault.label has it
    kind: str
    mode: str  # in which way links are taken; empty for a degrade
    at_s: float
    until_s: float  # infinite where it stays

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"{self.kind} of {self.target}" + (f" ({self.mode})" if self.mode else "")

    @property
    def until_words(self) -> str:
        """Until when, for people: "until t = 200 s", or "until it is cleared"."""
        if math.isinf(self.until_s):
            return "until it is cleared"
        return f"until t = {f'{self.until_s:.1f}'.removesuffix('.0')} s"


@dataclass(frozen=True)
class ListedFault:
    """A fault that is not over: the time that is in force, else the next."""

    id: str
    target: str
    kind: str
    mode: str
    at_s: float
    until_s: float  # infinite where it stays
    active: bool
    origin: str  # scenario, at its time | rate, of the scenario too | injected


@dataclass(frozen=True)
class LinkOverride:
    """What a link shall be in place of what geometry and faults make of it. None: as they have it.

    Raises InputError for values that no link has.
    """

    delay_us: int | None = None
    rate_bps: int | None = None
    loss_ratio: float | None = None
    up: bool | None = None  # False: taken, and nodes are told; True: no fault takes it. Only geometry makes a link

    def __post_init__(self) -> None:
        if self.delay_us is not None and not 0 <= self.delay_us <= 10_000_000:
            raise InputError(f"delay {self.delay_us} µs: must be from 0 to 10_000_000")
        if self.rate_bps is not None and not 1_000 <= self.rate_bps <= 1_000_000_000_000:
            raise InputError(f"rate {self.rate_bps} bit/s: must be from 1_000 to 1_000_000_000_000")
        if self.loss_ratio is not None and not 0.0 <= self.loss_ratio <= 1.0:
            raise InputError(f"loss ratio {self.loss_ratio:g}: must be from 0 to 1")
        if self.delay_us is self.rate_bps is self.loss_ratio is self.up is None:
            raise InputError("an override needs a delay, a rate, a loss ratio, or up or down")


@dataclass(frozen=True)
class Masked:
    """A step's sky under the faults in force. Shapes: all (n_up,), the rows of the sky."""

    sky: Sky  # its delays, rates and losses are the degraded ones
    usable: BoolArray  # no fault takes them
    believed: BoolArray  # usable, or taken in silence: nobody told the nodes
    unplugged: BoolArray  # taken with the carrier


class FaultSchedule:
    """All faults of a run, those of its scenario and those that come up while it runs, and the links that are set.

    What is in force at a moment depends on the faults and on the moment alone, so the sky may be sought back and forth.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        nodes: Sequence[Node],
        planes: Mapping[str, Sequence[str]] | None = None,
        links: LinkTable | None = None,
        seed: int = 1,
    ) -> None:
        """Faults of nodes; `planes` has the satellites of each plane, `links` those that the run ever has."""
        self._names = [node.name for node in nodes]
        self._satellites = frozenset(node.name for node in nodes if node.role is Role.SATELLITE)
        self._index = {name: i for i, name in enumerate(self._names)}
        self._planes, self._links, self._seed = dict(planes or {}), links, seed
        self._entries: list[_Entry] = []
        self._overrides: dict[tuple[str, str], LinkOverride] = {}
        for fault in faults:
            self._add(fault, "scenario" if fault.rate_per_hour is None else "rate")

    @classmethod
    def from_scenario(cls, scenario: Scenario, timeline: Timeline) -> Self:
        """The scenario's faults, bound to the timeline's nodes."""
        return cls(scenario.faults, timeline.nodes, scenario.planes, timeline.links, scenario.seed)

    # --- while the run is up ---

    def inject(self, fault: Fault, at_s: float) -> str:
        """A fault from `at_s` on, whatever its own at_s; its id. Raises InputError for a target that there is not."""
        problems = target_problems(fault, self._names, self._satellites, list(self._planes))
        if problems:
            raise InputError(f"fault on {fault.label!r}: {problems[0]}")
        if len(fault.ends) == 2:
            self._check_link(*fault.ends)
        return self._add(fault.model_copy(update={"at_s": at_s}), "injected")

    def clear(self, which: str, now_s: float) -> int:
        """End a fault for good, by its id, or all of a target: what is in force heals, what is to come does not.

        How many ended; none where nothing of that name was left.
        """
        left = [
            each
            for each in self._entries
            if which in (each.id, each.fault.label) and each.now_or_next(now_s) is not None
        ]
        for each in left:
            each.clear(now_s)
        return len(left)

    def listed(self, now_s: float) -> tuple[ListedFault, ...]:
        """Every fault that is not over, in the order in which they were given."""
        found = ((each, each.now_or_next(now_s)) for each in self._entries)
        return tuple(
            ListedFault(f.id, f.target, f.kind, f.mode, f.at_s, f.until_s, f.at_s - _INSTANT_S <= now_s, each.origin)
            for each, f in found
            if f is not None
        )

    def set_link(self, a: str, b: str, override: LinkOverride) -> None:
        """Have the links between two nodes so, both ways, whenever geometry has them, until cleared.

        It takes the place of the override before. Raises InputError where no link ever joins the two.
        """
        self._check_link(a, b)
        self._overrides[(min(a, b), max(a, b))] = override

    def clear_link(self, a: str, b: str) -> bool:
        """Leave the links between two nodes to geometry and faults again. Whether they were set."""
        return self._overrides.pop((min(a, b), max(a, b)), None) is not None

    def overrides(self) -> Mapping[tuple[str, str], LinkOverride]:
        """The links that are set: (a, b), a before b by name."""
        return dict(self._overrides)

    # --- what is in force ---

    def masked(self, t_s: float, timeline: Timeline, sky: Sky) -> Masked:
        """One step under the faults in force. `t_s` is the moment, since the epoch, for which it is commanded.

        A fault of nodes is one of all their links, that of "a~b" of every link between the two. Degrades add up: delays
        are added, what is left of rates and of frames is multiplied. Of ways in which a link is taken the plainest
        counts: no carrier before rejection before silence. Links that are set have the last word.
        """
        a, b = timeline.links.a[sky.link], timeline.links.b[sky.link]
        silent, rejected, unplugged = (np.zeros(len(sky.link), np.bool_) for _ in range(3))
        delay_us, rate_bps = sky.delay_us.astype(np.int64), sky.rate_bps.astype(np.float64)
        kept_ratio = 1.0 - sky.loss_ratio
        for each, _ in self._in_force(t_s):
            fault, hit = each.fault, self._hit(each.fault, a, b, sky.r_ecef_m)
            match fault.way:
                case "silent":
                    silent |= hit
                case "reject":
                    rejected |= hit
                case "carrier":
                    unplugged |= hit
                case None:
                    delay_us[hit] += round(fault.extra_delay_s * 1e6)
                    rate_bps[hit] *= fault.rate_ratio
                    kept_ratio[hit] *= 1.0 - fault.loss_ratio
        loss_ratio = 1.0 - kept_ratio
        for (name_a, name_b), override in self._overrides.items():
            hit = _between(self._index[name_a], self._index[name_b], a, b)
            if override.delay_us is not None:
                delay_us[hit] = override.delay_us
            if override.rate_bps is not None:
                rate_bps[hit] = override.rate_bps
            if override.loss_ratio is not None:
                loss_ratio[hit] = override.loss_ratio
            if override.up is not None:
                for taken in (silent, unplugged):
                    taken[hit] = False
                rejected[hit] = not override.up
        degraded = replace(
            sky,
            delay_us=np.minimum(delay_us, _MOST_DELAY_US).astype(np.int32),
            rate_bps=np.maximum(rate_bps, _LEAST_BPS).astype(np.int64),
            loss_ratio=loss_ratio,
        )
        told = rejected | unplugged
        return Masked(degraded, ~(silent | told), ~told, unplugged)

    def active(self, t_s: float) -> tuple[ActiveFault, ...]:
        """The faults in force at an instant, in the order in which they were given."""
        return tuple(active for _, active in self._in_force(t_s))

    def within(self, start_s: float, end_s: float) -> tuple[ActiveFault, ...]:
        """Every time of every fault, as far as any of it lies between two moments."""
        return tuple(active for each in self._entries for active in each.within(start_s, end_s))

    def taking(self, name: str, t_s: float, sky: Sky) -> ActiveFault | None:
        """The first fault in force that takes all links of a node, for being its own or its plane's or region's."""
        for each, active in self._in_force(t_s):
            fault = each.fault
            if fault.way is not None and len(fault.ends) < 2 and self._covered(fault, sky.r_ecef_m)[self._index[name]]:
                return active
        return None

    def _add(self, fault: Fault, origin: str) -> str:
        number = len(self._entries)
        self._entries.append(_Entry(f"f{number}", fault, origin, f"{self._seed}:fault:{number}"))
        return self._entries[-1].id

    def _in_force(self, t_s: float) -> Iterator[tuple[_Entry, ActiveFault]]:
        for each in self._entries:
            active = each.now_or_next(t_s)
            if active is not None and active.at_s - _INSTANT_S <= t_s:
                yield each, active

    def _hit(self, fault: Fault, a: IntArray, b: IntArray, r_ecef_m: FloatArray) -> BoolArray:
        """Which links are a fault's. Shapes: a and b (n,), their nodes → (n,)."""
        if len(fault.ends) == 2:
            return _between(self._index[fault.ends[0]], self._index[fault.ends[1]], a, b)
        covered = self._covered(fault, r_ecef_m)
        hit: BoolArray = covered[a] | covered[b]
        return hit

    def _covered(self, fault: Fault, r_ecef_m: FloatArray) -> BoolArray:
        """Which nodes are a fault's that is of no link. Shapes: (3, n_node) → (n_node,)."""
        if fault.region is not None:
            return in_region(fault.region, r_ecef_m)
        covered = np.zeros(len(self._names), np.bool_)
        covered[[self._index[name] for name in self._planes.get(fault.plane, fault.ends)]] = True
        return covered

    def _check_link(self, *ends: str) -> None:
        for end in ends:
            if end not in self._index:
                raise InputError(f"no node is called {end!r}{nearest(end, self._names)}")
        if self._links is not None:
            a, b = (self._index[end] for end in ends)
            if not _between(a, b, self._links.a, self._links.b).any():
                raise InputError(f"no link joins {ends[0]} and {ends[1]} at any time of the run")


class _Entry:
    """A fault of the schedule, and when it comes."""

    def __init__(self, name: str, fault: Fault, origin: str, seed: str) -> None:
        self.id, self.fault, self.origin = name, fault, origin
        self._cleared_s = self._end_s = math.inf
        self._starts_s = [fault.at_s]
        if fault.rate_per_hour is not None:
            self._random = random.Random(seed).random  # noqa: S311  (a seeded run, no secrets)
            self._starts_s = [fault.at_s + self._well_s()]
        elif fault.duration_s is not None:
            self._end_s = fault.at_s + fault.duration_s

    def clear(self, now_s: float) -> None:
        """Be over from now on."""
        self._cleared_s = now_s
        self._end_s = min(self._end_s, now_s)

    def now_or_next(self, t_s: float) -> ActiveFault | None:
        """The time that is in force, else the next one; None where the fault is over."""
        if t_s >= self._end_s:  # as most are of a long run that is steered: they stay for when the sky is sought back
            return None
        self._look_ahead(t_s)
        k = max(0, bisect_right(self._starts_s, t_s + _INSTANT_S) - 1)
        for active in (self._time(start_s) for start_s in self._starts_s[k : k + 2]):
            if active.at_s < active.until_s and t_s < active.until_s - _INSTANT_S:
                return active
        return None

    def within(self, start_s: float, end_s: float) -> list[ActiveFault]:
        """All that lie between two moments, or reach into them."""
        self._look_ahead(end_s)
        times = (self._time(each_s) for each_s in self._starts_s)
        return [t for t in times if t.at_s < min(end_s, t.until_s) and t.until_s > start_s]

    def _look_ahead(self, t_s: float) -> None:
        """Know the times until one begins after a moment; a fault without a rate has but one."""
        while self.fault.rate_per_hour is not None and self._starts_s[-1] <= t_s + _INSTANT_S:
            self._starts_s.append(self._starts_s[-1] + (self.fault.duration_s or 0.0) + self._well_s())

    def _well_s(self) -> float:
        """For how long all is well, in whole milliseconds: logarithms differ in their last bit between machines."""
        mean_s = 3_600.0 / (self.fault.rate_per_hour or math.inf)
        return max(0.001, round(-mean_s * math.log(1.0 - self._random()), 3))

    def _time(self, start_s: float) -> ActiveFault:
        fault = self.fault
        until_s = math.inf if fault.duration_s is None else start_s + fault.duration_s
        return ActiveFault(
            self.id, fault.label, fault.kind, fault.way or "", start_s, min(until_s, max(start_s, self._cleared_s))
        )


def in_region(region: Region, r_ecef_m: FloatArray) -> BoolArray:
    """Which nodes' sub-points are in a region; no node after its end. Shapes: (…, 3, n_node) → (…, n_node).

    Distance along the great circle of a sphere of the Earth's mean radius, by the haversine formula (R. W. Sinnott,
    Sky and Telescope 68, 1984).
    """
    place = ecef_to_geodetic(np.moveaxis(r_ecef_m, -2, -1))
    latitude, longitude = np.radians(place.latitude_deg), np.radians(place.longitude_deg)
    of_latitude, of_longitude = math.radians(region.latitude_deg), math.radians(region.longitude_deg)
    haversine = (
        np.sin((latitude - of_latitude) / 2) ** 2
        + np.cos(latitude) * math.cos(of_latitude) * np.sin((longitude - of_longitude) / 2) ** 2
    )
    inside: BoolArray = 2.0 * MEAN_RADIUS_M * np.arcsin(np.minimum(1.0, np.sqrt(haversine))) <= region.radius_m
    return inside


def _between(node: int, other: int, a: IntArray, b: IntArray) -> BoolArray:
    """Which links join two nodes. Shapes: a and b (n,), the links' nodes → (n,)."""
    joined: BoolArray = ((a == node) & (b == other)) | ((a == other) & (b == node))
    return joined
