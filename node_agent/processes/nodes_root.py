"""The root that nodes without a container see: the machine's programs, read-only, and nothing of what it holds.

A small file system in memory, on which the folders of programs and libraries stand as they do on the machine (or in a
root that the user brings), beside the interpreter and the agent itself. Made once, in a mount namespace of its own;
each node then has `settle` add what is its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from node_agent.processes import seclusion
from node_agent.processes.seclusion import MS_NODEV, MS_NOSUID, MS_PRIVATE, MS_REC

PROGRAM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
CONTROL, STORE, TMP, SHM = Path("/run/skyrack"), Path("/var/lib/skyrack"), Path("/tmp"), Path("/dev/shm")  # noqa: S108
# The interpreter of jobs is the agent's, with what is installed beside it.
ENVIRONMENT = {
    "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": str(TMP),
    "LANG": "C.UTF-8",
}
_ALL_CONTROL, _ALL_STORES, _HIDDEN = Path("/.nodes/control"), Path("/.nodes/stores"), Path("/.nodes/hidden")
_TMPFS = MS_NOSUID | MS_NODEV
TMP_OPTIONS = "size=64m,mode=1777"


def enter(staging: Path, machine: Path, control_root: Path, store_root: Path, hosts_file: Path) -> None:
    """Make the root of all nodes of a run and go there, for good. `machine`: where programs come from, "/" as a rule.

    `control_root` and `store_root` hold the folders of all nodes. Raises OSError.
    """
    seclusion.unshare(seclusion.CLONE_NEWNS)
    seclusion.mount("", "/", "none", MS_REC | MS_PRIVATE)
    seclusion.mount("tmpfs", staging, "tmpfs", _TMPFS, "size=1m,mode=755")
    for name in PROGRAM_FOLDERS:
        source, target = machine / name, staging / name
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            _bind(source, target)
    for number, source in enumerate(_own_folders(machine)):
        _bind(source, staging / source.relative_to("/"))
        if source.is_relative_to(TMP):  # every node's own will hide it
            _bind(source, staging / _HIDDEN.relative_to("/") / str(number))
    if not (staging / "etc/hosts").is_file():
        raise OSError(2, f"{machine / 'etc/hosts'} is not there: nodes would not know each other's names")
    seclusion.bind(hosts_file, staging / "etc/hosts", read_only=True)
    (staging / "dev").mkdir()
    for name in DEVICES:
        (staging / "dev" / name).touch()
        seclusion.mount(f"/dev/{name}", staging / "dev" / name, "none", seclusion.MS_BIND)
    for name, of_process in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        (staging / "dev" / name).symlink_to(f"/proc/self/fd{of_process}")
    for folder in (CONTROL, STORE, TMP, SHM, Path("/var/tmp"), Path("/proc"), Path("/sys"), _ALL_CONTROL, _ALL_STORES):  # noqa: S108
        (staging / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)  # the project may lie below one
    for name in ("proc", "sys"):  # the kernel lets a user's own namespace mount one where one is to be seen already
        seclusion.mount(f"/{name}", staging / name, "none", seclusion.MS_BIND | MS_REC)
    seclusion.bind(control_root, staging / _ALL_CONTROL.relative_to("/"))
    seclusion.bind(store_root, staging / _ALL_STORES.relative_to("/"))
    seclusion.mount("", staging, "none", seclusion.MS_REMOUNT | seclusion.MS_BIND | seclusion.MS_RDONLY | _TMPFS)
    seclusion.change_root(staging)


def settle(node_folder: str, machine: Path) -> None:
    """Add what is a node's own, in a mount namespace of its own, and lose sight of all other nodes'.

    Before: `enter` was called by a parent; the process is the first of its process namespace. Raises OSError.
    """
    seclusion.mount("proc", "/proc", "proc", _TMPFS)
    seclusion.mount("sysfs", "/sys", "sysfs", _TMPFS | seclusion.MS_RDONLY)
    for own, everybodys in ((CONTROL, _ALL_CONTROL), (STORE, _ALL_STORES)):
        seclusion.bind(everybodys / node_folder, own)
        seclusion.unmount(everybodys)
    for folder in (TMP, SHM):
        seclusion.mount("tmpfs", folder, "tmpfs", _TMPFS, TMP_OPTIONS)
    for number, folder in enumerate(_own_folders(machine)):
        if folder.is_relative_to(TMP):
            _bind(_HIDDEN / str(number), folder)


def _own_folders(machine: Path) -> Iterator[Path]:
    """What the agent and its jobs need beyond the folders of programs, unless it lies in these."""
    agent = Path(__file__).resolve().parents[1]
    for folder in dict.fromkeys((Path(sys.base_prefix), Path(sys.prefix), agent, agent.parent / "protos")):
        is_there = machine == Path("/") and folder.parts[1] in PROGRAM_FOLDERS
        if not is_there and folder != Path("/usr"):  # a root that the user brings has a Python of its own there
            yield folder


def _bind(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    seclusion.bind(os.path.realpath(source), target, read_only=True)
