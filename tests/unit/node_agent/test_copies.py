"""Copies of objects for jobs: whole, or an error."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node_agent.errors import DataLoss
from node_agent.journal import Journal
from node_agent.objects.store import ObjectStore

SIZE_BYTES = 2_500_000  # more than is read at a time, and no multiple of that


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Files that grow no larger, as on a disk that has become full: a write takes a part first, and then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def kept(folder: Path) -> tuple[ObjectStore, str]:
    """A store with an object in it."""
    store = ObjectStore(folder / "objects", 10 * SIZE_BYTES, Journal(folder / "journal.db"))
    path = folder / "content"
    path.write_bytes(os.urandom(SIZE_BYTES))
    with path.open("rb") as file:
        name, _ = await store.adopt_fd(file.fileno(), "content")
    return store, name


async def test_a_copy_that_does_not_fit_the_disk_is_an_error(tmp_path: Path) -> None:
    """Where the last of it has no room, nobody is given a part for the whole."""
    store, name = await kept(tmp_path)
    with files_of_at_most(SIZE_BYTES - 1000), pytest.raises(OSError, match="File too large"):
        store.copy_out(name, tmp_path / "copy")
    store.copy_out(name, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "content").read_bytes()


async def test_a_copy_of_a_damaged_object_is_an_error(tmp_path: Path) -> None:
    """Its file has other bytes than its name says."""
    store, name = await kept(tmp_path)
    with (tmp_path / "objects" / name.removeprefix("sha256:")).open("r+b") as file:
        file.seek(SIZE_BYTES - 1)
        last = file.read(1)
        file.seek(SIZE_BYTES - 1)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(DataLoss, match=f"{name} is damaged here"):
        store.copy_out(name, tmp_path / "copy")
