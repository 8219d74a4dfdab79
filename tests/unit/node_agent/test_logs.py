"""Logs of jobs, by themselves: mirrors at a gateway, and those who follow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from node_agent.errors import OutOfRange
from node_agent.jobs.logs import CHUNK_BYTES, KEPT_BYTES, JobLogs


async def whole(logs: JobLogs, job_id: str, offset_bytes: int = 0) -> bytes:
    """What is kept of stdout from an offset; pieces follow each other."""
    read = b""
    async for at, piece in logs.read(job_id, "stdout", offset_bytes):
        assert at == offset_bytes + len(read)
        read += piece
    return read


async def test_what_is_appended_is_read_from_any_offset(tmp_path: Path) -> None:
    """In pieces, across the life of an agent; an offset past the end is refused."""
    logs = JobLogs(tmp_path)
    content = bytes(range(256)) * 1000
    logs.begin("a.b")
    logs.append("a.b", "stdout", content)
    await logs.finish("a.b")
    again = JobLogs(tmp_path)
    assert await whole(again, "a.b") == content
    assert await whole(again, "a.b", CHUNK_BYTES + 1) == content[CHUNK_BYTES + 1 :]
    assert await whole(again, "a.b", len(content)) == b""
    assert again.tail("a.b", "stdout") == content[-65536:]
    with pytest.raises(OutOfRange, match="offset 256001"):
        await whole(again, "a.b", len(content) + 1)
    assert again.job_ids() == {"a.b"}
    again.remove("a.b")
    assert await whole(again, "a.b") == b""


async def test_a_mirror_takes_what_belongs_at_an_offset(tmp_path: Path) -> None:
    """What came twice stands once; what is begun anew replaces all; a gap is refused."""
    logs = JobLogs(tmp_path)
    logs.append("job", "stdout", b"first", 0)
    logs.append("job", "stdout", b"st, second", 3)
    assert await whole(logs, "job") == b"first, second"
    with pytest.raises(OutOfRange):
        logs.append("job", "stdout", b"?", 14)
    logs.append("job", "stdout", b"anew", 0)
    assert await whole(logs, "job") == b"anew"


def test_past_its_bound_a_log_is_counted_and_its_end_is_known(tmp_path: Path) -> None:
    """The first 16 MiB are kept; of what follows the end is told while the job runs, and how much it was."""
    logs = JobLogs(tmp_path)
    logs.begin("loud")
    logs.append("loud", "stdout", b"a" * (KEPT_BYTES - 1))
    logs.append("loud", "stdout", b"bcd")
    assert logs.size_bytes("loud", "stdout") == KEPT_BYTES
    assert logs.dropped_bytes("loud", "stdout") == 2
    assert logs.tail("loud", "stdout") == b"a" * 65533 + b"bcd"


async def test_who_follows_reads_on_until_the_end(tmp_path: Path) -> None:
    """Pieces as they come; then an end. When a new attempt begins, who was further is told."""
    logs = JobLogs(tmp_path)
    logs.resume("job")

    async def follow() -> list[tuple[int, bytes]]:
        return [piece async for piece in logs.read("job", "stdout", follow=True)]

    following = asyncio.create_task(follow())
    for piece in (b"one", b"two"):
        await asyncio.sleep(0.05)
        logs.append("job", "stdout", piece)
    await asyncio.sleep(0.05)
    await logs.finish("job")
    assert await asyncio.wait_for(following, 10) == [(0, b"one"), (3, b"two")]

    logs.resume("job")
    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    logs.begin("job")
    with pytest.raises(OutOfRange):
        await asyncio.wait_for(following, 10)
