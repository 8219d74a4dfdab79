"""The sky of a scenario, computed whole: elements → ephemeris → frames → sunlight → ISLs → GSLs → one Timeline.

This is the hub: each stage is called from here and knows nothing of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.errors import InputError
from controller.links.gsl import PassTable, assign, passes
from controller.links.isl import IslPairs, element_set_pairs, isl_geometry, walker_pairs
from controller.orbit.elements import Orbit, longest_pass_s, tle_orbits, walker_orbits
from controller.orbit.ephemeris import Ephemeris, propagate
from controller.orbit.frames import (
    Geodetic,
    ecef_to_geodetic,
    geodetic_to_ecef_m,
    gmst_rad,
    look,
    teme_to_ecef_m,
)
from controller.orbit.julian import julian_dates
from controller.orbit.sun import ground_illumination_ratio, satellite_illumination_ratio, sun_mod_m
from controller.scenario.model import Constellation, Ground, Scenario
from controller.timeline import (
    BoolArray,
    FloatArray,
    IntArray,
    LinkKind,
    LinkTable,
    Node,
    Role,
    Timeline,
    content_hash,
)

LIGHT_M_S = 299_792_458.0
"""Speed of light in vacuum, exact (SI)."""

# How densely the time after the run is searched for the setting of satellites that the run's end leaves in the sky.
_LOOK_AHEAD_STEP_S = 10.0


@dataclass(frozen=True)
class _Patches:
    """Pairs of ports with their states, before they are brought into order. Shapes: (n_link,), rows (n_row,)."""

    a: IntArray
    b: IntArray
    kind: IntArray
    port_a: IntArray
    port_b: IntArray
    rate_bps: IntArray
    loss_ratio: FloatArray
    row_link: IntArray
    row_step: IntArray
    row_range_m: FloatArray
    row_elevation_deg: FloatArray


def plan(scenario: Scenario) -> Timeline:
    """Everything that a run's sky commands. Raises InputError where there is no such sky (a decayed satellite)."""
    t_s: FloatArray = np.arange(scenario.n_step, dtype=np.float64) * scenario.step_s
    orbits = [orbit for constellation in scenario.constellations for orbit in _orbits(constellation, scenario)]
    ahead_step_s = max(scenario.step_s, _LOOK_AHEAD_STEP_S)
    n_ahead = math.ceil(longest_pass_s(orbits) / ahead_step_s) if scenario.grounds else 0
    t_all_s = np.concatenate((t_s, t_s[-1] + ahead_step_s * np.arange(1, n_ahead + 1)))

    ephemeris = _propagated(scenario, orbits, t_all_s)
    dates = julian_dates(scenario.epoch, t_all_s)
    gmst = gmst_rad(dates)
    r_all_m = teme_to_ecef_m(ephemeris.r_teme_m, gmst)
    r_sat_m = r_all_m[:, : len(t_s)]
    sun_m = teme_to_ecef_m(sun_mod_m(dates), gmst)[: len(t_s)]

    place = _places(scenario.grounds)
    r_ground_m = geodetic_to_ecef_m(place.latitude_deg, place.longitude_deg, place.altitude_m)
    links = _in_order(
        [*_isl_patches(scenario, ephemeris, r_sat_m), _gsl_patches(scenario, r_all_m, t_all_s)],
        scenario.node_names,
    )
    timeline = Timeline(
        epoch_utc=scenario.epoch,
        step_s=scenario.step_s,
        nodes=_nodes(scenario),
        t_s=t_s,
        r_ecef_m=np.concatenate((r_sat_m, np.repeat(r_ground_m[:, None], len(t_s), axis=1))),
        illumination_ratio=np.concatenate(
            (satellite_illumination_ratio(r_sat_m, sun_m), ground_illumination_ratio(place, sun_m))
        ),
        links=LinkTable(links.a, links.b, links.kind, links.port_a, links.port_b, links.rate_bps, links.loss_ratio),
        step_start=np.searchsorted(links.row_step, np.arange(len(t_s) + 1)),
        link=links.row_link,
        range_m=links.row_range_m,
        delay_us=delay_us(links.row_range_m),
        elevation_deg=links.row_elevation_deg,
        content_hash="",
    )
    return replace(timeline, content_hash=content_hash(timeline))


