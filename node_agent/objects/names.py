"""How objects are named: by the SHA-256 of their bytes."""

from __future__ import annotations

import re
from typing import Final

from node_agent.errors import InvalidArgument

_NAME: Final = re.compile(r"sha256:([0-9a-f]{64})")


def digest_of(name: str) -> str:
    """The 64 hexadecimal digits of an object's name. Raises InvalidArgument."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidArgument(f"object name {name[:100]!r} is malformed: it must be 'sha256:' and 64 digits 0-9a-f")
    return match.group(1)
