"""One executor beneath a first process of its own: `python -m tests.scenarios SCENARIO FOLDER [USER]`.

What a scenario answers is printed as JSON. With USER it wants to be root and the first process of a process namespace;
then the agent is that user, and jobs are users of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from node_agent.jobs.ending import Ended
from node_agent.jobs.execution import Execution
from node_agent.jobs.executor import Executor
from node_agent.jobs.logs import JobLogs
from node_agent.journal import Journal
from node_agent.objects.store import ObjectStore
from node_agent.processes import init
from node_agent.processes.first_process import FirstProcess
from node_agent.processes.users import Users
from protos.skyrack.v1.jobs_pb2 import Job, JobLimits, JobSpec
from tests.visible import made_visible

ROOT = Path(__file__).resolve().parents[1]
FIRST_JOB_USER = 10100
AGENT_USER = 10001
PROCESSES = 24
DEADLINE_S = 60.0
TREE = Path("/mnt/tree")
STORE_BYTES = 256 * 2**20
Answer: TypeAlias = dict[str, Any]
SCENARIOS: dict[str, Callable[[Node], Awaitable[Answer]]] = {}
SECOND_LIVES: dict[str, Callable[[Node], Awaitable[Answer]]] = {}


class Node:
    """An executor and what it stands on."""

    def __init__(self, folder: Path, channel: socket.socket, users: Users | None, restarts: int = 0) -> None:
        self.folder, self.channel, self.restarts = folder, channel, restarts
        self.store = ObjectStore(folder / "objects", STORE_BYTES, Journal(folder / "journal.db"))
        self.logs = JobLogs(folder / "logs")
        self.first = FirstProcess(channel, users)
        self.executor = Executor("node", self.store, folder / "scratch", self.logs, self.first)
        self.checkpoints: list[str] = []

    async def start(self, spec: JobSpec, checkpoint: str = "") -> Execution:
        """Start a job."""

        async def keep(name: str) -> None:
            self.checkpoints.append(name)

        return await self.executor.start(Job(spec=spec, checkpoint_object=checkpoint), keep)

    async def run(self, spec: JobSpec, checkpoint: str = "") -> Ended:
        """Start a job and wait for its end."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.ended(await self.start(spec, checkpoint))

    async def ended(self, execution: Execution) -> Ended:
        """Wait for its end, and leave nothing of it."""
        try:
            return await execution.ended()
        finally:
            await execution.leave()

    async def keep(self, content: bytes) -> str:
        """An object."""
        path = self.folder / "to-be-kept"
        path.write_bytes(content)
        with path.open("rb") as file:
            name, _ = await self.store.adopt_fd(file.fileno(), "it")
        return name

    def content(self, name: str) -> bytes:
        """Of an object."""
        path = self.folder / "copied-out"
        self.store.copy_out(name, path)
        return path.read_bytes()

    def scratch(self, job_id: str) -> Path:
        """A job's folder."""
        return self.folder / "scratch" / job_id


def scenario(act: Callable[[Node], Awaitable[Answer]]) -> Callable[[Node], Awaitable[Answer]]:
    """Let a function be chosen by its name."""
    SCENARIOS[act.__name__] = act
    return act


def second_life(act: Callable[[Node], Awaitable[Answer]]) -> Callable[[Node], Awaitable[Answer]]:
    """What the agent of a scenario does that is started again: the scenario's name, then `_again`."""
    SECOND_LIVES[act.__name__.removesuffix("_again")] = act
    return act


def command(job_id: str, *argv: str, **limits: float) -> JobSpec:
    """A job that runs a command."""
    return JobSpec(id=job_id, command=JobSpec.Command(argv=argv), limits=JobLimits(**limits))  # type: ignore[arg-type]


def shell(job_id: str, script: str, **limits: float) -> JobSpec:
    """A job that runs a line of shell."""
    return command(job_id, "sh", "-c", script, **limits)


def python(job_id: str, code: str, **limits: float) -> JobSpec:
    """A job that runs some lines of Python."""
    return command(job_id, sys.executable, "-c", code, **limits)


def told(ended: Ended) -> Answer:
    """The end of an attempt, for a test to look at."""
    return {
        "succeeded": ended.succeeded,
        "exit_status": ended.exit_status,
        "signal": ended.signal,
        "reason": ended.reason,
        "stdout": ended.stdout.decode(),
        "stderr": ended.stderr.decode(),
        "outputs": {each.name: each.size_bytes for each in ended.outputs},
        "cpu_s": ended.usage.cpu_s,
        "wall_s": ended.usage.wall_s,
        "peak_bytes": ended.usage.peak_memory_bytes,
        "fuel": ended.usage.fuel,
    }


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
    """Wait for a condition."""
    deadline_mono_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline_mono_s, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.02)


def state(pid: int) -> str:
    """Of a process, as proc(5) has it: "R", "S", "T" …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def shared_memory_segments() -> int:
    """How many there are in this node (sysvipc(7))."""
    return len(Path("/proc/sysvipc/shm").read_text().splitlines()) - 1


def processes_with(text: str) -> list[int]:
    """Processes that live and have this in their command line."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if text.encode() in Path("/proc", entry, "cmdline").read_bytes():
                found.append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def executed(name: str, folder: Path, *, apart: bool = False, module: str = "tests.scenarios") -> Answer:
    """The answer of a scenario over an empty folder, in processes of its own; `apart`, with users of their own."""
    argv = [sys.executable, "-m", module, name, str(folder)]
    if apart:
        os.chown(folder, AGENT_USER, AGENT_USER)
        within = Path(sys.executable).is_relative_to(ROOT)
        shown = made_visible([Path(sys.base_prefix), *([] if within else [Path(sys.prefix)])])
        own = "mount -t tmpfs -o mode=1777,size=8m tmp /tmp; mount -t tmpfs -o mode=1777,size=8m shm /dev/shm"
        # The tree may lie below /tmp, or where other users cannot get: it is shown at a place of its own.
        tree = f"mkdir {TREE}; mount --bind {ROOT} {TREE}"
        argv[0] = str(TREE / Path(sys.executable).relative_to(ROOT)) if within else sys.executable
        acted = f"set -e; {shown}; {tree}; {own}; cd {TREE}; exec {shlex.join([*argv, str(AGENT_USER)])}"
        argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "bash", "-c", acted]
    argv = ["timeout", "--kill-after=5", str(2 * DEADLINE_S), *argv]  # which ends all of them, as a group
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout, done.stderr
    answer: Answer = json.loads(done.stdout.splitlines()[-1])
    return answer | {"said": done.stderr}


def main() -> int:
    """The program."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    users = Users(int(sys.argv[3]), FIRST_JOB_USER, PROCESSES) if sys.argv[3:] else None

    def be_agent(channel: socket.socket, restarts: int) -> int:
        acts = [SCENARIOS, SECOND_LIVES][min(restarts, 1)]
        if name not in acts:
            return init.CANNOT_BE  # the scenario failed, and said why

        async def act() -> Answer:
            return await acts[name](Node(folder, channel, users, restarts))

        sys.stdout.write(json.dumps(asyncio.run(act())) + "\n")
        sys.stdout.flush()
        return init.CANNOT_BE  # all is done

    status = init.supervise(be_agent, users)
    return 0 if status == init.CANNOT_BE else status
