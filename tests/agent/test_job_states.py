"""The life of jobs at one agent: turns, suspension, deadlines, attempts, bounds."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from protos.skyrack.v1 import jobs_pb2, objects_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_EXPIRED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_SUSPENDED,
    CancelJobRequest,
    GetJobRequest,
    Job,
    JobInput,
    JobSpec,
    ResumeJobRequest,
    SuspendJobRequest,
)
from tests.agent.fleet import DataPlane, Fleet, object_name, processes_with, until

S = 1_000_000_000
WAIT_FOR = "while [ ! -e {} ]; do sleep 0.02; done"


def shell(job_id: str, script: str, **fields: object) -> JobSpec:
    """A job that runs a line of shell."""
    command = JobSpec.Command(argv=["sh", "-c", script])
    return JobSpec(id=job_id, command=command, **fields)  # type: ignore[arg-type]


def states(job: Job) -> list[int]:
    """Its history, as states alone."""
    return [step.state for step in job.history]


class Node:
    """One agent, and what is asked of it in these tests."""

    def __init__(self, fleet: Fleet, name: str, plane: DataPlane) -> None:
        self.fleet, self.name, self.plane = fleet, name, plane

    async def submit(self, spec: JobSpec) -> Job:
        """Hand a job in."""
        return await self.plane.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20)

    async def job(self, job_id: str) -> Job:
        """A job as it is."""
        return await self.plane.jobs.Get(GetJobRequest(id=job_id), timeout=20)

    async def suspend(self, job_id: str) -> Job:
        """Have it stopped."""
        return await self.plane.jobs.Suspend(SuspendJobRequest(id=job_id), timeout=20)

    async def resume(self, job_id: str) -> Job:
        """Let it go on."""
        return await self.plane.jobs.Resume(ResumeJobRequest(id=job_id), timeout=20)

    async def cancel(self, job_id: str) -> Job:
        """End it."""
        return await self.plane.jobs.Cancel(CancelJobRequest(id=job_id), timeout=20)

    async def seen(self, job_id: str, condition: Callable[[Job], bool]) -> Job:
        """The job once it is as told."""
        async with asyncio.timeout(30):
            async for job in self.plane.jobs.Watch(jobs_pb2.WatchJobRequest(id=job_id), timeout=60):
                if condition(job):
                    return job
        raise AssertionError(f"{job_id} ended otherwise")

    async def reaches(self, job_id: str, state: jobs_pb2.JobState.ValueType) -> Job:
        """The job once it is in a state."""
        return await self.seen(job_id, lambda job: job.state == state)

    async def restart(self) -> None:
        """kill -9, and start again."""
        await self.fleet[self.name].restart()
        self.plane = await self.fleet.data_plane(self.name)


async def node(fleet: Fleet, *options: str) -> Node:
    """One satellite."""
    await fleet.launch("sat", options=options)
    return Node(fleet, "sat", await fleet.data_plane("sat"))


async def refused(call: object) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call  # type: ignore[misc]
    return error.value


def ticks(path: Path) -> int:
    """How far a job that counts has come."""
    return path.stat().st_size if path.exists() else 0


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


# --- attempts ---


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


# --- bounds ---


async def test_an_agent_takes_so_many_open_jobs_and_no_more(fleet: Fleet) -> None:
    """At the bound a new job is RESOURCE_EXHAUSTED, one that is known is not; when one has ended, there is room."""
    sat = await node(fleet, "--max-open-jobs=3")
    specs = [shell(f"j{number}", f"sleep 3{os.getpid()}") for number in range(4)]
    for spec in specs[:3]:
        await sat.submit(spec)
    error = await refused(sat.submit(specs[3]))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "sat has 3 open jobs, as many as it takes: later, again",
    )
    assert (await sat.submit(specs[0])).state == JOB_STATE_RUNNING
    await sat.restart()
    assert (await refused(sat.submit(specs[3]))).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await sat.cancel("j1")
    assert (await sat.submit(specs[3])).state == JOB_STATE_QUEUED


async def test_a_full_disk_is_one_clear_refusal_and_the_agent_lives_on(fleet: Fleet) -> None:
    """When its journal can grow no more a submit is RESOURCE_EXHAUSTED; what ends then is told when there is room."""
    sat = await node(fleet)
    flag = fleet.folder / "go"
    await sat.submit(shell("before", WAIT_FOR.format(flag)))
    await sat.reaches("before", JOB_STATE_RUNNING)
    pid = fleet["sat"].pid()
    log = fleet["sat"].store / "journal.db-wal"
    unbounded = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, unbounded[1]))
    error = await refused(sat.submit(shell("none", "true")))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the node's journal cannot be written" in (error.details() or "")
    flag.touch()
    stuck = await sat.seen("before", lambda job: "journal cannot be written" in job.reason)
    assert stuck.state == JOB_STATE_RUNNING
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unbounded)
    assert (await sat.reaches("before", JOB_STATE_SUCCEEDED)).revision > stuck.revision
    assert (await sat.plane.run(shell("after", "true"))).state == JOB_STATE_SUCCEEDED
    assert (await refused(sat.job("none"))).code() == grpc.StatusCode.NOT_FOUND


async def test_thousands_of_jobs_are_listed_a_message_full_at_a_time(fleet: Fleet) -> None:
    """However many jobs there are, each answer fits a message, and together they are all, oldest first."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    await gw.submit(shell("j0", f"sleep 3{os.getpid()}"))
    for first in range(1, 2000, 100):
        specs = [shell(f"j{number}", "true", environment={"X": "x" * 3000}) for number in range(first, first + 100)]
        await asyncio.gather(*(gw.submit(spec) for spec in specs))
    plane = await fleet.data_plane("gw")
    page = await plane.jobs.List(jobs_pb2.ListJobsRequest(), timeout=20)
    assert page.more
    assert page.ByteSize() < 4 * 2**20
    listed = await gw.jobs()
    assert len(listed) == 2001
    assert {job.spec.id for job in listed} == {f"j{number}" for number in range(2001)}
    assert [job.history[0].at_unix_ns for job in listed] == sorted(job.history[0].at_unix_ns for job in listed)
    assert (await gw.info()).open_jobs == 2001


