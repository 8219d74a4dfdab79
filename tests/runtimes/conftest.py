"""Tests of runtimes: root, and for Docker's an engine. `--runtime` chooses one; as a rule both are held."""

from __future__ import annotations

import pytest

KINDS = ("docker", "namespace")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --runtime."""
    parser.addoption("--runtime", choices=KINDS, default=None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Hold each runtime to the contract, or the one that was asked for."""
    if "kind" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--runtime", default=None)
        metafunc.parametrize("kind", [asked] if asked else KINDS, scope="module")
