"""Jobs that a gateway gets done at other nodes: bent pipe, in orbit, and through breaks."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from controller.agents import AgentClient
from controller.errors import InputError
from node_agent.objects.transfer import LARGE_CHUNK_BYTES
from node_agent.security.wire import DATA_PORT
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_IN_TRANSIT,
    JOB_STATE_QUEUED,
    JOB_STATE_RETURNING,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JOB_STATE_WAITING_CONTACT,
    Job,
    JobInput,
    JobSpec,
)
from tests.agent.fleet import Fleet, Link, object_name, processes_with, until
from tests.agent.test_scrub import flip_a_bit, stored

NOTICED_S = 4.0  # silence is to be noticed within 3 s; one for a busy machine
RESUMED_S = 3.0  # and work to go on within 2 s of the contact's return
OVERHEAD_RATIO = 0.03  # of HTTP/2, and of calls that ask and answer

COUNT = b"""
import os, pathlib
total = sum(pathlib.Path(name).stat().st_size for name in os.environ["SKYRACK_INPUTS"].split(os.pathsep))
(pathlib.Path(os.environ["SKYRACK_OUTPUT_DIR"]) / "total").write_text(str(total))
print(os.environ["SKYRACK_NODE"], total)
"""


def states(job: Job) -> list[int]:
    """Its history, as states alone."""
    return [step.state for step in job.history]


def shell(job_id: str, script: str, on_node: str = "sat") -> JobSpec:
    """A job that runs a line of shell."""
    return JobSpec(id=job_id, on_node=on_node, command=JobSpec.Command(argv=["sh", "-c", script]))


def emit(job_id: str, size_bytes: int) -> JobSpec:
    """A job at the satellite that leaves an output of random bytes."""
    code = f"import os; open(os.environ['SKYRACK_OUTPUT_DIR'] + '/scene', 'wb').write(os.urandom({size_bytes}))"
    return JobSpec(id=job_id, on_node="sat", command=JobSpec.Command(argv=[sys.executable, "-c", code]))


async def seen(client: AgentClient, job_id: str, is_so: Callable[[Job], bool]) -> Job:
    """The job once it is so."""
    job = Job()
    async with asyncio.timeout(30):
        async for job in client.watch(job_id):
            if is_so(job):
                return job
    raise AssertionError(f"never so; in the end {job}")


async def slow_fleet(fleet: Fleet, rate_bps: float) -> tuple[AgentClient, Link]:
    """A gateway, and a satellite that it reaches over a link of a certain rate."""
    link = await fleet.link(200, fleet.address(2), rate_bps)
    await fleet.launch("gw", "sat", via={"sat": link.address})
    return await fleet.client("gw"), link


async def test_in_orbit_runs_there_and_only_the_finding_comes_down(fleet: Fleet) -> None:
    """Script and inputs go from the gateway to the satellite, the output comes back; every state is told."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    scene = await gw.put_bytes(os.urandom(1_000_000))
    script = await gw.put_bytes(COUNT)
    spec = JobSpec(id="o", on_node="sat", script_object=script.object, inputs=[JobInput(object=scene.object)])
    await gw.submit(spec)
    job = await gw.wait_final("o", 30)
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"sat 1000000\n")
    assert states(job) == [
        JOB_STATE_WAITING_CONTACT,
        JOB_STATE_IN_TRANSIT,
        JOB_STATE_QUEUED,
        JOB_STATE_RUNNING,
        JOB_STATE_RETURNING,
        JOB_STATE_SUCCEEDED,
    ]
    times = [step.at_unix_ns for step in job.history]
    assert times == sorted(times)
    (total,) = job.outputs
    assert (total.name, total.at_node) == ("total", "gw")
    assert b"".join([chunk async for chunk in gw.get(total.object)]) == b"1000000"
    assert job.moved_bytes == 1_000_000 + len(COUNT) + len("1000000")


