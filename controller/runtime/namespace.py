"""Nodes without an engine: agents in namespaces of their own, forked by one process which belongs to the controller.

That process is `node_agent.processes.zygote`; this side speaks to it, gives each node its limits, and knows how to find
and end what a killed run left: all its processes have the zygote's command line, which names the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.errors import InputError, MachineError, SkyrackError
from controller.owner import is_machine_root
from controller.processes import all_processes, command_line, start_ticks
from controller.runtime.agent_command import NODE_GID, NODE_UID, agent_arguments
from controller.runtime.cgroups import Cgroups, NoCgroupsError
from controller.runtime.contract import NodeHandle, NodeSpec, ProgramSpec, ProgramState
from controller.runtime.image import PROJECT_ROOT

ZYGOTE = ("-m", "node_agent.processes.zygote")
ENTER = ("-m", "node_agent.processes.enter")
NODES_FILE = "nodes.jsonl"
ZYGOTE_LOG = "zygote.log"
BIRTHS_AT_ONCE = 8
BIRTH_S = 60.0  # for one node, on a machine that is busy with others
MESSAGE_BYTES = 64 * 1024
END_S = 60.0
POLL_S = 0.01
FRUGAL = {"MALLOC_ARENA_MAX": "1"}  # mallopt(3): an agent's threads have little to do, and share one heap
# A controller that was killed as it started a zygote may leave one that is not to be known as such yet.
SETTLE_S = 0.2

_UCRED = struct.Struct("=iII")
"""struct ucred of unix(7): process, user, group."""


@dataclass(frozen=True)
class _Born:
    """A node as the run's list has it."""

    name: str
    folder: str
    pid: int
    ticks: int  # when it started

    @property
    def lives(self) -> bool:
        return start_ticks(self.pid) == self.ticks


