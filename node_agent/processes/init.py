"""The first process of a node: starts the agent, and starts it again; starts programs for it, and ends them with it.

    first process ── agent            a socket between the two; the agent asks, each request brings the socket that
        ├── program of a job          its answers go to
        └── helper, for a moment      has become a job's user to handle what that job has left, or the agent's to make
                                      a key, or to compute a fragment of an object

It has imported what the agent needs and *forks* all of them from itself, so that they share memory and none waits for
Python to start. It has one thread, and of root's privileges three (`users`); the others have none. When it ends, by
kill -9 too, so do they.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from node_agent.objects import mending
from node_agent.processes import leavings, program, seclusion
from node_agent.processes.proctree import Tree
from node_agent.processes.request import Request, reply_of
from node_agent.processes.users import Users
from node_agent.security import identity

MESSAGE_BYTES = 64 * 1024
HELPER_DEADLINE_S = 60
CANNOT_BE = 78
"""The agent's exit status when to start it again would change nothing (sysexits.h, EX_CONFIG)."""
BROUGHT_DOWN = 75
"""And when it ended by another's doing (EX_TEMPFAIL): who can do that once could else have the node given up."""

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.2, 5.0
MAX_ENDS, ENDS_WITHIN_S = 10, 60.0
STOP_DEADLINE_S = 10.0

BeAgent = Callable[[socket.socket, int], int]
"""Be the agent: its end of the socket, how often one was started again before it; its exit status."""


def supervise(be_agent: BeAgent, users: Users | None) -> int:
    """Be the first process until the agent has ended as it was told to, or does not live. The exit status.

    Before: one thread. Raises OSError for privileges that it does not have.
    """
    seclusion.inherit_orphans()
    if users is None:
        seclusion.drop_privileges(0, 0)
    elif os.getpid() != 1:  # all processes of a user are signalled at once: there must be no other node's among them
        raise OSError(errno.EINVAL, "users of their own are for the first process of a process namespace")
    else:
        seclusion.keep_capabilities((seclusion.CAP_KILL, seclusion.CAP_SETGID, seclusion.CAP_SETUID))
    gc.collect()
    gc.freeze()  # a collection in a child would write to pages that it shares
    return _Init(be_agent, users).live()


@dataclass(frozen=True)
class _Running:
    """A job's program that runs, and where its end is told."""

    tree: Tree
    reply: socket.socket


