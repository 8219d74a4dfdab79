"""Acknowledged means journalled: what an agent does after kill -9, at several moments."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from controller.agents import AgentClient
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_TRANSIT,
    JOB_STATE_QUEUED,
    JOB_STATE_RETURNING,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    Job,
    JobInput,
    JobSpec,
)
from tests.agent.fleet import Fleet, processes_with, until

WAIT_FOR = "while [ ! -e {} ]; do sleep 0.05; done; echo attempted"
TERM_DEADLINE_S = 2.0


def shell(job_id: str, script: str, on_node: str = "") -> JobSpec:
    """A job that runs a line of shell."""
    return JobSpec(id=job_id, on_node=on_node, command=JobSpec.Command(argv=["sh", "-c", script]))


async def reaches(client: AgentClient, job_id: str, state: jobs_pb2.JobState.ValueType) -> Job:
    """The job once it is in this state."""
    async with asyncio.timeout(30):
        async for job in client.watch(job_id):
            if job.state == state:
                return job
    raise AssertionError(f"{job_id} never came to {jobs_pb2.JobState.Name(state)}")


async def test_killed_agent_runs_its_job_again_and_keeps_the_others(fleet: Fleet) -> None:
    """After kill -9: no process of the job lives, it is attempt 2; queued stays queued, final stays, revisions grow."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    flag = fleet.folder / "go-on"
    mark = f"3{os.getpid()}.75"
    await gw.submit(shell("done", "echo once"))
    done = await gw.wait_final("done", 30)
    await gw.submit(shell("running", f"setsid sleep {mark} & " + WAIT_FOR.format(flag)))
    await gw.submit(shell("queued", "echo later"))
    before = await reaches(gw, "running", JOB_STATE_RUNNING)
    await until(lambda: bool(processes_with(f"sleep\0{mark}".encode())), "its daemon sleeps")

    await fleet["gw"].restart()
    again = await fleet.client("gw")

    first = await reaches(again, "running", JOB_STATE_RUNNING)
    assert first.attempt == 2
    assert first.revision > before.revision
    assert len(processes_with(f"sleep\0{mark}".encode())) <= 1  # the second attempt's, if it is that far
    assert (await again.job("done")).history == done.history
    flag.touch()
    job = await again.wait_final("running", 30)
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"attempted\n")
    assert [step.state for step in job.history] == [
        JOB_STATE_QUEUED,
        JOB_STATE_RUNNING,
        JOB_STATE_QUEUED,
        JOB_STATE_RUNNING,
        JOB_STATE_SUCCEEDED,
    ]
    later = await again.wait_final("queued", 30)
    assert (later.attempt, later.stdout) == (1, b"later\n")
    assert [step.state for step in later.history] == [JOB_STATE_QUEUED, JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED]
    assert processes_with(mark.encode()) == []


