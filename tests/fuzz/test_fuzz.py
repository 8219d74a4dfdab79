"""A short campaign of a fixed seed against real agents; `python -m tests.fuzz.run` has long ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.agent.fleet import Fleet
from tests.agent.methods import NOBODYS_METHOD
from tests.fuzz.caller import ANSWERED
from tests.fuzz.campaign import Campaign

SEED, CASES, WARM_UP = 20, 3_000, 1_000


async def test_no_message_harms_an_agent() -> None:
    """Whatever comes in, by whatever method and from whoever may call it, is answered in time by one clear error or
    what was asked for; the agents live on as they were, and do their work; no method has been left out."""
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="skyrack-fuzz-") as folder:
        async with Fleet(Path(folder)) as fleet:
            report = await Campaign(fleet, SEED, said.append).run(CASES, WARM_UP)
    assert not report.findings, "\n".join(report.findings)
    assert report.cases == CASES
    assert report.methods_without("OK", ANSWERED) == {NOBODYS_METHOD}
