"""Jobs on one node: what they are given, what they leave, what bounds them."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from controller.errors import InputError
from protos.skyrack.v1 import jobs_pb2
from protos.skyrack.v1.jobs_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    JobInput,
    JobLimits,
    JobSpec,
)
from tests.agent.fleet import DataPlane, Fleet, object_name, processes_with, until


def command(job_id: str, *argv: str, limits: JobLimits | None = None, on_node: str = "") -> JobSpec:
    """A job that runs a command."""
    return JobSpec(id=job_id, command=JobSpec.Command(argv=argv), limits=limits, on_node=on_node)


def python(job_id: str, code: str, limits: JobLimits | None = None) -> JobSpec:
    """A job that runs a line of Python as a command."""
    return command(job_id, sys.executable, "-c", code, limits=limits)


def states(job: jobs_pb2.Job) -> list[int]:
    """Its history, as states alone."""
    return [step.state for step in job.history]


async def satellite(fleet: Fleet) -> DataPlane:
    """One satellite, and the way to it."""
    await fleet.launch("sat")
    return await fleet.data_plane("sat")


async def test_script_gets_its_inputs_in_order_and_leaves_outputs(fleet: Fleet) -> None:
    """SKYRACK_INPUTS names the inputs in order; all files under SKYRACK_OUTPUT_DIR become objects; the rest is told."""
    sat = await satellite(fleet)
    code = b"""
import os, pathlib, sys
inputs = [pathlib.Path(name).read_bytes() for name in os.environ["SKYRACK_INPUTS"].split(os.pathsep)]
out = pathlib.Path(os.environ["SKYRACK_OUTPUT_DIR"])
(out / "deep").mkdir()
(out / "deep" / "joined").write_bytes(b"|".join(inputs))
(out / "args").write_text(" ".join(sys.argv[1:]))
print(os.environ["SKYRACK_JOB_ID"], os.environ["SKYRACK_NODE"], os.environ["TINT"])
print("warned", file=sys.stderr)
"""
    inputs = [JobInput(object=await sat.keep(content)) for content in (b"first", b"second", b"first")]
    job = await sat.run(
        JobSpec(
            id="finder",
            script_object=await sat.keep(code),
            arguments=["a", "b c"],
            inputs=inputs,
            environment={"TINT": "infrared"},
        )
    )
    assert (job.state, job.reason, job.exit_status, job.attempt) == (JOB_STATE_SUCCEEDED, "exit status 0", 0, 1)
    assert (job.stdout, job.stderr) == (b"finder sat infrared\n", b"warned\n")
    assert states(job) == [JOB_STATE_QUEUED, JOB_STATE_RUNNING, JOB_STATE_SUCCEEDED]
    assert [(each.name, each.size_bytes, each.at_node) for each in job.outputs] == [
        ("args", 5, "sat"),
        ("deep/joined", 18, "sat"),
    ]
    assert await sat.get(job.outputs[1].object) == b"first|second|first"
    assert job.moved_bytes == 0
    await until(lambda: os.listdir(fleet["sat"].store / "scratch") == [], "its folder is removed")


async def test_a_job_may_spoil_its_inputs_but_not_the_store(fleet: Fleet) -> None:
    """Inputs are the job's own copies: writing to them leaves the stored object as it was."""
    sat = await satellite(fleet)
    kept = await sat.keep(b"precious")
    spec = python("vandal", "import os; open(os.environ['SKYRACK_INPUTS'], 'wb').write(b'gone')")
    spec.inputs.add(object=kept)
    assert (await sat.run(spec)).state == JOB_STATE_SUCCEEDED
    assert await sat.get(kept) == b"precious"


