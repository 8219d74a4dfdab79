"""What is wrong between the tables of a scenario whose tables are right, a line each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

from controller.scenario.fault_model import PLANE, Fault
from controller.scenario.link_model import isl_ports_needed
from controller.scenario.model import MAX_ISL_PORTS, Constellation, Scenario

MAX_NODES = 100_000
MAX_STEPS = 10_000_000
_MAX_NAME_LENGTH = 48  # of a node, which becomes a host
_LEAST_OF_A_HOST = {"memory_bytes": 128 * 1024 * 1024, "pids_limit": 64}
_MAX_UNKNOWN_PAIRS = 5  # of one list: the rest is counted


def cross_problems(scenario: Scenario) -> list[str]:
    """All of them, in the order of the tables."""
    return _size_problems(scenario) or _name_problems(scenario) + _isl_problems(scenario) + _cross_isl_problems(
        scenario
    ) + _fault_problems(scenario) + _probe_problems(scenario) + _hosting_problems(scenario)


def nearest(name: str, known: Sequence[str]) -> str:
    """Words to stand behind a name that is none: the one that was probably meant, or all if they are few."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    if 0 < len(known) <= 12:
        return f"; there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
    return ""


def _size_problems(scenario: Scenario) -> list[str]:
    problems: list[str] = []
    n_node = sum(_n_satellite(c) for c in scenario.constellations) + len(scenario.grounds)
    if n_node > MAX_NODES:
        problems.append(f"constellation: a scenario may have {MAX_NODES:,} nodes, this one has {n_node:,}")
    if scenario.n_step > MAX_STEPS:
        problems.append(
            f"step_s = {scenario.step_s:g}: makes {scenario.n_step:,} steps of duration_s = {scenario.duration_s:g}; "
            f"a run may have {MAX_STEPS:,}: lengthen step_s or shorten duration_s"
        )
    return problems


def _n_satellite(constellation: Constellation) -> int:
    return constellation.walker.total if constellation.walker is not None else len(constellation.element_sets)


def _name_problems(scenario: Scenario) -> list[str]:
    """Nodes of one name, objects of one catalogue number, and constellations without a satellite."""
    problems: list[str] = []
    owner: dict[str, str] = {}
    labels: dict[str, str] = {}
    catalogued: dict[str, str] = {}
    for i, constellation in enumerate(scenario.constellations):
        key = f"constellation[{i}].name = {constellation.name!r}"
        if constellation.name in labels:
            problems.append(f"{key}: already the name of {labels[constellation.name]}; give it another")
            continue
        labels[constellation.name] = f"constellation[{i}]"
        if not constellation.satellite_names:
            problems.append(
                f"constellation[{i}].select = {list(constellation.select)}: no object of the file is called so; "
                "patterns are those of the shell, capital letters count"
            )
        for j, name in enumerate(constellation.satellite_names):
            place = f"satellite {j} of constellation[{i}]"
            if constellation.element_file is not None:
                element_set = constellation.element_sets[j]
                place += f" ({constellation.element_file.path}{element_set.place})"
                other = catalogued.setdefault(element_set.catalogue, place)
                if other is not place:
                    problems.append(
                        f"{place}: its catalogue number {element_set.catalogue} is that of {other} already; "
                        "take the older of the two out of its file"
                    )
                    continue
            if name in owner:
                problems.append(f"{place}: its name {name!r} is that of {owner[name]} already; give one another name")
            elif len(name) > _MAX_NAME_LENGTH:
                problems.append(f"{place}: its name {name!r} is longer than {_MAX_NAME_LENGTH} characters; shorten it")
            owner.setdefault(name, place)
    for i, ground in enumerate(scenario.grounds):
        if ground.name in owner:
            problems.append(
                f"ground[{i}].name = {ground.name!r}: already the name of {owner[ground.name]}; give it another"
            )
        owner.setdefault(ground.name, f"ground[{i}]")
    return problems


def _isl_problems(scenario: Scenario) -> list[str]:
    """Pairs of satellites that there are not, and pools with too few ports."""
    problems: list[str] = []
    for i, constellation in enumerate(scenario.constellations):
        if constellation.isl.pairs:
            ends = ((j, name) for j, pair in enumerate(constellation.isl.pairs) for name in pair)
            problems += _unknown_ends(f"constellation[{i}].isl.pairs", ends, constellation)
        needed = isl_ports_needed(constellation.isl)
        if constellation.isl_ports < needed <= MAX_ISL_PORTS:
            problems.append(
                f"constellation[{i}].isl_ports = {constellation.isl_ports}: the port pool is too small: topology "
                f'"{constellation.isl.topology}" needs at least {needed}'
            )
        if needed > MAX_ISL_PORTS:
            problems.append(f"constellation[{i}].isl.pairs: a satellite has {needed}; it may have {MAX_ISL_PORTS}")
    return problems


