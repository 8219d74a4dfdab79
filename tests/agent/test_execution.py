"""The executor beneath a first process, where all are one user: outputs, limits, time, checkpoints, kinds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protos.skyrack.v1.jobs_pb2 import JOB_STATE_RUNNING, JobSpec
from tests.agent.fleet import Fleet, command_line, processes_with, until
from tests.agent.test_recovery import reaches
from tests.executing import Answer, executed


@pytest.fixture
def apart() -> bool:
    """Whether jobs are users of their own: not here."""
    return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the node keeps what it has."""
    made = tmp_path / "node"
    made.mkdir(mode=0o711)
    return made


def test_only_plain_files_become_outputs(folder: Path, apart: bool) -> None:
    """Files that nobody may read are taken, links and pipes are not; a folder swapped for a link is no way out."""
    answer = executed("odd_outputs", folder, apart=apart)
    assert answer["odd"]["outputs"] == {"bad\\xffname": 1, "closed/inner/file": 7, "plain": 6}
    assert answer["odd"]["succeeded"]
    swapped = answer["swapped"]
    assert (swapped["succeeded"], swapped["outputs"]) == (False, {})
    assert swapped["reason"] == "its outputs cannot be kept: Not a directory"
    assert answer["left"] == []


def test_outputs_without_end_are_refused_and_removed(folder: Path, apart: bool) -> None:
    """More files than can be told of, or 3,000 folders in each other: the job fails with that reason; nothing stays."""
    answer = executed("too_many_outputs", folder, apart=apart)
    assert "it left more outputs than can be told of: at most 4096" in answer["many"]["reason"]
    assert answer["deep"]["reason"].endswith("folders nest more than 64 deep")
    assert not answer["many"]["succeeded"]
    assert not answer["deep"]["succeeded"]
    assert answer["left"] == []


LIMITS = {
    "wall": (137, "over its wall limit of 0.5 s"),
    "cpu": (152, "over its limit of 1 s of CPU"),
    "address_space": (1, "exit status 1: out of its memory limit of 256 MiB"),
    "memory_of_all": (137, "over its memory limit of 128 MiB"),
    "memory_shared": (0, "exit status 0"),
    "disk": (137, "over its disk limit of 20 MiB"),
    "file": (0, "exit status 0"),
}


def test_each_limit_holds_and_is_told(folder: Path, apart: bool) -> None:
    """Wall, CPU, memory of one and of all together (shared pages counted once), disk in many files and in one."""
    answer = executed("limits", folder, apart=apart)
    found = {name: (answer[name]["exit_status"], answer[name]["reason"]) for name in LIMITS}
    assert found == LIMITS
    assert answer["file"]["stdout"] == f"{128 + signal.SIGXFSZ}\n", "what writes too long a file is told by a signal"
    assert answer["wall"]["signal"] == signal.SIGKILL
    assert 0.4 < answer["cpu"]["cpu_s"] < 2
    assert answer["memory_of_all"]["peak_bytes"] > 128 * 2**20
    assert answer["memory_shared"]["peak_bytes"] < 128 * 2**20


def test_what_a_job_is_given_does_not_count_as_disk_used(folder: Path, apart: bool) -> None:
    """30 MB of input, a limit of 1 MiB: the job succeeds."""
    assert executed("inputs_are_no_disk_used", folder, apart=apart)["stdout"] == "30000000\n"


def test_a_suspended_job_stands_still_and_its_time_too(folder: Path, apart: bool) -> None:
    """A counter does not move while it is suspended, for longer than its wall limit, and goes on when resumed."""
    answer = executed("suspended", folder, apart=apart)
    assert answer["stood"] == answer["still"]
    assert answer["ended"]["reason"] == "over its wall limit of 4 s"
    assert 4 <= answer["ended"]["wall_s"] < 5


def test_a_suspended_job_can_be_cancelled(folder: Path, apart: bool) -> None:
    """Its whole tree ends, as that of one which runs; nothing is left of either."""
    answer = executed("suspended_and_cancelled", folder, apart=apart)
    assert answer["stopped"] == answer["running"] == {"cancelled": True, "left": []}
    assert answer["scratch"] == []


