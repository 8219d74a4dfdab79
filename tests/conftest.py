"""What goes side by side: tests that look at all of this machine, or change it, go one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

ROOMS = {Path(__file__).parent / room for room in ("kernel", "runtimes", "docker", "survival")}


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Have one worker take all of them, where there are several (`--dist=loadgroup`)."""
    for item in items:
        if item.path.parent in ROOMS:
            item.add_marker(pytest.mark.xdist_group("machine"))
