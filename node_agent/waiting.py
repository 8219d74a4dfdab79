"""Waiting for whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


async def first_of(*steps: Awaitable[Any]) -> None:
    """Wait for the first of several to end; the others are cancelled, and have ended too. Raises what one raised."""
    waits = [asyncio.ensure_future(each) for each in steps]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    for each in waits:
        if not each.cancelled():
            each.result()
