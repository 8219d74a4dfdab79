"""Agents without an engine: forked from one process that has imported everything, each apart from the machine.

Run as `python -m node_agent.processes.zygote CONTROL_FD RUN_ID`. The control socket (SOCK_SEQPACKET, a JSON document a
message) first brings the `Ground` of all nodes, then a `Birth` a node. Each agent answers `{"name"}` when it has
settled, or `{"name", "error"}`; who it is the receiver knows from the kernel (SCM_CREDENTIALS). The zygote is the first
process of a process namespace that has all others in it: when the socket closes, or the zygote dies, every node dies
with it. So whoever owns the socket owns the nodes, also after kill -9.

What is forked is a node's first process (`init`), in namespaces of its own (network, processes, mounts, host name,
messages, cgroup), which forks the agent. So all of them share the pages of everything that was imported.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from node_agent import main as agent
from node_agent.processes import nodes_root, seclusion
from node_agent.processes.users import Users
from node_agent.security import identity

MESSAGE_BYTES = 64 * 1024
LOG_PATH = str(nodes_root.STORE / "agent.log")
SETTLED = b"settled"
APART = (
    seclusion.CLONE_NEWNS
    | seclusion.CLONE_NEWNET
    | seclusion.CLONE_NEWUTS
    | seclusion.CLONE_NEWIPC
    | seclusion.CLONE_NEWCGROUP
)


@dataclass(frozen=True)
class Ground:
    """What all nodes of a run share."""

    staging: str  # an empty folder, where their root is put together
    machine: str  # where programs come from; "/" as a rule
    control_root: str  # each node's control folder is in it, by its number
    store_root: str  # and here its store
    hosts_file: str
    cgroups: list[str]  # folders in each of which every node has one of its own, by its number; may be empty


@dataclass(frozen=True)
class Birth:
    """A node to be."""

    name: str
    folder: str  # its number
    arguments: list[str]  # the agent's


def main() -> None:
    """The program: be the first process of a namespace, and serve there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to handle
    seclusion.unshare(seclusion.CLONE_NEWPID)
    pid = os.fork()
    control = socket.socket(fileno=int(sys.argv[1]))
    if pid:
        control.close()
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    _serve(control)


def _serve(control: socket.socket) -> None:
    """Fork a node whenever one is asked for, until the control socket closes."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    ground = Ground(**json.loads(control.recv(MESSAGE_BYTES) or "{}"))
    cgroups = [os.open(each, os.O_PATH | os.O_DIRECTORY) for each in ground.cgroups]
    with tempfile.TemporaryDirectory() as folder:
        agent.rehearse(Path(folder))
        identity.rehearse(Path(folder) / "identity")
    own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)
    try:
        nodes_root.enter(
            staging=Path(ground.staging),
            machine=Path(ground.machine),
            control_root=Path(ground.control_root),
            store_root=Path(ground.store_root),
            hosts_file=Path(ground.hosts_file),
        )
    except OSError as error:
        control.send(json.dumps({"name": "", "error": str(error)}).encode())
        return
    os.environ |= nodes_root.ENVIRONMENT
    gc.collect()
    gc.freeze()  # a collection in a child would write to pages that it shares
    watched: list[socket.socket | int] = [control, woken]
    while True:
        readable, _, _ = select.select(watched, [], [])
        if woken in readable:
            os.read(woken, 4096)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    continue
        if control in readable:
            request = control.recv(MESSAGE_BYTES)
            if not request:
                return
            understood = _understood(request)
            if not understood:
                return  # the child has said why
            seclusion.unshare(seclusion.CLONE_NEWPID)
            if not os.fork():
                birth, options = pickle.loads(understood)  # noqa: S301 — a child of this process wrote it
                _live(control, ground, birth, options, cgroups)
            seclusion.set_namespace(own_pids, seclusion.CLONE_NEWPID)


def _understood(request: bytes) -> bytes:
    """A birth and its agent's options, pickled, from a child that does not stay.

    A page that this process writes to is from then on the only copy of all that it has forked before: what it does for
    each birth, every node pays for. To read options is a megabyte of that.
    """
    hears, says = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            birth = Birth(**json.loads(request))
            with os.fdopen(says, "wb") as told:
                pickle.dump((birth, agent.parse_options(birth.arguments)), told)
        except Exception:  # noqa: BLE001 — told; this process does not become a second zygote
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(says)
    with os.fdopen(hears, "rb") as told:
        understood = told.read()
    os.waitpid(pid, 0)
    return understood


def _live(control: socket.socket, ground: Ground, birth: Birth, options: agent.Options, cgroups: list[int]) -> NoReturn:
    """The first process of a node, from its birth to its end.

    What it touches before it forks the agent it has twice: in memory that is its own, as the agent soon has too. So it
    has a child settle the node that does not stay, and follows it there.
    """
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        for folder in cgroups:
            joined = os.open(f"{birth.folder}/cgroup.procs", os.O_WRONLY, dir_fd=folder)
            os.write(joined, b"0")
            os.close(joined)
            os.close(folder)
        _follow(lambda: _settle(ground, birth, options.users))
        log = os.open(LOG_PATH, os.O_WRONLY | os.O_APPEND)
        quiet = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((quiet, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(quiet)
        os.close(log)
        seclusion.name_process(birth.name)
        control.send(json.dumps({"name": birth.name}).encode())
        control.close()
        status = agent.begin(options)
    except OSError as error:
        control.send(json.dumps({"name": birth.name, "error": str(error)}).encode())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _follow(settle: Callable[[], None]) -> None:
    """Have a child enter namespaces of its own, and go there too. Raises OSError, with the child's words."""
    hears, says = os.pipe()
    waits, goes = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(goes)
            settle()
            os.write(says, SETTLED)
            os.read(waits, 1)  # until the parent is there, or has ended
        except OSError as error:
            os.write(says, str(error).encode())
        finally:
            os._exit(0)
    os.close(says)
    try:
        said = os.read(hears, MESSAGE_BYTES)
        if said != SETTLED:
            raise OSError(said.decode() or "the process that was to settle the node has ended")
        child = os.pidfd_open(pid)
        seclusion.set_namespace(child, APART)
        os.close(child)
    finally:
        for fd in (hears, waits, goes):
            os.close(fd)
        os.waitpid(pid, 0)


def _settle(ground: Ground, birth: Birth, users: Users | None) -> None:
    """Be where the node shall be: its namespaces, its root, its name."""
    seclusion.unshare(APART)
    nodes_root.settle(birth.folder, Path(ground.machine))
    socket.sethostname(birth.name)
    log = os.open(LOG_PATH, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if users is not None:
        os.fchown(log, users.agent, users.agent)


if __name__ == "__main__":
    main()
