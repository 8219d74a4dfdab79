"""What goes side by side: tests that look at all of this machine, or change it, go one after the other."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

OF_THE_MACHINE = ("tests/kernel/", "tests/runtimes/", "tests/docker/", "tests/survival/")


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Deals those out to one worker, and every other test by itself."""

    def _split_scope(self, nodeid: str) -> str:
        return "machine" if nodeid.startswith(OF_THE_MACHINE) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config) -> LoadScopeScheduling | None:
    """Of `--dist=loadscope`."""
    return SideBySide(config) if config.getoption("dist") == "loadscope" else None