async def test_environment_is_clean(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job sees what it is promised, and nothing of the agent's own environment."""
    monkeypatch.setenv("AGENT_SECRET", "42")
    sat = await satellite(fleet)
    job = await sat.run(command("env", "env"))
    names = {line.split("=")[0] for line in job.stdout.decode().splitlines()}
    promised = {"HOME", "TMPDIR", "SKYRACK_INPUTS", "SKYRACK_OUTPUT_DIR", "SKYRACK_JOB_ID", "SKYRACK_NODE"}
    promised |= {"SKYRACK_CHECKPOINT"}
    assert promised <= names
    assert names <= promised | {"PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}


@pytest.mark.parametrize(
    ("code", "exit_status", "reason"),
    [
        ("raise SystemExit(3)", 3, "exit status 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV, "killed by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), 40)", 128 + 40, "killed by signal 40"),
    ],
)
async def test_failing_programs_tell_how(fleet: Fleet, code: str, exit_status: int, reason: str) -> None:
    """An exit status or a signal is told as a shell tells it."""
    job = await (await satellite(fleet)).run(python("bad", code))
    assert (job.state, job.exit_status, job.reason) == (JOB_STATE_FAILED, exit_status, reason)


async def test_missing_command_is_a_failure_that_names_it(fleet: Fleet) -> None:
    """A command that is not in the node's image fails with status 127."""
    job = await (await satellite(fleet)).run(command("absent", "no-such-program"))
    assert (job.state, job.exit_status) == (JOB_STATE_FAILED, 127)
    assert b"no-such-program: No such file or directory" in job.stderr


@pytest.mark.parametrize(
    ("code", "limits", "reason"),
    [
        ("import time; time.sleep(60)", JobLimits(wall_s=0.5), "over its wall limit of 0.5 s"),
        ("while True: pass", JobLimits(cpu_s=1), "over its limit of 1 s of CPU"),
        ("bytearray(10**9)", JobLimits(memory_bytes=256 * 2**20), "exit status 1: out of its memory limit of 256 MiB"),
    ],
)
async def test_limits_hold_and_are_told(fleet: Fleet, code: str, limits: JobLimits, reason: str) -> None:
    """A job over its wall, CPU or memory limit ends soon, and says which."""
    started_mono_s = time.monotonic()
    job = await (await satellite(fleet)).run(python("greedy", code, limits))
    assert (job.state, job.reason) == (JOB_STATE_FAILED, reason)
    assert time.monotonic() - started_mono_s < 30


async def test_only_the_tail_of_the_streams_is_kept(fleet: Fleet) -> None:
    """Of much output, the last 64 KiB of each stream."""
    code = "import sys; sys.stdout.write('o' * 300_000 + 'end'); sys.stderr.write('e' * 300_000 + 'END')"
    job = await (await satellite(fleet)).run(python("loud", code))
    assert job.state == JOB_STATE_SUCCEEDED
    assert job.stdout == b"o" * (65536 - 3) + b"end"
    assert job.stderr == b"e" * (65536 - 3) + b"END"


async def test_what_a_job_leaves_running_ends_with_it(fleet: Fleet) -> None:
    """A daemon of the job's, in its own session and holding the streams, neither delays its end nor survives it."""
    mark = f"3{os.getpid()}.125"
    sat = await satellite(fleet)
    job = await sat.run(command("daemon", "sh", "-c", f"setsid sleep {mark} & echo started"))
    assert (job.state, job.stdout) == (JOB_STATE_SUCCEEDED, b"started\n")
    assert processes_with(mark.encode()) == []


async def test_cancel_kills_the_whole_tree(fleet: Fleet) -> None:
    """After Cancel is answered, no process of the job lives, those neither that left its group; again is the same."""
    mark = f"3{os.getpid()}.25"
    sat = await satellite(fleet)
    spec = command("tree", "sh", "-c", f"setsid sh -c 'sleep {mark}; true' & sleep {mark}; true")
    await sat.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20)
    await until(lambda: len(processes_with(f"sleep\0{mark}".encode())) == 2, "both sleep")

    job = await sat.jobs.Cancel(jobs_pb2.CancelJobRequest(id="tree"), timeout=20)

    assert processes_with(mark.encode()) == []
    assert (job.state, job.reason) == (JOB_STATE_CANCELLED, "cancelled on request")
    assert await sat.jobs.Cancel(jobs_pb2.CancelJobRequest(id="tree"), timeout=20) == job


async def test_one_job_at_a_time_in_order_and_a_queued_one_can_be_cancelled(fleet: Fleet) -> None:
    """Jobs run one after the other as they came; one that waits and is cancelled never runs."""
    sat = await satellite(fleet)
    first = python("first", "import time; time.sleep(1)")
    for spec in (first, command("second", "true"), command("third", "true")):
        await sat.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20)
    second = await sat.jobs.Cancel(jobs_pb2.CancelJobRequest(id="second"), timeout=20)
    assert states(second) == [JOB_STATE_QUEUED, JOB_STATE_CANCELLED]
    third = await sat.run(command("third", "true"))
    ended = await sat.jobs.Get(jobs_pb2.GetJobRequest(id="first"), timeout=20)
    assert ended.state == JOB_STATE_SUCCEEDED
    assert third.history[1].at_unix_ns > ended.history[-1].at_unix_ns
    await sat.run(command("loud", "echo", "printed"))
    listed = await sat.jobs.List(jobs_pb2.ListJobsRequest(), timeout=20)
    assert [job.stdout for job in listed.jobs] == [b""] * 4
    assert [job.spec.id for job in listed.jobs] == ["first", "second", "third", "loud"]


