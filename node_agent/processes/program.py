"""From a process that was forked for a job to the job's program: its user, its limits, and then exec.

Nothing of the agent's is left in it: no descriptor, no privilege, no way to the agent's files.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, Self

from node_agent.processes import network_filter, seclusion
from node_agent.processes.users import Users

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what a shell answers
OPEN_FILES = 1024
FIRST_TO_GO = "1000"  # proc(5), oom_score_adj: where the node is out of memory, no one is killed before a job
MASK = 0o007  # files are the job's and its group's, which is the agent's way to them


@dataclass(frozen=True)
class Task:
    """A program to be run: what the agent asks the first process for."""

    argv: list[str]
    environment: dict[str, str]
    folder: str  # where it starts
    cpu_s: int
    address_space_bytes: int  # 0: no limit
    file_bytes: int
    network: bool

    def to_file(self) -> int:
        """A descriptor of a file in memory that holds it: argv and environment may be longer than a message."""
        fd = os.memfd_create("task")
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(asdict(self)).encode())
        return fd

    @classmethod
    def from_file(cls, fd: int) -> Self:
        """What `to_file` has written."""
        return cls(**json.loads(os.pread(fd, os.fstat(fd).st_size, 0)))


def become(task: Task, streams: tuple[int, int, int], user: int | None, users: Users | None, parent: int) -> NoReturn:
    """Be the program, with these as stdin, stdout and stderr, as a job's user if there is one.

    Ends the process with a shell's status if it cannot.
    """
    status = NOT_EXECUTABLE
    try:
        for target, source in enumerate(streams):
            os.dup2(source, target)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        _settle(task, user, users, parent)
        status = _execute(task)
    except (OSError, ValueError, MemoryError) as error:
        what = getattr(error, "strerror", None) or str(error) or "no memory to start it in"
        os.write(2, f"{task.argv[0]}: {what}\n".encode())
    os._exit(status)


def _settle(task: Task, user: int | None, users: Users | None, parent: int) -> None:
    """All that bounds it, but for its address space."""
    seclusion.die_with_parent()  # it may be stopped before it comes to the same below, where it has become another user
    os.setsid()
    Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, task.cpu_s, task.cpu_s + 1)  # SIGXCPU, a second later SIGKILL
    _limit(resource.RLIMIT_FSIZE, task.file_bytes)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    if users is not None and user is not None:
        _limit(resource.RLIMIT_NPROC, users.processes)
    seclusion.drop_privileges(user or 0, user or 0)
    seclusion.die_with_parent()
    if os.getppid() != parent:
        raise ProcessLookupError(0, "the node's first process has ended")
    if not task.network:
        network_filter.impose(network_filter.no_network())
    os.umask(MASK)
    os.chdir(task.folder)


def _execute(task: Task) -> int:
    """Exec. The exit status if that fails, once it has been said why."""
    program = task.argv[0]
    found = program if "/" in program else shutil.which(program, path=task.environment.get("PATH", os.defpath))
    try:
        if found is None:
            raise FileNotFoundError(2, "No such file or directory")
        if task.address_space_bytes:  # last: this process has more than a small limit itself
            _limit(resource.RLIMIT_AS, task.address_space_bytes)
        os.execve(found, task.argv, task.environment)  # noqa: S606 — the job's program is what the user asked for
    except OSError as error:
        os.write(2, f"{program}: {error.strerror}\n".encode())
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, or as much of it as the caller's own lets."""
    own = resource.getrlimit(kind)[1]
    wanted = (soft, soft if hard is None else hard)
    bounded = wanted if own == resource.RLIM_INFINITY else (min(wanted[0], own), min(wanted[1], own))
    resource.setrlimit(kind, bounded)


def by_default() -> None:
    """Have every signal mean what it means to a fresh process: Python ignores some, the first process handles some."""
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
