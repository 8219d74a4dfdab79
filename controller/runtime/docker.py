"""Nodes as Docker containers: no network of their own, no capability but their first process's, a read-only root.

The only file that imports docker.

Everything made here carries the labels `skyrack.run` and `skyrack.node`, and nothing without them is ever touched.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import requests
from docker.types import LogConfig, Mount

from controller.errors import MachineError, SkyrackError
from controller.runtime.agent_command import CONTROL_DIR, NODE_GID, NODE_UID, STORE_DIR, agent_arguments
from controller.runtime.contract import NodeHandle, NodeSpec
from controller.runtime.exec_stream import HijackedExec, open_exec_stream
from controller.runtime.image import node_image

RUN_LABEL = "skyrack.run"
NODE_LABEL = "skyrack.node"
MINIMUM_API_VERSION = (1, 41)  # Docker Engine 20.10
ENGINE_TIMEOUT_S = 120
START_THREADS = 8
REMOVE_THREADS = 8
REMOVE_DEADLINE_S = 120.0
# A request that a killed controller left with the engine may still make a container after it was counted.
SETTLE_S = 0.5
RETRY_S = 0.2
# Of the node's first process, which starts agent and jobs as users of their own, and ends them. They have none.
FIRST_PROCESS_CAPABILITIES = ["KILL", "SETGID", "SETUID"]
TMPFS = {"/tmp": "rw,nosuid,nodev,size=64m,mode=1777"}  # noqa: S108  (the container's own)


class EngineError(MachineError):
    """Docker Engine cannot be used: what was found, and the remedy."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}: {remedy}")
        self.found = found
        self.remedy = remedy


@dataclass(frozen=True)
class Engine:
    """What the engine says of itself."""

    version: str
    api_version: str
    cgroup_version: str
    cgroup_driver: str
    storage_driver: str
    root_dir: Path

    @property
    def api_is_enough(self) -> bool:
        """Whether the engine speaks the oldest API that skyrack is written for."""
        return _is_enough(self.api_version)


def _is_enough(api_version: str) -> bool:
    return tuple(int(part) for part in api_version.split(".")) >= MINIMUM_API_VERSION


def socket_path() -> str:
    """The engine's Unix socket. Raises EngineError when DOCKER_HOST names another machine."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    scheme, _, path = host.partition("://")
    if scheme != "unix":
        raise EngineError(
            f"DOCKER_HOST is {host}, but nodes share folders and network namespaces with this machine",
            "unset DOCKER_HOST, or set it to unix:///var/run/docker.sock",
        )
    return path


def engine_is_there() -> bool:
    """Whether this machine has an engine, though it may not run. Raises EngineError as `socket_path` does."""
    return Path(socket_path()).exists() or shutil.which("dockerd") is not None


def _require_listener(path: str) -> None:
    """Knock at the engine's socket. Raises EngineError, by the kernel's own answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(ENGINE_TIMEOUT_S)
        try:
            door.connect(path)
        except PermissionError as error:
            raise EngineError(f"no permission to use Docker ({path})", "run as root, through sudo") from error
        except OSError as error:
            raise EngineError(
                f"Docker Engine does not run (nobody answers at {path})", "run `make setup`, or start it"
            ) from error


def _unusable(error: Exception) -> EngineError:
    """An engine that does not answer as one, or has ended meanwhile."""
    try:
        _require_listener(socket_path())
    except EngineError as ended:
        return ended
    if isinstance(error, requests.Timeout):
        return EngineError(f"Docker Engine ({socket_path()}) has not answered for {ENGINE_TIMEOUT_S} s", "restart it")
    return EngineError(f"Docker Engine ({socket_path()}) cannot be used ({error})", "restart it, or run `make setup`")


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn what docker-py raises into one clear error. `doing` completes "Docker could not …"."""
    try:
        yield
    except docker.errors.APIError as error:
        raise SkyrackError(f"Docker could not {doing}: {error.explanation or error}") from error
    except docker.errors.BuildError as error:
        last_words = "".join(entry.get("stream", "") for entry in error.build_log)[-2000:]
        raise SkyrackError(f"Docker could not {doing}: {error.msg}\n{last_words}") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise _unusable(error) from error


def connect() -> docker.DockerClient:
    """A client of this machine's engine, safe to use from several threads. Raises EngineError."""
    path = socket_path()
    _require_listener(path)
    try:
        return docker.DockerClient(
            base_url=f"unix://{path}",
            version="auto",
            timeout=ENGINE_TIMEOUT_S,
            max_pool_size=max(START_THREADS, REMOVE_THREADS) + 2,
        )
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise _unusable(error) from error


