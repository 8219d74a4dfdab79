"""Runs a job's program here: its own session, a scratch folder, a clean environment, limits that hold, no orphans."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from node_agent import launch, proctree
from node_agent.blocking import to_its_end
from node_agent.errors import FailedPrecondition, NotFound
from node_agent.store import CHUNK_BYTES, ObjectStore
from protos.skyrack.v1 import jobs_pb2

TAIL_BYTES = 64 * 1024
"""How much of the end of stdout, and of stderr, is kept."""

DEFAULT_WALL_S = 3600.0
DEFAULT_CPU_S = 3600.0
DEFAULT_MEMORY_BYTES = 2 * 1024**3

_PIPE_DEADLINE_S = 2.0
_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
# Numeric libraries start a thread for each core of the machine, with address space of its own; a node has less.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_OUT_OF_MEMORY = (b"MemoryError", b"Cannot allocate memory", b"std::bad_alloc")


@dataclass(frozen=True)
class Ended:
    """How a program ended. Its outputs lie in the scratch folder until that is removed."""

    exit_status: int
    reason: str
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Scratch:
    """One job's folder in the store."""

    folder: Path

    @property
    def outputs(self) -> Path:
        """What the job leaves here becomes its outputs."""
        return self.folder / "output"

    @property
    def mark(self) -> bytes:
        """What tells the job's processes from all others of the machine."""
        return f"SKYRACK_OUTPUT_DIR={self.outputs}".encode()

    def clear(self) -> None:
        """Kill what runs of it and remove its folder. Blocks. Idempotent."""
        proctree.kill_marked(self.mark)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


class Execution:
    """A program that runs."""

    def __init__(self, scratch: Scratch, ending: asyncio.Task[Ended]) -> None:
        self._scratch = scratch
        self._ending = ending

    async def suspend(self) -> None:
        """Stop its processes. After: none runs."""
        stopped: set[int] = set()
        while more := {*proctree.marked(self._scratch.mark)} - stopped:
            for pid in more:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            stopped |= more

    async def resume(self) -> None:
        """Let its processes go on."""
        for pid in proctree.marked(self._scratch.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def ended(self) -> Ended:
        """Wait for its end. Cancelled, it kills the whole tree first."""
        return await self._ending


async def start(
    spec: jobs_pb2.JobSpec, scratch: Scratch, store: ObjectStore, node: str, orphans: proctree.Orphans
) -> Execution:
    """Start the program."""
    return Execution(scratch, asyncio.create_task(execute(spec, scratch, store, node, orphans)))


async def execute(
    spec: jobs_pb2.JobSpec, scratch: Scratch, store: ObjectStore, node: str, orphans: proctree.Orphans
) -> Ended:
    """Run the program to its end, or to a limit. Before: script and inputs are whole in the store.

    Cancelled, it kills the whole tree first. Raises FailedPrecondition if an object has gone, OSError.
    """
    argv, inputs = await to_its_end(_lay_out, spec, scratch, store)
    limits = spec.limits
    wall_s = limits.wall_s or DEFAULT_WALL_S
    cpu_s = math.ceil(limits.cpu_s or DEFAULT_CPU_S)
    memory_bytes = limits.memory_bytes or DEFAULT_MEMORY_BYTES
    with orphans.starting() as started:
        transport, program = await asyncio.get_running_loop().subprocess_exec(
            _Program,
            *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(memory_bytes), str(cpu_s)),
            *argv,
            stdin=subprocess.DEVNULL,
            cwd=scratch.folder,
            env=_environment(spec, scratch, inputs, node),
            start_new_session=True,
        )
        started(transport.get_pid())
    over_wall = False
    try:
        await asyncio.wait_for(program.exited.wait(), wall_s)
    except TimeoutError:
        over_wall = True
    finally:
        # A descendant may still hold the pipes, or change outputs: the job has ended, and so do they.
        await to_its_end(_kill_tree, transport.get_pid(), scratch.mark)
        await program.exited.wait()
        orphans.ended(transport.get_pid())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(program.drained.wait(), _PIPE_DEADLINE_S)
        transport.close()
    returncode = transport.get_returncode()
    assert returncode is not None
    reason = f"over its wall limit of {wall_s:g} s" if over_wall else ""
    return _ended(returncode, reason, program.tails[1], program.tails[2], cpu_s, memory_bytes)


