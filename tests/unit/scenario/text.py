"""Scenario files for tests: one that is right, and ways to make it wrong."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from controller.scenario import Scenario, Source, parse_scenario

WALKER = 'pattern = "star", total = 66, planes = 6, phasing = 2, altitude_m = 780_000, inclination_deg = 86.4'

GOOD = f"""\
name = "trial"
epoch = 2026-01-01T00:00:00Z
duration_s = 60.0
step_s = 10.0

[[constellation]]
name = "sat"
walker = {{ {WALKER} }}

[[ground]]
name = "beijing"
role = "gateway"
latitude_deg = 40.07
longitude_deg = 116.60

[[ground]]
name = "suva"
role = "terminal"
latitude_deg = -18.14
longitude_deg = 178.44
"""


def changed(old: str, new: str) -> str:
    """The right file with one thing replaced, which must be in it."""
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def parsed(text: str, folder: Path = Path()) -> Scenario:
    """A scenario from text, in a file of the name trial.toml."""
    return parse_scenario(Source("trial.toml", text, folder))


def with_elements(key: str, file: str, more: str = "") -> str:
    """The right file with element sets in place of the Walker pattern."""
    return changed(f"walker = {{ {WALKER} }}", f'{key} = "{file}"\n{more}')


MUTATIONS = st.lists(st.tuples(st.integers(0, 10_000), st.text(max_size=3), st.integers(0, 4)), min_size=1, max_size=4)


def mutated(text: str, mutations: list[tuple[int, str, int]]) -> str:
    """At each place some characters give way to others."""
    for place, new, n_old in mutations:
        at = place % (len(text) + 1)
        text = text[:at] + new + text[at + n_old :]
    return text
