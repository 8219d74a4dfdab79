"""What the C library keeps of the agent's memory, and when it gives it back. Nothing of it, where that is not glibc."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1  # malloc.h
_MAPPED_BYTES: Final = 1024 * 1024
_SPARE_BYTES: Final = 2 * 1024 * 1024


def tune() -> None:
    """Let glibc keep memory in one place for all threads: it would keep megabytes more in one for each.

    And let it use memory again for chunks on their way, some of it at least: new memory for each, mapped and faulted in
    page by page, costs more than what is done with them.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _SPARE_BYTES)


def give_back() -> None:
    """Let the machine have what is free within the heap: after many streams at once that is some tens of megabytes."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
