"""A scenario file becomes a frozen, validated Scenario, or one error that tells all its mistakes."""

from controller.scenario.load import (
    load_scenario,
    parse_scenario,
    preset_names,
    preset_text,
    read_source,
)
from controller.scenario.model import Scenario
from controller.scenario.source import Source

__all__ = [
    "Scenario",
    "Source",
    "load_scenario",
    "parse_scenario",
    "preset_names",
    "preset_text",
    "read_source",
]
