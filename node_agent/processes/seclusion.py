"""What a process needs of the kernel to live apart from the machine: namespaces, mounts, and no privileges.

Thin names over system calls (man pages of the same names), raising OSError with what was tried.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Collection
from pathlib import Path

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 1, 2, 4, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442  # on every architecture
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
PR_SET_PDEATHSIG, PR_SET_NAME, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 15, 24, 36
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAP_KILL, CAP_SETGID, CAP_SETUID = 5, 6, 7

_LAST_CAPABILITY = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones; that of processes is the next child's."""
    _done(_libc.unshare(flags), "unshare")


def set_namespace(descriptor: int, flags: int) -> None:
    """Enter namespaces: of a process, if the descriptor is a pidfd."""
    _done(_libc.setns(descriptor, flags), "setns")


def mount(source: str, target: str | Path, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    answer = _libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    _done(answer, f"mount {source or kind} at {target}")


def bind(source: str | Path, target: str | Path, *, read_only: bool = False) -> None:
    """Have what is below a path stand at another too; nothing below it is a device or takes on an owner's rights."""
    mount(str(source), target, "none", MS_BIND | MS_REC)
    restrict(target, read_only=read_only)


def restrict(target: str | Path, *, read_only: bool) -> None:
    """Take rights from all mounts at and below a path."""
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (MOUNT_ATTR_RDONLY if read_only else 0)
    # struct mount_attr: set, cleared, propagation, user namespace
    request = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, 0, 0, 0))
    answer = _libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), AT_RECURSIVE, request, ctypes.c_size_t(len(request) - 1)
    )
    _done(answer, f"restrict {target}")


def unmount(target: str | Path) -> None:
    """Take a mount away, as soon as nobody uses it."""
    _done(_libc.umount2(os.fsencode(target), MNT_DETACH), f"umount {target}")


def change_root(folder: str | Path) -> None:
    """Make a mount the root, and let go of the one before."""
    number = SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"pivot_root on {os.uname().machine}")
    os.chdir(folder)
    _done(_libc.syscall(number, b".", b"."), f"pivot_root to {folder}")  # the old root now lies over the new one
    unmount(".")
    os.chdir("/")


def name_process(name: str) -> None:
    """What `ps` calls this process, up to 15 bytes."""
    _done(_libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0), "prctl(PR_SET_NAME)")


def die_with_parent() -> None:
    """Be killed when the parent ends. To be asked for after `drop_privileges`, which forgets it."""
    _done(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def inherit_orphans() -> None:
    """Be the parent of every descendant that loses its own, as the first process of a namespace is anyway."""
    _done(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def drop_privileges(uid: int, gid: int, groups: Collection[int] = ()) -> None:
    """Be an ordinary user for good: no capability, none to be gained, no group but these.

    `uid` 0 is root of a user namespace of the caller's own, or whoever the caller is, and stays.
    """
    _bound(())
    if uid:
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _hold(())


def keep_capabilities(kept: Collection[int]) -> None:
    """Have these capabilities, and neither have nor gain any other."""
    _bound(kept)
    _hold(kept)


def _bound(kept: Collection[int]) -> None:
    """Gain nothing from programs to be run: no capability but these, and no other user's rights."""
    for capability in range(_LAST_CAPABILITY + 1):
        if capability in kept:
            continue
        answer = _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        if answer < 0 and ctypes.get_errno() == errno.EPERM:
            break  # whoever may not change that bound has nothing to gain: what follows sees to it
        _done(answer, "prctl(PR_CAPBSET_DROP)")
    _done(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "prctl(PR_CAP_AMBIENT)")
    _done(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def _hold(held: Collection[int]) -> None:
    """Hold these capabilities, none besides, and hand none on."""
    mask = sum(1 << capability for capability in held)
    header = ctypes.create_string_buffer(struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0))
    # effective, permitted, inheritable: of the first 32 capabilities, then of the rest
    data = ctypes.create_string_buffer(struct.pack("=6I", mask, mask, 0, 0, 0, 0))
    _done(_libc.capset(header, data), "capset")


def _done(answer: int, what: str) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
