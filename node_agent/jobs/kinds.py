"""Kinds of jobs: from a spec to the program that is started for it, what it sees and what bounds it."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node_agent.errors import FailedPrecondition, NotFound
from node_agent.jobs.scratch import Scratch
from node_agent.objects.store import ObjectStore
from node_agent.processes.program import Task
from protos.skyrack.v1 import jobs_pb2

DEFAULT_WALL_S: Final = 3600.0
DEFAULT_CPU_S: Final = 3600.0
DEFAULT_MEMORY_BYTES: Final = 2 * 1024**3
DEFAULT_DISK_BYTES: Final = 1024**3
RUNNER_BYTES: Final = 192 * 1024**2
"""What the runner of modules takes itself: Python, the compiler, and the module as compiled."""

RUNNER: Final = Path(__file__).with_name("wasm.py")
RUN, REPORT = "run.json", "report.json"  # between the runner of modules and the agent

_PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
# Numeric libraries start a thread for each core of the machine, with address space of its own; a node has less.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Limits:
    """What bounds an attempt, defaults filled in."""

    wall_s: float
    cpu_s: int  # of each process
    memory_bytes: int  # of all its processes together
    address_space_bytes: int  # of each process; 0: no limit
    disk_bytes: int  # beyond what it was given

    @classmethod
    def of(cls, spec: jobs_pb2.JobSpec) -> Limits:
        """As the spec has them."""
        limits = spec.limits
        memory_bytes = limits.memory_bytes or DEFAULT_MEMORY_BYTES
        is_wasm = spec.WhichOneof("program") == "wasm_object"
        return cls(
            wall_s=limits.wall_s or DEFAULT_WALL_S,
            cpu_s=math.ceil(limits.cpu_s or DEFAULT_CPU_S),
            memory_bytes=memory_bytes + RUNNER_BYTES if is_wasm else memory_bytes,
            address_space_bytes=0 if is_wasm else memory_bytes,  # the runner reserves much more than it will use
            disk_bytes=limits.disk_bytes or DEFAULT_DISK_BYTES,
        )


@dataclass(frozen=True)
class LaidOut:
    """A job that could start now."""

    task: Task
    given_bytes: int  # what lies in its folder already


def lay_out(job: jobs_pb2.Job, scratch: Scratch, store: ObjectStore, node: str, limits: Limits) -> LaidOut:
    """Make a job's folder and copy out of the store what it needs. Blocks.

    The checkpoint is the newest that was kept of the job, else that of the spec. Raises FailedPrecondition if an object
    has gone, OSError.
    """
    spec = job.spec
    scratch.make()
    inputs = [scratch.inputs / f"input-{number}" for number in range(len(spec.inputs))]
    try:
        given_bytes = sum(
            scratch.copy_out(store, each.object, path) for each, path in zip(spec.inputs, inputs, strict=True)
        )
        if checkpoint := job.checkpoint_object or spec.checkpoint_object:
            given_bytes += scratch.copy_out(store, checkpoint, scratch.checkpoint)
        argv, environment = _program(spec, scratch, store, node, inputs)
    except NotFound as gone:
        raise FailedPrecondition(str(gone)) from gone
    task = Task(
        argv=argv,
        environment=environment,
        folder=str(scratch.folder),
        cpu_s=limits.cpu_s,
        address_space_bytes=limits.address_space_bytes,
        file_bytes=limits.disk_bytes + given_bytes,  # an input may be as long as it is
        network=spec.network,
    )
    return LaidOut(task, given_bytes)


def _program(
    spec: jobs_pb2.JobSpec, scratch: Scratch, store: ObjectStore, node: str, inputs: list[Path]
) -> tuple[list[str], dict[str, str]]:
    """What is executed, and in which environment."""
    told = _told(spec, node, inputs, scratch.outputs, scratch.checkpoint)
    base = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ONE_THREAD
    base |= {"HOME": str(scratch.folder), "TMPDIR": str(scratch.tmp)}
    match spec.WhichOneof("program"):
        case "command":
            argv = [*spec.command.argv, *spec.arguments]
        case "script_object":
            script = scratch.folder / "script.py"
            scratch.copy_out(store, spec.script_object, script)
            argv = [sys.executable, str(script), *spec.arguments]
        case "wasm_object":
            module = scratch.folder / "module.wasm"
            scratch.copy_out(store, spec.wasm_object, module)
            run = scratch.write(RUN, json.dumps(_run(spec, scratch, node, inputs, module)).encode())
            return [sys.executable, "-I", str(RUNNER), str(run)], base | told  # the guest's own are in the file
        case other:
            raise FailedPrecondition(f"job {spec.id}: nothing to be started for {other}")
    return argv, base | dict(spec.environment) | told


def _told(spec: jobs_pb2.JobSpec, node: str, inputs: list[Path], outputs: Path, checkpoint: Path) -> dict[str, str]:
    """What every job is told of itself."""
    return {
        "SKYRACK_INPUTS": os.pathsep.join(map(str, inputs)),
        "SKYRACK_OUTPUT_DIR": str(outputs),
        "SKYRACK_CHECKPOINT": str(checkpoint),
        "SKYRACK_JOB_ID": spec.id,
        "SKYRACK_NODE": node,
    }


def _run(spec: jobs_pb2.JobSpec, scratch: Scratch, node: str, inputs: list[Path], module: Path) -> dict[str, object]:
    """What the runner of modules is told (`wasm.Run`): inside, the job's folders have short names."""
    inside = [Path("/inputs") / path.name for path in inputs]
    told = _told(spec, node, inside, Path("/output"), Path("/checkpoint/state"))
    return {
        "module": str(module),
        "arguments": list(spec.arguments),
        "environment": dict(spec.environment) | told,
        "inputs": str(scratch.inputs),
        "outputs": str(scratch.outputs),
        "checkpoint": str(scratch.checkpoint.parent),
        "memory_bytes": spec.limits.memory_bytes or DEFAULT_MEMORY_BYTES,
        "fuel": spec.limits.fuel,
        "report": str(scratch.folder / REPORT),
    }
