"""netem, held by the same suite: on this kernel if it has netem, else on a User-Mode Linux kernel, which has."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from controller.fabric.choose import NETEM_NEEDS, panel_capabilities

ROOT = Path(__file__).parents[2]
SUITE = ["test_shapers.py", "test_routes.py", "test_probes.py", "test_panel.py", "test_choose.py"]
TIMEOUT_S = 420


def test_netem_passes_the_conformance_suite_on_a_kernel_that_has_it() -> None:
    """Every test of the suite runs against netem in a kernel that has it, none is skipped, and all pass."""
    works = {each.name for each in panel_capabilities() if each.works}
    kernel = [] if works >= NETEM_NEEDS else ["deploy/uml-run", "--timeout", str(TIMEOUT_S)]
    # The guest shares files but not /tmp; the result must be read from outside.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="skyrack-uml-test-") as folder:
        result = Path(folder) / "result.xml"
        pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--shaper", "netem"]
        suite = [str(Path("tests/kernel") / name) for name in SUITE]
        guest = subprocess.run(
            [*kernel, *pytest_command, f"--junit-xml={result}", *suite],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=TIMEOUT_S + 60,
        )  # fmt: skip
        assert guest.returncode == 0, f"{kernel or 'here'} (status {guest.returncode}):\n{guest.stdout}"
        outcome = ElementTree.parse(result).getroot().find("testsuite")  # noqa: S314  (pytest wrote it, a moment ago)
    assert outcome is not None
    assert int(outcome.attrib["tests"]) > 0
    assert {each: outcome.attrib[each] for each in ("skipped", "failures", "errors")} == {
        "skipped": "0", "failures": "0", "errors": "0",
    }  # fmt: skip