def test_a_start_may_be_cancelled_at_any_moment(folder: Path, apart: bool) -> None:
    """Nothing runs or lies there of it, no user is lost: 64 jobs may have processes after that, and not one more."""
    answer = executed("cancelled_at_once", folder, apart=apart)
    assert answer["left"] == answer["scratch"] == []
    assert answer["refused"].startswith("64 jobs have processes here already")
    assert answer["after"]["stdout"] == "here\n"


def test_a_job_goes_on_from_its_checkpoint(folder: Path, apart: bool) -> None:
    """Checkpoints are kept while it runs and when it is suspended; the next attempt finds the last one."""
    answer = executed("checkpoints", folder, apart=apart)
    assert answer["at_suspend"] == answer["in_folder"] > 0
    assert answer["ended"]["stdout"] == f"from {answer['at_suspend']}\n"


def test_checkpoints_are_told_once_a_second_at_most(folder: Path, apart: bool) -> None:
    """Ten a second are written; two and the one at suspension are kept."""
    assert 2 <= executed("checkpoints", folder, apart=apart)["kept"] <= 4


def test_a_killed_agents_job_ends_and_its_checkpoint_is_rescued(folder: Path, apart: bool) -> None:
    """`kill -9` of the agent: its jobs' processes end, daemons too; the next agent finds the checkpoint."""
    answer = executed("killed", folder, apart=apart)
    assert answer["left"] == []
    assert (answer["checkpoint"], answer["nothing"], answer["scratch"]) == ("so-far\n", None, [])
    assert "the agent ended by itself (signal 9)" in answer["said"]


def test_what_is_printed_is_kept_followed_and_begun_anew(folder: Path, apart: bool) -> None:
    """The first 16 MiB and the last 64 KiB; who follows reads along; a second attempt's log is its own."""
    answer = executed("printed", folder, apart=apart)
    assert (answer["small"]["stdout"], answer["small"]["stderr"]) == ("out\n", "err\n")
    assert (answer["loud_kept"], answer["loud_tail"], answer["loud_end"]) == (16 * 2**20, 64 * 2**10, "aend\n")
    assert answer["pieces"] == [[0, "1\n"], [2, "2\n"], [4, "3\n"]]
    assert answer["twice"] == ["one, long\n", "two\n"]
    assert answer["files"] == ["followed.stdout", "loud.stdout", "small.stderr", "small.stdout", "twice.stdout"]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """How each of the test's modules ended."""
    folder = tmp_path_factory.mktemp("node")
    return executed("wasm", folder)


def test_a_module_takes_the_same_fuel_each_time(modules: Answer) -> None:
    """A million additions twice: right, and as many units each time; about twelve a turn of its loop."""
    first, second = modules["sums-0"], modules["sums-1"]
    assert first["stdout"] == second["stdout"] == "right\n"
    assert first["fuel"] == second["fuel"]
    assert 5_000_000 < first["fuel"] < 20_000_000


def test_a_module_that_traps_says_why(modules: Answer) -> None:
    """A division by zero."""
    ended = modules["traps-2"]
    assert (ended["succeeded"], ended["exit_status"], ended["reason"]) == (False, 134, "trap: integer divide by zero")
    assert ended["stderr"] == "trap: integer divide by zero\n"


def test_a_module_without_end_runs_out_of_fuel(modules: Answer) -> None:
    """All its fuel is used, and that is the reason."""
    ended = modules["loops-3"]
    assert (ended["succeeded"], ended["reason"]) == (False, "out of fuel: its limit is 100000")
    assert ended["fuel"] == 100_000


def test_a_module_reads_inputs_and_writes_outputs_alone(modules: Answer) -> None:
    """What it copies is the input; it can make no file among the inputs (WASI's errno `perm`)."""
    ended = modules["copies-4"]
    assert ended["contents"] == {"copy": "twelve bytes"}
    assert ended["exit_status"] == 63


def test_a_modules_memory_is_bounded(modules: Answer) -> None:
    """Of 16 MiB it gets 256 pages, and is told when there are no more."""
    assert modules["grows-5"]["exit_status"] == 256 // 4