def ask_engine() -> Engine:
    """What the engine says of itself. Raises MachineError."""
    client = connect()
    try:
        with engine_errors("say what it is"):
            info = client.info()
            version = client.version()
    finally:
        client.close()
    return Engine(
        version=version["Version"],
        api_version=version["ApiVersion"],
        cgroup_version=info.get("CgroupVersion", "1"),
        cgroup_driver=info["CgroupDriver"],
        storage_driver=info["Driver"],
        root_dir=Path(info["DockerRootDir"]),
    )


def image_bytes(image: str) -> int | None:
    """The size of an image, or None when the engine does not have it. Raises MachineError."""
    client = connect()
    try:
        with engine_errors(f"look for the image {image}"):
            return int(client.images.get(image).attrs["Size"])
    except SkyrackError as error:
        if isinstance(error.__cause__, docker.errors.ImageNotFound):
            return None
        raise
    finally:
        client.close()


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
        with engine_errors("say its version"):
            spoken = self._client.version()["ApiVersion"]
        if not _is_enough(spoken):
            raise EngineError(f"Docker Engine speaks API {spoken}", "install Docker Engine 20.10 (API 1.41) or newer")

    def engine_version(self) -> str:
        """As in "Docker Engine 20.10.24"."""
        with engine_errors("say its version"):
            return f"Docker Engine {self._client.version()['Version']}"

    def start(self, specs: Sequence[NodeSpec], on_started: Callable[[int], None]) -> list[NodeHandle]:
        """Start all nodes, several at a time; see the contract."""
        if image_bytes(self.image) is None:
            raise MachineError(f"the node image {self.image} has not been built: run `make setup`")
        handles: dict[str, NodeHandle] = {}
        with self._starting, ThreadPoolExecutor(START_THREADS, thread_name_prefix="node-start") as pool:
            futures = [pool.submit(self._start_one, spec) for spec in specs]
            try:
                for future in as_completed(futures):
                    handle = future.result()
                    handles[handle.spec.name] = handle
                    on_started(len(handles))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [handles[spec.name] for spec in specs]

    def exec(self, run_id: str, node: str, argv: Sequence[str]) -> int:
        """Run a command in a node, with the caller's terminal if any; see the contract."""
        tty = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        environment = {"TERM": os.environ.get("TERM", "dumb")} if tty else {}
        api = self._client.api
        with engine_errors(f"run {argv[0]} in {node}"):
            exec_id = api.exec_create(
                container_name(run_id, node), list(argv), stdin=True, tty=tty, environment=environment,
                user=f"{NODE_UID}:{NODE_GID}",
            )["Id"]  # fmt: skip
        request = json.dumps({"Detach": False, "Tty": tty}).encode()
        stream = open_exec_stream(socket_path(), f"/v{api.api_version}/exec/{exec_id}/start", request)
        with HijackedExec(stream, tty) as running:
            running.run(lambda rows, columns: api.exec_resize(exec_id, height=rows, width=columns))
        with engine_errors(f"say how {argv[0]} ended in {node}"):
            return int(api.exec_inspect(exec_id)["ExitCode"])

    def alive(self, run_id: str) -> set[str]:
        """Names of the run's nodes that run now."""
        return {labels[NODE_LABEL] for labels in self._labels(f"{RUN_LABEL}={run_id}", running_only=True).values()}

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

    def _labels(self, label: str, running_only: bool = False) -> dict[str, dict[str, str]]:
        """The labels of every container that carries a label, by the container's id."""
        with engine_errors("list containers"):
            found = self._client.api.containers(all=not running_only, filters={"label": [label]})
        return {container["Id"]: container["Labels"] for container in found}

    def _start_one(self, spec: NodeSpec) -> NodeHandle:
        if spec.run_id in self._removed:
            raise SkyrackError(f"run {spec.run_id} was removed while its nodes were starting")
        for folder in (spec.control_dir, spec.store_dir):
            os.chown(folder, NODE_UID, NODE_GID)
        with engine_errors(f"start the node {spec.name}"):
            api = self._client.api
            container_id = api.create_container(
                image=self.image,
                command=agent_arguments(spec, as_root=True),
                name=container_name(spec.run_id, spec.name),
                hostname=spec.name,
                user="0:0",
                labels={RUN_LABEL: spec.run_id, NODE_LABEL: spec.name},
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
        seen: set[str] = set()
        was_empty = False
        refusals: list[str] = []
        with ThreadPoolExecutor(REMOVE_THREADS, thread_name_prefix="node-remove") as pool:
            while True:
                present = self._labels(f"{RUN_LABEL}={run_id}")
                if not present and was_empty:
                    return len(seen)
                if present and time.monotonic() > deadline_mono_s:
                    why = refusals[0] if refusals else "removal goes on without end"
                    raise SkyrackError(f"Docker did not remove {len(present)} containers of run {run_id}: {why}")
                was_empty = not present
                seen |= present.keys()
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


def container_name(run_id: str, node: str) -> str:
    """What the engine calls a node."""
    return f"skyrack-{run_id}-{node}"
