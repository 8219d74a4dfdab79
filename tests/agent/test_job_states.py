"""The life of jobs at one agent: turns, suspension, deadlines."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import grpc

from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_EXPIRED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_SUSPENDED,
)
from tests.agent.fleet import Fleet, processes_with, until
from tests.agent.one_node import WAIT_FOR, S, node, refused, shell, states, ticks

# --- turns ---


async def test_the_highest_priority_runs_first_among_equals_the_oldest(fleet: Fleet) -> None:
    """Of jobs that wait for the only slot, the one with the highest priority goes first, among equals the oldest."""
    sat = await node(fleet)
    flag = fleet.folder / "go"
    await sat.submit(shell("first", WAIT_FOR.format(flag)))
    for job_id, priority in (("low", -1), ("a", 0), ("high", 5), ("b", 0), ("highest", 2**31 - 1)):
        await sat.submit(shell(job_id, "true", priority=priority))
    flag.touch()
    ended = {job_id: await sat.reaches(job_id, JOB_STATE_SUCCEEDED) for job_id in ("low", "a", "high", "b", "highest")}
    assert sorted(ended, key=lambda job_id: ended[job_id].history[1].at_unix_ns) == ["highest", "high", "a", "b", "low"]


# --- suspension ---


async def test_a_suspended_job_stands_still_and_its_slot_goes_to_others(fleet: Fleet) -> None:
    """After Suspend no process of the job runs, others do; resumed, it waits for a slot, and goes on where it was."""
    sat = await node(fleet)
    count, flag = fleet.folder / "count", fleet.folder / "go"
    await sat.submit(shell("s", f"while [ ! -e {flag} ]; do printf x >> {count}; sleep 0.01; done; echo whole"))
    await until(lambda: ticks(count) > 3, "it counts")

    suspended = await sat.suspend("s")

    assert (suspended.state, suspended.reason) == (JOB_STATE_SUSPENDED, "suspended during attempt 1")
    reached = ticks(count)
    other = await sat.plane.run(shell("other", "echo meanwhile"))
    assert (other.state, other.stdout) == (JOB_STATE_SUCCEEDED, b"meanwhile\n")
    assert ticks(count) == reached
    again = await sat.suspend("s")
    assert states(again) == states(suspended)

    blocks = fleet.folder / "unblock"
    await sat.submit(shell("blocks", WAIT_FOR.format(blocks), priority=1))
    await sat.reaches("blocks", JOB_STATE_RUNNING)
    await sat.resume("s")
    waiting = await sat.reaches("s", JOB_STATE_QUEUED)
    assert waiting.reason == "waiting for its turn to go on"
    assert ticks(count) == reached
    assert (await sat.suspend("s")).reason == "suspended during attempt 1"
    await sat.resume("s")
    blocks.touch()
    await sat.reaches("s", JOB_STATE_RUNNING)
    await until(lambda: ticks(count) > reached, "it goes on")
    flag.touch()
    job = await sat.reaches("s", JOB_STATE_SUCCEEDED)
    assert (job.attempt, job.stdout) == (1, b"whole\n")
    assert states(job) == [
        JOB_STATE_QUEUED,
        JOB_STATE_RUNNING,
        JOB_STATE_SUSPENDED,
        JOB_STATE_QUEUED,
        JOB_STATE_SUSPENDED,
        JOB_STATE_QUEUED,
        JOB_STATE_RUNNING,
        JOB_STATE_SUCCEEDED,
    ]


async def test_a_job_is_suspended_before_its_turn_and_across_kill_9(fleet: Fleet) -> None:
    """A queued job whose turn is withheld stays so though the agent is killed, and runs once it is resumed."""
    sat = await node(fleet)
    flag = fleet.folder / "go"
    await sat.submit(shell("first", WAIT_FOR.format(flag)))
    await sat.submit(shell("held", "echo ran"))
    held = await sat.suspend("held")
    assert (held.state, held.reason) == (JOB_STATE_SUSPENDED, "suspended before its turn")
    await sat.restart()
    flag.touch()
    await sat.reaches("first", JOB_STATE_SUCCEEDED)
    assert (await sat.plane.run(shell("later", "true"))).state == JOB_STATE_SUCCEEDED
    assert (await sat.job("held")).state == JOB_STATE_SUSPENDED
    await sat.resume("held")
    job = await sat.reaches("held", JOB_STATE_SUCCEEDED)
    assert (job.attempt, job.stdout) == (1, b"ran\n")


async def test_a_job_suspended_with_its_process_is_another_attempt_after_kill_9(fleet: Fleet) -> None:
    """Its process dies with the agent, so another attempt is due; but it stays suspended until it is resumed."""
    sat = await node(fleet)
    mark = f"sleep\0003{os.getpid()}".encode()
    await sat.submit(shell("s", f"sleep 3{os.getpid()}"))
    await until(lambda: bool(processes_with(mark)), "it sleeps")  # only then it is sure to end with its parent
    await sat.suspend("s")
    await sat.restart()
    held = await sat.seen("s", lambda job: job.state == JOB_STATE_SUSPENDED and job.attempt == 2)
    assert held.reason == "suspended before its turn"
    assert not processes_with(mark)
    await sat.resume("s")
    assert (await sat.reaches("s", JOB_STATE_RUNNING)).attempt == 2


async def test_a_suspended_job_can_be_cancelled_and_a_final_one_not_suspended(fleet: Fleet) -> None:
    """Cancel kills what is stopped; what is final is FAILED_PRECONDITION, what is unknown NOT_FOUND."""
    sat = await node(fleet)
    mark = f"3{os.getpid()}.5"
    await sat.submit(shell("s", f"sleep {mark}; true"))
    await until(lambda: bool(processes_with(f"sleep\0{mark}".encode())), "it sleeps")
    await sat.suspend("s")
    assert (await sat.cancel("s")).state == JOB_STATE_CANCELLED
    assert not processes_with(mark.encode())
    for call in (sat.suspend("s"), sat.resume("s")):
        error = await refused(call)
        assert (error.code(), error.details()) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "job s is CANCELLED: there is nothing to suspend or resume",
        )
    for call in (sat.suspend("none"), sat.resume("none")):
        assert (await refused(call)).code() == grpc.StatusCode.NOT_FOUND
    assert (await sat.plane.run(shell("next", "true"))).state == JOB_STATE_SUCCEEDED


async def test_wishes_in_any_order_lose_neither_job_nor_slot(fleet: Fleet) -> None:
    """Suspended and resumed in a storm by several at once, every job ends in the end, and the slots are all there."""
    sat = await node(fleet, "--job-slots=2")
    names = [f"j{number}" for number in range(6)]
    for name in names:
        await sat.submit(shell(name, "for n in 1 2 3 4 5 6 7 8; do sleep 0.02; done; echo whole"))

    async def storm(name: str) -> None:
        for number in range(12):
            call = sat.suspend(name) if number % 2 == 0 else sat.resume(name)
            with suppress(grpc.aio.AioRpcError):  # it is final
                await call

    await asyncio.gather(*(storm(name) for name in names for _ in range(2)))
    for name in names:
        with suppress(grpc.aio.AioRpcError):  # it is final
            await sat.resume(name)
        job = await sat.reaches(name, JOB_STATE_SUCCEEDED)
        assert (job.attempt, job.stdout) == (1, b"whole\n")
    flag = fleet.folder / "go"
    for name in ("p", "q"):
        await sat.submit(shell(name, WAIT_FOR.format(flag)))
    for name in ("p", "q"):
        await sat.reaches(name, JOB_STATE_RUNNING)
    flag.touch()


# --- deadlines ---


async def test_jobs_expire_at_their_deadline_in_the_time_of_the_sky(fleet: Fleet) -> None:
    """Running, queued and suspended jobs are EXPIRED when the sky's clock comes to their deadline; none goes on."""
    sat = await node(fleet)
    mark = f"3{os.getpid()}.25"
    await fleet.tell_time("sat", 0, scale=0.0)
    await sat.submit(shell("runs", f"sleep {mark}; true", deadline_emu_ns=100 * S))
    await sat.submit(shell("waits", "true", deadline_emu_ns=100 * S))
    await sat.submit(shell("held", "true", deadline_emu_ns=100 * S))
    await sat.submit(shell("later", "echo in time", deadline_emu_ns=10_000 * S))
    await sat.suspend("held")
    await until(lambda: bool(processes_with(f"sleep\0{mark}".encode())), "it sleeps")
    assert (await sat.job("waits")).state == JOB_STATE_QUEUED

    await fleet.tell_time("sat", 99 * S, scale=10.0)

    for name in ("runs", "waits", "held"):
        job = await sat.reaches(name, JOB_STATE_EXPIRED)
        assert job.reason == "its deadline has passed"
    assert not processes_with(mark.encode())
    assert (await sat.reaches("later", JOB_STATE_SUCCEEDED)).stdout == b"in time\n"

    await fleet.tell_time("sat", 0, scale=0.0)
    assert (await sat.job("waits")).state == JOB_STATE_EXPIRED


async def test_a_deadline_that_has_passed_is_expired_at_once_and_again(fleet: Fleet) -> None:
    """A job handed in past its deadline is taken charge of, and EXPIRED; handed in again, it is the same."""
    sat = await node(fleet)
    await fleet.tell_time("sat", 60 * S)
    spec = shell("p", "true", deadline_emu_ns=60 * S)
    job = await sat.submit(spec)
    assert (job.state, job.reason) == (JOB_STATE_EXPIRED, "its deadline had passed when it was handed in")
    await fleet.tell_time("sat", 0)
    assert await sat.submit(spec) == job


async def test_deadlines_hold_across_kill_9(fleet: Fleet) -> None:
    """An agent that was killed knows deadlines, once it is told the time again."""
    sat = await node(fleet)
    await sat.submit(shell("r", f"sleep 3{os.getpid()}", deadline_emu_ns=5 * S))
    await sat.reaches("r", JOB_STATE_RUNNING)
    await sat.restart()
    await fleet.tell_time("sat", 6 * S, scale=0.0)
    await sat.reaches("r", JOB_STATE_EXPIRED)
