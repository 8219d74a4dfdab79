"""What goes side by side: tests of some rooms look at all of a machine, or change it, and go one after the other."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

MACHINE_OF_ROOM = {"kernel": "this", "runtimes": "this", "docker": "this", "survival": "its own"}


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Deals out to one worker what goes on on one machine, and every other test by itself."""

    def _split_scope(self, nodeid: str) -> str:
        return MACHINE_OF_ROOM.get(nodeid.split("/")[1], nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling | None:
    """Of `--dist=loadscope`."""
    return SideBySide(config, log) if config.getoption("dist") == "loadscope" else None
