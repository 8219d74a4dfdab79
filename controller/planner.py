"""The sky of a scenario, computed whole: elements → tracks → access → links → contacts → steps.

This is the hub: each stage is called from here and knows nothing of the others. What happens (contacts, eclipses, ends)
is found first, on the geometry itself and to 10 ms; where everything is at each step then follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from controller.columns import joined, taken
from controller.errors import InputError
from controller.expand import Expansion, Patches
from controller.links.contact_plan import Holds, contact_table
from controller.links.handover import handovers
from controller.links.isl import IslPairs, element_set_pairs, named_pairs, walker_pairs
from controller.links.isl_access import IslView, acquired
from controller.links.nearest import IslHolds, Pools, nearest_holds
from controller.links.passes import GroundView, Passes
from controller.links.service import Service, Services
from controller.links.sites import Sites
from controller.links.whereabouts import Whereabouts
from controller.orbit.eclipse import eclipses
from controller.orbit.elements import constellation_orbits, element_age_warnings, fastest_rad_s, longest_pass_s
from controller.orbit.frames import Look
from controller.orbit.track import Track, track
from controller.scenario.link_model import CrossIsl, isl_ports_needed
from controller.scenario.model import Constellation, Scenario
from controller.timeline import (
    BlockStore,
    ContactTable,
    EclipseTable,
    FloatArray,
    IntArray,
    LinkKind,
    LinkTable,
    MemoryBlocks,
    Node,
    NodeEnd,
    Role,
    Timeline,
    kept,
)

# How far satellites go between samples of a scan for access: some 20 s in low orbit.
_SCAN_ANGLE_RAD = 0.022
_SCAN_MAX_S = 300.0
_SHORTEST_S = 0.01


@dataclass(frozen=True)
class _Fleet:
    """One constellation as it flies."""

    constellation: Constellation
    track: Track
    first: int  # node
    scan_s: float
    until_s: float  # how far passes are looked for: beyond the run, to know who stays longest


def plan(scenario: Scenario, store: BlockStore | None = None) -> Timeline:
    """Everything that a run's sky commands, named by its content. Blocks go into the store; without one, into memory.

    Raises as `survey` does.
    """
    return kept(survey(scenario), store if store is not None else MemoryBlocks())


def survey(scenario: Scenario) -> Timeline:
    """A run's sky, of which what happens is known, and steps are computed when they are asked for.

    Raises InputError where there is no such sky: a satellite that has decayed before it begins, a fault on a link that
    there is not.
    """
    t_s: FloatArray = scenario.start_s + np.arange(scenario.n_step, dtype=np.float64) * scenario.step_s
    start_s, end_s = float(t_s[0]), float(t_s[-1])
    names, nodes = scenario.node_names, _nodes(scenario)
    fleets = _fleets(scenario, start_s, end_s)
    sites = Sites.of(scenario.grounds)
    where = Whereabouts(tuple(fleet.track for fleet in fleets), sites)
    services = Services(
        (
            *(Service.of_isl(c.isl) for c in scenario.constellations),
            *(Service.of_isl(cross) for cross in scenario.cross_isls),
            *(Service.of_ground(ground, scenario.seed, start_s, end_s) for ground in scenario.grounds),
        )
    )
    holds = _together([*_isl_holds(scenario, fleets, services, start_s, end_s),
                       _gsl_holds(scenario, fleets, sites, services, start_s, end_s)], names)  # fmt: skip
    _check_isl_faults(scenario, holds)
    patches = _patches(holds, services, names)
    contacts = contact_table(holds, names, where, services)
    return Timeline(
        epoch_utc=scenario.epoch,
        step_s=scenario.step_s,
        t_s=t_s,
        nodes=nodes,
        links=patches.table,
        contacts=contacts,
        eclipses=_eclipses(fleets, start_s, end_s),
        node_ends=_node_ends(fleets, end_s),
        warnings=_warnings(scenario, contacts, start_s, end_s),
        blocks=Expansion(scenario.epoch, t_s, where, patches, services),
        content_hash="",
    )


def _fleets(scenario: Scenario, start_s: float, end_s: float) -> list[_Fleet]:
    fleets: list[_Fleet] = []
    first = 0
    for constellation in scenario.constellations:
        orbits = constellation_orbits(constellation, scenario.epoch)
        until_s = end_s + longest_pass_s(orbits) if scenario.grounds and constellation.max_gsl else end_s
        try:
            flown = track(constellation.satellite_names, orbits, scenario.epoch, start_s, until_s)
        except InputError as error:
            raise InputError("\n".join(f"{scenario.label}: {line}" for line in str(error).splitlines())) from error
        scan_s = min(_SCAN_MAX_S, _SCAN_ANGLE_RAD / fastest_rad_s(orbits))
        fleets.append(_Fleet(constellation, flown, first, scan_s, until_s))
        first += len(orbits)
    return fleets


def _nodes(scenario: Scenario) -> tuple[Node, ...]:
    satellites = [
        Node(
            name,
            Role.SATELLITE,
            tuple(f"isl{i}" for i in range(_isl_port_starts(scenario, number)[-1]))
            + tuple(f"gsl{i}" for i in range(constellation.max_gsl)),
        )
        for number, constellation in enumerate(scenario.constellations)
        for name in constellation.satellite_names
    ]
    grounds = [
        Node(ground.name, Role(ground.role), tuple(f"gsl{i}" for i in range(ground.antennas)))
        for ground in scenario.grounds
    ]
    return (*satellites, *grounds)


def _pools(cross: CrossIsl) -> Pools:
    """How many links between two constellations a satellite of each may have."""
    if cross.topology == "pairs":
        return Pools(isl_ports_needed(cross), isl_ports_needed(cross))
    return Pools(cross.k, cross.serves)


def _isl_port_starts(scenario: Scenario, number: int) -> list[int]:
    """A constellation's ISL ports: where its own begin, those of each cross link, and where they end."""
    constellation = scenario.constellations[number]
    starts = [0, constellation.isl_ports]
    for cross in scenario.cross_isls:
        pools = _pools(cross)
        ends = zip((pools.a, pools.b), cross.between, strict=True)
        starts.append(starts[-1] + sum(pool for pool, end in ends if end == constellation.name))
    return starts