async def test_bent_pipe_fetches_the_input_and_runs_at_the_gateway(fleet: Fleet) -> None:
    """A scene that a job left on the satellite is fetched by the gateway, and searched there."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    take = emit("take", 2_000_000)
    take.keep_outputs_on_node = True
    await gw.submit(take)
    (scene,) = (await gw.wait_final("take", 30)).outputs
    assert (scene.at_node, scene.size_bytes) == ("sat", 2_000_000)
    assert (await gw.stat(scene.object)).committed_bytes == 0

    script = await gw.put_bytes(COUNT)
    inputs = [JobInput(object=scene.object, at_node="sat")]
    await gw.submit(JobSpec(id="down", script_object=script.object, inputs=inputs))
    down = await gw.wait_final("down", 30)
    assert (down.stdout, down.moved_bytes) == (b"gw 2000000\n", 2_000_000)
    assert states(down)[:3] == [JOB_STATE_WAITING_CONTACT, JOB_STATE_IN_TRANSIT, JOB_STATE_QUEUED]

    await gw.submit(JobSpec(id="up", on_node="sat", script_object=script.object, inputs=inputs))
    up = await gw.wait_final("up", 30)
    assert (up.stdout, up.moved_bytes) == (b"sat 2000000\n", len(COUNT))  # the finding is here already
    assert up.outputs[0].object == down.outputs[0].object


async def test_input_at_a_third_node_is_fetched_by_the_node_that_needs_it(fleet: Fleet) -> None:
    """An input that lies at one satellite goes to the satellite that runs the job, and not through the gateway."""
    await fleet.launch("gw", "sat", "far")
    far = await fleet.data_plane("far")
    scene = await far.keep(os.urandom(500_000))
    gw = await fleet.client("gw")
    script = await gw.put_bytes(COUNT)
    inputs = [JobInput(object=scene, at_node="far")]
    await gw.submit(JobSpec(id="r", on_node="sat", script_object=script.object, inputs=inputs))
    job = await gw.wait_final("r", 30)
    assert job.stdout == b"sat 500000\n"
    assert job.moved_bytes == len(COUNT) + len(b"500000")
    sat = await fleet.data_plane("sat")
    there = await sat.jobs.Get(jobs_pb2.GetJobRequest(id="r"), timeout=20)
    assert there.moved_bytes == 500_000
    assert (await gw.stat(scene)).committed_bytes == 0


async def test_failure_at_the_node_is_told_as_it_was(fleet: Fleet) -> None:
    """Exit status, streams and reason of a job that failed at the satellite reach the gateway."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    await gw.submit(shell("f", "echo out; echo err >&2; exit 7"))
    job = await gw.wait_final("f", 30)
    assert (job.state, job.exit_status, job.reason) == (JOB_STATE_FAILED, 7, "exit status 7")
    assert (job.stdout, job.stderr) == (b"out\n", b"err\n")