class _Init:
    def __init__(self, be_agent: BeAgent, users: Users | None) -> None:
        self._be_agent, self._users = be_agent, users
        self._woken, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._agent = 0
        self._channel: socket.socket | None = None
        self._running: dict[int, _Running] = {}
        self._restarts = -1
        self._ends_mono_s: deque[float] = deque(maxlen=MAX_ENDS)
        self._start_mono_s = 0.0  # when the agent is to be started, if none is there
        self._kill_mono_s: float | None = None  # when it is to be killed: it has been told to end
        self._status: int | None = None  # to end with

    def live(self) -> int:
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # they arrive as bytes in the pipe
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        while self._status is None:
            now_mono_s = time.monotonic()
            if not self._agent and now_mono_s >= self._start_mono_s:
                self._start_agent()
            elif self._agent and self._kill_mono_s is not None and now_mono_s >= self._kill_mono_s:
                os.kill(self._agent, signal.SIGKILL)
                self._kill_mono_s = now_mono_s + STOP_DEADLINE_S
            heard: list[int | socket.socket] = [self._woken, *([self._channel] if self._channel else [])]
            readable, _, _ = select.select(heard, [], [], self._wait_s())
            if self._woken in readable and {*os.read(self._woken, 4096)} & {signal.SIGTERM, signal.SIGINT}:
                self._asked_to_end()
            self._reap()
            if self._channel in readable:
                self._serve()
        return self._status

    def _wait_s(self) -> float | None:
        """How long nothing is to be done, if nothing happens."""
        due_mono_s = self._kill_mono_s if self._agent else self._start_mono_s
        return None if due_mono_s is None else max(0.0, due_mono_s - time.monotonic())

    def _start_agent(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._restarts += 1
        parent = os.getpid()
        self._agent = os.fork()
        if not self._agent:
            self._channel.close()
            self._live_as_agent(theirs, parent)
        theirs.close()

    def _live_as_agent(self, channel: socket.socket, parent: int) -> NoReturn:
        status = 1
        try:
            self._forget()
            if self._users is not None:
                seclusion.drop_privileges(self._users.agent, self._users.agent, self._users.of_jobs)
            seclusion.die_with_parent()
            if os.getppid() == parent:
                status = self._be_agent(channel, self._restarts)
        except BaseException:  # noqa: BLE001 — told; whatever it was, this process does not become a second first one
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(status)

    def _forget(self) -> None:
        """In a child: nothing of what is the first process's alone."""
        signal.set_wakeup_fd(-1)
        program.by_default()
        for fd in (self._woken, self._wakes, self._nothing):
            os.close(fd)
        for each in self._running.values():
            each.reply.close()

    def _asked_to_end(self) -> None:
        if not self._agent:
            self._status = 0
        elif self._kill_mono_s is None:
            self._kill_mono_s = time.monotonic() + STOP_DEADLINE_S
            os.kill(self._agent, signal.SIGTERM)

    def _reap(self) -> None:
        """Wait for all that has ended: the agent, programs, helpers, and whatever lost its parent in this node."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._agent:
                self._agent_ended(os.waitstatus_to_exitcode(status))
            elif pid in self._running:
                running = self._running.pop(pid)
                end: dict[str, Any] = {
                    "returncode": os.waitstatus_to_exitcode(status),
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                    "peak_bytes": usage.ru_maxrss * 1024,
                    "before_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                }
                _answer(running.reply, end | self._kill(running.tree))
                running.reply.close()

    def _agent_ended(self, returncode: int) -> None:
        """Nothing of its jobs outlives it. It is started again unless it was told to end, or cannot be."""
        self._agent = 0
        if self._channel:
            self._channel.close()
            self._channel = None
        for each in self._running.values():
            if error := self._kill(each.tree):
                _say(f"a job of the agent that has ended lives on: {error['error']}")
        if self._kill_mono_s is not None or returncode == CANNOT_BE:
            self._status = returncode if returncode >= 0 else 128 - returncode
            return
        now_mono_s = time.monotonic()
        recent = [end for end in self._ends_mono_s if end > now_mono_s - ENDS_WITHIN_S]
        self._ends_mono_s.append(now_mono_s)
        how = f"exit status {returncode}" if returncode >= 0 else f"signal {-returncode}"
        if len(recent) >= MAX_ENDS and returncode != BROUGHT_DOWN:
            _say(f"the agent ended by itself again ({how}), more than {MAX_ENDS} times in {ENDS_WITHIN_S:.0f} s")
            self._status = 1
            return
        backoff_s = min(FIRST_BACKOFF_S * 2 ** len(recent), MAX_BACKOFF_S)
        _say(f"the agent ended by itself ({how}); it is started again in {backoff_s:g} s")
        self._start_mono_s = now_mono_s + backoff_s

    def _serve(self) -> None:
        """Do what the agent asks for."""
        assert self._channel is not None
        try:
            message, fds, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 4)
        except OSError:
            message, fds = b"", []
        reply, others = reply_of(fds)
        try:
            if not message:
                self._channel.close()  # the agent is about to end, or has
                self._channel = None
            elif reply is not None:
                self._answered(message, reply, others)
        finally:
            for fd in others:
                os.close(fd)
            if reply is not None:
                reply.close()

    def _answered(self, message: bytes, reply: socket.socket, fds: list[int]) -> None:
        try:
            self._do(Request.of(message, self._users), reply, fds)
        except (OSError, ValueError) as error:
            _answer(reply, _error(error))

    def _do(self, request: Request, reply: socket.socket, fds: list[int]) -> None:
        match request.do:
            case "start":
                self._start_program(request.tree, reply, fds)
            case "signal":
                self._signal(request.tree, request.number)
                _answer(reply, {})
            case _:
                self._help(request, reply, fds)

    def _signal(self, tree: Tree, number: int) -> None:
        """Signal a job's processes, its program by its id too: until that is executed, nobody sees whose it is."""
        for pid, running in self._running.items():
            if running.tree == tree:
                os.kill(pid, number)  # not waited for yet, so the id is its own
        tree.signal(number)

    def _kill(self, tree: Tree) -> dict[str, Any]:
        """Kill a job's processes. Empty, or what went wrong."""
        try:
            self._signal(tree, signal.SIGKILL)
        except OSError as error:
            return _error(error)
        return {}

    def _start_program(self, tree: Tree, reply: socket.socket, fds: list[int]) -> None:
        if len(fds) != 3:
            raise ValueError(f"a program is started with a task, stdout and stderr, not {len(fds)} descriptors")
        task, stdout, stderr = fds
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            try:
                signal.set_wakeup_fd(-1)
                program.by_default()
                streams = self._nothing, stdout, stderr
                program.become(program.Task.from_file(task), streams, tree.user, self._users, parent)
            finally:
                os._exit(program.NOT_EXECUTABLE)
        self._running[pid] = _Running(tree, reply.dup())
        _answer(reply, {"pid": pid})

    def _help(self, request: Request, reply: socket.socket, fds: list[int]) -> None:
        if os.fork():
            return
        try:
            self._forget()
            if self._channel:
                self._channel.close()
            signal.alarm(HELPER_DEADLINE_S)  # nobody else waits for it
            if self._users is not None:
                _become_helper(self._users, request.tree.user)
            _answer_with_file(reply, *_helped(request, fds))
        except (OSError, ValueError) as error:
            _answer(reply, _error(error))
        finally:
            os._exit(0)


def _become_helper(users: Users, user: int | None) -> None:
    """Reach what a job's user reaches. To the job's processes this one is the agent, whom they cannot signal.

    With no user, be the agent's.
    """
    os.setgroups([])
    if user is None:
        user = users.agent
    os.setresgid(users.agent, user, users.agent)
    os.setresuid(users.agent, user, users.agent)


def _helped(request: Request, fds: list[int]) -> tuple[dict[str, Any], int | None]:
    """Do a helper's work. Its answer, and perhaps an open file. Raises OSError, ValueError."""
    fields = request.fields
    path = fields.get("path", "")
    match request.do:
        case "measure":
            return {"disk_bytes": leavings.size_bytes(path), "memory_bytes": request.tree.proportional_bytes()}, None
        case "open up":
            leavings.open_up(path)
        case "open":
            return {}, leavings.open_file(path)
        case "clear":
            leavings.clear(path, request.tree.user)
        case "make key":
            identity.make_key(Path(path), fields["name"])
        case "take certificate":
            pems = fields["certificate_pem"].encode(), fields["authority_pem"].encode()
            identity.take_certificate(Path(path), fields["name"], fields["role"], *pems)
        case "mend":
            numbers = request.numbers
            if not fds:
                raise ValueError("mend: there is no socket to answer over")
            mending.serve(socket.socket(fileno=fds[0]), numbers["k"], numbers["m"], numbers["index"], HELPER_DEADLINE_S)
    return {}, None


def _error(error: Exception) -> dict[str, Any]:
    """As an answer."""
    number = getattr(error, "errno", None) or errno.EINVAL
    return {"error": getattr(error, "strerror", None) or str(error), "errno": number}


def _answer(reply: socket.socket, answer: dict[str, Any]) -> None:
    _answer_with_file(reply, answer, None)


def _answer_with_file(reply: socket.socket, answer: dict[str, Any], fd: int | None) -> None:
    """Tell the agent, unless it has ended, or does not listen: nobody else of the node waits for it."""
    with suppress(OSError):
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        socket.send_fds(reply, [json.dumps(answer).encode()], [] if fd is None else [fd], flags)


def _say(text: str) -> None:
    sys.stderr.write(f"skyrack-agent: {text}\n")
    sys.stderr.flush()