def _isl_holds(
    scenario: Scenario, fleets: Sequence[_Fleet], services: Services, start_s: float, end_s: float
) -> list[Holds]:
    """The links within each constellation, and between them."""
    found = []
    for number, fleet in enumerate(fleets):
        policy = fleet.constellation.isl
        view = IslView(fleet.track, fleet.track, policy, services.services[number].reach_m)
        if policy.topology == "nearest-k":
            own = nearest_holds(view, Pools(policy.k, policy.k), start_s, end_s, fleet.scan_s)
        else:
            own = _steady(view, _pairs(fleet, start_s), start_s, end_s, fleet.scan_s)
        found.append(_isl(own, number, (fleet.first, fleet.first), (0, 0)))
    by_name = {fleet.constellation.name: number for number, fleet in enumerate(fleets)}
    for i, cross in enumerate(scenario.cross_isls):
        number_a, number_b = (by_name[name] for name in cross.between)
        a, b = fleets[number_a], fleets[number_b]
        service = len(fleets) + i
        view = IslView(a.track, b.track, cross, services.services[service].reach_m)
        scan_s = min(a.scan_s, b.scan_s)
        if cross.topology == "nearest-k":
            own = nearest_holds(view, _pools(cross), start_s, end_s, scan_s)
        else:
            pairs = named_pairs(a.constellation.satellite_names, cross.pairs, b.constellation.satellite_names)
            own = _steady(view, pairs, start_s, end_s, scan_s)
        ports = tuple(_isl_port_starts(scenario, number)[i + 1] for number in (number_a, number_b))
        found.append(_isl(own, service, (a.first, b.first), (ports[0], ports[1])))
    return found


