"""Network namespaces: made, entered and removed without the caller ever leaving its own.

Entering happens in a short-lived thread: setns and unshare move one thread only, and that thread ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from controller.errors import MachineError, SkyrackError
from controller.owner import named_namespaces

NAMED = named_namespaces()
"""Where `ip netns` keeps its names; an ordinary user's own folder otherwise."""

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 4096, 16384, 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def in_namespace(namespace: Path, work: Callable[[], _T]) -> _T:
    """The answer of `work`, done inside a network namespace. Raises what `work` raises."""
    with namespace.open("rb") as handle:
        return _in_own_thread(lambda: _call("setns", handle.fileno(), CLONE_NEWNET), work)


def in_scratch_namespace(work: Callable[[], _T]) -> _T:
    """The answer of `work`, done inside a new network namespace which has no name and ends with it."""
    return _in_own_thread(lambda: _call("unshare", CLONE_NEWNET), work)


def create_namespace(name: str) -> Path:
    """A new network namespace, known to `ip netns` by this name.

    Raises SkyrackError if the name is taken, MachineError if this user may not make namespaces.
    """
    path = NAMED / name
    try:
        _share_folder_of_names()
        path.touch(mode=0o444, exist_ok=False)
    except FileExistsError as error:
        raise SkyrackError(f"network namespace {name} exists already; remove it with `skyrack down --all`") from error
    except OSError as error:
        raise _not_permitted(f"cannot make network namespace {name}", error) from error
    try:
        in_scratch_namespace(lambda: _mount("/proc/thread-self/ns/net", path, MS_BIND))
    except OSError as error:
        path.unlink()
        raise _not_permitted(f"cannot make network namespace {name}", error) from error
    return path


def remove_namespace(name: str) -> bool:
    """Take the name away; the kernel ends the namespace with its last user. False if there was no such name."""
    path = NAMED / name
    if not path.exists():
        return False
    try:
        _call("umount2", os.fsencode(path), MNT_DETACH)
    except OSError as error:
        # EINVAL: a file that was left before anything was mounted on it. EPERM: an ordinary user's, whose mount was in
        # the mount namespace of a run, and ended with it.
        if error.errno != errno.EINVAL and (error.errno != errno.EPERM or os.geteuid() == 0):
            raise _not_permitted(f"cannot remove network namespace {name}", error) from error
    path.unlink(missing_ok=True)
    return True


def processes_in(namespace: Path) -> set[int]:
    """Process ids of those that live in a network namespace."""
    wanted = namespace.stat()
    found = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            own = (process / "ns/net").stat()
        except OSError:  # it ended while we looked, or is not ours to see
            continue
        if (own.st_dev, own.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.add(int(process.name))
    return found


def write_sysctls(settings: dict[str, str]) -> None:
    """Set /proc/sys/net values of the calling thread's namespace. A key that the kernel does not have is left out."""
    for key, value in settings.items():
        path = Path("/proc/sys/net") / key
        if path.exists():  # IPv6, for one, may be compiled out
            path.write_text(value)


def wait_until(condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.01) -> bool:
    """Whether a condition came true within a time."""
    deadline_mono_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_mono_s:
            return False
        time.sleep(pause_s)
    return True


def _in_own_thread(move: Callable[[], None], work: Callable[[], _T]) -> _T:
    answers: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            move()
            answers.append(work())
        except BaseException as error:  # noqa: BLE001  (raised again below, in the caller's thread)
            failures.append(error)

    thread = threading.Thread(target=run, name="skyrack-namespace")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]


def _share_folder_of_names() -> None:
    """As `ip netns` does: the folder is a shared mount, so that names reach every mount namespace."""
    NAMED.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        _mount("", NAMED, MS_SHARED | MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _mount(str(NAMED), NAMED, MS_BIND | MS_REC)  # it was no mount point yet
        _mount("", NAMED, MS_SHARED | MS_REC)


def _mount(source: str, target: Path, flags: int) -> None:
    _call("mount", os.fsencode(source), os.fsencode(target), b"none", ctypes.c_ulong(flags), None)


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _not_permitted(what: str, error: OSError) -> MachineError:
    return MachineError(f"{what}: {error.strerror}; run as root, or inside `unshare -Urnm`")
