"""What a job has in its folders: measured, made readable, read, removed. All of it blocks.

Done by a process that has become the job's user (`init`), so that it can do no more harm than the job itself. No
symbolic link is followed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

MAX_DEPTH = 64
"""Folders in folders; what nests deeper is neither measured nor kept, only removed."""

INODE_BYTES = 256  # what an empty file takes; many of them fill a disk too
SHARED_FOLDERS = (Path("/tmp"), Path("/dev/shm"))  # noqa: S108  (the node's own)
READABLE, ENTERABLE = 0o440, 0o550  # to the job's user and group; the agent is in the group

_libc = ctypes.CDLL(None, use_errno=True)
_IPC_RMID = 0


class TooDeepError(OSError):
    """Folders nest deeper than MAX_DEPTH."""


def size_bytes(folder: str) -> int:
    """What lies in a folder takes so much of the disk. Raises TooDeepError."""
    with opened(folder) as fd:
        return sum(found.entry.st_blocks * 512 + INODE_BYTES for found in walk(fd))


def open_up(folder: str) -> None:
    """Let the group read what lies in a folder, and the folder. Raises TooDeepError."""
    with opened(folder) as fd:
        for parent, name, _, entry in walk(fd):
            wanted = {stat.S_IFREG: READABLE, stat.S_IFDIR: ENTERABLE}.get(stat.S_IFMT(entry.st_mode), 0)
            if entry.st_mode & wanted != wanted:
                with suppress(PermissionError):  # not the job's: the agent's own copy of an input
                    os.chmod(name, stat.S_IMODE(entry.st_mode) | wanted, dir_fd=parent)


def open_file(path: str) -> int:
    """A descriptor to read a regular file from. Raises OSError if it is none."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "no regular file", path)
    return fd


def clear(folder: str, user: int | None) -> None:
    """Remove what lies in a folder as far as the caller may, and what `user` has left in the node's shared ones."""
    with suppress(FileNotFoundError, NotADirectoryError), opened(folder) as fd:
        _empty(fd)
    if user is None:
        return
    for fd, name in _left_by(user):
        _remove(fd, name)
    for number in _ipc_left_by("shm", user):
        _libc.shmctl(number, _IPC_RMID, None)
    for number in _ipc_left_by("msq", user):
        _libc.msgctl(number, _IPC_RMID, None)
    for number in _ipc_left_by("sem", user):
        _libc.semctl(number, 0, _IPC_RMID)


def has_left_something(user: int) -> bool:
    """Whether `user` has left something in the node's shared folders, or messages, semaphores, shared memory."""
    of_ipc = (number for kind in ("shm", "msq", "sem") for number in _ipc_left_by(kind, user))
    return any(True for _ in _left_by(user)) or any(True for _ in of_ipc)


class Found(NamedTuple):
    """An entry below a folder that was walked."""

    parent: int  # the folder that has it, open until the walk goes on
    name: str  # there
    path: str  # from where the walk began
    entry: os.stat_result


def walk(fd: int, above: str = "", depth: int = 0) -> Iterator[Found]:
    """All that lies below an open folder; a folder comes before what is in it. Raises TooDeepError."""
    if depth > MAX_DEPTH:
        raise TooDeepError(errno.ELOOP, f"folders nest more than {MAX_DEPTH} deep")
    for name in os.listdir(fd):
        try:
            found = Found(fd, name, above + name, os.stat(name, dir_fd=fd, follow_symlinks=False))
            yield found
            if stat.S_ISDIR(found.entry.st_mode):
                with opened(name, fd) as inner:
                    yield from walk(inner, f"{found.path}/", depth + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue  # a job that lives goes on changing things


@contextmanager
def opened(name: str, parent: int | None = None) -> Iterator[int]:
    """A folder to be listed, not through a link; its owner may have to be let in first."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, flags, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _empty(fd: int) -> None:
    """Remove all that lies in an open folder, however deep: folders in its folders are first brought up into it."""
    refused: set[str] = set()
    while names := {*os.listdir(fd)} - refused:
        for name in names:
            try:
                _remove_or_bring_up(fd, name)
            except OSError:
                refused.add(name)  # another's


def _remove_or_bring_up(fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except IsADirectoryError:
        _let_in(fd, name)
        with opened(name, fd) as inner:
            for each in os.listdir(inner):
                try:
                    os.unlink(each, dir_fd=inner)
                except IsADirectoryError:
                    _let_in(inner, each)
                    os.rename(each, f".{os.urandom(8).hex()}", src_dir_fd=inner, dst_dir_fd=fd)
        os.rmdir(name, dir_fd=fd)


def _let_in(fd: int, name: str) -> None:
    with suppress(PermissionError):  # another's
        os.chmod(name, 0o700, dir_fd=fd)


def _remove(fd: int, name: str) -> None:
    """Remove one entry of an open folder, as far as the caller may."""
    with suppress(OSError):
        try:
            os.unlink(name, dir_fd=fd)
        except IsADirectoryError:
            with opened(name, fd) as inner:
                _empty(inner)
            os.rmdir(name, dir_fd=fd)


def _left_by(user: int) -> Iterator[tuple[int, str]]:
    for folder in SHARED_FOLDERS:
        with suppress(FileNotFoundError), opened(str(folder)) as fd:
            for name in os.listdir(fd):
                with suppress(FileNotFoundError):
                    if os.stat(name, dir_fd=fd, follow_symlinks=False).st_uid == user:
                        yield fd, name


def _ipc_left_by(kind: str, user: int) -> Iterator[int]:
    """Of shared memory, messages or semaphores (sysvipc(7)), as /proc has them."""
    with suppress(FileNotFoundError):
        heading, *lines = Path("/proc/sysvipc", "msg" if kind == "msq" else kind).read_text().splitlines()
        owner, number = heading.split().index("uid"), heading.split().index(f"{kind}id")
        for line in lines:
            fields = line.split()
            if int(fields[owner]) == user:
                yield int(fields[number])
