"""From a preset's name or a file's path to a validated Scenario; every mistake in the file told, a line each."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from controller.errors import InputError
from controller.scenario.messages import structural_problems
from controller.scenario.model import Scenario

# Positions and sunlight take 32 bytes a node and step, link states about as much again: some 3 GB.
MAX_NODE_STEPS = 50_000_000


@dataclass(frozen=True)
class Source:
    """A scenario as text: where it is from, and where its relative paths start."""

    label: str  # named in every error
    text: str
    folder: Path


def preset_names() -> tuple[str, ...]:
    """Names of the scenarios that come with skyrack."""
    folder = resources.files("controller.scenario") / "presets"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def preset_text(name: str) -> str:
    """A preset's file. Raises InputError for a name that is none."""
    if name not in preset_names():
        raise InputError(f"no preset is called {name!r}{_nearest(name, preset_names())}")
    return (resources.files("controller.scenario") / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def read_source(path_or_preset: str) -> Source:
    """The text of a scenario. Raises InputError if there is none."""
    path = Path(path_or_preset)
    if path_or_preset in preset_names() and not path.is_file():
        return Source(f"preset {path_or_preset}", preset_text(path_or_preset), Path())
    try:
        return Source(str(path), path.read_text(encoding="utf-8"), path.parent)
    except FileNotFoundError as error:
        known = preset_names()
        raise InputError(
            f"{path}: there is no such scenario file, nor a preset of that name{_nearest(path_or_preset, known)}"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); a scenario is a TOML file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def load_scenario(path_or_preset: str, duration_s: float | None = None) -> Scenario:
    """A scenario, validated whole. Raises InputError that names file, key, value and what is allowed for each mistake.

    Paths in the file are relative to the file.
    """
    return parse_scenario(read_source(path_or_preset), duration_s)


def parse_scenario(source: Source, duration_s: float | None = None) -> Scenario:
    """As load_scenario, from text. A duration takes the place of the file's, and is held to the same rules."""
    try:
        raw = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source.label}: not valid TOML: {error}") from error
    if duration_s is not None:
        raw["duration_s"] = duration_s
    try:
        scenario = Scenario.model_validate(raw, context=source.folder)
    except ValidationError as error:
        raise _input_error(source.label, structural_problems(error, Scenario)) from error
    problems = _cross_problems(scenario)
    if problems:
        raise _input_error(source.label, problems)
    return scenario.labelled(source.label)


def _input_error(label: str, problems: Sequence[str]) -> InputError:
    return InputError("\n".join(f"{label}: {problem}" for problem in problems))


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    if len(known) <= 12:
        return f"; there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"
    return ""


def _cross_problems(scenario: Scenario) -> list[str]:
    """What is wrong between the tables of a scenario whose tables are right, a line each."""
    problems = _name_problems(scenario)
    names = scenario.node_names
    known = frozenset(names)
    grounds = frozenset(ground.name for ground in scenario.grounds)
    for i, fault in enumerate(scenario.faults):
        key = f"fault[{i}].target = {fault.target!r}"
        unknown = [end for end in fault.ends if end not in known]
        if len(fault.ends) > 2:
            problems.append(f'{key}: must be the name of a node, or "a~b" for the link between two')
        elif unknown:
            problems.extend(f"{key}: no node is called {end!r}{_nearest(end, names)}" for end in unknown)
        elif len(fault.ends) == 2 and (fault.ends[0] == fault.ends[1] or set(fault.ends) <= grounds):
            problems.append(f"{key}: no link joins these two; one end must be a satellite, and the other another node")
    for i, probe in enumerate(scenario.probes):
        for side, end in (("a", probe.a), ("b", probe.b)):
            if end not in known:
                problems.append(f"probe[{i}].{side} = {end!r}: no node is called so{_nearest(end, names)}")
        if probe.a == probe.b:
            problems.append(f"probe[{i}].b = {probe.b!r}: must be another node than a")
    return problems + _size_problems(scenario)


def _size_problems(scenario: Scenario) -> list[str]:
    n_node = len(scenario.node_names)
    if n_node * scenario.n_step <= MAX_NODE_STEPS:
        return []
    return [
        f"duration_s = {scenario.duration_s:g}: {n_node} nodes and {scenario.n_step} steps are more than memory holds; "
        f"nodes × steps may reach {MAX_NODE_STEPS:,}: shorten duration_s or lengthen step_s"
    ]


def _name_problems(scenario: Scenario) -> list[str]:
    """Nodes of one name, and constellations without a satellite."""
    problems: list[str] = []
    owner: dict[str, str] = {}
    labels: dict[str, str] = {}
    for i, constellation in enumerate(scenario.constellations):
        key = f"constellation[{i}].name = {constellation.name!r}"
        if constellation.name in labels:
            problems.append(f"{key}: already the name of {labels[constellation.name]}; give it another")
            continue
        labels[constellation.name] = f"constellation[{i}]"
        satellites = constellation.satellite_names
        if not satellites:
            problems.append(
                f"constellation[{i}].select = {list(constellation.select)}: no object of the file is called so; "
                "patterns are those of the shell, capital letters count"
            )
        for j, name in enumerate(satellites):
            place = f"satellite {j} of constellation[{i}]"
            if constellation.tle is not None:
                place += f" ({constellation.tle.path}:{constellation.element_sets[j].line_number})"
            if name in owner:
                problems.append(
                    f"{place}: its name {name!r} is that of {owner[name]} already; leave one out with select"
                )
            owner.setdefault(name, place)
    for i, ground in enumerate(scenario.grounds):
        if ground.name in owner:
            problems.append(
                f"ground[{i}].name = {ground.name!r}: already the name of {owner[ground.name]}; give it another"
            )
        owner.setdefault(ground.name, f"ground[{i}]")
    return problems
