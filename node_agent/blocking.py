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
    return await uninterrupted(asyncio.to_thread(function, *args, **kwargs))


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await what must not be left half done: a caller that is cancelled meanwhile leaves when it has ended."""
    task = asyncio.create_task(work)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as cancelled:
            interrupted = cancelled
    if interrupted is None:
        return task.result()
    if not task.cancelled() and (error := task.exception()):
        _log.error("what could not be interrupted failed while its caller was being cancelled: %s", error)
    raise interrupted
