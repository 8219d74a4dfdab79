"""Whose runs these are: the machine's root's, or an ordinary user's, who is root of a user namespace of his own.

Root keeps its runs where the machine keeps such things. An ordinary user keeps them in his own folders, and what needs
root (namespaces, mounts, packet sockets) is done in a user namespace, in which he is: entered before anything else
happens, since only a process of one thread can.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import NoReturn

from controller.errors import MachineError

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
WHOLE_MAP = ["0", "0", "4294967295"]  # user_namespaces(7): of the first user namespace
UID_MAP = Path("/proc/self/uid_map")
ROOTS_RUNS = Path("/run/skyrack")


def user_map() -> list[str]:
    """Which users there are in this process's user namespace, as the kernel has it."""
    return UID_MAP.read_text().split()


def is_machine_root() -> bool:
    """Whether this process is root, and not just that of a user namespace."""
    return os.geteuid() == 0 and user_map() == WHOLE_MAP


def is_root_of_own() -> bool:
    """Whether this process is root of a user namespace."""
    return os.geteuid() == 0 and user_map() != WHOLE_MAP


def outer_uid() -> int:
    """The user that the machine knows this process by."""
    return int(user_map()[1]) if is_root_of_own() else os.geteuid()


def root_has_runs() -> bool:
    """Whether there are runs which an ordinary user does not see."""
    return not is_machine_root() and ROOTS_RUNS.is_dir() and any(path.is_dir() for path in ROOTS_RUNS.iterdir())


def run_root() -> Path:
    """What has a folder a run: short, since a Unix socket's path ends at 107 bytes."""
    if is_machine_root():
        return ROOTS_RUNS
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime_dir) / "skyrack" if runtime_dir else Path(f"/tmp/skyrack-{outer_uid()}")  # noqa: S108


def store_root() -> Path:
    """What has a folder a run for stores and journals."""
    if is_machine_root():
        return Path("/var/lib/skyrack")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "skyrack"


def named_namespaces() -> Path:
    """Where network namespaces have names: where `ip netns` looks, for root."""
    return Path("/run/netns") if is_machine_root() else run_root() / "netns"


def become_root_of_own(argv: list[str]) -> NoReturn:
    """Start skyrack anew, as root of a new user namespace. Raises MachineError where the kernel does not allow that."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc().unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise MachineError(
            f"user {uid} may not have a user namespace here ({os.strerror(ctypes.get_errno())}): run as root, through "
            "sudo, or see `skyrack doctor` for how to allow it"
        )
    UID_MAP.write_text(f"0 {uid} 1")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    _again(argv)


def join(pid: int, argv: list[str]) -> NoReturn:
    """Start skyrack anew, where a process of this user's lives. Raises MachineError if that cannot be."""
    process, here = os.pidfd_open(pid), Path.cwd()
    if _libc().setns(process, CLONE_NEWUSER | CLONE_NEWNS):
        raise MachineError(f"cannot join the run of process {pid}: {os.strerror(ctypes.get_errno())}")
    os.chdir(here)
    _again(argv)


def _again(argv: list[str]) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", "controller", *argv])  # noqa: S606  (this very program)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