async def test_what_no_contact_can_mend_fails_with_its_reason(fleet: Fleet) -> None:
    """An unknown node is refused at once; an input that is not where it should be fails the job."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    with pytest.raises(InputError, match="no node is called 'atlantis'"):
        await gw.submit(shell("u", "true", "atlantis"))
    absent = object_name(b"absent")
    for job_id, on_node in (("here", "gw"), ("there", "sat")):
        spec = shell(job_id, "true", on_node)
        spec.inputs.add(object=absent, at_node="sat")
        await gw.submit(spec)
        job = await gw.wait_final(job_id, 30)
        assert job.state == JOB_STATE_FAILED
        assert absent in job.reason


async def test_a_full_store_is_waited_for(fleet: Fleet) -> None:
    """A job whose input finds no room says so, and waits: there may be room later."""
    await fleet.launch("gw", "sat", options=("--store-bytes=1000000",))
    gw, sat = await fleet.client("gw"), await fleet.data_plane("sat")
    await sat.keep(os.urandom(800_000))
    large = await gw.put_bytes(os.urandom(300_000))
    spec = shell("full", "true")
    spec.inputs.add(object=large.object)
    await gw.submit(spec)
    job = await seen(gw, "full", lambda job: "waiting for room" in job.reason)
    assert job.state == JOB_STATE_IN_TRANSIT
    assert "sat says: no room" in job.reason


async def test_a_job_waits_for_the_repair_of_what_it_needs(fleet: Fleet) -> None:
    """Its input lies at its node, and was found damaged there: it waits, says so, and runs when the input has come."""
    await fleet.launch("gw", "sat")
    gw, sat = await fleet.client("gw"), await fleet.data_plane("sat")
    content = os.urandom(100_000)
    name = await sat.keep(content)
    flip_a_bit(stored(fleet["sat"], name))
    assert list((await sat.scrub()).damaged) == [name]
    job = JobSpec(
        id="r", on_node="sat", command=JobSpec.Command(argv=["sh", "-c", "wc -c < $SKYRACK_INPUTS"]),
        inputs=[JobInput(object=name, at_node="sat")],
    )  # fmt: skip
    await gw.submit(job)
    waiting = await seen(gw, "r", lambda job: "waiting for a repair" in job.reason)
    assert f"sat says: job r: {name} was found damaged at sat, and has not come again yet" in waiting.reason
    await sat.put(name, content)
    ended = await gw.wait_final("r", 60)
    assert (ended.state, ended.stdout) == (JOB_STATE_SUCCEEDED, b"100000\n")


async def test_gateway_waits_for_a_node_that_is_not_there_yet(fleet: Fleet) -> None:
    """A job for a node that does not answer waits with its reason, and is done once the node is there."""
    await fleet.launch("gw", "sat")
    fleet["sat"].kill()
    gw = await fleet.client("gw")
    await gw.submit(shell("early", "echo done"))
    waiting = await seen(gw, "early", lambda job: "nothing listens at sat" in job.reason)
    assert waiting.state == JOB_STATE_WAITING_CONTACT
    fleet["sat"].start()
    assert (await gw.wait_final("early", 60)).stdout == b"done\n"


def unsent_bytes(link: Link) -> int:
    """What the kernel holds for the other end of connections to a link, which has not acknowledged it."""
    address = socket.inet_aton(link.address)[::-1].hex().upper()
    lines = "".join(Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")).splitlines()
    to_link = [fields for line in lines if (fields := line.split())[2].endswith(f"{address}:{DATA_PORT:04X}")]
    return sum(int(fields[4].partition(":")[0], 16) for fields in to_link)


async def test_blackout_amid_a_transfer_is_noticed_and_resumed_where_it_broke(fleet: Fleet) -> None:
    """Silence while an input goes up: WAITING_CONTACT within 3 s; after it, IN_TRANSIT soon, nothing sent twice."""
    gw, link = await slow_fleet(fleet, 16e6)
    size_bytes = 6_000_000  # three seconds on this link
    scene = await gw.put_bytes(os.urandom(size_bytes))
    script = await gw.put_bytes(COUNT)
    await gw.submit(JobSpec(id="b", on_node="sat", script_object=script.object, inputs=[JobInput(object=scene.object)]))
    await until(lambda: link.carried_bytes > size_bytes / 3, "a third is over")
    progress = await gw.job("b")
    assert progress.state == JOB_STATE_IN_TRANSIT
    assert progress.reason.startswith("sending input 1 of 1 (6.0 MB) to sat")

    assert unsent_bytes(link) > 0
    link.cut()
    cut_mono_s = time.monotonic()
    waiting = await seen(gw, "b", lambda job: job.state == JOB_STATE_WAITING_CONTACT and "no answer" in job.reason)
    assert time.monotonic() - cut_mono_s < NOTICED_S
    assert waiting.reason == "no answer from sat"
    await seen(gw, "b", lambda job: re.fullmatch(r"no answer from sat for \d s", job.reason) is not None)
    await until(lambda: unsent_bytes(link) == 0, "what was on its way is dropped")

    link.heal()
    healed_mono_s = time.monotonic()
    await seen(gw, "b", lambda job: job.state == JOB_STATE_IN_TRANSIT)
    assert time.monotonic() - healed_mono_s < RESUMED_S
    job = await gw.wait_final("b", 60)
    assert job.stdout == b"sat 6000000\n"
    assert states(job)[:5] == [
        JOB_STATE_WAITING_CONTACT,
        JOB_STATE_IN_TRANSIT,
        JOB_STATE_WAITING_CONTACT,
        JOB_STATE_IN_TRANSIT,
        JOB_STATE_QUEUED,
    ]
    assert job.moved_bytes == size_bytes + len(COUNT) + len("6000000")
    assert link.carried_bytes < (1 + OVERHEAD_RATIO) * size_bytes + LARGE_CHUNK_BYTES


async def test_blackout_amid_the_result_is_resumed_where_it_broke(fleet: Fleet) -> None:
    """Silence while an output comes down: the job stays RETURNING with its reason; no byte is fetched twice."""
    gw, link = await slow_fleet(fleet, 16e6)
    size_bytes = 6_000_000
    await gw.submit(emit("d", size_bytes))
    await until(lambda: link.carried_bytes > size_bytes / 3, "a third is over")
    link.cut()
    cut_mono_s = time.monotonic()
    waiting = await seen(gw, "d", lambda job: job.reason.startswith("waiting for contact: no answer from sat"))
    assert time.monotonic() - cut_mono_s < NOTICED_S
    assert waiting.state == JOB_STATE_RETURNING
    link.heal()
    job = await gw.wait_final("d", 60)
    assert (job.state, job.moved_bytes) == (JOB_STATE_SUCCEEDED, size_bytes)
    assert link.carried_bytes < (1 + OVERHEAD_RATIO) * size_bytes + LARGE_CHUNK_BYTES
    (scene,) = job.outputs
    assert (await gw.stat(scene.object)).committed_bytes == size_bytes


async def test_blackout_while_it_runs_changes_nothing_but_the_reason(fleet: Fleet) -> None:
    """Silence during RUNNING: it runs on at the node; what happened meanwhile is told with the node's own times."""
    gw, link = await slow_fleet(fleet, 1e9)
    flag = fleet.folder / "go-on"
    await gw.submit(shell("q", f"while [ ! -e {flag} ]; do sleep 0.05; done; echo done"))
    await seen(gw, "q", lambda job: job.state == JOB_STATE_RUNNING)
    link.cut()
    waiting = await seen(gw, "q", lambda job: "waiting for contact" in job.reason)
    assert waiting.state == JOB_STATE_RUNNING
    flag.touch()
    sat = await fleet.data_plane("sat")
    there = [job async for job in sat.jobs.Watch(jobs_pb2.WatchJobRequest(id="q"), timeout=30)][-1]
    link.heal()
    job = await gw.wait_final("q", 30)
    assert job.stdout == b"done\n"
    assert states(job).count(JOB_STATE_RUNNING) == 1
    returning = next(step for step in job.history if step.state == JOB_STATE_RETURNING)
    assert returning.at_unix_ns == there.history[-1].at_unix_ns