async def test_submission_is_idempotent_by_id(fleet: Fleet) -> None:
    """The same spec again is the same job, also at once and after its end; another spec is ALREADY_EXISTS."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    spec = command("once", "sh", "-c", "echo ran")
    await asyncio.gather(*(gw.submit(spec) for _ in range(5)))
    ended = await gw.wait_final("once", 30)
    assert await gw.submit(spec) == ended
    assert ended.stdout == b"ran\n"
    assert states(ended).count(JOB_STATE_RUNNING) == 1
    with pytest.raises(InputError, match="once exists with another spec"):
        await gw.submit(command("once", "sh", "-c", "echo other"))


ABSENT = object_name(b"never put anywhere")
INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        (command("", "true"), INVALID, "job id"),
        (command("../x", "true"), INVALID, "job id"),
        (command("..", "true"), INVALID, "job id"),
        (command("x" * 65, "true"), INVALID, "job id"),
        (JobSpec(id="x"), INVALID, "no program"),
        (command("x"), INVALID, "command is empty"),
        (command("x", "echo", "a\0b"), INVALID, "NUL"),
        (JobSpec(id="x", script_object="script.py"), INVALID, "malformed"),
        (JobSpec(id="x", script_object=ABSENT), PRECONDITION, "not .* in the store of sat"),
        (command("x", "true", limits=JobLimits(wall_s=-1)), INVALID, "wall_s"),
        (command("x", "true", limits=JobLimits(wall_s=float("nan"))), INVALID, "wall_s"),
        (
            JobSpec(id="x", command=JobSpec.Command(argv=["true"]), environment={"SKYRACK_NODE": "me"}),
            INVALID,
            "SKYRACK_",
        ),
        (JobSpec(id="x", command=JobSpec.Command(argv=["true"]), environment={"A=B": ""}), INVALID, "A=B"),
        (command("x", "true", on_node="other"), INVALID, "no node is called 'other'"),
        (
            JobSpec(id="x", command=JobSpec.Command(argv=["true"]), inputs=[JobInput(object=ABSENT)]),
            PRECONDITION,
            "not .* in the store of sat",
        ),
    ],
)
async def test_wrong_specs_are_refused_with_what_is_wrong(
    fleet: Fleet, spec: JobSpec, code: grpc.StatusCode, words: str
) -> None:
    """A spec that cannot work is refused at once, by its contract's status; nothing of it is kept."""
    sat = await satellite(fleet)
    with pytest.raises(grpc.aio.AioRpcError, match=words) as refused:
        await sat.jobs.Submit(jobs_pb2.SubmitRequest(spec=spec), timeout=20)
    assert refused.value.code() == code
    assert not (await sat.jobs.List(jobs_pb2.ListJobsRequest(), timeout=20)).jobs


async def test_watch_goes_on_after_a_revision(fleet: Fleet) -> None:
    """Watching again after a revision gives what came later, nothing twice; an unknown job is NOT_FOUND."""
    sat = await satellite(fleet)
    await sat.run(command("seen", "true"))
    whole = [job.revision async for job in sat.jobs.Watch(jobs_pb2.WatchJobRequest(id="seen"), timeout=20)]
    request = jobs_pb2.WatchJobRequest(id="seen", after_revision=whole[-1] - 1)
    assert [job.revision async for job in sat.jobs.Watch(request, timeout=20)] == whole[-1:]
    request = jobs_pb2.WatchJobRequest(id="seen", after_revision=whole[-1])
    assert [job.revision async for job in sat.jobs.Watch(request, timeout=20)] == []
    for call in (
        sat.jobs.Get(jobs_pb2.GetJobRequest(id="none"), timeout=20),
        sat.jobs.Cancel(jobs_pb2.CancelJobRequest(id="none"), timeout=20),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await call
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_outputs_that_do_not_fit_the_store_fail_the_job(fleet: Fleet) -> None:
    """A job whose outputs pass the node's quota is FAILED, with that reason."""
    await fleet.launch("sat", options=("--store-bytes=1000000",))
    sat = await fleet.data_plane("sat")
    code = "import os; open(os.environ['SKYRACK_OUTPUT_DIR'] + '/big', 'wb').write(bytes(1_000_001))"
    job = await sat.run(python("big", code))
    assert job.state == JOB_STATE_FAILED
    assert "no room for big" in job.reason


async def test_satellites_take_neither_jobs_nor_objects_over_the_control_plane(fleet: Fleet) -> None:
    """The emulator's socket of a satellite knows the node alone."""
    await fleet.launch("sat")
    client = await fleet.client("sat")
    for call in (client.put_bytes(b"x"), client.submit(command("x", "true")), client.jobs()):
        with pytest.raises(InputError, match="sat is no gateway"):
            await call
    assert stat.S_IMODE(os.stat(fleet["sat"].control_socket).st_mode) == 0o600
    info = await client.info()
    assert (info.name, info.role, info.address, info.open_jobs) == ("sat", "satellite", fleet["sat"].address, 0)
    assert 0 < info.resident_bytes < 80e6


def test_agent_tells_a_wrong_command_line_and_a_wrong_place(tmp_path: Path) -> None:
    """Wrong options and a socket path that is too long each end the agent with one message."""

    def fails(*options: str) -> str:
        argv = [sys.executable, "-m", "node_agent", "--name", "n", "--role", "satellite", "--address", "127.99.9.9"]
        done = subprocess.run([*argv, *options], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stderr

    store = ("--store", str(tmp_path / "store"))
    assert "--control-socket" in fails(*store)
    assert "role" in fails(*store, "--control-socket", "/x", "--role", "moon")
    assert "longer than 107 bytes" in fails(*store, "--control-socket", "/tmp/" + "x" * 110)  # noqa: S108
