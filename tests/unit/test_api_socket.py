"""The socket that a run answers the command line on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from controller.api.server import serve
from controller.runs import Roots, RunPlace
from tests.unit.test_emulation import emulation_of, ten_steps


@pytest.fixture
def mask() -> Iterator[None]:
    """A process that lets others at the files that it makes."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("mask")
async def test_a_runs_socket_is_its_owners_alone(tmp_path: Path) -> None:
    """From when it is there, whatever the mask of the process."""
    place = RunPlace("abcdefgh", "", tmp_path, 1, 1, datetime.now(UTC), roots=Roots(tmp_path, tmp_path))
    os.mkdir(place.run_dir)
    with emulation_of(tmp_path, ten_steps()) as (emulation, _):
        emulation.place = place
        server = await serve(emulation, tmp_path)
        assert stat.S_IMODE(os.stat(place.api_socket).st_mode) == 0o600
        await server.stop(0)
