"""An ordinary user's run: no engine, no root, everything in namespaces of his own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.down import sweep
from tests.runtimes.test_contract import wait_for
from tests.visible import made_visible

ROOT = Path(__file__).resolve().parents[2]  # its virtual environment is in it
USER = 12_345
SKYRACK = f"{sys.prefix}/bin/skyrack"
DEADLINE_S = 120
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
SCENARIO = """
name = "two"
epoch = 2026-01-01T00:00:00Z
duration_s = 300.0

[[constellation]]
name = "sat"
walker = { pattern = "star", total = 4, planes = 1, phasing = 0, altitude_m = 10_000_000, inclination_deg = 90.0 }
isl = { topology = "ring" }

[[ground]]
name = "quito"
role = "gateway"
latitude_deg = -0.18
longitude_deg = -78.47
"""

# A user namespace of all users, in which nobody may have one more.
NO_MORE_NAMESPACES = """
import ctypes, os, sys
is_there, may_go = os.pipe(), os.pipe()
pid = os.fork()
if not pid:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
    os.write(is_there[1], b"x")
    os.read(may_go[0], 1)
    with open("/proc/sys/user/max_user_namespaces", "w") as limit:
        limit.write("0")
    os.execvp(sys.argv[1], sys.argv[1:])
os.read(is_there[0], 1)
for kind in ("uid", "gid"):
    with open(f"/proc/{pid}/{kind}_map", "w") as every:
        every.write("0 0 65536")
os.write(may_go[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


class Shell:
    """Commands of the ordinary user's, all in one mount namespace."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "PATH": PATH, "LANG": "C.UTF-8"}

    def __call__(self, command: str, *, may_have_namespaces: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command."""
        as_user = f"setpriv --reuid={USER} --regid={USER} --clear-groups bash -c {shlex.quote(command)}"
        if not may_have_namespaces:
            as_user = shlex.join([sys.executable, "-c", NO_MORE_NAMESPACES, *shlex.split(as_user)])
        shown = made_visible([Path(sys.base_prefix), ROOT])
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", f"set -e; {shown}; cd {self.home}; exec {as_user}"],
            env=self.environment, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def said(self, command: str) -> str:
        """What a command of skyrack's writes to standard output; it must succeed."""
        ended = self(f"{SKYRACK} {command}")
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        return ended.stdout


@contextmanager
def ordinary_user(home: Path) -> Iterator[Shell]:
    """An ordinary user with a home of his own; his runs are taken down."""
    (home / "run").mkdir()
    (home / "two.toml").write_text(SCENARIO)
    for path in (home, home / "run", home / "two.toml"):
        os.chown(path, USER, USER)
    shell = Shell(home)
    try:
        yield shell
    finally:
        shell(f"{SKYRACK} down --all")


def processes_of_user() -> list[str]:
    """The command lines of all processes that the ordinary user has."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path("/proc", pid).stat().st_uid == USER:
                found.append(Path("/proc", pid, "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.fixture
def shell() -> Iterator[Shell]:
    """The ordinary user's shell. His home has a short path, as far as sockets go."""
    with tempfile.TemporaryDirectory(prefix="skyrack-user-") as home, ordinary_user(Path(home)) as made:
        yield made
    wait_for(lambda: processes_of_user() == [])


def test_an_ordinary_user_has_a_run(shell: Shell) -> None:
    """Up, packets over shaped links, a job in orbit, commands in nodes, a capture, down: all without root."""
    assert "user 12345, root of a user namespace" in shell.said("doctor --runtime namespace --json")
    shell.said("up two.toml --out record")
    status = json.loads(shell.said("status --json"))
    assert (status["runtime"], status["phase"]) == ("namespace", "running")
    pinged = shell.said("exec quito -- ping -c 2 sat-p00s02")
    assert "2 received" in pinged
    assert shell.said("exec sat-p00s01 -- cat /proc/self/status").count("CapEff:\t0000000000000000") == 1
    (shell.home / "job.py").write_text("import os\nprint('in', os.environ['SKYRACK_NODE'])\n")
    answer = json.loads(shell.said("submit --script job.py --via quito --on sat-p00s01 --wait --json"))
    assert (answer["state"], answer["stdout"]) == ("SUCCEEDED", "in sat-p00s01\n")
    captured = json.loads(shell.said("capture sat-p00s00 --seconds 3 --out frames.pcapng --json"))
    assert captured["frames"] > 0, "its neighbours are probed all the time"
    shell.said("down")
    manifest = json.loads((shell.home / "record/manifest.json").read_text())
    assert (manifest["runtime"], manifest["runtime_reason"]) == (
        "namespace", f"user {USER} is not root, as nodes of Docker's need",
    )  # fmt: skip
    assert list((shell.home / "run/skyrack/netns").iterdir()) == []


def test_a_folder_too_long_for_sockets_is_one_message(shell: Shell) -> None:
    """Exit status 3; nothing is left."""
    long = shell.home / "run" / ("long" * 20)
    refused = shell(f"XDG_RUNTIME_DIR={long} {SKYRACK} up two.toml")
    assert refused.returncode == 3
    assert f"{long}/skyrack, where runs live, is " in refused.stderr
    assert "bytes too long for the path of a node's socket: set XDG_RUNTIME_DIR to a shorter folder" in refused.stderr


def test_a_killed_run_of_an_ordinary_user_leaves_nothing(shell: Shell) -> None:
    """After kill -9 of his controller all processes end by themselves, and `down --all` removes the folders."""
    shell.said("up two.toml --out record")
    (place,) = (shell.home / "run/skyrack").glob("*/run.json")
    ended = shell(f"kill -9 {json.loads(place.read_text())['pid']}; {SKYRACK} down --all")
    assert ended.returncode == 0, ended.stderr
    assert place.parent.name in ended.stdout
    assert not place.parent.exists()
    assert list((shell.home / ".local/state/skyrack").iterdir()) == []


def test_roots_sweep_leaves_an_ordinary_users_run_alone(shell: Shell) -> None:
    """What belongs to a user's run is none of root's: it goes on after `down --all` of root's own runs' remains."""
    shell.said("up two.toml --out record")
    assert sweep(everything=False).run_ids == []
    assert "running" in shell.said("status")
    assert shell.said("exec quito -- hostname") == "quito\n"


def test_docker_is_refused_to_an_ordinary_user_with_one_message(shell: Shell) -> None:
    """His own namespaces cannot reach into containers: exit status 3, and the remedy."""
    ended = shell(f"{SKYRACK} run two.toml --runtime docker")
    assert ended.returncode == 3
    assert "run as root, through sudo" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_where_the_kernel_forbids_it_the_user_is_told_how_to_allow_it(shell: Shell) -> None:
    """In a place that lets nobody have user namespaces there is one message, status 3, and `doctor` has the remedy."""
    ended = shell(f"{SKYRACK} run two.toml --runtime namespace", may_have_namespaces=False)
    assert ended.returncode == 3
    assert ended.stderr.startswith(f"skyrack: user {USER} may not have a user namespace here")
    assert "Traceback" not in ended.stderr
    told = shell(f"{SKYRACK} doctor --runtime namespace --json", may_have_namespaces=False)
    checks = {check["name"]: check for check in json.loads(told.stdout)["checks"]}
    assert checks["privilege"]["remedy"] == "sysctl -w user.max_user_namespaces=10000, or sudo"
    assert told.returncode == 3
