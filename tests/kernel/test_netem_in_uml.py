"""netem, held by the same suite: on this kernel if it has netem, else on a User-Mode Linux kernel, which has."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from controller.fabric.choose import NETEM_NEEDS, panel_capabilities

ROOT = Path(__file__).parents[2]
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
    kernel = [] if works >= NETEM_NEEDS else ["deploy/uml-run", "--timeout", str(TIMEOUT_S)]
    # The guest shares files but not /tmp; the results must be read from outside.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="skyrack-uml-test-") as folder:
        first = outcome = _run(kernel, Path(folder), SUITE)
        for _ in range(RETRIES):
            if outcome.failed:
                outcome = _run(kernel, Path(folder), [*SUITE, "--last-failed"])
    assert (first.tests > 0, first.skipped) == (True, 0)
    assert (outcome.tests > 0, outcome.skipped, outcome.failed) == (True, 0, 0), outcome.said


@dataclass(frozen=True)
class Outcome:
    """What a run of the suite came to."""

    tests: int
    skipped: int
    failed: int
    said: str


def _run(kernel: list[str], folder: Path, arguments: list[str]) -> Outcome:
    """Run pytest in the guest. What failed is remembered in the folder."""
    result = folder / "result.xml"
    result.unlink(missing_ok=True)
    options = ["-q", "-o", f"cache_dir={folder / 'cache'}", "--shaper", "netem", f"--junit-xml={result}"]
    guest = subprocess.run(
        [*kernel, sys.executable, "-m", "pytest", *options, *arguments],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=TIMEOUT_S + 60,
    )  # fmt: skip
    said = f"{kernel or 'here'} (status {guest.returncode}):\n{guest.stdout}"
    assert result.exists(), said
    suite = ElementTree.parse(result).getroot().find("testsuite")  # noqa: S314  (pytest wrote it, a moment ago)
    assert suite is not None, said
    counts = {key: int(suite.attrib[key]) for key in ("tests", "skipped", "failures", "errors")}
    failed = counts["failures"] + counts["errors"]
    assert (guest.returncode == 0) == (failed == 0), said
    return Outcome(counts["tests"], counts["skipped"], failed, said)
