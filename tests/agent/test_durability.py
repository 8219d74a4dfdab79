"""kill -9 of the agent at any moment, many times: what it has acknowledged is there, once, and whole."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from controller.agents import AgentClient
from controller.errors import SkyrackError
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    Job,
    JobSpec,
)
from tests.agent.fleet import Fleet, object_name, processes_with

KILLS = 12
SUBMITTERS = 3
OUTPUT_BYTES = 40_000


class Load:
    """Jobs handed in without a pause by several at once, and what was answered."""

    def __init__(self, fleet: Fleet, chance: random.Random, mark: str) -> None:
        self._fleet, self._chance, self._mark = fleet, chance, mark
        self.acknowledged: dict[str, JobSpec] = {}
        self.to_be_cancelled: set[str] = set()
        self.cancelled: dict[str, Job] = {}  # as Cancel answered
        self.starts = fleet.folder / "starts"
        self.starts.mkdir()
        self.is_over = False

    def spec(self, job_id: str) -> JobSpec:
        """A job that tells each of its starts, and leaves an output that is known beforehand."""
        pause_s = self._chance.choice(["0.0", "0.0", "0.05", "0.2"]) + self._mark
        script = (
            f"printf x >> {self.starts}/{job_id}; cd $SKYRACK_OUTPUT_DIR; "
            f"head -c {OUTPUT_BYTES} /dev/zero | tr '\\0' z > a; sleep {pause_s}; echo {job_id} > b"
        )
        command = JobSpec.Command(argv=["sh", "-c", script])
        most = self._chance.choice([0, 0, 1, 4])
        return JobSpec(id=job_id, command=command, max_attempts=most, priority=self._chance.randrange(3))

    async def submit(self, submitter: int) -> None:
        """Hand in one job after the other, each again until it is acknowledged; cancel some."""
        number = 0
        while not self.is_over:
            number += 1
            spec = self.spec(f"s{submitter}-{number}")
            while True:
                with suppress(SkyrackError, grpc.aio.AioRpcError):
                    async with AgentClient(self._fleet["gw"].control_socket) as client:
                        await client.submit(spec)
                        self.acknowledged[spec.id] = spec
                        if self._chance.random() < 0.1:
                            self.to_be_cancelled.add(spec.id)
                            self.cancelled[spec.id] = await client.cancel(spec.id)
                        break
                if self.is_over and spec.id not in self.acknowledged:
                    return
                await asyncio.sleep(0.01)
            await asyncio.sleep(self._chance.uniform(0, 0.1))


def starts_told(job: Job) -> int:
    """How many attempts its history tells to have run: all but a first one that was cut off as it began."""
    return sum(step.state == JOB_STATE_RUNNING for step in job.history)


async def check(load: Load, job: Job, client: AgentClient) -> None:
    """One acknowledged job, at the end of everything."""
    spec = load.acknowledged[job.spec.id]
    started = load.starts / spec.id
    starts = started.stat().st_size if started.exists() else 0
    told = f"{starts} starts; {[step.reason for step in job.history]}"
    assert job.spec == spec
    # A kill between the acceptance and the first start costs an attempt: it might have been made.
    assert starts <= job.attempt, told
    assert starts_told(job) in (job.attempt, job.attempt - 1) or job.state == JOB_STATE_CANCELLED, told
    assert starts <= (spec.max_attempts or 10), told
    if answered := load.cancelled.get(spec.id):
        assert (job.state, job.history) == (answered.state, answered.history), told
    if job.state == JOB_STATE_SUCCEEDED:
        assert [output.name for output in job.outputs] == ["a", "b"], told
        assert job.outputs[0].object == object_name(b"z" * OUTPUT_BYTES)
        assert job.outputs[1].object == object_name(f"{spec.id}\n".encode())
        for output in job.outputs:
            assert len(await client.get_bytes(output.object)) == output.size_bytes
    elif job.state == JOB_STATE_FAILED:
        assert "the agent ended during attempt" in job.reason, told
        assert spec.max_attempts in (1, 4), told
    else:
        assert (job.state, job.spec.id in load.to_be_cancelled) == (JOB_STATE_CANCELLED, True), told


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_the_moment_of_kill_9_acknowledged_jobs_end_once(fleet: Fleet, seed: int) -> None:
    """Under submits, cancels, running jobs and outputs the agent is killed again and again, at moments drawn.

    After each start all acknowledged jobs are there, once; at the end each is final, was started no more often than is
    told and allowed, and its outputs are whole; nothing of any job runs, or lies about.
    """
    chance = random.Random(seed)
    mark = f"{os.getpid():07d}"
    await fleet.launch("gw", options=("--job-slots=3",))
    load = Load(fleet, chance, mark)
    submitters = [asyncio.create_task(load.submit(number)) for number in range(SUBMITTERS)]
    for number in range(KILLS):
        await asyncio.sleep(chance.uniform(0.0, 0.7))
        if number % 3 == 2:
            fleet["gw"].signal(signal.SIGKILL)  # the agent alone: its first process starts it again
            await fleet["gw"].ready()
        else:
            await fleet["gw"].restart()
        known = set(load.acknowledged)
        async with AgentClient(fleet["gw"].control_socket) as client:
            listed = [job.spec.id for job in await client.jobs()]
        assert len(listed) == len(set(listed))
        assert known <= set(listed)
    load.is_over = True
    await asyncio.gather(*submitters)

    gw = await fleet.client("gw")
    ended = [await gw.wait_final(job_id, 120) for job_id in load.acknowledged]
    for job in ended:
        await check(load, job, gw)
    assert len(ended) > 30
    assert {job.state for job in ended} >= {JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED}
    assert max(job.attempt for job in ended) > 1
    assert (await gw.info()).open_jobs == 0
    assert not os.listdir(fleet["gw"].store / "scratch")
    assert not processes_with(mark.encode())


async def test_every_acknowledged_job_is_in_the_files_as_they_are_at_any_moment(fleet: Fleet, tmp_path: Path) -> None:
    """The journal's files as they are when the agent is stopped, between its log and a checkpoint too, have all of it.

    (The agent is stopped for the copy, so that the files are of one moment: as kill -9 would leave them.)
    """
    chance = random.Random(7)
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    await gw.submit(JobSpec(id="occupies", command=JobSpec.Command(argv=["sleep", f"3{os.getpid()}"])))
    acknowledged: set[str] = set()
    is_over = False

    async def submit(submitter: int) -> None:
        number = 0
        while not is_over:
            number += 1
            job_id = f"s{submitter}-{number}"
            command = JobSpec.Command(argv=["true"])
            await gw.submit(JobSpec(id=job_id, command=command, environment={"FILL": "x" * chance.randrange(8000)}))
            acknowledged.add(job_id)

    submitters = [asyncio.create_task(submit(number)) for number in range(8)]
    for number in range(15):
        await asyncio.sleep(chance.uniform(0.02, 0.25))
        before = set(acknowledged)
        fleet["gw"].signal(signal.SIGSTOP)
        folder = tmp_path / str(number)
        folder.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(fleet["gw"].store / f"journal.db{suffix}", folder / f"journal.db{suffix}")
        fleet["gw"].signal(signal.SIGCONT)
        db = sqlite3.connect(folder / "journal.db")
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = dict(db.execute("SELECT id, brief FROM job").fetchall())
        db.close()
        assert before <= set(rows)
        assert all(Job.FromString(brief).state in (JOB_STATE_QUEUED, JOB_STATE_RUNNING) for brief in rows.values())
    is_over = True
    await asyncio.gather(*submitters)
    assert len(acknowledged) > 300
