"""A fleet of real agents for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agent.fleet import Fleet


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """Agents to be launched; none of them outlives the test. Socket paths stay short."""
    with tempfile.TemporaryDirectory(prefix="skyrack-test-") as folder:
        async with Fleet(Path(folder)) as agents:
            yield agents
