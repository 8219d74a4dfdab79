"""Which runtime a machine can have, and why."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from controller.errors import InputError
from controller.owner import is_machine_root, outer_uid
from controller.runtime.contract import Runtime
from controller.runtime.docker import DockerRuntime
from controller.runtime.engine import EngineError, ask_engine
from controller.runtime.namespace import NamespaceRuntime

REQUESTS = ("auto", "docker", "namespace")


class RuntimeChoice(NamedTuple):
    """The runtime of a run, and why it was chosen; for the user and for the record."""

    name: str
    reason: str


def choose_runtime(requested: str) -> RuntimeChoice:
    """The runtime for this machine: as asked for, else Docker if it answers. Raises InputError for an unknown one."""
    if requested not in REQUESTS:
        raise InputError(f"unknown runtime {requested!r}: choose one of {', '.join(REQUESTS)}")
    if requested != "auto":
        return RuntimeChoice(requested, "asked for")
    if not is_machine_root():
        return RuntimeChoice(NamespaceRuntime.name, f"user {outer_uid()} is not root, as nodes of Docker's need")
    try:
        engine = ask_engine()
    except EngineError as error:
        return RuntimeChoice(NamespaceRuntime.name, error.found)
    return RuntimeChoice(DockerRuntime.name, f"Docker Engine {engine.version} answers")


def open_runtime(name: str, run_root: Path, root: str = "/") -> Runtime:
    """The runtime of a name; `run_root` has a folder for each run. `root`: whose programs nodes without an engine have.

    Raises InputError for a root that is none, or is not for this runtime, MachineError.
    """
    if root != "/" and name != NamespaceRuntime.name:
        raise InputError(f"resources.root = {root!r} is for --runtime namespace: nodes of Docker's have an image")
    if not (Path(root) / "usr").is_dir():
        raise InputError(f"resources.root = {root!r}: must be a folder that holds a root file system, with usr and etc")
    return DockerRuntime() if name == DockerRuntime.name else NamespaceRuntime(run_root, Path(root))
