"""Jobs that go from hop to hop: into custody where no path leads to their node, and back."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

import grpc

from controller.agents import AgentClient
from protos.skyrack.v1 import node_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_TRANSIT,
    JOB_STATE_QUEUED,
    JOB_STATE_RETURNING,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_SUSPENDED,
    JOB_STATE_WAITING_CONTACT,
    JobInput,
    JobSpec,
    ReadLogRequest,
)
from tests.agent.fleet import Fleet, object_name, until
from tests.agent.test_courier import COUNT, seen, shell, states

S = 1_000_000_000
HOUR = JobSpec.Command(argv=["sleep", "3600"])
FAR_AHEAD_NS = 10_000 * S


async def tell(client: AgentClient, **via: tuple[str, float]) -> None:
    """Tell a node the sky: its clock is at 0 now, and what is bound for a node goes via another from a time on."""
    clock = node_pb2.NodeClock(emu_ns=0, at_mono_ns=time.monotonic_ns(), scale=1.0)
    forwards = [
        node_pb2.Forward(to_node=to, via_node=hop, not_before_emu_ns=round(at_s * S), until_emu_ns=FAR_AHEAD_NS)
        for to, (hop, at_s) in via.items()
    ]
    await client.set_sky(node_pb2.Sky(clock=clock, forwards=forwards))


async def split_fleet(fleet: Fleet) -> AgentClient:
    """A gateway that never reaches the satellite "far", and the satellite "near" that reaches both."""
    dark = await fleet.link(200, fleet.address(3), 1e9)
    dark.cut()
    await fleet.launch("gw", "near", "far", seen_from={"gw": {"far": dark.address}, "far": {"gw": fleet.address(250)}})
    return await fleet.client("gw")


async def test_a_job_goes_into_custody_where_no_path_leads_to_its_node(fleet: Fleet) -> None:
    """The satellite between takes job and input, hands them on, and its result is fetched from there."""
    gw = await split_fleet(fleet)
    await tell(gw, far=("near", 0.0))
    scene = await gw.put_bytes(os.urandom(1_000_000))
    script = await gw.put_bytes(COUNT)
    spec = JobSpec(id="hops", on_node="far", script_object=script.object, inputs=[JobInput(object=scene.object)])
    await gw.submit(spec)
    job = await gw.wait_final("hops", 30)
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"far 1000000\n")
    assert job.custodian == "near"
    assert states(job) == [
        JOB_STATE_WAITING_CONTACT,
        JOB_STATE_IN_TRANSIT,
        JOB_STATE_QUEUED,
        JOB_STATE_RUNNING,
        JOB_STATE_RETURNING,
        JOB_STATE_SUCCEEDED,
    ]
    (total,) = job.outputs
    assert (total.name, total.at_node) == ("total", "gw")
    assert await gw.get_bytes(total.object) == b"1000000"


async def test_custody_is_kept_over_a_restart_of_who_has_it(fleet: Fleet) -> None:
    """The job waits at the custodian for the next contact, survives its kill -9 there, and goes on from there."""
    gw = await split_fleet(fleet)
    far = fleet["far"]
    far.kill()
    await tell(gw, far=("near", 0.0))
    await gw.submit(shell("kept", "echo done", "far"))
    await seen(gw, "kept", lambda job: "in custody of near: nothing listens at far" in job.reason)
    await fleet["near"].restart()
    far.start()
    job = await gw.wait_final("kept", 60)
    assert (job.stdout, job.attempt) == (b"done\n", 1)


async def test_a_job_that_was_lost_in_custody_is_sent_again(fleet: Fleet) -> None:
    """Who had custody has lost its journal: the gateway hears so, has charge of the job again, and hands it on."""
    gw = await split_fleet(fleet)
    near, far = fleet["near"], fleet["far"]
    far.kill()
    await tell(gw, far=("near", 0.0))
    await gw.submit(shell("lost", "echo done", "far"))
    await seen(gw, "lost", lambda job: "in custody of near: nothing listens at far" in job.reason)
    near.kill()
    for path in near.store.glob("journal.db*"):
        path.unlink()
    near.start()
    await near.ready()
    far.start()
    job = await gw.wait_final("lost", 60)
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"done\n")


async def test_what_is_damaged_at_who_has_custody_comes_again_from_who_sent_it(fleet: Fleet) -> None:
    """The node beyond refuses what does not hash to its name; the one between finds its own copy damaged, has it
    repaired by the gateway, which keeps the job's input until the job has ended, and goes on."""
    gw = await split_fleet(fleet)
    far = fleet["far"]
    far.kill()
    await tell(gw, far=("near", 0.0))
    scene, script = await gw.put_bytes(os.urandom(1_000_000)), await gw.put_bytes(COUNT)
    spec = JobSpec(id="sick", on_node="far", script_object=script.object, inputs=[JobInput(object=scene.object)])
    await gw.submit(spec)
    await seen(gw, "sick", lambda job: "in custody of near: nothing listens at far" in job.reason)
    with (fleet["near"].store / "objects" / scene.object.removeprefix("sha256:")).open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    far.start()
    job = await gw.wait_final("sick", 60)
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"far 1000000\n")
    near = await fleet.client("near")
    kinds = {event.kind for event in await near.audit() if event.what == "scrub" and scene.object in event.of}
    assert kinds == {"damaged", "repaired"}