class _Program(asyncio.SubprocessProtocol):
    """A process and the tails of its streams. Told apart: its own end, and that nobody holds its streams any more."""

    def __init__(self) -> None:
        self.tails = {1: b"", 2: b""}
        self.exited = asyncio.Event()
        self.drained = asyncio.Event()
        self._open = {1, 2}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.tails[fd] = (self.tails[fd] + data)[-TAIL_BYTES:]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self.drained.set()

    def process_exited(self) -> None:
        self.exited.set()


async def collect_outputs(scratch: Scratch, store: ObjectStore, node: str) -> list[jobs_pb2.JobOutput]:
    """Move every regular file that the job left into the store. Before: nothing of it runs. Raises Exhausted."""
    outputs = []
    for path in sorted(scratch.outputs.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(scratch.outputs).as_posix()
            adopted, size_bytes = await store.adopt(path)
            outputs.append(jobs_pb2.JobOutput(name=name, object=adopted, size_bytes=size_bytes, at_node=node))
    return outputs


def _lay_out(spec: jobs_pb2.JobSpec, scratch: Scratch, store: ObjectStore) -> tuple[list[str], list[Path]]:
    """Copy script and inputs out of the store: they are the job's, to do with what it likes. The argv and the inputs.

    Blocks.
    """
    scratch.clear()
    folder = scratch.folder
    folder.mkdir(parents=True, mode=0o700)
    scratch.outputs.mkdir()
    (folder / "tmp").mkdir()
    inputs = [folder / f"input-{number}" for number in range(len(spec.inputs))]
    try:
        for each, path in zip(spec.inputs, inputs, strict=True):
            _copy_out(store, each.object, path)
        if spec.WhichOneof("program") == "command":
            return [*spec.command.argv, *spec.arguments], inputs
        script = folder / "script.py"
        _copy_out(store, spec.script_object, script)
    except NotFound as gone:
        raise FailedPrecondition(str(gone)) from gone
    return [sys.executable, str(script), *spec.arguments], inputs


def _copy_out(store: ObjectStore, name: str, path: Path) -> None:
    with store.reading(name) as fd, path.open("wb", buffering=0) as target:
        while os.sendfile(target.fileno(), fd, None, CHUNK_BYTES * 16):
            continue


def _environment(spec: jobs_pb2.JobSpec, scratch: Scratch, inputs: list[Path], node: str) -> dict[str, str]:
    return (
        {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        | _ONE_THREAD
        | {"HOME": str(scratch.folder), "TMPDIR": str(scratch.folder / "tmp")}
        | dict(spec.environment)
        | {
            "SKYRACK_INPUTS": os.pathsep.join(map(str, inputs)),
            "SKYRACK_OUTPUT_DIR": str(scratch.outputs),
            "SKYRACK_JOB_ID": spec.id,
            "SKYRACK_NODE": node,
        }
    )


def _kill_tree(pid: int, mark: bytes) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    proctree.kill_marked(mark)


def _ended(returncode: int, reason: str, stdout: bytes, stderr: bytes, cpu_s: int, memory_bytes: int) -> Ended:
    """The end in words. Exit status as a shell has it: 128 + signal."""
    if returncode < 0:
        status = 128 - returncode
        name = _signal_name(-returncode)
        if not reason and -returncode == signal.SIGXCPU:
            reason = f"over its limit of {cpu_s} s of CPU"
        reason = reason or f"killed by {name}" + (" (out of the node's memory?)" if name == "SIGKILL" else "")
        return Ended(status, reason, stdout, stderr)
    reason = reason or f"exit status {returncode}"
    if returncode and any(words in stderr[-4096:] for words in _OUT_OF_MEMORY):
        reason += f": out of its memory limit of {memory_bytes / 2**20:.0f} MiB"
    return Ended(returncode, reason, stdout, stderr)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names
