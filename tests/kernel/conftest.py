"""Kernel tests: root, and network namespaces of their own. `--shaper` says which shaper the conformance suite holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.world import World, opened_world


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --shaper."""
    parser.addoption("--shaper", choices=("delay-line", "netem"), default="delay-line")


@pytest.fixture(scope="session")
def shaper_name(pytestconfig: pytest.Config) -> str:
    """The shaper under test; the default also where pytest was started from above this folder."""
    return str(pytestconfig.getoption("--shaper", default="delay-line"))


@pytest.fixture
def pair(shaper_name: str) -> Iterator[World]:
    """Two nodes of one port, routed to each other; ports 0 and 1, not patched yet."""
    with opened_world(shaper_name, n_node=2, n_port=1) as world:
        world.route((0, 1, 0), (1, 0, 0))
        yield world


@pytest.fixture
def trio(shaper_name: str) -> Iterator[World]:
    """Three nodes of one port, 1 and 2 both routed over the port of 0; ports 0, 1 and 2, not patched yet."""
    with opened_world(shaper_name, n_node=3, n_port=1) as world:
        world.route((0, 1, 0), (0, 2, 0), (1, 0, 0), (2, 0, 0))
        yield world