async def test_an_input_that_is_damaged_where_it_is_needed_fails_the_job(fleet: Fleet) -> None:
    """No program is given other bytes than its job names."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    scene, script = await gw.put_bytes(os.urandom(1_000_000)), await gw.put_bytes(COUNT)
    (fleet["gw"].store / "objects" / scene.object.removeprefix("sha256:")).write_bytes(os.urandom(1_000_000))
    await gw.submit(JobSpec(id="sick", script_object=script.object, inputs=[JobInput(object=scene.object)]))
    job = await gw.wait_final("sick", 30)
    assert (job.state, job.stdout) == (JOB_STATE_FAILED, b"")
    assert f"{scene.object} is damaged here" in job.reason


async def test_what_was_sent_ahead_for_a_job_that_never_came_is_let_go_of(fleet: Fleet) -> None:
    """Whole or in part, it is kept for two hours of the sky: its sender may come again. What is needed stays."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    peer = await fleet.data_plane("sat")
    await gw.submit(JobSpec(id="over", on_node="sat", command=JobSpec.Command(argv=["true"])))
    await gw.wait_final("over", 30)
    content, needed = os.urandom(100_000), await gw.put_bytes(b"needed")
    await gw.submit(JobSpec(id="open", on_node="sat", command=HOUR, inputs=[JobInput(object=needed.object)]))
    await seen(gw, "open", lambda job: job.state == JOB_STATE_RUNNING)
    await peer.put(object_name(content), content, for_job="never")
    part = os.urandom(100_000)
    with suppress(grpc.aio.AioRpcError):  # it ends too early
        await peer.put(object_name(part), part[:60_000], size_bytes=len(part), for_job="never")
    assert {info.object for info in await peer.listed()} >= {object_name(content), needed.object}
    assert (await peer.stat(object_name(part))).committed_bytes == 60_000
    result = os.urandom(100_000)
    await peer.put(object_name(result), result, for_job="over")
    await fleet.tell_time("sat", 0, scale=3000.0)
    folder = fleet["sat"].store / "objects"
    await until(lambda: [path.name for path in folder.iterdir() if path.is_file()] == [needed.object[7:]], "they went")
    assert (await gw.job("open")).state == JOB_STATE_RUNNING


async def test_logs_and_wishes_go_through_custody(fleet: Fleet) -> None:
    """What the job prints is read at the gateway while it runs; suspended there, it stands still in orbit."""
    gw = await split_fleet(fleet)
    await tell(gw, far=("near", 0.0))
    await gw.submit(shell("count", "n=0; while true; do n=$((n+1)); echo $n; sleep 0.05; done", "far"))
    printed: list[bytes] = []
    async with asyncio.timeout(30):
        async for chunk in gw.read_log(ReadLogRequest(id="count", follow=True)):
            printed.append(chunk.data)
            if b"20\n" in b"".join(printed):
                break
    assert b"".join(printed).startswith(b"1\n2\n3\n")
    await gw.suspend("count")
    await seen(gw, "count", lambda job: job.state == JOB_STATE_SUSPENDED)
    await gw.resume("count")
    await seen(gw, "count", lambda job: job.state == JOB_STATE_RUNNING)
    await gw.cancel("count")
    assert (await gw.wait_final("count", 30)).state == JOB_STATE_CANCELLED


async def test_no_attempt_is_spent_before_the_contact_that_is_foreseen(fleet: Fleet) -> None:
    """Until then nobody is called; the reason says when it will be."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    began_mono_s = time.monotonic()
    await tell(gw, sat=("sat", 3.0))
    await gw.submit(shell("later", "true"))
    waiting = await seen(gw, "later", lambda job: "foreseen" in job.reason)
    assert waiting.reason == "the next contact with sat is foreseen at t = 3.0 s"
    job = await gw.wait_final("later", 30)
    assert job.state == JOB_STATE_SUCCEEDED
    in_transit = next(step for step in job.history if step.state == JOB_STATE_IN_TRANSIT)
    waited_s = (in_transit.at_unix_ns - job.history[0].at_unix_ns) / S
    assert 2.0 < waited_s <= time.monotonic() - began_mono_s
