"""The doctor: each thing looked at on its own, and a remedy for each lack."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from controller import doctor
from controller.doctor import Check
from controller.errors import MachineError
from controller.runtime.engine import Engine


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a machine with 2 GB to spare."""
    values = {
        "meminfo": "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n",
        "sys/fs/inotify/max_user_instances": "128\n",
        "sys/net/ipv4/neigh/default/gc_thresh3": "1024\n",
        "sys/user/max_user_namespaces": "1000\n",
        "sys/kernel/unprivileged_userns_clone": "1\n",
    }
    for key, value in values.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_text(value)
    return tmp_path


def test_memory_is_held_against_the_number_of_nodes(proc: Path) -> None:
    """2,048 MB are enough for 30 nodes and not for 71; the remedy says how many would fit."""
    assert doctor.check_memory(30, doctor.MEMORY_A_CONTAINER_BYTES, proc).ok
    short = doctor.check_memory(71, doctor.MEMORY_A_CONTAINER_BYTES, proc)
    assert not short.ok
    assert short.found == "2,048 MB available, 3,695 MB wanted for 71 nodes"
    assert short.remedy == "free some, or run fewer nodes: 34 would fit"


@pytest.mark.parametrize(("cgroup_version", "n_node", "ok"), [("1", 1000, True), ("2", 71, True), ("2", 200, False)])
def test_inotify_matters_with_cgroup_2(proc: Path, cgroup_version: str, n_node: int, ok: bool) -> None:
    """Containers take inotify instances with cgroup version 2 only."""
    check = doctor.check_inotify(cgroup_version, n_node, proc)
    assert check.ok == ok
    assert bool(check.remedy) != ok


@pytest.mark.parametrize(
    ("release", "n_node", "ok"), [("6.1.0-13-amd64", 5000, True), ("4.19.0", 71, True), ("4.19.0", 200, False)]
)
def test_neighbour_table_matters_on_old_kernels(proc: Path, release: str, n_node: int, ok: bool) -> None:
    """Permanent entries count for gc_thresh3 before Linux 5.0 only."""
    assert doctor.check_neighbours(n_node, proc, release).ok == ok


@pytest.mark.parametrize(("limit", "ok"), [(1024, False), (4096, True), (resource.RLIM_INFINITY, True)])
def test_open_files(limit: int, ok: bool) -> None:
    """500 nodes need more files than the customary soft limit of 1,024."""
    assert doctor.check_open_files(500, limit).ok == ok


@pytest.mark.parametrize(("api_version", "ok"), [("1.40", False), ("1.41", True), ("1.100", True), ("2.0", True)])
def test_api_versions_are_numbers(api_version: str, ok: bool) -> None:
    """1.100 is newer than 1.41."""
    engine = Engine("x", api_version, "2", "systemd", "overlay2", Path("/"))
    assert doctor.check_engine(engine).ok == ok


def test_privilege(proc: Path) -> None:
    """An ordinary user may have nodes without an engine where the kernel lets him, and is told how it would."""
    assert doctor.check_user(0, proc, "docker").ok
    assert doctor.check_user(1000, proc, "docker").remedy == "run as root, through sudo"
    assert doctor.check_user(1000, proc, "namespace").ok
    (proc / "sys/kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")
    refused = doctor.check_user(1000, proc, "namespace")
    assert not refused.ok
    assert refused.remedy == "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or sudo"


def test_disk(tmp_path: Path) -> None:
    """Free room is held against the number of nodes."""
    assert doctor.check_disk(0, tmp_path).name == "disk"
    assert not doctor.check_disk(10**9, tmp_path).ok


def test_no_engine_is_a_lack_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an engine everything else is still looked at, and the lack is named once."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    checks = {check.name: check for check in doctor.diagnose(1, "docker")}
    assert not checks["docker"].ok
    assert "make setup" in checks["docker"].remedy
    assert {"memory", "open files", "disk", "neighbour table"} <= checks.keys()


def test_what_is_there_has_no_remedy_and_what_lacks_has_one() -> None:
    """On this machine, whatever it has: a remedy stands exactly where one is needed."""
    for check in doctor.diagnose(1, "auto"):
        assert check.found
        assert not (check.ok and check.remedy), check
        assert check.ok or check.remedy or not check.required, check


def test_require_names_every_lack_with_its_remedy() -> None:
    """What is required and lacks is an error of the machine; what is not required is none."""
    good = Check("docker", ok=True, found="Docker Engine 20.10.24")
    note = Check("sch_netem", ok=False, found="no such qdisc; the delay line steps in", required=False)
    doctor.require([good, note])
    lacks = [Check("memory", False, "1 MB available", "free some"), Check("disk", False, "full", "free some in /var")]
    with pytest.raises(MachineError, match=r"memory: 1 MB available; free some\n  disk: full; free some in /var"):
        doctor.require([good, *lacks, note])
