"""How objects are cut for the wire."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from pathlib import Path

import google_crc32c
import pytest

from node_agent.objects.partial import BATCH_BYTES
from node_agent.objects.stored_file import PlainFile
from node_agent.objects.transfer import CHUNK_S, LARGE_CHUNK_BYTES, SMALL_CHUNK_BYTES, chunks_of, fitting_bytes


@pytest.mark.parametrize(
    ("rate_bps", "chunk_bytes"),
    [
        (1e3, SMALL_CHUNK_BYTES),
        (20e6, SMALL_CHUNK_BYTES),
        (100e6, 3 * SMALL_CHUNK_BYTES),
        (1e9, LARGE_CHUNK_BYTES),
        (1e15, LARGE_CHUNK_BYTES),
    ],
)
def test_a_chunk_is_what_a_link_takes_in_20_ms(rate_bps: float, chunk_bytes: int) -> None:
    """At 100 Mbit/s 20 ms are 250 KB; a slow link has the smallest, which a break costs, a fast one the largest."""
    assert CHUNK_S == 0.02
    assert fitting_bytes(BATCH_BYTES, 8 * BATCH_BYTES / rate_bps) == chunk_bytes


def test_a_batch_that_took_no_time_has_a_chunk_for_it() -> None:
    """A clock that did not move between two batches is no error."""
    assert fitting_bytes(BATCH_BYTES, 0.0) == LARGE_CHUNK_BYTES


@pytest.mark.parametrize(("pause_s", "largest_bytes"), [(0.0, LARGE_CHUNK_BYTES), (0.03, SMALL_CHUNK_BYTES)])
async def test_chunks_grow_where_they_go_fast_and_stay_small_where_not(
    tmp_path: Path, pause_s: float, largest_bytes: int
) -> None:
    """They begin small, follow the pace at which they are taken, and are the object from the offset, with checksums."""
    content = random.Random(1).randbytes(6 * BATCH_BYTES)
    path = tmp_path / "object"
    path.write_bytes(content)
    start_bytes = 100
    taken = []
    with path.open("rb") as file:
        async with aclosing(chunks_of(PlainFile(file.fileno()), start_bytes, len(content))) as chunks:
            async for chunk in chunks:
                taken.append(chunk.content)
                assert chunk.crc32c == google_crc32c.value(chunk.content)
                await asyncio.sleep(pause_s)
    assert b"".join(taken) == content[start_bytes:]
    assert len(taken[0]) == SMALL_CHUNK_BYTES
    assert max(map(len, taken)) == largest_bytes
