"""Work that must not be left half done: in a thread beside the event loop, or in the loop itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread. A caller that is cancelled leaves only when the function has ended.

    A thread cannot be stopped: who went on without it would find it still writing to the file that he closes.
    """
    return await undisturbed(asyncio.to_thread(function, *args, **kwargs))


async def undisturbed(steps: Coroutine[Any, Any, T]) -> T:
    """Do some steps that belong together. A caller that is cancelled leaves only when they are done."""
    work = asyncio.create_task(steps)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled() and (error := work.exception()):
            _log.error(
                "%s failed while its caller was being cancelled: %s", getattr(steps, "__qualname__", steps), error
            )
        raise