async def test_frozen_node_is_noticed_and_its_job_goes_on(fleet: Fleet) -> None:
    """A node whose agent is stopped (its kernel answers, it does not) is a break like any other."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    flag = fleet.folder / "go-on"
    await gw.submit(shell("z", f"while [ ! -e {flag} ]; do sleep 0.05; done"))
    await seen(gw, "z", lambda job: job.state == JOB_STATE_RUNNING)
    fleet["sat"].signal(signal.SIGSTOP)
    stopped_mono_s = time.monotonic()
    await seen(gw, "z", lambda job: "waiting for contact: no answer from sat" in job.reason)
    assert time.monotonic() - stopped_mono_s < NOTICED_S
    flag.touch()
    fleet["sat"].signal(signal.SIGCONT)
    assert (await gw.wait_final("z", 30)).state == JOB_STATE_SUCCEEDED


async def test_cancel_reaches_the_node(fleet: Fleet) -> None:
    """A job cancelled at the gateway dies at the satellite, and then only is CANCELLED."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    mark = f"3{os.getpid()}.5"
    await gw.submit(shell("c", f"sleep {mark}; true"))
    await until(lambda: bool(processes_with(f"sleep\0{mark}".encode())), "it sleeps")
    await gw.cancel("c")
    job = await gw.wait_final("c", 30)
    assert (job.state, job.reason) == (JOB_STATE_CANCELLED, "cancelled at sat: CANCELLED, cancelled on request")
    assert processes_with(mark.encode()) == []


async def test_cancel_in_a_blackout_waits_only_if_the_node_may_have_the_job(fleet: Fleet) -> None:
    """What was never handed over is CANCELLED at once; what was waits for a contact, and is CANCELLED after it."""
    gw, link = await slow_fleet(fleet, 1e9)
    await gw.submit(shell("there", "sleep 600"))
    await seen(gw, "there", lambda job: job.state == JOB_STATE_RUNNING)
    link.cut()
    await gw.submit(shell("here", "true"))
    await gw.cancel("here")
    here = await gw.wait_final("here", 5)
    assert (here.state, here.reason) == (JOB_STATE_CANCELLED, "cancelled on request")

    assert (await gw.cancel("there")).state == JOB_STATE_RUNNING
    await seen(gw, "there", lambda job: "waiting for contact" in job.reason)
    link.heal()
    assert (await gw.wait_final("there", 30)).state == JOB_STATE_CANCELLED


async def test_data_plane_answers_health_and_reflection(fleet: Fleet) -> None:
    """The standard services are there: health says SERVING, reflection lists jobs and objects and not the node."""
    await fleet.launch("sat")
    channel = (await fleet.data_plane("sat")).channel
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "skyrack.v1.Jobs", "skyrack.v1.Objects"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await health.Check(health_pb2.HealthCheckRequest(service="skyrack.v1.Node"), timeout=20)

    async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="skyrack.v1.Jobs")

    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed, described = [answer async for answer in stub.ServerReflectionInfo(requests(), timeout=20)]
    assert {"skyrack.v1.Jobs", "skyrack.v1.Objects"} <= {each.name for each in listed.list_services_response.service}
    assert "skyrack.v1.Node" not in {each.name for each in listed.list_services_response.service}
    assert described.file_descriptor_response.file_descriptor_proto
