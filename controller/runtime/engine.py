"""Docker Engine on this machine: whether it is there, what it says of itself, and its errors in words of skyrack's."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import requests

from controller.errors import MachineError, SkyrackError

MINIMUM_API_VERSION = (1, 41)  # Docker Engine 20.10
ENGINE_TIMEOUT_S = 120
CALLS_AT_ONCE = 10


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
        return is_enough(self.api_version)


def is_enough(api_version: str) -> bool:
    """Whether skyrack is written for an API version, as in "1.41"."""
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
            max_pool_size=CALLS_AT_ONCE,
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