def _cross_isl_problems(scenario: Scenario) -> list[str]:
    """Links between constellations, or satellites, that there are not."""
    problems: list[str] = []
    known = {constellation.name: constellation for constellation in scenario.constellations}
    for i, isl in enumerate(scenario.cross_isls):
        for side, name in enumerate(isl.between):
            if name not in known:
                problems.append(
                    f"isl[{i}].between[{side}] = {name!r}: no constellation is called so{nearest(name, list(known))}"
                )
            elif isl.pairs:
                ends = ((j, pair[side]) for j, pair in enumerate(isl.pairs))
                problems += _unknown_ends(f"isl[{i}].pairs", ends, known[name])
    return problems


def _unknown_ends(key: str, ends: Iterable[tuple[int, str]], constellation: Constellation) -> list[str]:
    """A line for each of the ends (index of the pair, name) that is no satellite of a constellation."""
    names = constellation.satellite_names
    known = frozenset(names)
    unknown = [(j, name) for j, name in ends if name not in known]
    problems = [
        f"{key}[{j}]: no satellite of {constellation.name!r} is called {name!r}{nearest(name, names)}"
        for j, name in unknown[:_MAX_UNKNOWN_PAIRS]
    ]
    if len(unknown) > len(problems):
        problems.append(f"{key}: … and {len(unknown) - len(problems)} more that are no satellites of it")
    return problems


def _fault_problems(scenario: Scenario) -> list[str]:
    problems: list[str] = []
    names, planes = scenario.node_names, scenario.planes
    satellites = frozenset(scenario.satellite_names)
    for i, fault in enumerate(scenario.faults):
        lines = target_problems(fault, names, satellites, list(planes))
        problems += [f"fault[{i}].target = {fault.target!r}: {line}" for line in lines]
    return problems


def target_problems(fault: Fault, names: Sequence[str], satellites: frozenset[str], planes: Sequence[str]) -> list[str]:
    """What is wrong with a fault's target in a sky of these nodes and planes; a region is anywhere right."""
    if fault.region is not None or fault.plane in planes:
        return []
    if fault.target.startswith(PLANE):
        return [f"no Walker constellation has a plane {fault.plane!r}{nearest(fault.plane, planes)}"]
    if len(fault.ends) > 2:
        return ['must be the name of a node, "a~b" for the link between two, or "plane:NAME"']
    known = frozenset(names)
    unknown = [end for end in fault.ends if end not in known]
    if unknown:
        return [f"no node is called {end!r}{nearest(end, names)}" for end in unknown]
    if len(fault.ends) == 2 and (fault.ends[0] == fault.ends[1] or not satellites & frozenset(fault.ends)):
        return ["no link joins these two; one end must be a satellite, and the other another node"]
    return []


def _probe_problems(scenario: Scenario) -> list[str]:
    problems: list[str] = []
    names = scenario.node_names
    known: Collection[str] = frozenset(names)
    for i, probe in enumerate(scenario.probes):
        for side, end in (("a", probe.a), ("b", probe.b)):
            if end not in known:
                problems.append(f"probe[{i}].{side} = {end!r}: no node is called so{nearest(end, names)}")
        if probe.a == probe.b:
            problems.append(f"probe[{i}].b = {probe.b!r}: must be another node than a")
    return problems


def _hosting_problems(scenario: Scenario) -> list[str]:
    """Images that no satellite hosts, and nodes too small to be halved."""
    problems = [
        f"constellation[{i}].image_on = {list(constellation.image_on)}: no satellite of it is called so; there are "
        f"{', '.join(constellation.satellite_names[:3])}, … (patterns are those of the shell)"
        for i, constellation in enumerate(scenario.constellations)
        if constellation.image is not None and not constellation.hosts
    ]
    for key, least in _LEAST_OF_A_HOST.items() if scenario.images else ():
        if getattr(scenario.resources, key) < least:
            problems.append(
                f"resources.{key} = {getattr(scenario.resources, key):_}: must be at least {least:_} where nodes host "
                "an image: half of it is the agent's"
            )
    return problems
