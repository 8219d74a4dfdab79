"""Nodes as Docker containers: no network of their own, no capability but their first process's, a read-only root.

A node that hosts an image of the user's has a second container, for that (`user_images`). Everything made here carries
the labels `skyrack.run` and `skyrack.node`, and nothing without them is ever touched.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import docker.errors
from docker.types import LogConfig, Mount

from controller.errors import MachineError, SkyrackError
from controller.runtime import user_images
from controller.runtime.agent_command import CONTROL_DIR, NODE_GID, NODE_UID, STORE_DIR, agent_arguments
from controller.runtime.contract import NodeHandle, NodeSpec, ProgramSpec, ProgramState
from controller.runtime.engine import (
    CALLS_AT_ONCE,
    EngineError,
    connect,
    engine_errors,
    image_bytes,
    is_enough,
    socket_path,
)
from controller.runtime.exec_stream import HijackedExec, open_exec_stream
from controller.runtime.image import node_image

T = TypeVar("T")
RUN_LABEL = "skyrack.run"
NODE_LABEL = "skyrack.node"
PART_LABEL = "skyrack.part"  # of a node: one of these
AGENT, PROGRAM = "agent", "program"
THREADS = CALLS_AT_ONCE - 2
REMOVE_DEADLINE_S = 120.0
# A request that a killed controller left with the engine may still make a container after it was counted.
SETTLE_S = 0.5
RETRY_S = 0.2
# Of the node's first process, which starts agent and jobs as users of their own, and ends them. They have none.
FIRST_PROCESS_CAPABILITIES = ["KILL", "SETGID", "SETUID"]
TMPFS = {"/tmp": "rw,nosuid,nodev,size=64m,mode=1777"}  # noqa: S108  (the container's own)


class DockerRuntime:
    """The runtime contract over Docker Engine's API. Safe to use from any thread."""

    name = "docker"
    shortcoming = ""

    def __init__(self, image: str | None = None) -> None:
        """Connect to the engine. `image` is the image that belongs to this source when none is named.

        Raises MachineError: no engine, no permission, an engine that is too old.
        """
        self.image = image or node_image()
        self._client = connect()
        self._starting = threading.Lock()
        self._removed: set[str] = set()
        self._ended: dict[str, ProgramState] = {}  # programs, by container; none is started twice
        with engine_errors("say its version"):
            spoken = self._client.version()["ApiVersion"]
        if not is_enough(spoken):
            raise EngineError(f"Docker Engine speaks API {spoken}", "install Docker Engine 20.10 (API 1.41) or newer")

    def engine_version(self) -> str:
        """As in "Docker Engine 20.10.24"."""
        with engine_errors("say its version"):
            return f"Docker Engine {self._client.version()['Version']}"

    def start(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> list[NodeHandle]:
        """Start all nodes, several at a time; see the contract."""
        if image_bytes(self.image) is None:
            raise MachineError(f"the node image {self.image} has not been built: run `make setup`")
        return self._each(specs, self._start_one, on_started)

    def require_images(self, images: Mapping[str, ProgramSpec], tell: Callable[[str], None]) -> None:
        """See to it that every image is here, and names a program; see the contract."""
        user_images.require_images(self._client, images, tell)

    def start_programs(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> None:
        """Start what nodes run of the user's, several at a time; see the contract."""
        self._each([spec for spec in specs if spec.program is not None], self._start_program, on_started)

    def programs(self, run_id: str) -> dict[str, ProgramState]:
        """How it is with the run's programs, by node."""
        return self._programs(f"{RUN_LABEL}={run_id}")

    def exec(self, run_id: str, node: str, argv: Sequence[str], *, of_agent: bool = False) -> int:
        """Run a command in a node, with the caller's terminal if any; see the contract."""
        tty = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        environment = {"TERM": os.environ.get("TERM", "dumb")} if tty else {}
        api = self._client.api
        program = None if of_agent else self._programs(f"{RUN_LABEL}={run_id}", f"{NODE_LABEL}={node}").get(node)
        if program is not None and not program.is_running:
            raise SkyrackError(
                f"the program of {node} has ended with exit status {program.exit_status}, and nothing runs beside it: "
                f"`skyrack exec --agent {node} -- …` runs what the agent has"
            )
        part, user = (AGENT, f"{NODE_UID}:{NODE_GID}") if program is None else (PROGRAM, "")  # "": the image's own
        with engine_errors(f"run {argv[0]} in {node}"):
            exec_id = api.exec_create(
                container_name(run_id, node, part), list(argv), stdin=True, tty=tty, environment=environment, user=user
            )["Id"]
        request = json.dumps({"Detach": False, "Tty": tty}).encode()
        stream = open_exec_stream(socket_path(), f"/v{api.api_version}/exec/{exec_id}/start", request)
        with HijackedExec(stream, tty) as running:
            running.run(lambda rows, columns: api.exec_resize(exec_id, height=rows, width=columns))
        with engine_errors(f"say how {argv[0]} ended in {node}"):
            return int(api.exec_inspect(exec_id)["ExitCode"])

    def alive(self, run_id: str) -> set[str]:
        """Names of the run's nodes that run now, whatever their programs do."""
        agents = self._labels(f"{RUN_LABEL}={run_id}", f"{PART_LABEL}={AGENT}", running_only=True)
        return {labels[NODE_LABEL] for labels in agents.values()}

    def remove(self, run_id: str) -> int:
        """Remove every container of the run, and wait until none is left; see the contract.

        Raises SkyrackError when some are still there after REMOVE_DEADLINE_S, with the engine's reason.
        """
        self._removed.add(run_id)
        with self._starting:  # a start that is under way sees that, and gives up
            return self._remove_all(run_id)

    def run_ids(self) -> set[str]:
        """The runs of which the engine still holds a container."""
        return {labels[RUN_LABEL] for labels in self._labels(RUN_LABEL).values()}

    def close(self) -> None:
        """Let the connections to the engine go. What runs stays."""
        self._client.close()

    def _labels(self, *wanted: str, running_only: bool = False) -> dict[str, dict[str, str]]:
        """The labels of every container that carries some labels, by the container's id."""
        return {each["Id"]: each["Labels"] for each in self._containers(*wanted, running_only=running_only)}

    def _containers(self, *wanted: str, running_only: bool = False) -> list[dict[str, Any]]:
        """What the engine lists of every container that carries some labels."""
        with engine_errors("list containers"):
            found: list[dict[str, Any]] = self._client.api.containers(
                all=not running_only, filters={"label": list(wanted)}
            )
        return found

    def _programs(self, *wanted: str) -> dict[str, ProgramState]:
        found = {}
        for each in self._containers(*wanted, f"{PART_LABEL}={PROGRAM}"):
            if each["State"] in user_images.ENDED and each["Id"] not in self._ended:
                end = user_images.end_of(self._client, each["Id"])
                if end is None:
                    continue
                self._ended[each["Id"]] = end
            if each["State"] != "created":
                running = ProgramState(each["Image"], each["ImageID"], is_running=True)
                found[each["Labels"][NODE_LABEL]] = self._ended.get(each["Id"], running)
        return found

    def _each(
        self, specs: Sequence[NodeSpec], start: Callable[[NodeSpec], T], on_started: Callable[[int], None]
    ) -> list[T]:
        """Start something of each node, several at a time; what comes of it, in their order."""

        def unless_removed(spec: NodeSpec) -> T:
            if spec.run_id in self._removed:
                raise SkyrackError(f"run {spec.run_id} was removed while its nodes were starting")
            return start(spec)

        with self._starting, ThreadPoolExecutor(THREADS, thread_name_prefix="node-start") as pool:
            futures = [pool.submit(unless_removed, spec) for spec in specs]
            try:
                for count, future in enumerate(as_completed(futures), 1):
                    future.result()
                    on_started(count)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def _start_program(self, spec: NodeSpec) -> None:
        run_id, node = spec.run_id, spec.name
        name, agent = (container_name(run_id, node, part) for part in (PROGRAM, AGENT))
        user_images.start_program(self._client, spec, name, agent, _labels_of(spec, PROGRAM))

    def _start_one(self, spec: NodeSpec) -> NodeHandle:
        for folder in (spec.control_dir, spec.store_dir):
            os.chown(folder, NODE_UID, NODE_GID)
        with engine_errors(f"start the node {spec.name}"):
            api = self._client.api
            container_id = api.create_container(
                image=self.image,
                command=agent_arguments(spec, as_root=True),
                name=container_name(spec.run_id, spec.name, AGENT),
                hostname=spec.name,
                user="0:0",
                labels=_labels_of(spec, AGENT),
                host_config=api.create_host_config(
                    network_mode="none",
                    cap_drop=["ALL"],
                    cap_add=FIRST_PROCESS_CAPABILITIES,
                    security_opt=["no-new-privileges"],
                    read_only=True,
                    tmpfs=TMPFS,
                    mounts=[
                        Mount(CONTROL_DIR, str(spec.control_dir), type="bind"),
                        Mount(STORE_DIR, str(spec.store_dir), type="bind"),
                        Mount("/etc/hosts", str(spec.hosts_file), type="bind", read_only=True),
                    ],
                    mem_limit=spec.memory_bytes,
                    memswap_limit=spec.memory_bytes,
                    nano_cpus=int(spec.cpu_limit * 1e9),
                    pids_limit=spec.pids_limit,
                    restart_policy={"Name": "no"},
                    log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
                    init=False,
                ),
            )["Id"]
            api.start(container_id)
            state = api.inspect_container(container_id)["State"]
            if not state["Running"]:
                last_words = api.logs(container_id, tail=5).decode(errors="replace").strip()
                raise SkyrackError(
                    f"the agent of {spec.name} ended at once with exit status {state['ExitCode']}: {last_words}"
                )
        pid = int(state["Pid"])
        return NodeHandle(spec, container_id, pid, Path(f"/proc/{pid}/ns/net"))

    def _remove_all(self, run_id: str) -> int:
        deadline_mono_s = time.monotonic() + REMOVE_DEADLINE_S
        nodes: set[str] = set()
        was_empty = False
        refusals: list[str] = []
        with ThreadPoolExecutor(THREADS, thread_name_prefix="node-remove") as pool:
            while True:
                present = self._labels(f"{RUN_LABEL}={run_id}")
                if not present and was_empty:
                    return len(nodes)
                if present and time.monotonic() > deadline_mono_s:
                    why = refusals[0] if refusals else "removal goes on without end"
                    raise SkyrackError(f"Docker did not remove {len(present)} containers of run {run_id}: {why}")
                was_empty = not present
                nodes |= {labels[NODE_LABEL] for labels in present.values()}
                refusals = [refusal for refusal in pool.map(self._remove_one, present) if refusal]
                time.sleep(SETTLE_S if was_empty else RETRY_S if refusals else 0.0)

    def _remove_one(self, container_id: str) -> str | None:
        """Ask for one container's end. The engine's reason, when it refuses for now."""
        try:
            with engine_errors("remove a container"):
                self._client.api.remove_container(container_id, v=True, force=True)
        except SkyrackError as error:
            cause = error.__cause__
            if isinstance(cause, docker.errors.NotFound):
                return None
            if isinstance(cause, docker.errors.APIError):
                return str(error)
            raise
        return None


def container_name(run_id: str, node: str, part: str) -> str:
    """What the engine calls a part of a node; no node's name has a dot."""
    return f"skyrack-{run_id}-{node}" + ("" if part == AGENT else f".{part}")


def _labels_of(spec: NodeSpec, part: str) -> dict[str, str]:
    return {RUN_LABEL: spec.run_id, NODE_LABEL: spec.name, PART_LABEL: part}