async def test_processes_of_a_killed_agent_do_not_outlive_it(fleet: Fleet) -> None:
    """The program itself dies with its agent at once, without anybody to clean up."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    mark = f"3{os.getpid()}.875"
    await gw.submit(JobSpec(id="s", command=JobSpec.Command(argv=["sleep", mark])))
    await until(lambda: bool(processes_with(f"sleep\0{mark}".encode())), "it sleeps")
    fleet["gw"].kill()
    await until(lambda: not processes_with(mark.encode()), "it is gone", 5)


async def test_acknowledged_jobs_survive_a_kill_right_after_the_answer(fleet: Fleet) -> None:
    """Twenty jobs, the agent killed upon the last acknowledgement: all are there and all are done."""
    await fleet.launch("gw", options=("--job-slots=4",))
    gw = await fleet.client("gw")
    await asyncio.gather(*(gw.submit(shell(f"j{number}", f"echo {number}")) for number in range(20)))
    await fleet["gw"].restart()
    again = await fleet.client("gw")
    for number in range(20):
        assert (await again.wait_final(f"j{number}", 30)).stdout == f"{number}\n".encode()


async def test_a_job_that_may_be_started_once_is_not_started_again(fleet: Fleet) -> None:
    """Killed upon the answer: where a slot was free, the disk knows that the program may have been started."""
    await fleet.launch("gw", options=("--job-slots=4",))
    gw = await fleet.client("gw")
    starts = fleet.folder / "starts"
    for number in range(4):
        spec = shell(f"once{number}", f"echo {number} >> {starts}; sleep 600")
        spec.max_attempts = 1
        await gw.submit(spec)
    fleet["gw"].kill()
    with closing(sqlite3.connect(fleet["gw"].store / "journal.db")) as journal:
        assert journal.execute("SELECT id FROM job WHERE NOT begun").fetchall() == []
    before = starts.read_text() if starts.exists() else ""
    fleet["gw"].start()
    await fleet["gw"].ready()
    again = await fleet.client("gw")
    for number in range(4):
        job = await again.wait_final(f"once{number}", 30)
        assert (job.state, job.attempt) == (JOB_STATE_FAILED, 1)
        assert job.reason == "the agent ended during attempt 1, and no other is allowed"
    assert (starts.read_text() if starts.exists() else "") == before


@pytest.mark.parametrize("moment", [JOB_STATE_IN_TRANSIT, JOB_STATE_RUNNING, JOB_STATE_RETURNING])
@pytest.mark.parametrize("victim", ["gw", "sat"])
async def test_forwarded_job_survives_kill_9(fleet: Fleet, moment: jobs_pb2.JobState.ValueType, victim: str) -> None:
    """Gateway or satellite killed in transit, while it runs, or while its result comes back: the job is done."""
    link = await fleet.link(200, fleet.address(2), 40e6)
    await fleet.launch("gw", "sat", via={"sat": link.address})
    gw = await fleet.client("gw")
    size_bytes = 3_000_000  # 0.6 s each way
    scene = await gw.put_bytes(os.urandom(size_bytes))
    flag = fleet.folder / "go-on"
    copy = f"; head -c {size_bytes} /dev/urandom > $SKYRACK_OUTPUT_DIR/out"
    spec = shell("k", WAIT_FOR.format(flag) + copy, "sat")
    spec.inputs.append(JobInput(object=scene.object))
    await gw.submit(spec)
    if moment == JOB_STATE_IN_TRANSIT:
        await until(lambda: link.carried_bytes > size_bytes / 2, "half of it is up")
    else:
        await reaches(gw, "k", JOB_STATE_RUNNING)
    if moment == JOB_STATE_RETURNING:
        flag.touch()
        await until(lambda: link.carried_bytes > 1.5 * size_bytes, "half of the result is down")

    await fleet[victim].restart()
    flag.touch()

    job = await (await fleet.client("gw")).wait_final("k", 60)
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"attempted\n")
    assert job.attempt == (2 if (victim, moment) == ("sat", JOB_STATE_RUNNING) else 1)
    assert [output.size_bytes for output in job.outputs] == [size_bytes]


async def test_a_job_that_waits_for_its_turn_elsewhere_is_not_run_here_after_kill_9(fleet: Fleet) -> None:
    """The gateway that is started again goes on following it, and does not take it for one of its own."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    mark = f"sleep\0003{os.getpid()}".encode()
    await gw.submit(JobSpec(id="long", on_node="sat", command=JobSpec.Command(argv=["sleep", f"3{os.getpid()}"])))
    await until(lambda: bool(processes_with(mark)), "it sleeps")
    where = JobSpec.Command(argv=["sh", "-c", "echo $SKYRACK_NODE"])
    await gw.submit(JobSpec(id="next", on_node="sat", command=where))
    async for job in gw.watch("next"):
        if job.state == JOB_STATE_QUEUED:
            break
    await fleet["gw"].restart()
    await gw.cancel("long")
    job = await gw.wait_final("next", 30)
    assert (job.state, job.stdout, job.attempt) == (JOB_STATE_SUCCEEDED, b"sat\n", 1)


