"""Images of the user's, as they are: each runs in a container beside a node's agent, and shares its network alone.

Nothing of skyrack is put into the image, so it needs neither Python nor a shell nor a C library. It sees no process,
file or socket of the agent's but what listens in the node's network. Files that it writes go with the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import docker
import docker.errors
from docker.types import LogConfig, Mount

from controller.errors import InputError, MachineError, SkyrackError
from controller.runtime.agent_command import ENDPOINT
from controller.runtime.contract import NodeSpec, ProgramSpec, ProgramState
from controller.runtime.engine import engine_errors

# What Docker leaves to a program as a rule, without what has no use in the sky: no devices (MKNOD), no audit log
# (AUDIT_WRITE), no capabilities for files (SETPCAP, SETFCAP). With NET_RAW starts a ping whose file asks for it, as
# Debian's does. No network can be changed with these: routes, addresses and shaping want NET_ADMIN.
CAPABILITIES = [
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID",
    "SYS_CHROOT",
]  # fmt: skip
ENDED = ("exited", "dead")  # as the engine lists containers
PULL_DEADLINE_S = 900.0
LAST_LINES = 5
LAST_WORDS_CHARACTERS = 2_000


def require_images(client: docker.DockerClient, images: Mapping[str, ProgramSpec], tell: Callable[[str], None]) -> None:
    """See to it that every image is here, pulled if need be, and has a program; see the runtime's contract."""
    for key, program in images.items():
        image = program.image
        if not _is_here(client, image):
            tell(f"pulling {image}")
            reason = _pulled(client, image)
            if reason:
                raise MachineError(
                    f"{key} = {image!r}: is not on this machine, and cannot be pulled ({reason}): "
                    f"load or build it here under that name (`docker load`, `docker build -t {image} …`)"
                )
        with engine_errors(f"look at the image {image}"):
            own = client.images.get(image).attrs["Config"] or {}
        if not (program.command or own.get("Entrypoint") or own.get("Cmd")):
            raise InputError(
                f"{key} = {image!r}: the image names no program to start: say which, with its arguments, as command"
            )


def start_program(client: docker.DockerClient, spec: NodeSpec, name: str, agent: str, labels: dict[str, str]) -> None:
    """Start a node's program, in a container of a name, beside the agent's. Raises SkyrackError."""
    program, api = spec.program, client.api
    if program is None:
        return
    own = {"SKYRACK_NODE": spec.name, "SKYRACK_ROLE": spec.role, "SKYRACK_SKY": f"http://{ENDPOINT}"}
    with engine_errors(f"start the program of {spec.name} ({program.image})"):
        container_id = api.create_container(
            image=program.image,
            entrypoint=list(program.command) or None,
            name=name,
            environment=dict(program.environment) | own,
            labels=labels,
            host_config=api.create_host_config(
                network_mode=f"container:{agent}",
                cap_drop=["ALL"],
                cap_add=CAPABILITIES,
                security_opt=["no-new-privileges"],
                mounts=[Mount("/etc/hosts", str(spec.hosts_file), type="bind", read_only=True)],
                mem_limit=program.memory_bytes,
                memswap_limit=program.memory_bytes,
                nano_cpus=int(program.cpu_limit * 1e9),
                pids_limit=program.pids_limit,
                restart_policy={"Name": "no"},
                log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
            ),
        )["Id"]
        api.start(container_id)


def end_of(client: docker.DockerClient, container_id: str) -> ProgramState | None:
    """How a program has ended; None once its container is gone. Raises SkyrackError."""
    try:
        with engine_errors("look at a program"):
            seen = client.api.inspect_container(container_id)
            written = client.api.logs(container_id, tail=LAST_LINES).decode(errors="replace").strip()
    except SkyrackError as error:
        if isinstance(error.__cause__, docker.errors.NotFound):
            return None
        raise
    state, limit_bytes = seen["State"], seen["HostConfig"]["Memory"]
    reason = f"over its memory limit of {limit_bytes} bytes" if state["OOMKilled"] else state["Error"]
    last_words = written[-LAST_WORDS_CHARACTERS:]
    return ProgramState(seen["Config"]["Image"], seen["Image"], False, int(state["ExitCode"]), reason, last_words)


def _is_here(client: docker.DockerClient, image: str) -> bool:
    try:
        with engine_errors(f"look for the image {image}"):
            client.images.get(image)
    except SkyrackError as error:
        if isinstance(error.__cause__, docker.errors.ImageNotFound):
            return False
        raise
    return True


def _pulled(client: docker.DockerClient, image: str) -> str:
    """Pull an image. Why it could not be; empty if it is here now."""
    deadline_mono_s = time.monotonic() + PULL_DEADLINE_S
    try:
        with engine_errors(f"pull {image}"):
            for progress in client.api.pull(image, stream=True, decode=True):
                if "error" in progress:
                    return str(progress["error"])
                if time.monotonic() > deadline_mono_s:
                    return f"it takes longer than {PULL_DEADLINE_S:.0f} s"
    except SkyrackError as error:
        if isinstance(error.__cause__, docker.errors.APIError):
            return str(error.__cause__.explanation)
        raise
    return ""