def _pairs(fleet: _Fleet, start_s: float) -> IslPairs:
    constellation = fleet.constellation
    if constellation.isl.topology == "pairs":
        return named_pairs(constellation.satellite_names, constellation.isl.pairs)
    if constellation.walker is not None:
        return walker_pairs(constellation.walker, constellation.isl.topology)
    satellites = np.arange(fleet.track.n_satellite)
    begin = fleet.track.at(satellites, np.full(len(satellites), start_s))
    return element_set_pairs(begin.r_m, begin.v_m_s, constellation.isl.topology)


def _steady(view: IslView, pairs: IslPairs, start_s: float, end_s: float, scan_s: float) -> IslHolds:
    """Links of fixed partners, while they are usable and acquired."""
    usable = acquired(view.usable(pairs, start_s, end_s, scan_s), view.policy, start_s)
    own = taken(pairs, usable.row)
    return IslHolds(own.a, own.b, own.port_a, own.port_b, usable.start_s, usable.end_s)


def _isl(own: IslHolds, service: int, first: tuple[int, int], ports: tuple[int, int]) -> Holds:
    n = len(own.a)
    return Holds(
        own.a + first[0], own.b + first[1], np.full(n, int(LinkKind.ISL)), own.port_a + ports[0],
        own.port_b + ports[1], np.full(n, service), own.start_s, own.end_s,
    )  # fmt: skip


def _gsl_holds(
    scenario: Scenario, fleets: Sequence[_Fleet], sites: Sites, services: Services, start_s: float, end_s: float
) -> Holds:
    """The links between ground nodes and satellites."""
    first_service = len(services.services) - len(scenario.grounds)
    mask_deg = np.array([ground.min_elevation_deg for ground in scenario.grounds], np.float64)
    reach_m = np.array([service.reach_m for service in services.services[first_service:]], np.float64)
    n_satellite = sum(fleet.track.n_satellite for fleet in fleets)
    n_isl_port, max_gsl = np.zeros(n_satellite, np.int64), np.zeros(n_satellite, np.int64)
    views, parts = [], [Passes.none()]
    for number, fleet in enumerate(fleets):
        own = slice(fleet.first, fleet.first + fleet.track.n_satellite)
        n_isl_port[own] = _isl_port_starts(scenario, number)[-1]
        max_gsl[own] = fleet.constellation.max_gsl
        views.append(GroundView(sites, fleet.track, mask_deg, reach_m))
        if scenario.grounds and fleet.constellation.max_gsl:
            seen = views[-1].passes(start_s, fleet.until_s, fleet.scan_s)
            parts.append(replace(seen, satellite=seen.satellite + fleet.first))
    firsts = np.array([fleet.first for fleet in fleets])

    def look(ground: IntArray, satellite: IntArray, t_s: FloatArray) -> Look:
        owner = np.searchsorted(firsts, satellite, side="right") - 1
        result = np.empty((4, len(ground)))
        for number in np.unique(owner):
            own = np.flatnonzero(owner == number)
            one = views[number].look(ground[own], satellite[own] - firsts[number], t_s[own])
            result[:, own] = one.azimuth_deg, one.elevation_deg, one.range_m, one.range_rate_m_s
        return Look(*result)

    won = handovers(joined(parts), scenario.grounds, max_gsl.tolist(), look, start_s, end_s)
    n = len(won.ground)
    return Holds(
        won.ground + n_satellite, won.satellite, np.full(n, int(LinkKind.GSL)), won.antenna,
        n_isl_port[won.satellite] + won.gsl_port, won.ground + first_service, won.start_s, won.end_s,
    )  # fmt: skip


def _rank(names: Sequence[str]) -> IntArray:
    """Where each name stands in the order of names."""
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(np.array(names), kind="stable")] = np.arange(len(names))
    return rank


