"""What an agent takes charge of, and what it refuses: how much, where, and without a program."""

from __future__ import annotations

import asyncio
import os
import resource

import grpc
import pytest

from protos.skyrack.v1 import jobs_pb2, objects_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JobInput,
    JobSpec,
)
from tests.agent.fleet import Fleet
from tests.agent.one_node import WAIT_FOR, node, refused, shell, states


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
