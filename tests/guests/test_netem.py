"""netem, held by the same suite: on this kernel if it has netem, else on a User-Mode Linux kernel, which has."""

from __future__ import annotations

import tempfile
from pathlib import Path

from controller.fabric.choose import NETEM_NEEDS, panel_capabilities
from tests.guests.guest import Outcome, run_pytest

ROOMS = ("blackouts", "capture", "choose", "ipv6", "mtu", "panel", "probes", "routes", "shapers")
SUITE = [f"tests/kernel/test_{room}.py" for room in ROOMS]
TIMEOUT_S = 420
RETRIES = 2


def test_netem_passes_the_conformance_suite_on_a_kernel_that_has_it() -> None:
    """Every test of the suite runs against netem in a kernel that has it, none is skipped, and all pass.

    The guest's one CPU stops whenever the shared machine is busy, and with it the clocks of whatever is measured: what
    fails is tried again by itself, twice at the most.
    """
    works = {each.name for each in panel_capabilities() if each.works}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="skyrack-uml-test-") as folder:

        def run(*arguments: str) -> Outcome:
            in_guest = not works >= NETEM_NEEDS
            suite = [*SUITE, "--shaper", "netem", *arguments]
            return run_pytest(suite, Path(folder), in_guest=in_guest, timeout_s=TIMEOUT_S)

        first = outcome = run()
        for _ in range(RETRIES):
            if outcome.failed:
                outcome = run("--last-failed")
    assert (first.tests > 0, first.skipped) == (True, 0)
    assert (outcome.tests > 0, outcome.skipped, outcome.failed) == (True, 0, 0), outcome.said
