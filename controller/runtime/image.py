"""The node image's name: a hash of everything that goes into it, so that an image is never older than the source.

`deploy/build_image.py` builds under this name and the Docker runtime starts it; nobody else computes it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from controller.errors import MachineError

REPOSITORY = "skyrack-node"
IMAGE_LABEL = "skyrack.image"
PROJECT_ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = "deploy/Dockerfile"
LOCK = "requirements.lock"
AGENT_FOLDERS = ("node_agent", "protos")

# What the agent and its jobs import, closed over their own dependencies.
NODE_PACKAGES = (
    "cffi",
    "cryptography",
    "google-crc32c",
    "grpcio",
    "grpcio-health-checking",
    "grpcio-reflection",
    "numpy",
    "protobuf",
    "pycparser",
    "pyeclib",
    "typing-extensions",
    "wasmtime",
)


def locked_blocks(lock: str, packages: tuple[str, ...] = NODE_PACKAGES) -> list[str]:
    """The lock's blocks (requirement, marker and hashes, without comments) of some packages, in the lock's order."""
    blocks = re.findall(r"^[a-z0-9][^\n]*(?:\n[ \t]+--hash[^\n]*)*", lock, re.MULTILINE)
    wanted = [block for block in blocks if re.split(r"[=\[ ]", block, maxsplit=1)[0] in packages]
    missing = set(packages) - {re.split(r"[=\[ ]", block, maxsplit=1)[0] for block in wanted}
    if missing:
        raise ValueError(f"{LOCK} pins no {', '.join(sorted(missing))}")
    return wanted


def agent_sources(root: Path) -> list[Path]:
    """The files of the agent and the wire that go into the image, as paths under `root`, sorted."""
    return sorted(
        path.relative_to(root)
        for folder in AGENT_FOLDERS
        for path in (root / folder).rglob("*")
        if path.suffix in (".py", ".json") and path.is_file()
    )


def _ingredients(root: Path) -> Iterator[tuple[str, bytes]]:
    yield DOCKERFILE, (root / DOCKERFILE).read_bytes()
    yield LOCK, "\n".join(locked_blocks((root / LOCK).read_text())).encode()
    for path in agent_sources(root):
        yield path.as_posix(), (root / path).read_bytes()


def image_name(root: Path) -> str:
    """`skyrack-node:<hash>` of the source tree at `root`."""
    digest = hashlib.sha256()
    for name, content in _ingredients(root):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return f"{REPOSITORY}:{digest.hexdigest()[:16]}"


@cache
def node_image() -> str:
    """The image that belongs to the source which is running; it need not exist yet. Raises MachineError."""
    try:
        return image_name(PROJECT_ROOT)
    except OSError as error:
        raise MachineError(
            f"the node image's ingredient {error.filename} cannot be read ({error.strerror}): "
            "run skyrack from its source tree, as `make setup` installs it"
        ) from error