@dataclass(frozen=True)
class _Zygote:
    """The process that a run's nodes are forked from, and the socket whose end is theirs."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    log: Path


class NamespaceRuntime:
    """The runtime contract over Linux namespaces. Safe to use from any thread."""

    name = "namespace"

    def __init__(self, run_root: Path, machine: Path = Path("/")) -> None:
        """`run_root` has a folder for each run. `machine`: the root whose programs nodes have."""
        self._run_root, self._machine = run_root, machine
        self._zygotes: dict[str, _Zygote] = {}
        self._removed: set[str] = set()
        self._lock = threading.Lock()
        self._is_root = is_machine_root()
        self._cgroups: Cgroups | None = None
        self.shortcoming = ""
        try:
            self._cgroups = Cgroups.here()
        except NoCgroupsError as error:
            self._go_without(error)

    def start(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> list[NodeHandle]:
        """Fork all nodes, some at a time; see the contract."""
        run_id = specs[0].run_id
        cgroups = self._limit(specs)
        for spec in specs if self._is_root else ():
            for folder in (spec.control_dir, spec.store_dir):
                os.chown(folder, NODE_UID, NODE_GID)
        zygote = self._open(specs[0], cgroups)
        folder_of = {spec.name: str(spec.index) for spec in specs}
        waiting, pids = list(reversed(specs)), dict[str, int]()
        with (self._run_root / run_id / NODES_FILE).open("w") as listed:
            while len(pids) < len(specs):
                while waiting and len(specs) - len(waiting) - len(pids) < BIRTHS_AT_ONCE:
                    spec = waiting.pop()
                    arguments = agent_arguments(spec, as_root=self._is_root)
                    birth = {"name": spec.name, "folder": str(spec.index), "arguments": arguments}
                    self._ask(zygote, birth)
                answer, pid = self._hear(zygote, run_id)
                name = answer["name"]
                if "error" in answer:
                    raise SkyrackError(f"cannot start {name or 'nodes'}: {answer['error']}")
                born = {"name": name, "folder": folder_of[name], "pid": pid, "ticks": start_ticks(pid)}
                listed.write(json.dumps(born) + "\n")
                listed.flush()
                pids[name] = pid
                on_started(len(pids))
        return [
            NodeHandle(spec, str(pids[spec.name]), pids[spec.name], Path(f"/proc/{pids[spec.name]}/ns/net"))
            for spec in specs
        ]

    def engine_version(self) -> str:
        """The kernel, and how limits are held."""
        limits = f"cgroup version {self._cgroups.version}" if self._cgroups else "no limits"
        return f"Linux {platform.release()} namespaces, {limits}"

    def require_images(self, images: Mapping[str, ProgramSpec], tell: Callable[[str], None]) -> None:
        """Nodes without an engine have none. Raises InputError for the first."""
        for key, program in images.items():
            raise InputError(
                f"{key} = {program.image!r}: nodes of --runtime namespace have no images, but the machine's own "
                "programs: take --runtime docker, or leave it out"
            )

    def start_programs(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> None:
        """There are none: see `require_images`."""

    def programs(self, run_id: str) -> dict[str, ProgramState]:
        """None: see `require_images`."""
        return {}

    def exec(self, run_id: str, node: str, argv: Sequence[str], *, of_agent: bool = False) -> int:
        """Run a command in a node, on the caller's terminal if any; see the contract."""
        born = next((each for each in self._born(run_id) if each.name == node and each.lives), None)
        if born is None:
            raise SkyrackError(f"the node {node} does not live")
        groups = self._cgroups.groups(run_id) if self._cgroups else ()
        joined = [str(each / born.folder / "cgroup.procs") for each in groups if (each / born.folder).is_dir()]
        uid, gid = self._ids
        pidfd = os.pidfd_open(born.pid)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command
        try:
            command = [sys.executable, *ENTER, str(pidfd), str(uid), str(gid), *joined, "--", *argv]
            return _status(subprocess.run(command, pass_fds=[pidfd], cwd=PROJECT_ROOT, check=False).returncode)
        finally:
            signal.signal(signal.SIGINT, before)
            os.close(pidfd)

    def alive(self, run_id: str) -> set[str]:
        """Names of the run's nodes that run now."""
        return {born.name for born in self._born(run_id) if born.lives}

    def remove(self, run_id: str) -> int:
        """End every process of the run, and its groups, and wait until none is left; see the contract."""
        with self._lock:
            self._removed.add(run_id)
            zygote = self._zygotes.pop(run_id, None)
        count = len(self.alive(run_id))
        deadline_mono_s = time.monotonic() + END_S
        was_empty = False
        while True:
            pids = [pid for pid, of_run in _processes() if of_run == run_id]
            if not pids and (was_empty or zygote is not None):
                break
            was_empty = not pids
            if time.monotonic() > deadline_mono_s:
                raise SkyrackError(f"{len(pids)} processes of run {run_id} do not end, even when killed: {pids[:5]}")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if zygote is not None:
                zygote.process.poll()
            time.sleep(SETTLE_S if was_empty else POLL_S)
        if zygote is not None:
            zygote.process.wait(END_S)
            zygote.control.close()
        if self._cgroups is not None:
            self._cgroups.remove(run_id)
        return count

    def run_ids(self) -> set[str]:
        """The runs of which a process or a control group is left, this user's alone."""
        processes = {run_id for pid, run_id in _processes() if _is_mine(pid)}
        return processes | (self._cgroups.run_ids() if self._cgroups else set())

    @property
    def _ids(self) -> tuple[int, int]:
        """Whom nodes run as: an ordinary user; in a user namespace, which has no other, its root, without power."""
        return (NODE_UID, NODE_GID) if self._is_root else (0, 0)

    def _go_without(self, why: NoCgroupsError) -> None:
        self._cgroups = None
        self.shortcoming = f"limits of CPU, memory and processes do not hold: {why}"

    def _limit(self, specs: Sequence[NodeSpec]) -> Cgroups | None:
        """Groups for all nodes, if this machine has any."""
        if self._cgroups is not None:
            try:
                self._cgroups.prepare(specs[0].run_id)
            except NoCgroupsError as error:
                self._go_without(error)
        if self._cgroups is not None:
            for spec in specs:
                self._cgroups.limit(spec)
        return self._cgroups

    def _open(self, spec: NodeSpec, cgroups: Cgroups | None) -> _Zygote:
        """Start a run's zygote, and tell it what all nodes share."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.settimeout(BIRTH_S)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        run_dir = self._run_root / spec.run_id
        staging, log = run_dir / "root", run_dir / ZYGOTE_LOG
        staging.mkdir()
        with theirs, log.open("wb") as said, self._lock:
            if spec.run_id in self._removed:
                control.close()
                raise SkyrackError(f"run {spec.run_id} was removed while its nodes were starting")
            process = subprocess.Popen(
                [sys.executable, *ZYGOTE, str(theirs.fileno()), spec.run_id],
                pass_fds=[theirs.fileno()], cwd=PROJECT_ROOT, start_new_session=True, env=os.environ | FRUGAL,
                stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )  # fmt: skip
            zygote = self._zygotes[spec.run_id] = _Zygote(process, control, log)
        self._ask(
            zygote,
            {
                "staging": str(staging),
                "machine": str(self._machine),
                "control_root": str(spec.control_dir.parent),
                "store_root": str(spec.store_dir.parent),
                "hosts_file": str(spec.hosts_file),
                "cgroups": [str(each) for each in cgroups.groups(spec.run_id)] if cgroups else [],
            },
        )
        return zygote

    def _ask(self, zygote: _Zygote, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended; what is heard next says why
            zygote.control.send(json.dumps(message).encode())

    def _hear(self, zygote: _Zygote, run_id: str) -> tuple[dict[str, str], int]:
        """The next answer, and the process that gave it."""
        credentials: list[tuple[int, int, bytes]] = []
        try:
            answer, credentials, _, _ = zygote.control.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(_UCRED.size))
        except TimeoutError:
            raise SkyrackError(f"no node came to life for {BIRTH_S:.0f} s: see {zygote.log}") from None
        except OSError:
            answer = b""
        if answer:
            return json.loads(answer), int(_UCRED.unpack(credentials[0][2])[0])
        if run_id in self._removed:
            raise SkyrackError(f"run {run_id} was removed while its nodes were starting")
        last_words = zygote.log.read_text(errors="replace").strip().splitlines()[-1:]
        raise MachineError(f"nodes cannot be forked on this machine: {''.join(last_words) or 'the zygote ended'}")

    def _born(self, run_id: str) -> Iterator[_Born]:
        """The nodes of a run, as many as have been forked."""
        with contextlib.suppress(FileNotFoundError), (self._run_root / run_id / NODES_FILE).open() as listed:
            for line in listed:
                with contextlib.suppress(json.JSONDecodeError):  # a killed controller may have written half a line
                    yield _Born(**json.loads(line))


def _processes() -> Iterator[tuple[int, str]]:
    """Every zygote on this machine and every process forked from one, with its run."""
    for pid in all_processes():
        match command_line(pid):
            case [_, "-m", "node_agent.processes.zygote", _, run_id]:
                yield pid, run_id


def _is_mine(pid: int) -> bool:
    """Whether a process belongs to a run of the caller's user.

    Root's are told by their user namespace, that of the machine: in /proc, root owns others' processes too.
    """
    try:
        if is_machine_root():
            return os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user")
        return Path(f"/proc/{pid}").stat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _status(returncode: int) -> int:
    """An exit status as a shell has it."""
    return returncode if returncode >= 0 else 128 - returncode
