"""From a preset's name or a file's path to a validated Scenario; every mistake in the file told, a line each."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from controller.errors import InputError
from controller.scenario.checks import cross_problems, nearest
from controller.scenario.messages import structural_problems
from controller.scenario.model import Scenario
from controller.scenario.source import Source

_PRESETS = Path(__file__).parent / "presets"
_MAX_LINES = 40  # of one message: the rest is counted


def preset_names() -> tuple[str, ...]:
    """Names of the scenarios that come with skyrack."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.toml")))


def preset_text(name: str) -> str:
    """A preset's file. Raises InputError for a name that is none."""
    if name not in preset_names():
        raise InputError(f"no preset is called {name!r}{nearest(name, preset_names())}")
    return (_PRESETS / f"{name}.toml").read_text(encoding="utf-8")


def preset_summary(name: str) -> str:
    """What a preset is, in one line: the first of its file. Raises InputError for a name that is none."""
    return preset_text(name).partition("\n")[0].removeprefix("#").strip()


def preset_data_files(name: str) -> tuple[Path, ...]:
    """The files of element sets that a preset names. Raises InputError for a name that is none."""
    constellations = tomllib.loads(preset_text(name))["constellation"]
    return tuple(_PRESETS / c[key] for c in constellations for key in ("tle", "omm") if key in c)


def read_source(path_or_preset: str) -> Source:
    """The text of a scenario. Raises InputError if there is none."""
    path = Path(path_or_preset)
    try:
        if path_or_preset in preset_names() and not path.is_file():
            return Source(f"preset {path_or_preset}", preset_text(path_or_preset), _PRESETS)
        return Source(str(path), path.read_text(encoding="utf-8-sig"), path.parent)
    except FileNotFoundError as error:
        known = nearest(path_or_preset, preset_names())
        raise InputError(f"{path}: there is no such scenario file, nor a preset of that name{known}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); a scenario is a TOML file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def load_scenario(
    path_or_preset: str,
    duration_s: float | None = None,
    *,
    start_s: float | None = None,
    time_scale: float | None = None,
) -> Scenario:
    """A scenario, validated whole. Raises InputError that names file, key, value and what is allowed for each mistake.

    Paths in the file are relative to the file. A value that is given takes the place of the file's, and is held to the
    same rules.
    """
    return parse_scenario(read_source(path_or_preset), duration_s, start_s=start_s, time_scale=time_scale)


def parse_scenario(
    source: Source, duration_s: float | None = None, *, start_s: float | None = None, time_scale: float | None = None
) -> Scenario:
    """As load_scenario, from text."""
    try:
        raw = tomllib.loads(source.text)
    except (ValueError, RecursionError) as error:
        # ValueError: not TOML, or a number of more digits than Python reads.
        raise InputError(f"{source.label}: not valid TOML: {error}") from error
    overrides = {"duration_s": duration_s, "start_s": start_s, "time_scale": time_scale}
    raw |= {key: value for key, value in overrides.items() if value is not None}
    try:
        scenario = Scenario.model_validate(raw, context=source)
    except ValidationError as error:
        raise _input_error(source.label, structural_problems(error, Scenario)) from error
    problems = cross_problems(scenario)
    if problems:
        raise _input_error(source.label, problems)
    return scenario.labelled(source.label)


def _input_error(label: str, problems: Sequence[str]) -> InputError:
    lines = [f"{label}: {problem}" for problem in problems[:_MAX_LINES]]
    if len(problems) > _MAX_LINES:
        lines.append(f"{label}: … and {len(problems) - _MAX_LINES} more problems")
    return InputError("\n".join(lines))
