"""The journal by itself: what was answered is there, together or not at all, whatever happens to the file."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from node_agent.errors import Exhausted
from node_agent.journal import VERSION, Journal, JournalError

SCHEMA = "CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL)"
INSERT = "INSERT INTO fact VALUES (?, ?)"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal with one table."""
    opened = Journal(tmp_path / "journal.db")
    opened.ensure(SCHEMA)
    yield opened
    opened.close()


def names(journal: Journal) -> list[str]:
    """All facts' names."""
    return [name for (name,) in journal.read("SELECT name FROM fact ORDER BY name")]


async def test_what_was_answered_is_read_at_once_and_by_the_next_agent(journal: Journal, tmp_path: Path) -> None:
    """A write that has been answered is seen by a read, and by who opens the file again."""
    await journal.write((INSERT, ("a", 1)), (INSERT, ("b", 2)))
    assert journal.read("SELECT value FROM fact WHERE name = ?", ("b",)) == [(2,)]
    journal.close()
    journal.close()
    again = Journal(tmp_path / "journal.db")
    again.ensure(SCHEMA)
    assert names(again) == ["a", "b"]
    again.close()


async def test_nobody_else_reads_it(journal: Journal, tmp_path: Path) -> None:
    """Jobs know the way to the folder: none of the journal's files is theirs to read."""
    await journal.write((INSERT, ("a", 1)))
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm"), 0o600)


async def test_one_write_is_all_or_nothing_and_alone_in_its_error(journal: Journal) -> None:
    """Of many writes at once, the one that breaks a constraint leaves nothing behind, and the others are done."""
    await journal.write((INSERT, ("taken", 0)))
    asked = [journal.write((INSERT, (f"n{number}", number))) for number in range(50)]
    asked.insert(25, journal.write((INSERT, ("half", 1)), (INSERT, ("taken", 1))))
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in done if each is not None] == [sqlite3.IntegrityError]
    assert sorted(names(journal)) == sorted(["taken", *(f"n{number}" for number in range(50))])


async def test_a_cancelled_caller_leaves_what_it_asked_for_to_be_written(journal: Journal) -> None:
    """Who is cancelled while it waits for the disk has asked all the same: the order of what is written stays."""
    asked = journal.write((INSERT, ("a", 1)))
    asked.cancel()
    await journal.write(("UPDATE fact SET value = 2 WHERE name = 'a'", ()))
    assert journal.read("SELECT value FROM fact") == [(2,)]
    assert asked.cancelled()


WRITER = """
import asyncio, sys
from pathlib import Path
from node_agent.journal import Journal

async def main(journal):
    async def worker(name):
        for number in range(10**9):
            await journal.write(("INSERT INTO fact VALUES (?, ?)", (f"{name}-{number}-" + 2000 * "x", number)))
            sys.stdout.write(f"{name}-{number}\\n")
            sys.stdout.flush()
    await asyncio.gather(*map(worker, "abcd"))

journal = Journal(Path(sys.argv[1]))
journal.ensure(sys.argv[2])
asyncio.run(main(journal))
"""


def test_every_answered_write_is_in_the_files_as_they_are_at_any_moment(tmp_path: Path) -> None:
    """The files as they are when the writer is stopped, between log and checkpoint too, have all that was answered."""
    path = tmp_path / "journal.db"
    chance = random.Random(5)
    answered: set[str] = set()
    log_bytes = []
    with subprocess.Popen([sys.executable, "-c", WRITER, path, SCHEMA], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        os.set_blocking(writer.stdout.fileno(), False)
        try:
            for number in range(20):
                moment_s = time.monotonic() + chance.uniform(0.005, 0.1)
                while time.monotonic() < moment_s or not answered:
                    answered |= said(writer.stdout)
                writer.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
                answered |= said(writer.stdout)
                folder = tmp_path / f"copy-{number}"
                folder.mkdir()
                for file in tmp_path.glob("journal.db*"):
                    shutil.copyfile(file, folder / file.name)
                writer.send_signal(signal.SIGCONT)
                log_bytes.append((folder / "journal.db-wal").stat().st_size)
                copied = Journal(folder / "journal.db")
                assert not copied.damage
                kept = {"-".join(name.split("-")[:2]) for name in names(copied)}
                copied.close()
                shutil.rmtree(folder)
                assert answered <= kept
        finally:
            writer.kill()
    assert len(answered) > 1000
    assert min(log_bytes) > 0
    assert path.stat().st_size > 2_000_000  # the log has been brought into the file, at least once


def said(pipe: IO[bytes]) -> set[str]:
    """The whole lines that are there."""
    lines = pipe.read() or b""
    while not lines.endswith(b"\n") and lines:
        lines += pipe.read() or b""
    return set(lines.decode().split())


async def test_a_full_file_is_one_clear_refusal_and_the_journal_lives_on(journal: Journal) -> None:
    """When there is no more room a write is Exhausted, whole; when there is room again, writes are done again."""
    (pages,) = journal.read("PRAGMA page_count")[0]
    writer = journal._writer
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Exhausted, match="journal cannot be written: database or disk is full"):
        await journal.write((INSERT, ("small", 1)), (INSERT, ("x" * 100_000, 1)))
    assert names(journal) == []
    writer.execute("PRAGMA max_page_count = 1000000")
    await journal.write((INSERT, ("x" * 100_000, 1)))
    assert len(names(journal)) == 1


async def test_an_agent_that_starts_on_a_full_disk_waits_for_room(journal: Journal) -> None:
    """Tables that cannot be made yet are made when there is room."""
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")
    making = asyncio.create_task(asyncio.to_thread(journal.ensure, "CREATE TABLE IF NOT EXISTS more (name TEXT)"))
    with pytest.raises(Exhausted):
        await journal.write(("CREATE TABLE other (name TEXT)", ()))
    assert not making.done()
    journal._writer.execute("PRAGMA max_page_count = 1000000")
    await asyncio.wait_for(making, 10)
    await journal.write(("INSERT INTO more VALUES ('x')", ()))


@pytest.mark.parametrize("damage", ["no database", "a page"])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: str) -> None:
    """A file that cannot be read is kept as .bad, and a new journal begun: an agent that cannot start helps nobody."""
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.ensure(SCHEMA)
    for number in range(200):
        await journal.write((INSERT, (f"{number}" * 50, number)))
    journal.close()
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content = bytearray(b"{}" * 4096)
    else:
        content[4096:8192] = bytes(4096)
    path.write_bytes(content)

    journal = Journal(path)
    journal.ensure(SCHEMA)
    assert journal.damage
    assert names(journal) == []
    assert (tmp_path / "journal.db.bad").read_bytes() == content
    await journal.write((INSERT, ("new", 1)))
    journal.close()


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    """A journal that a newer agent has written is not touched: the error says which versions."""
    path = tmp_path / "journal.db"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match=f"is of version {VERSION + 1}, from a newer agent; this one knows up to"):
        Journal(path)
    assert path.read_bytes() == before
