"""How often a job's program is started, what it goes on from, and what it has printed meanwhile."""

from __future__ import annotations

import asyncio

import grpc

from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
)
from tests.agent.fleet import Fleet, object_name, until
from tests.agent.one_node import WAIT_FOR, Node, S, node, refused, shell, ticks


async def test_a_failed_program_is_started_as_often_as_is_allowed(fleet: Fleet) -> None:
    """Each attempt's failure is told with its number, the next comes later, and the last one's end is the job's."""
    sat = await node(fleet)
    job = await sat.plane.run(shell("f", "echo tried; exit 3", max_attempts=3))
    assert (job.state, job.attempt, job.exit_status) == (JOB_STATE_FAILED, 3, 3)
    assert job.reason == "attempt 3 of 3: exit status 3"
    assert job.stdout == b"tried\n"
    assert [step.reason for step in job.history] == [
        "waiting for its turn",
        "attempt 1 of 3",
        "attempt 1 of 3 failed: exit status 3; waiting for its turn again",
        "attempt 2 of 3",
        "attempt 2 of 3 failed: exit status 3; waiting for its turn again",
        "attempt 3 of 3",
        "attempt 3 of 3: exit status 3",
    ]
    waits_s = [(job.history[n + 1].at_unix_ns - job.history[n].at_unix_ns) / S for n in (2, 4)]
    assert 0.25 <= waits_s[0] < 5
    assert 0.5 <= waits_s[1] < 5


async def test_an_attempt_that_succeeds_is_the_last(fleet: Fleet) -> None:
    """What failed once and then succeeds is SUCCEEDED, with the end of the second attempt alone."""
    sat = await node(fleet)
    flag = fleet.folder / "been"
    script = f"if [ -e {flag} ]; then echo right; else touch {flag}; echo wrong; exit 9; fi"
    job = await sat.plane.run(shell("s", script, max_attempts=5))
    assert (job.state, job.attempt, job.exit_status) == (JOB_STATE_SUCCEEDED, 2, 0)
    assert (job.stdout, job.reason) == (b"right\n", "attempt 2 of 5: exit status 0")


async def test_unless_told_a_failure_is_final(fleet: Fleet) -> None:
    """Without max_attempts, and with one, a program that fails is started once."""
    sat = await node(fleet)
    for job_id, most in (("unless-told", 0), ("once", 1)):
        job = await sat.plane.run(shell(job_id, "exit 3", max_attempts=most))
        assert (job.state, job.attempt, job.reason) == (JOB_STATE_FAILED, 1, "exit status 3")


async def test_a_program_that_may_start_once_is_not_started_again_after_kill_9(fleet: Fleet) -> None:
    """With max_attempts = 1 the agent's end under it is the job's: FAILED, and the program was started once."""
    sat = await node(fleet)
    count = fleet.folder / "count"
    await sat.submit(shell("o", f"printf x >> {count}; sleep 600", max_attempts=1))
    await until(lambda: ticks(count) == 1, "it has started")
    await sat.restart()
    job = await sat.reaches("o", JOB_STATE_FAILED)
    assert job.reason == "the agent ended during attempt 1, and no other is allowed"
    assert ticks(count) == 1


async def test_each_end_of_the_agent_under_a_job_is_an_attempt(fleet: Fleet) -> None:
    """A program whose agent is killed again and again is started once an attempt, and each attempt is told."""
    sat = await node(fleet)
    count = fleet.folder / "count"
    await sat.submit(shell("d", f"printf x >> {count}; sleep 600"))
    for number in range(1, 4):
        await until(lambda number=number: ticks(count) == number, f"start {number}")  # type: ignore[misc]
        await sat.restart()
    job = await sat.seen("d", lambda job: job.attempt == 4)
    reasons = [step.reason for step in job.history]
    for number in range(1, 4):
        assert reasons.count(f"the agent ended during attempt {number}; waiting for its turn again") == 1


# --- logs and checkpoints ---


async def read_log(sat: Node, job_id: str, offset_bytes: int = 0, *, follow: bool = False) -> bytes:
    """What ReadLog answers, put together."""
    request = jobs_pb2.ReadLogRequest(id=job_id, offset_bytes=offset_bytes, follow=follow)
    printed = b""
    async for chunk in sat.plane.jobs.ReadLog(request, timeout=60):
        assert chunk.offset_bytes == offset_bytes + len(printed)
        printed += chunk.data
    return printed


async def test_what_a_job_prints_is_read_from_an_offset_and_followed(fleet: Fleet) -> None:
    """All of it is kept; a follower hears what is printed until the job ends; a wrong offset is OUT_OF_RANGE."""
    sat = await node(fleet)
    flag = fleet.folder / "go"
    await sat.submit(shell("p", f"seq 20000; {WAIT_FOR.format(flag)}; echo end"))
    expected = "".join(f"{number}\n" for number in range(1, 20001)).encode()
    size_bytes = len(expected)
    log = fleet["sat"].store / "logs" / "p.stdout"
    await until(lambda: ticks(log) == size_bytes, "all is printed")
    assert await read_log(sat, "p") == expected
    following = asyncio.create_task(read_log(sat, "p", 10, follow=True))
    flag.touch()
    assert await asyncio.wait_for(following, 20) == (expected + b"end\n")[10:]
    await sat.reaches("p", JOB_STATE_SUCCEEDED)
    assert await read_log(sat, "p", size_bytes) == b"end\n"
    assert (await refused(read_log(sat, "p", size_bytes + 100))).code() == grpc.StatusCode.OUT_OF_RANGE
    assert (await refused(read_log(sat, "none"))).code() == grpc.StatusCode.NOT_FOUND


async def test_a_checkpoint_is_gone_on_from_after_kill_9(fleet: Fleet) -> None:
    """What a job leaves in $SKYRACK_CHECKPOINT is told as an object, and is there for the next attempt."""
    sat = await node(fleet)
    script = (
        'if [ -e "$SKYRACK_CHECKPOINT" ]; then cat "$SKYRACK_CHECKPOINT"; '
        'else echo half > "$SKYRACK_CHECKPOINT.new"; mv "$SKYRACK_CHECKPOINT.new" "$SKYRACK_CHECKPOINT"; sleep 600; fi'
    )
    await sat.submit(shell("c", script))
    job = await sat.seen("c", lambda job: bool(job.checkpoint_object))
    assert job.checkpoint_object == object_name(b"half\n")
    await sat.restart()
    job = await sat.reaches("c", JOB_STATE_SUCCEEDED)
    assert (job.attempt, job.stdout, job.checkpoint_object) == (2, b"half\n", object_name(b"half\n"))
