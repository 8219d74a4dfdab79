"""Tests of survival: faults of the machine, all of them on a machine of the tests' own within this one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.survival.machine import Machine, own_machine


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """One for all tests."""
    with own_machine() as made:
        yield made


@pytest.fixture(autouse=True)
def mended(machine: Machine) -> Iterator[None]:
    """Each test leaves it with its engine up and without runs."""
    yield
    machine.mend()
