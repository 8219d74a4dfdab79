"""How a node lives: what the emulation asks of a runtime. The emulation owns this contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class NodeSpec:
    """One node to be brought to life."""

    run_id: str
    index: int
    name: str
    role: str
    address: str  # IPv4 of the node in the emulated network
    jurisdiction: str  # where it lies, ISO 3166-1 alpha-2; empty: nobody says
    control_dir: Path  # host side; the agent makes `control.sock` in it
    store_dir: Path  # host side; the agent's object store and journal
    hosts_file: Path  # host side; becomes /etc/hosts
    memory_bytes: int
    cpu_limit: float  # cores
    pids_limit: int
    store_bytes: int  # of objects


@dataclass(frozen=True)
class NodeHandle:
    """A node that lives."""

    spec: NodeSpec
    id: str  # the runtime's own name for it
    pid: int  # its first process, in its network namespace; the node lives as long as that does
    network_namespace: Path  # /proc/<pid>/ns/net


class Runtime(Protocol):
    """Starts, enters and removes nodes."""

    name: str
    shortcoming: str  # what nodes go without on this machine, for the user and the record; empty if nothing

    def start(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> list[NodeHandle]:
        """Start all nodes, in any order, several at a time.

        Before: the folders and the hosts file exist. After: every agent's process runs, with no network but `lo`;
        on_started has been told the count so far after each. Raises MachineError or SkyrackError; what was started
        stays, labelled with the run's id, for `remove`.
        """

    def engine_version(self) -> str:
        """What the nodes live in, and its version, for the record."""

    def exec(self, run_id: str, node: str, argv: Sequence[str]) -> int:
        """Run a command in a node that lives, with the caller's stdin, stdout and stderr. Its exit status."""

    def alive(self, run_id: str) -> set[str]:
        """Names of the run's nodes that run now."""

    def remove(self, run_id: str) -> int:
        """Remove every node of the run, running or not, and nothing else. Idempotent. How many there were.

        May be called while `start` is under way: that breaks off then, and after this call nothing starts any more.
        """

    def run_ids(self) -> set[str]:
        """The runs of which this runtime still holds something."""
