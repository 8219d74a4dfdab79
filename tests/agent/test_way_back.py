"""Results on their way back: by whom, who is charged with them, and what is left of a job where it has been."""

from __future__ import annotations

import os

import grpc

from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_EXPIRED,
    JOB_STATE_RETURNING,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    GetJobRequest,
    Job,
    JobInput,
    JobOutput,
    JobSpec,
    ReturnJobRequest,
    SubmitRequest,
)
from tests.agent.fleet import Agent, Fleet, object_name, refused, until
from tests.agent.test_courier import COUNT, seen, shell
from tests.agent.test_custody import tell

FOUND = b"found\n"
FIND = "while [ ! -e {flag} ]; do sleep 0.05; done; echo found > $SKYRACK_OUTPUT_DIR/finding"


def whole(agent: Agent) -> set[str]:
    """The names of the objects that lie in an agent's store."""
    return {f"sha256:{path.name}" for path in (agent.store / "objects").iterdir() if path.is_file()}


async def test_a_result_comes_back_by_another_node(fleet: Fleet) -> None:
    """Who took the job there is gone for good; the node that ran it hands its result to one that meets the gateway."""
    dark = await fleet.link(200, fleet.address(3), 1e9)
    dark.cut()
    await fleet.launch(
        "gw", "near", "far", "other",
        seen_from={"gw": {"far": dark.address, "other": fleet.address(250)}, "far": {"gw": fleet.address(250)}},
    )  # fmt: skip
    gw, near, far, other = [await fleet.client(name) for name in ("gw", "near", "far", "other")]
    await tell(gw, far=("near", 0.0))
    await tell(near, far=("far", 0.0))
    await tell(far, gw=("other", 0.0))
    await tell(other, gw=("gw", 0.0))
    flag = fleet.folder / "go-on"
    line = f"while [ ! -e {flag} ]; do sleep 0.05; done; echo done; echo found > $SKYRACK_OUTPUT_DIR/finding"
    await gw.submit(shell("back", line, "far"))
    await seen(gw, "back", lambda job: job.state == JOB_STATE_RUNNING)
    fleet["near"].kill()
    flag.touch()
    job = await gw.wait_final("back", 30)
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"done\n")
    assert [output.at_node for output in job.outputs] == ["gw"]
    assert b"".join([chunk async for chunk in gw.get(job.outputs[0].object)]) == b"found\n"


async def test_a_result_whose_best_way_leads_back_over_who_had_let_go_of_it_comes_home(fleet: Fleet) -> None:
    """The node between has fetched it from the one that ran it, and then only that one meets the gateway again."""
    line, dark = await fleet.link(200, fleet.address(2), 1e9), await fleet.link(201, fleet.address(3), 1e9)
    dark.cut()
    await fleet.launch(
        "gw", "near", "far",
        seen_from={"gw": {"near": line.address, "far": dark.address}, "near": {"gw": fleet.address(250)}},
    )  # fmt: skip
    gw, near, far = [await fleet.client(name) for name in ("gw", "near", "far")]
    await tell(gw, far=("near", 0.0))
    await tell(near, gw=("far", 1000.0))
    await tell(far, gw=("gw", 1000.0))
    flag = fleet.folder / "go-on"
    await gw.submit(shell("over", FIND.format(flag=flag), "far"))
    await seen(gw, "over", lambda job: job.state == JOB_STATE_RUNNING)
    line.cut()
    flag.touch()
    jobs = (await fleet.data_plane("near")).jobs

    async def fetched() -> bool:
        job = await jobs.Get(GetJobRequest(id="over"), timeout=20)
        return job.state == JOB_STATE_SUCCEEDED

    await until(fetched, "near has fetched the result")
    await until(lambda: not whole(fleet["far"]), "far has let go of it")
    await tell(near, gw=("far", 0.0))
    await tell(far, gw=("gw", 0.0))
    job = await gw.wait_final("over", 30)
    assert b"".join([chunk async for chunk in gw.get(job.outputs[0].object)]) == b"found\n"


async def test_a_node_between_lets_go_of_a_result_that_has_gone_another_way(fleet: Fleet) -> None:
    """The outputs that it comes to fetch have gone on meanwhile: others are charged with them, and it lets go. That is
    not how the job ended, and nobody takes it for that."""
    line, dark = await fleet.link(200, fleet.address(3), 1e9), await fleet.link(201, fleet.address(3), 1e9)
    dark.cut()
    await fleet.launch(
        "gw", "near", "far", "other",
        seen_from={
            "gw": {"far": dark.address, "other": fleet.address(250)},
            "near": {"far": line.address},
            "far": {"gw": fleet.address(250)},
        },
    )  # fmt: skip
    gw, near, far, other = [await fleet.client(name) for name in ("gw", "near", "far", "other")]
    await tell(gw, far=("near", 0.0))
    await tell(near, far=("far", 0.0))
    await tell(far, gw=("other", 0.0))
    await tell(other, gw=("gw", 1000.0))
    flag = fleet.folder / "go-on"
    await gw.submit(shell("gone", FIND.format(flag=flag), "far"))
    await seen(gw, "gone", lambda job: job.state == JOB_STATE_RUNNING)
    line.cut()
    flag.touch()
    await until(lambda: whole(fleet["other"]) == {object_name(FOUND)} and not whole(fleet["far"]), "it has gone on")
    line.heal()
    at_near = (await fleet.data_plane("near")).jobs

    async def has_let_go() -> bool:
        job = await at_near.Get(GetJobRequest(id="gone"), timeout=20)
        return (job.state, job.let_go) == (JOB_STATE_CANCELLED, True)

    await until(has_let_go, "it has let go")
    assert (await gw.job("gone")).state in (JOB_STATE_RUNNING, JOB_STATE_RETURNING)
    await tell(other, gw=("gw", 0.0))
    job = await gw.wait_final("gone", 30)
    assert (job.state, [output.at_node for output in job.outputs]) == (JOB_STATE_SUCCEEDED, ["gw"])
    await until(lambda: not any(whole(fleet[name]) for name in ("near", "far", "other")), "nothing is left there")


