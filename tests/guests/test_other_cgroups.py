"""The runtime of namespaces under the version of control groups that this machine does not have."""

from __future__ import annotations

import tempfile
from pathlib import Path

from controller.runtime.cgroups import CONTROLLERS, Cgroups
from tests.guests.guest import run_pytest

TIMEOUT_S = 400
SUITE = ("tests/runtimes/test_contract.py", "tests/runtimes/test_limits.py")
MOUNTS = {
    1: "mount -t tmpfs groups /sys/fs/cgroup && for name in {names}; do mkdir /sys/fs/cgroup/$name && "
    "mount -t cgroup -o $name cgroup /sys/fs/cgroup/$name; done".format(names=" ".join(CONTROLLERS)),
    2: "mount -t cgroup2 groups /sys/fs/cgroup",
}
# The guest's files are the machine's, which it can make for root alone: stores must be files of its own.
STORES = "mkdir -p /var/lib/skyrack && mount -t tmpfs stores /var/lib/skyrack"


def test_the_contract_holds_under_the_other_version_of_control_groups() -> None:
    """Every test of the contract and of the limits passes in a kernel that has the other version mounted."""
    other = 3 - Cgroups.here().version
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="skyrack-uml-test-") as folder:
        outcome = run_pytest(
            [*SUITE, "--runtime", "namespace"],
            Path(folder),
            in_guest=True,
            timeout_s=TIMEOUT_S,
            set_up=f"{MOUNTS[other]} && {STORES}",
        )
    assert (outcome.tests > 0, outcome.skipped, outcome.failed) == (True, 0, 0), outcome.said