# --- where, and what without a program ---


async def test_a_job_is_not_processed_outside_its_jurisdictions(fleet: Fleet) -> None:
    """A node outside a job's jurisdictions refuses it; one inside runs it, and says where it lies."""
    await fleet.launch("cn", options=("--jurisdiction=CN",))
    spec = shell("j", "true", jurisdictions=["DE", "FR"])
    plane = await fleet.data_plane("cn")
    error = await refused(plane.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20))
    assert (error.code(), error.details()) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "job j may be processed in DE, FR alone, and cn lies in CN",
    )
    assert (await plane.run(shell("k", "true", jurisdictions=["FR", "CN"]))).state == JOB_STATE_SUCCEEDED
    assert (await (await fleet.client("cn")).info()).jurisdiction == "CN"


async def test_objects_are_kept_without_a_process(fleet: Fleet) -> None:
    """A job that keeps objects fetches those that lie elsewhere, and is SUCCEEDED when all are here."""
    await fleet.launch("sat", "far")
    sat, far = await fleet.data_plane("sat"), await fleet.data_plane("far")
    here, there = await sat.keep(b"here"), await far.keep(os.urandom(300_000))
    inputs = [JobInput(object=here), JobInput(object=there, at_node="far")]
    job = await sat.run(JobSpec(id="k", keep=objects_pb2.ObjectTerms(pinned=True), inputs=inputs))
    assert (job.state, job.reason, job.moved_bytes) == (JOB_STATE_SUCCEEDED, "2 objects are kept", 300_000)
    assert JOB_STATE_RUNNING not in states(job)
    assert await sat.committed_bytes(there) == 300_000


async def test_a_satellite_takes_charge_of_a_job_for_another(fleet: Fleet) -> None:
    """Any agent has a job done elsewhere, and an input at a third node goes straight to where it runs."""
    await fleet.launch("sat", "other", "far")
    sat, other, far = [await fleet.data_plane(name) for name in ("sat", "other", "far")]
    scene = await far.keep(os.urandom(200_000))
    inputs = [JobInput(object=scene, at_node="far")]
    job = await sat.run(shell("r", "wc -c < $SKYRACK_INPUTS; echo $SKYRACK_NODE", on_node="other", inputs=inputs))
    assert (job.state, job.stdout.split()) == (JOB_STATE_SUCCEEDED, [b"200000", b"other"])
    there = await other.jobs.Get(jobs_pb2.GetJobRequest(id="r"), timeout=20)
    assert there.moved_bytes == 200_000
    assert await sat.committed_bytes(scene) == 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (JobSpec(id="x", keep=objects_pb2.ObjectTerms()), "names none as its inputs"),
        (JobSpec(id="x", wasm_object="module.wasm"), "malformed"),
        (shell("x", "true", checkpoint_object="state"), "malformed"),
        (shell("x", "true", deadline_emu_ns=-1), "deadline_emu_ns = -1"),
        (shell("x", "true", max_attempts=-1), "max_attempts = -1"),
        (shell("x", "true", limits=jobs_pb2.JobLimits(disk_bytes=-1)), "disk_bytes = -1"),
        (shell("x", "true", limits=jobs_pb2.JobLimits(fuel=-1)), "fuel = -1"),
        (shell("x", "true", jurisdictions=["Germany"]), "no code of two letters"),
        (shell("x", "true", environment={"X": "x" * 300_000}), "its spec has 3000.. bytes; at most 262144 may be"),
    ],
)
async def test_what_a_spec_cannot_ask_for_is_refused(fleet: Fleet, spec: JobSpec, words: str) -> None:
    """Every wrong value is INVALID_ARGUMENT, with what is wrong."""
    sat = await node(fleet)
    with pytest.raises(grpc.aio.AioRpcError, match=words) as error:
        await sat.submit(spec)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


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
