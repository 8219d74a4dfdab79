from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.scenario import fault_model, link_model, model
from controller.scenario.fields import Table

REFERENCE = Path(__file__).parents[3] / "docs" / "scenario.md"


def keys() -> Iterator[tuple[str, str]]:
    """Every key that a table of the scenario file may have, with its table's name."""
    for module in (model, link_model, fault_model):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Table) and kind is not Table:
                yield from ((kind.__name__, field.alias or name) for name, field in kind.model_fields.items())


@pytest.mark.parametrize(("table", "key"), sorted(set(keys())))
def test_the_reference_names_every_key(table: str, key: str) -> None:
    """A key that the file may have stands in docs/scenario.md."""
    assert re.search(rf"\b{key}\b", REFERENCE.read_text()), f"{key} of {table}"