def delay_us(range_m: FloatArray) -> IntArray:
    """One-way delay of light in vacuum, to the nearest microsecond. Shape kept."""
    return np.rint(range_m / LIGHT_M_S * 1e6).astype(np.int64)


def _orbits(constellation: Constellation, scenario: Scenario) -> list[Orbit]:
    if constellation.walker is not None:
        return walker_orbits(constellation.walker, scenario.epoch)
    return tle_orbits(constellation.element_sets)


def _propagated(scenario: Scenario, orbits: Sequence[Orbit], t_s: FloatArray) -> Ephemeris:
    try:
        return propagate(scenario.satellite_names, orbits, scenario.epoch, t_s)
    except InputError as error:
        raise InputError("\n".join(f"{scenario.label}: {line}" for line in str(error).splitlines())) from error


def _places(grounds: Sequence[Ground]) -> Geodetic:
    return Geodetic(
        np.array([ground.latitude_deg for ground in grounds], np.float64),
        np.array([ground.longitude_deg for ground in grounds], np.float64),
        np.array([ground.altitude_m for ground in grounds], np.float64),
    )


def _nodes(scenario: Scenario) -> tuple[Node, ...]:
    satellites = [
        Node(
            name,
            Role.SATELLITE,
            tuple(f"isl{i}" for i in range(constellation.isl_ports))
            + tuple(f"gsl{i}" for i in range(constellation.max_gsl)),
        )
        for constellation in scenario.constellations
        for name in constellation.satellite_names
    ]
    grounds = [
        Node(ground.name, Role(ground.role), tuple(f"gsl{i}" for i in range(ground.antennas)))
        for ground in scenario.grounds
    ]
    return (*satellites, *grounds)


def _isl_patches(scenario: Scenario, ephemeris: Ephemeris, r_sat_m: FloatArray) -> list[_Patches]:
    """The links within each constellation."""
    patches = []
    joined: set[frozenset[str]] = set()
    first = 0
    for constellation in scenario.constellations:
        names = constellation.satellite_names
        own = slice(first, first + len(names))
        pairs = _pairs(constellation, ephemeris, own)
        joined |= {frozenset((names[a], names[b])) for a, b in zip(pairs.a, pairs.b, strict=True)}
        latitude_deg = ecef_to_geodetic(r_sat_m[own]).latitude_deg
        geometry = isl_geometry(pairs, constellation.isl, r_sat_m[own], latitude_deg)
        link, step = np.nonzero(geometry.is_up)
        n = len(pairs.a)
        patches.append(
            _Patches(
                a=pairs.a + first,
                b=pairs.b + first,
                kind=np.full(n, LinkKind.ISL, np.int64),
                port_a=pairs.port_a,
                port_b=pairs.port_b,
                rate_bps=np.full(n, constellation.isl.rate_bps, np.int64),
                loss_ratio=np.full(n, constellation.isl.loss_ratio),
                row_link=link,
                row_step=step,
                row_range_m=geometry.range_m[link, step],
                row_elevation_deg=np.full(len(link), np.nan),
            )
        )
        first += len(names)
    _check_isl_faults(scenario, joined)
    return patches


def _pairs(constellation: Constellation, ephemeris: Ephemeris, own: slice) -> IslPairs:
    if constellation.walker is not None:
        return walker_pairs(constellation.walker, constellation.isl.topology)
    return element_set_pairs(ephemeris.r_teme_m[own, 0], ephemeris.v_teme_m_s[own, 0], constellation.isl.topology)


def _check_isl_faults(scenario: Scenario, joined: set[frozenset[str]]) -> None:
    """A fault on a link between two satellites needs that link to exist. Raises InputError."""
    satellites = frozenset(scenario.satellite_names)
    for i, fault in enumerate(scenario.faults):
        ends = frozenset(fault.ends)
        if len(ends) == 2 and ends <= satellites and ends not in joined:
            neighbours = sorted(n for pair in joined if fault.ends[0] in pair for n in pair if n != fault.ends[0])
            raise InputError(
                f"{scenario.label}: fault[{i}].target = {fault.target!r}: the topology has no link between these; "
                f"{fault.ends[0]} is joined to {', '.join(neighbours) or 'none'}"
            )


