"""How every runtime starts the agent, and where the agent finds what is its own: the same in all of them."""

from __future__ import annotations

from controller.runtime.contract import CONTROL_SOCKET, NodeSpec

NODE_UID = NODE_GID = 10001
JOB_USERS = 64  # as many as an agent takes
FIRST_JOB_UID = 10100
CONTROL_DIR = "/run/skyrack"
STORE_DIR = "/var/lib/skyrack"
AGENT_PORT = 7070
ENDPOINT = "127.0.0.1:7071"
"""Where programs in a node are told of the sky."""


def agent_arguments(spec: NodeSpec, *, as_root: bool) -> list[str]:
    """The agent's command line inside a node. Started as root, it becomes its own user, and each job one of its own.

    Users of jobs are a node's alone: the kernel counts a user's processes over all nodes of the machine.
    """
    users = [
        *("--user", str(NODE_UID)),
        *("--first-job-user", str(FIRST_JOB_UID + spec.index * JOB_USERS)),
        *("--job-processes", str(spec.pids_limit // 2)),
    ]
    return [
        *("--name", spec.name),
        *("--role", spec.role),
        *("--address", spec.address),
        *("--port", str(AGENT_PORT)),
        *("--control-socket", f"{CONTROL_DIR}/{CONTROL_SOCKET}"),
        *("--endpoint", ENDPOINT),
        *("--store", STORE_DIR),
        *("--store-bytes", str(spec.store_bytes)),
        *(("--encrypt-at-rest",) if spec.encrypt_at_rest else ()),
        *("--job-slots", str(spec.job_slots)),
        *(("--jurisdiction", spec.jurisdiction) if spec.jurisdiction else ()),
        *(users if as_root else ()),
    ]
