"""Limits of nodes without an engine: a control group a run, in it one a node, in either version of the kernel's.

Version 1 has a hierarchy a controller, version 2 one for all. Only groups named `skyrack-<run id>` are ever touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.errors import SkyrackError
from controller.runtime.contract import NodeSpec

PREFIX = "skyrack-"
CONTROLLERS = ("cpu", "memory", "pids")
SWAP_LIMITS = ("memory.memsw.limit_in_bytes", "memory.swap.max")  # a kernel may not count swap
CPU_PERIOD_US = 100_000
REMOVE_DEADLINE_S = 20.0
RETRY_S = 0.02


class NoCgroupsError(SkyrackError):
    """Limits cannot be imposed on this machine, and why."""


@dataclass(frozen=True)
class Cgroups:
    """The hierarchies of this machine in which groups can be made."""

    version: int
    roots: tuple[Path, ...]  # one a controller in version 1, in the order of CONTROLLERS; one for all in version 2

    @classmethod
    def here(cls) -> Cgroups:
        """What this machine has, and this user may use. Raises NoCgroupsError."""
        mounts = _mounts(Path("/proc/self/mountinfo").read_text())
        first_version = {name: path for kind, path, names in mounts if kind == "cgroup" for name in names}
        unified = [path for kind, path, _ in mounts if kind == "cgroup2"]
        if all(name in first_version for name in CONTROLLERS):
            found = cls(1, tuple(first_version[name] for name in CONTROLLERS))
        elif unified:
            found = cls(2, (unified[0],))
        else:
            raise NoCgroupsError("no cgroup file system is mounted")
        for root in found.roots:
            if not os.access(root, os.W_OK):
                raise NoCgroupsError(f"{root} is not this user's to write")
        return found

    def prepare(self, run_id: str) -> None:
        """Make the groups of a run. Raises NoCgroupsError."""
        try:
            for root in self.roots:
                group = root / f"{PREFIX}{run_id}"
                if self.version == 2:
                    _hand_on(root)
                group.mkdir()
                if self.version == 2:
                    _hand_on(group)
        except OSError as error:
            with contextlib.suppress(SkyrackError):
                self.remove(run_id)
            raise NoCgroupsError(f"{error.filename or self.roots[0]}: {error.strerror}") from error

    def limit(self, spec: NodeSpec) -> None:
        """Make the groups of a node, with its limits. Raises SkyrackError."""
        quota_us = max(1_000, round(spec.cpu_limit * CPU_PERIOD_US))  # the kernel takes no less
        settings: tuple[dict[str, object], ...]
        if self.version == 1:
            settings = (
                {"cpu.cfs_period_us": CPU_PERIOD_US, "cpu.cfs_quota_us": quota_us},
                {"memory.limit_in_bytes": spec.memory_bytes, "memory.memsw.limit_in_bytes": spec.memory_bytes},
                {"pids.max": spec.pids_limit},
            )
        else:
            settings = (
                {
                    "cpu.max": f"{quota_us} {CPU_PERIOD_US}",
                    "memory.max": spec.memory_bytes,
                    "memory.swap.max": 0,
                    "pids.max": spec.pids_limit,
                },
            )
        for group, limits in zip(self.groups(spec.run_id), settings, strict=True):
            own = group / str(spec.index)
            try:
                own.mkdir()
                for name, value in limits.items():
                    if name not in SWAP_LIMITS or (own / name).exists():
                        (own / name).write_text(str(value))
            except OSError as error:
                raise SkyrackError(f"cannot limit {spec.name}: {error.filename or own}: {error.strerror}") from error

    def groups(self, run_id: str) -> tuple[Path, ...]:
        """The groups of a run; those of its nodes are in them, by the node's number."""
        return tuple(root / f"{PREFIX}{run_id}" for root in self.roots)

    def run_ids(self) -> set[str]:
        """The runs which have groups, and nobody in them: a killed run's, when all its processes have ended.

        What has somebody in it may be a run of another machine within or around this one.
        """
        groups = (path for root in self.roots for path in root.glob(f"{PREFIX}*") if _is_empty(path))
        return {group.name.removeprefix(PREFIX) for group in groups}

    def remove(self, run_id: str) -> None:
        """Remove the groups of a run, once its processes are gone. Idempotent. Raises SkyrackError if some stay."""
        deadline_mono_s = time.monotonic() + REMOVE_DEADLINE_S
        for group in self.groups(run_id):
            for each in (*_children(group), group):
                _remove(each, deadline_mono_s)


def _remove(group: Path, deadline_mono_s: float) -> None:
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline_mono_s:
                raise SkyrackError(f"cannot remove the control group {group}: {error.strerror}") from error
            time.sleep(RETRY_S)  # its processes are on their way out
        else:
            return


def _children(group: Path) -> Sequence[Path]:
    try:
        return [path for path in group.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return ()


def _is_empty(group: Path) -> bool:
    """Whether no process is in a group or in one of its own."""
    try:
        return not any((each / "cgroup.procs").read_text() for each in (group, *_children(group)))
    except FileNotFoundError:  # somebody removes it
        return False


def _hand_on(group: Path) -> None:
    """Let the groups below have the controllers."""
    (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))


def _mounts(mountinfo: str) -> list[tuple[str, Path, set[str]]]:
    """File system type, mount point, and super options (with version 1 the controllers), as proc(5) has them."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        found.append((kind[0], Path(fields[4]), set(kind[2].split(","))))
    return found
