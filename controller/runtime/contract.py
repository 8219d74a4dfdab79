"""How a node lives: what the emulation asks of a runtime. The emulation owns this contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CONTROL_SOCKET = "control.sock"


@dataclass(frozen=True)
class ProgramSpec:
    """What a node runs of the user's beside the agent: an image as it is, with limits of its own."""

    image: str  # as Docker names it
    command: tuple[str, ...]  # in place of the image's own entry point and command; empty: those
    environment: tuple[tuple[str, str], ...]
    memory_bytes: int
    cpu_limit: float  # cores
    pids_limit: int


@dataclass(frozen=True)
class ProgramState:
    """How it is with a node's program."""

    image: str
    image_id: str  # "sha256:…": what the name stood for
    is_running: bool
    exit_status: int = 0  # of one that has ended, as a shell has it
    reason: str = ""  # of its end, where more is known than that
    last_words: str = ""  # the end of what it has written, once it has ended


@dataclass(frozen=True)
class NodeSpec:
    """One node to be brought to life."""

    run_id: str
    index: int
    name: str
    role: str
    address: str  # IPv4 of the node in the emulated network
    jurisdiction: str  # where it lies, ISO 3166-1 alpha-2; empty: nobody says
    control_dir: Path  # host side; the agent makes CONTROL_SOCKET in it
    store_dir: Path  # host side; the agent's object store and journal
    hosts_file: Path  # host side; becomes /etc/hosts
    memory_bytes: int  # of the agent and its jobs, as the next two
    cpu_limit: float  # cores
    pids_limit: int
    store_bytes: int  # of objects
    encrypt_at_rest: bool = False
    job_slots: int = 1
    program: ProgramSpec | None = None


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

    def require_images(self, images: Mapping[str, ProgramSpec], tell: Callable[[str], None]) -> None:
        """See to it that every image is on this machine, and runs a program; the keys are where the user named them.

        Before: nothing of the run. Tells what takes long. Raises InputError for what can never be, MachineError for an
        image that is neither here nor to be had.
        """

    def start_programs(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> None:
        """Start the programs of those nodes that have one, several at a time.

        Before: the nodes live, their images are here. After: every program has been started, in its node's network,
        and no other. Raises and leaves behind as `start`.
        """

    def programs(self, run_id: str) -> dict[str, ProgramState]:
        """How it is with the run's programs, by node."""

    def engine_version(self) -> str:
        """What the nodes live in, and its version, for the record."""

    def exec(self, run_id: str, node: str, argv: Sequence[str], *, of_agent: bool = False) -> int:
        """Run a command in a node that lives, with the caller's stdin, stdout and stderr. Its exit status.

        Where the node has a program of the user's: among what that has, or with `of_agent` what the agent has.
        Raises SkyrackError for a program that has ended.
        """

    def alive(self, run_id: str) -> set[str]:
        """Names of the run's nodes that run now, whatever their programs do."""

    def remove(self, run_id: str) -> int:
        """Remove every node of the run, running or not, and nothing else. Idempotent. How many there were.

        May be called while `start` is under way: that breaks off then, and after this call nothing starts any more.
        """

    def run_ids(self) -> set[str]:
        """The runs of which this runtime still holds something."""