def _gsl_patches(scenario: Scenario, r_all_m: FloatArray, t_all_s: FloatArray) -> _Patches:
    """The links between ground nodes and satellites."""
    n_satellite, n_step = len(scenario.satellite_names), scenario.n_step
    isl_ports = [c.isl_ports for c in scenario.constellations for _ in c.satellite_names]
    max_gsl = [c.max_gsl for c in scenario.constellations for _ in c.satellite_names]
    tables: list[PassTable] = []
    for ground in scenario.grounds:
        seen = look(ground.latitude_deg, ground.longitude_deg, ground.altitude_m, r_all_m)
        tables.append(passes(seen.elevation_deg, ground.min_elevation_deg, t_all_s))
    links = assign(tables, [ground.antennas for ground in scenario.grounds], max_gsl, n_step)

    steps, ranges_m, elevations_deg = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0)]
    for link in links:
        ground = scenario.grounds[link.ground]
        during = slice(link.first_step, link.end_step)
        seen = look(ground.latitude_deg, ground.longitude_deg, ground.altitude_m, r_all_m[link.satellite, during])
        steps.append(np.arange(link.first_step, link.end_step))
        ranges_m.append(seen.range_m)
        elevations_deg.append(seen.elevation_deg)
    return _Patches(
        a=np.array([n_satellite + link.ground for link in links], np.int64),
        b=np.array([link.satellite for link in links], np.int64),
        kind=np.full(len(links), LinkKind.GSL, np.int64),
        port_a=np.array([link.antenna for link in links], np.int64),
        port_b=np.array([isl_ports[link.satellite] + link.gsl_port for link in links], np.int64),
        rate_bps=np.array([scenario.grounds[link.ground].rate_bps for link in links], np.int64),
        loss_ratio=np.array([scenario.grounds[link.ground].loss_ratio for link in links], np.float64),
        row_link=np.repeat(np.arange(len(links)), np.array([len(s) for s in steps[1:]], np.int64)),
        row_step=np.concatenate(steps),
        row_range_m=np.concatenate(ranges_m),
        row_elevation_deg=np.concatenate(elevations_deg),
    )


def _in_order(parts: Sequence[_Patches], names: Sequence[str]) -> _Patches:
    """All parts as one: names[a] < names[b], links by (a, b) as names and then by ports, each pair of ports once, none
    that is never up; rows by step and link."""
    a, b, kind, port_a, port_b, rate_bps = (
        np.concatenate([getattr(part, key) for part in parts])
        for key in ("a", "b", "kind", "port_a", "port_b", "rate_bps")
    )
    loss_ratio = np.concatenate([part.loss_ratio for part in parts])
    before = np.cumsum([0, *(len(part.a) for part in parts[:-1])])
    row_link = np.concatenate([part.row_link + start for part, start in zip(parts, before, strict=True)])
    row_step = np.concatenate([part.row_step for part in parts])

    rank = np.empty(len(names), np.int64)
    rank[np.argsort(np.array(names), kind="stable")] = np.arange(len(names))
    swapped: BoolArray = rank[a] > rank[b]
    a, b = np.where(swapped, b, a), np.where(swapped, a, b)
    port_a, port_b = np.where(swapped, port_b, port_a), np.where(swapped, port_a, port_b)

    used = np.unique(row_link)
    keys = np.stack((rank[a], rank[b], port_a, port_b), axis=1)[used]
    _, kept, new_of_used = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    new_of_old = np.zeros(len(a), np.int64)
    new_of_old[used] = new_of_used.reshape(-1)
    chosen = used[kept]
    row_link = new_of_old[row_link]
    order = np.lexsort((row_link, row_step))
    return _Patches(
        a[chosen], b[chosen], kind[chosen], port_a[chosen], port_b[chosen], rate_bps[chosen], loss_ratio[chosen],
        row_link[order], row_step[order],
        np.concatenate([part.row_range_m for part in parts])[order],
        np.concatenate([part.row_elevation_deg for part in parts])[order],
    )  # fmt: skip
