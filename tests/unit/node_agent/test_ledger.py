"""The ledger over a real journal: what is told is on disk, what cannot be written is told so and tried again."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node_agent.errors import Exhausted, FailedPrecondition, NotFound
from node_agent.jobs.ledger import Ledger
from node_agent.jobs.states import accepted
from node_agent.journal import Journal
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    Job,
    JobInput,
    JobSpec,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    opened = Journal(tmp_path / "journal.db")
    yield opened
    opened.close()


def job(job_id: str, **fields: object) -> Job:
    """A job that is accepted."""
    spec = JobSpec(id=job_id, command=JobSpec.Command(argv=["true"]), **fields)  # type: ignore[arg-type]
    return accepted(spec, "sat", time.time_ns(), None)


def fill(journal: Journal) -> None:
    """Let the journal take nothing more."""
    pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
    journal._writer.execute(f"PRAGMA max_page_count = {pages}")


def free(journal: Journal) -> None:
    """Let it take more again."""
    journal._writer.execute("PRAGMA max_page_count = 1000000")


async def told(ledger: Ledger, job_id: str, reason: str) -> Job:
    """The job once others are told this of it."""
    async with asyncio.timeout(10):
        async for seen in ledger.watch(job_id, 0):
            if reason in seen.reason:
                return seen
    raise AssertionError(f"{job_id} ended otherwise")


async def test_the_next_agent_knows_all_of_it(journal: Journal) -> None:
    """State, history, streams, flags and order of every job are read back; those that are final are not led on."""
    ledger = Ledger(journal)
    for name in ("b", "a", "c"):
        await ledger.accept(job(name))
    await ledger.advance("a", JOB_STATE_RUNNING, "attempt 1")
    await ledger.advance("a", JOB_STATE_SUCCEEDED, "exit status 0", result=Job(stdout=b"out", stderr=b"err"))
    await ledger.request_suspend("b", suspend=True)
    await ledger.hand_over("c", "sat")
    await ledger.request_cancel("c")
    revision = ledger.record("b").told.revision

    again = Ledger(journal)
    assert again.open_ids() == ["b", "c"]
    assert again.open_jobs == 2
    assert again.record("a").told == ledger.record("a").told
    assert (again.record("a").told.stdout, again.record("a").told.stderr) == (b"out", b"err")
    b, c = again.record("b"), again.record("c")
    assert (b.suspend_requested, b.suspend_untold, b.cancel_requested, b.job.custodian) == (True, True, False, "")
    assert (c.suspend_requested, c.cancel_requested, c.job.custodian) == (False, True, "sat")
    assert b.told.revision > revision
    assert [each.spec.id for each in again.briefs("")] == ["b", "a", "c"]
    assert [each.spec.id for each in again.briefs("b")] == ["a", "c"]
    assert all(not each.stdout for each in again.briefs(""))
    with pytest.raises(NotFound, match="no job 'd' here"):
        again.record("d")


async def test_what_nobody_uses_is_not_kept_in_memory(journal: Journal) -> None:
    """A job that is waited for by nobody is on disk alone, and read from there without a change."""
    ledger = Ledger(journal)
    await ledger.accept(job("a"))
    before = ledger.record("a").told
    gc.collect()
    assert not ledger._records
    assert ledger.record("a").told == before


async def test_a_job_that_cannot_be_written_is_not_accepted(journal: Journal) -> None:
    """On a full disk a new job is Exhausted and unknown; when there is room again, it is accepted."""
    ledger = Ledger(journal)
    fill(journal)
    with pytest.raises(Exhausted, match="the node's journal cannot be written: database or disk is full"):
        await ledger.accept(job("a", arguments=["x" * 100_000]))
    assert ledger.find("a") is None
    assert ledger.open_jobs == 0
    free(journal)
    await ledger.accept(job("a", arguments=["x" * 100_000]))
    assert ledger.open_jobs == 1


async def test_a_change_that_cannot_be_written_is_told_so_until_it_can(journal: Journal) -> None:
    """On a full disk watchers hear of no change, but why; when there is room, of the change, and revisions grow."""
    ledger = Ledger(journal)
    record = await ledger.accept(job("a"))
    fill(journal)
    written = ledger.advance("a", JOB_STATE_FAILED, "exit status 1", result=Job(stdout=b"x" * 60_000))
    seen = await told(ledger, "a", "journal cannot be written")
    assert seen.state == JOB_STATE_QUEUED
    assert ledger.find("a") is not None
    with pytest.raises(Exhausted):
        await ledger.accept(job("b", arguments=["x" * 100_000]))
    free(journal)
    await asyncio.wait_for(written, 10)
    assert (record.told.state, record.told.reason) == (JOB_STATE_FAILED, "exit status 1")
    assert record.told.revision > seen.revision
    assert Ledger(journal).record("a").told == record.told


async def test_a_wish_that_cannot_be_written_is_none(journal: Journal) -> None:
    """When nothing can be written, a cancel or a suspension is refused, and forgotten; a final job takes neither."""
    ledger = Ledger(journal)
    record = await ledger.accept(job("a"))
    journal._writer.execute("PRAGMA query_only = ON")
    with pytest.raises(Exhausted):
        await ledger.request_suspend("a", suspend=True)
    with pytest.raises(Exhausted):
        await ledger.request_cancel("a")
    assert not record.suspend_requested
    assert not record.suspend_untold
    assert not record.cancel_requested
    journal._writer.execute("PRAGMA query_only = OFF")
    await ledger.advance("a", JOB_STATE_CANCELLED, "on request")
    with pytest.raises(FailedPrecondition, match="a is CANCELLED"):
        await ledger.request_suspend("a", suspend=True)


async def test_nothing_is_told_before_it_is_on_disk(journal: Journal) -> None:
    """Neither a change nor progress within it is seen while it is being written; then both are."""
    ledger = Ledger(journal)
    record = await ledger.accept(job("a"))
    written = ledger.advance("a", JOB_STATE_RUNNING, "attempt 1")
    ledger.note("a", "half of it")
    assert record.job.state == JOB_STATE_RUNNING
    assert record.told.state == JOB_STATE_QUEUED
    await written
    assert (record.told.state, record.told.reason) == (JOB_STATE_RUNNING, "half of it")
    ledger.note("a", "most of it")
    assert record.told.reason == "most of it"


async def test_a_wish_is_heard_and_told_once(journal: Journal) -> None:
    """Who waits for wishes wakes at each; one is untold until it is said to be told, and only if it is the newest."""
    ledger = Ledger(journal)
    record = await ledger.accept(job("a"))
    wished = record.wished
    await ledger.request_suspend("a", suspend=True)
    assert wished.is_set()
    assert record.suspend_untold
    wished = record.wished
    await ledger.request_suspend("a", suspend=True)
    assert not wished.is_set()
    await ledger.request_suspend("a", suspend=False)
    await ledger.wish_told("a", suspend=True)
    assert record.suspend_untold
    await ledger.wish_told("a", suspend=False)
    assert not record.suspend_untold


async def test_objects_of_open_jobs_are_needed(journal: Journal) -> None:
    """An object that an open job speaks of is needed; of a final job it is not."""
    ledger = Ledger(journal)
    name = "sha256:" + "5a" * 32
    await ledger.accept(job("a", inputs=[JobInput(object=name)]))
    assert ledger.need_of(name) == "job a is open"
    assert not ledger.need_of("sha256:" + "5b" * 32)
    await ledger.advance("a", JOB_STATE_CANCELLED, "on request")
    assert not ledger.need_of(name)


async def test_deadlines_are_those_of_open_jobs(journal: Journal) -> None:
    """The first deadline, and who is past one, leave out jobs without any and those that are final."""
    ledger = Ledger(journal)
    assert ledger.first_deadline_emu_ns() is None
    for name, deadline_emu_ns in (("none", 0), ("late", 30), ("soon", 10), ("middle", 20)):
        await ledger.accept(job(name, deadline_emu_ns=deadline_emu_ns))
    assert ledger.first_deadline_emu_ns() == 10
    assert ledger.past_deadline(20, 10) == ["soon", "middle"]
    assert ledger.past_deadline(20, 1) == ["soon"]
    assert ledger.past_deadline(9, 10) == []
    await ledger.advance("soon", JOB_STATE_CANCELLED, "on request")
    assert ledger.first_deadline_emu_ns() == 20
    assert ledger.past_deadline(20, 10) == ["middle"]


async def test_many_commits_share_a_sync(journal: Journal) -> None:
    """Hundreds of jobs accepted at once take far fewer transactions than jobs."""
    ledger = Ledger(journal)
    commits = 0

    def seen(statement: str) -> None:
        nonlocal commits
        commits += statement.startswith("COMMIT")

    journal._writer.set_trace_callback(seen)
    await asyncio.gather(*(ledger.accept(job(f"j{number}")) for number in range(300)))
    assert commits <= 100
    assert len(ledger.open_ids()) == 300
