"""How every runtime starts the agent, and where the agent finds what is its own: the same in all of them."""

from __future__ import annotations

from controller.runtime.contract import NodeSpec

NODE_UID = NODE_GID = 10001
CONTROL_DIR = "/run/skyrack"
STORE_DIR = "/var/lib/skyrack"
AGENT_PORT = 7070


def agent_arguments(spec: NodeSpec) -> list[str]:
    """The agent's command line inside a node."""
    return [
        *("--name", spec.name),
        *("--role", spec.role),
        *("--address", spec.address),
        *("--port", str(AGENT_PORT)),
        *("--control-socket", f"{CONTROL_DIR}/control.sock"),
        *("--store", STORE_DIR),
        *("--store-bytes", str(spec.store_bytes)),
    ]