def test_a_module_has_its_arguments_and_environment(modules: Answer) -> None:
    """Its name and two arguments; five variables that every job has, and its own one."""
    assert modules["exits-6"]["exit_status"] == 10 * 3 + 6


def test_what_is_no_module_is_told(modules: Answer) -> None:
    """Bytes that are none, and one that asks for what nobody provides."""
    for name, words in (("nonsense", "unknown binary version"), ("imports", "unknown import: `elsewhere::nothing`")):
        assert modules[name]["exit_status"] == 126
        assert modules[name]["reason"].startswith("not a module that can be run: ")
        assert words in modules[name]["reason"]


def test_a_job_has_the_network_only_if_it_asks(folder: Path, apart: bool) -> None:
    """Without: sockets of the machine's own alone, neither by other entries of the kernel nor in programs it starts."""
    answer = executed("network", folder, apart=apart)
    made = json.loads(answer["not asked"]["stdout"])
    assert made.pop("AF_UNIX") == "made"
    assert set(made.values()) == {"Permission denied"}
    asked = json.loads(answer["asked"]["stdout"])
    assert asked["AF_INET"] == asked["AF_INET6"] == "made"
    assert answer["inherited"]["exit_status"] == 1
    assert "PermissionError" in answer["inherited"]["stderr"]


async def test_with_the_first_process_ends_everything(fleet: Fleet) -> None:
    """`kill -9` of the first process: the agent and a job's program are gone at once."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    mark = f"7{os.getpid()}.5"
    await gw.submit(command_of(mark))
    await until(lambda: bool(processes_with(f"sleep\0{mark}".encode())), "it sleeps")
    agent = fleet["gw"].pid()
    process = fleet["gw"].process
    assert process is not None
    process.kill()
    await until(lambda: not command_line(agent) and not processes_with(f"sleep\0{mark}".encode()), "all is gone", 5)


async def test_a_killed_agent_comes_back_and_goes_on_with_its_job(fleet: Fleet) -> None:
    """`kill -9` of the agent alone, twice: the node answers again, knows how often, and the job is done."""
    await fleet.launch("gw")
    gw = await fleet.client("gw")
    flag = fleet.folder / "go-on"
    spec = command_of("0")
    spec.command.argv[:] = ["sh", "-c", f"while [ ! -e {flag} ]; do sleep 0.05; done; echo done"]
    await gw.submit(spec)
    for count in (1, 2):
        await reaches(gw, "sleeps", JOB_STATE_RUNNING)
        agent = fleet["gw"].pid()
        fleet["gw"].signal(signal.SIGKILL)
        await until(lambda agent=agent: not command_line(agent), "it is gone")  # type: ignore[misc]
        await fleet["gw"].ready()
        gw = await fleet.client("gw")
        assert (await gw.info()).restarts == count
    flag.touch()
    job = await gw.wait_final("sleeps", 30)
    assert (job.stdout, job.attempt) == (b"done\n", 3)


def test_an_agent_that_does_not_live_is_given_up(tmp_path: Path) -> None:
    """One that ends again and again: each start waits longer, and after the eleventh end within a minute no more."""
    code = """
from node_agent.processes import init
import sys
init.FIRST_BACKOFF_S, init.MAX_BACKOFF_S = 0.01, 0.02
sys.exit(init.supervise(lambda channel, restarts: 3, None))
"""
    began_mono_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0] == "skyrack-agent: the agent ended by itself (exit status 3); it is started again in 0.01 s"
    assert lines[-1].endswith("more than 10 times in 60 s")
    assert len(lines) == 11
    assert time.monotonic() - began_mono_s < 30


def test_an_agent_that_others_bring_down_is_not_given_up() -> None:
    """However often that happens."""
    code = """
from node_agent.processes import init
import sys
init.FIRST_BACKOFF_S, init.MAX_BACKOFF_S = 0.01, 0.02
sys.exit(init.supervise(lambda channel, restarts: init.BROUGHT_DOWN if restarts < 15 else init.CANNOT_BE, None))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert done.stderr.count("the agent ended by itself (exit status 75); it is started again in ") == 15


def command_of(mark: str) -> JobSpec:
    """A job that sleeps."""
    return JobSpec(id="sleeps", command=JobSpec.Command(argv=["sleep", mark]))
