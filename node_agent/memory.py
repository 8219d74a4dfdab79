"""What the C library keeps of the agent's memory, and when it gives it back. Nothing of it, where that is not glibc."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h


def have_one_arena() -> None:
    """Let glibc keep memory in one place for all threads: it would keep megabytes more in one for each."""
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Let the machine have what is free within the heap: after many streams at once that is some tens of megabytes."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