async def test_what_a_job_needed_and_made_goes_with_it_where_it_has_been(fleet: Fleet) -> None:
    """The satellite keeps nothing of a job whose result has come back; the gateway keeps what was put there, and the
    outputs. An input that was put at the satellite by somebody else stays."""
    await fleet.launch("gw", "sat")
    gw, peer = await fleet.client("gw"), await fleet.data_plane("sat")
    scene, own = await gw.put_bytes(os.urandom(100_000)), await peer.keep(b"of the satellite")
    script = await gw.put_bytes(COUNT)
    inputs = [JobInput(object=scene.object), JobInput(object=own, at_node="sat")]
    await gw.submit(JobSpec(id="tidy", on_node="sat", script_object=script.object, inputs=inputs))
    job = await gw.wait_final("tidy", 30)
    assert job.state == JOB_STATE_SUCCEEDED
    await until(lambda: whole(fleet["sat"]) == {own}, "nothing of the job is left there")
    assert whole(fleet["gw"]) == {scene.object, script.object, job.outputs[0].object}


async def test_what_was_sent_ahead_for_a_job_that_comes_too_late_goes(fleet: Fleet) -> None:
    """Its deadline has passed when it is handed in: it ends there and then, and nothing of it stays."""
    await fleet.launch("gw", "sat")
    await fleet.tell_time("sat", 10_000_000_000)
    peer, content = await fleet.data_plane("sat"), os.urandom(100_000)
    await peer.put(object_name(content), content, for_job="late")
    spec = shell("late", "true")
    spec.inputs.add(object=object_name(content))
    spec.return_to, spec.deadline_emu_ns = "gw", 1
    job = await peer.jobs.Submit(SubmitRequest(spec=spec), timeout=20)
    assert job.state == JOB_STATE_EXPIRED
    await until(lambda: not whole(fleet["sat"]), "nothing of it stays")


async def test_a_result_for_a_gateway_that_knows_nothing_of_the_job_is_not_kept_for_ever(fleet: Fleet) -> None:
    """The gateway has lost its store: the satellite asks, hears that nobody waits, and lets go of the job's objects."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    scene, flag = await gw.put_bytes(os.urandom(100_000)), fleet.folder / "go-on"
    spec = shell("lost", FIND.format(flag=flag))
    spec.inputs.add(object=scene.object)
    await gw.submit(spec)
    await seen(gw, "lost", lambda job: job.state == JOB_STATE_RUNNING)
    fleet["gw"].kill()
    for path in (fleet["gw"].store).glob("journal.db*"):
        path.unlink()
    fleet["gw"].start()
    await fleet["gw"].ready()
    flag.touch()
    await until(lambda: not whole(fleet["sat"]), "nothing of the job is left there")


async def test_results_that_nobody_waits_for_are_refused(fleet: Fleet) -> None:
    """A result of a job that was never handed in here, of one that is known with another spec, of one that has not
    ended or was let go of, or without its outputs: none is taken, each for its reason."""
    await fleet.launch("gw", "sat")
    gw = await fleet.client("gw")
    await gw.submit(shell("known", "sleep 600"))
    jobs = (await fleet.data_plane("gw", as_role="satellite", as_name="sat")).jobs
    ended = Job(spec=shell("never", "true"), state=JOB_STATE_SUCCEEDED, reason="exit status 0")
    ended.spec.return_to = "gw"
    ended.history.add(state=JOB_STATE_SUCCEEDED, at_unix_ns=1)

    async def returned(**changes: object) -> None:
        job = Job()
        job.CopyFrom(ended)
        job.MergeFrom(Job(**changes))  # type: ignore[arg-type]
        await jobs.Return(ReturnJobRequest(job=job), timeout=20)

    with refused(grpc.StatusCode.INVALID_ARGUMENT, "was never handed in at gw"):
        await returned()
    with refused(grpc.StatusCode.ALREADY_EXISTS, "known"):
        await returned(spec=JobSpec(id="known"))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "only what has ended has a result"):
        await returned(state=JOB_STATE_RUNNING)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "only what has ended has a result"):
        await returned(state=JOB_STATE_CANCELLED, let_go=True)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "is not here"):
        await returned(outputs=[JobOutput(name="x", object=object_name(FOUND), size_bytes=6)])
    assert [job.spec.id for job in await gw.jobs()] == ["known"]


async def test_a_node_says_whom_it_has_something_for(fleet: Fleet) -> None:
    """So that it is told whom to hand it, also beyond the first hop; and no longer when it has gone."""
    await fleet.launch("gw", "sat", seen_from={"gw": {"sat": fleet.address(250)}})
    gw = await fleet.client("gw")
    assert list((await gw.info()).bound_for) == []
    await gw.submit(shell("waits", "true"))

    async def bound_for(nodes: list[str]) -> bool:
        return list((await gw.info()).bound_for) == nodes

    await until(lambda: bound_for(["sat"]), "it says so")
    await gw.cancel("waits")
    await until(lambda: bound_for([]), "it says so no more")