def _together(parts: Sequence[Holds], names: Sequence[str]) -> Holds:
    """All parts as one, with names[a] < names[b], without what is shorter than contacts are told."""
    every = joined(parts)
    every = taken(every, every.end_s - every.start_s >= _SHORTEST_S)
    rank = _rank(names)
    swapped = rank[every.a] > rank[every.b]
    return replace(
        every,
        a=np.where(swapped, every.b, every.a),
        b=np.where(swapped, every.a, every.b),
        port_a=np.where(swapped, every.port_b, every.port_a),
        port_b=np.where(swapped, every.port_a, every.port_b),
    )


def _patches(holds: Holds, services: Services, names: Sequence[str]) -> Patches:
    """The table of links, by the names of their ends and then by ports, and when each is patched."""
    rank = _rank(names)
    keys = np.stack((rank[holds.a], rank[holds.b], holds.port_a, holds.port_b, holds.service), axis=1)
    _, kept, link = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    loss_ratio = np.array([service.loss_ratio for service in services.services], np.float64)
    mtu_bytes = np.array([service.mtu_bytes for service in services.services], np.int64)
    own = taken(holds, kept)
    table = LinkTable(
        own.a, own.b, own.kind, own.port_a, own.port_b, loss_ratio[own.service], mtu_bytes[own.service]
    )  # fmt: skip
    return Patches(table, own.service, link.reshape(-1), holds.start_s, holds.end_s)


def _eclipses(fleets: Sequence[_Fleet], start_s: float, end_s: float) -> EclipseTable:
    found = [(fleet.first, eclipses(fleet.track, start_s, end_s)) for fleet in fleets]
    return joined([replace(own, satellite=own.satellite + first) for first, own in found])


def _node_ends(fleets: Sequence[_Fleet], end_s: float) -> tuple[NodeEnd, ...]:
    ends = [
        NodeEnd(fleet.first + int(satellite), float(fleet.track.end_s[satellite]), fleet.track.reasons[satellite])
        for fleet in fleets
        for satellite in np.flatnonzero(fleet.track.end_s <= end_s)
    ]
    return tuple(sorted(ends, key=lambda end: (end.at_s, end.node)))


def _warnings(scenario: Scenario, contacts: ContactTable, start_s: float, end_s: float) -> tuple[str, ...]:
    """What the user should know before trusting this sky."""
    lines = [*element_age_warnings(scenario)]
    whole = (contacts.start_s > start_s) & (contacts.end_s < end_s)
    lasted_s = (contacts.end_s - contacts.start_s)[whole]
    n_short = int(np.sum(lasted_s < scenario.step_s))
    if n_short:
        lines.append(
            f"step_s = {scenario.step_s:g}: {n_short} of {len(contacts.a)} contacts are shorter than a step, the "
            f"shortest {lasted_s.min():.2f} s: the run may never see them; make step_s smaller, or leave them out"
        )
    return tuple(lines)


def _check_isl_faults(scenario: Scenario, holds: Holds) -> None:
    """A fault on a link between two satellites needs that link to exist. Raises InputError."""
    names = scenario.node_names
    satellites = frozenset(scenario.satellite_names)
    asked = [(i, f) for i, f in enumerate(scenario.faults) if len(f.ends) == 2 and frozenset(f.ends) <= satellites]
    if not asked:
        return
    is_isl = holds.kind == LinkKind.ISL
    joined = {frozenset((names[a], names[b])) for a, b in zip(holds.a[is_isl], holds.b[is_isl], strict=True)}
    for i, fault in asked:
        if frozenset(fault.ends) not in joined:
            neighbours = sorted(n for pair in joined if fault.ends[0] in pair for n in pair if n != fault.ends[0])
            raise InputError(
                f"{scenario.label}: fault[{i}].target = {fault.target!r}: the topology has no link between these; "
                f"{fault.ends[0]} is joined to {', '.join(neighbours) or 'none'}"
            )
