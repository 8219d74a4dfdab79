"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread. A caller that is cancelled leaves only when the function has ended.

    A thread cannot be stopped: who went on without it would find it still writing to the file that he closes.
    """
    work = asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if error := work.exception():
            _log.error("%s failed while its caller was being cancelled: %s", function.__qualname__, error)
        raise