async def test_node_that_lost_everything_is_sent_the_job_again(fleet: Fleet) -> None:
    """A satellite that comes back with an empty store gets its job once more, as another attempt."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    flag = fleet.folder / "go-on"
    await gw.submit(shell("lost", WAIT_FOR.format(flag), "sat"))
    await reaches(gw, "lost", JOB_STATE_RUNNING)
    fleet["sat"].kill()
    fleet["sat"].store.rename(fleet.folder / "old")
    fleet["sat"].start()
    flag.touch()
    job = await gw.wait_final("lost", 60)
    assert (job.state, job.attempt) == (JOB_STATE_SUCCEEDED, 2)
    assert "sat has lost the job; sending it again" in [step.reason for step in job.history]


async def test_cancel_is_remembered_across_kill_9(fleet: Fleet) -> None:
    """A cancel acknowledged during a blackout reaches the node though the gateway was killed meanwhile."""
    link = await fleet.link(200, fleet.address(2), 1e9)
    await fleet.launch("gw", "sat", via={"sat": link.address})
    gw = await fleet.client("gw")
    await gw.submit(shell("c", "sleep 600", "sat"))
    await reaches(gw, "c", JOB_STATE_RUNNING)
    link.cut()
    await gw.cancel("c")
    await fleet["gw"].restart()
    link.heal()
    job = await (await fleet.client("gw")).wait_final("c", 30)
    assert job.state == JOB_STATE_CANCELLED


async def test_damaged_journal_is_set_aside(fleet: Fleet) -> None:
    """A journal that cannot be read keeps the agent from nothing; it is kept for people to look at, and logged."""
    await fleet.launch("gw")
    fleet["gw"].kill()
    (fleet["gw"].store / "journal.db").write_bytes(b"{}" * 5000)
    (fleet["gw"].store / "journal.db-wal").unlink()  # what it holds would mend the file
    fleet["gw"].start()
    await fleet["gw"].ready()
    gw = await fleet.client("gw")
    assert await gw.jobs() == []
    assert (fleet["gw"].store / "journal.db.bad").read_bytes() == b"{}" * 5000
    assert "is damaged (file is not a database); it is set aside as .bad" in fleet["gw"].log.read_text()
    await gw.submit(shell("new", "echo on"))
    assert (await gw.wait_final("new", 30)).stdout == b"on\n"


async def test_sigterm_ends_the_agent_within_two_seconds(fleet: Fleet) -> None:
    """SIGTERM while a job runs: exit status 0 soon, no process left, and the job goes on after the next start."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    mark = f"3{os.getpid()}.0625"
    await gw.submit(shell("t", f"setsid sleep {mark} & sleep {mark}"))
    await until(lambda: len(processes_with(f"sleep\0{mark}".encode())) == 2, "both sleep")
    process = fleet["gw"].process
    assert process is not None
    started_mono_s = time.monotonic()
    process.terminate()
    await until(lambda: process.poll() is not None, "it has ended", 10)
    assert time.monotonic() - started_mono_s < TERM_DEADLINE_S
    assert process.returncode == 0
    assert processes_with(mark.encode()) == []
    await fleet["gw"].restart()
    assert (await (await fleet.client("gw")).job("t")).attempt == 2


async def test_one_store_has_one_agent(fleet: Fleet, tmp_path: Path) -> None:
    """A second agent over the same store ends with a message and leaves the first alone."""
    await fleet.launch("gw")
    argv = [sys.executable, "-m", "node_agent", "--name", "x", "--role", "gateway", "--address", fleet.address(9)]
    argv += ["--control-socket", str(tmp_path / "x.sock"), "--store", str(fleet["gw"].store)]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "in use by another agent" in done.stderr
    assert "Traceback" not in done.stderr
    await (await fleet.client("gw")).info()
