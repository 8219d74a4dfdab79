"""The contract of runtimes, held by each of them with real nodes: Docker's and that of namespaces."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.agents import AgentClient
from controller.errors import SkyrackError
from controller.processes import command_line
from controller.removal import remove_run
from controller.runs import MACHINE, RunPlace, list_runs
from controller.runtime.choose import open_runtime
from controller.runtime.contract import NodeSpec, Runtime

DEADLINE_S = 60.0
MEMORY_BYTES = 256 * 1024 * 1024
MANY = 32
STORE_BYTES = 8 * 1024 * 1024
PIDS_LIMIT = 64
CPU_LIMIT = 0.5

# A controller that starts nodes and tells how far it is; it is to be killed.
STARTER = """
import sys
from pathlib import Path
from controller.runs import MACHINE, RunPlace
from controller.runtime.choose import open_runtime
from tests.runtimes.test_contract import specs_of
with RunPlace.create("killed", Path("/out"), 8) as place:
    runtime = open_runtime(sys.argv[1], MACHINE.run)
    print(place.run_id, flush=True)
    runtime.start(specs_of(place, 8), lambda count: print(count, flush=True))
    print("up", flush=True)
    runtime.remove(place.run_id)
    print("down", flush=True)
"""


def specs_of(place: RunPlace, n_node: int) -> list[NodeSpec]:
    """Small nodes of a run, in its place."""
    place.write_hosts({f"node{index}": f"10.64.0.{index + 1}" for index in range(n_node)})
    return [
        NodeSpec(
            run_id=place.run_id,
            index=index,
            name=f"node{index}",
            role="satellite" if index else "gateway",
            address=f"10.64.0.{index + 1}",
            jurisdiction="",
            control_dir=place.control_dir(index),
            store_dir=place.store_dir(index),
            hosts_file=place.hosts_file,
            memory_bytes=MEMORY_BYTES,
            cpu_limit=CPU_LIMIT,
            pids_limit=PIDS_LIMIT,
            store_bytes=STORE_BYTES,
        )
        for index in range(n_node)
    ]


def ignore(_count: int) -> None:
    """Nobody listens."""


@pytest.fixture
def runtime(kind: str) -> Runtime:
    """The runtime as the controller has it."""
    return open_runtime(kind, MACHINE.run)


@pytest.fixture
def place(runtime: Runtime) -> Iterator[RunPlace]:
    """A run's place; whatever its test started is removed."""
    with RunPlace.create("test", Path("/out"), MANY) as made:
        yield made
        runtime.remove(made.run_id)


@pytest.fixture(scope="module")
def lived_in(kind: str) -> Iterator[tuple[Runtime, RunPlace]]:
    """Two nodes that run, for tests that only look."""
    runtime = open_runtime(kind, MACHINE.run)
    with RunPlace.create("test", Path("/out"), 2) as place:
        try:
            runtime.start(specs_of(place, 2), ignore)
            yield runtime, place
        finally:
            runtime.remove(place.run_id)


def said(runtime: Runtime, run_id: str, *argv: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What a command in node1 writes to its standard output; it must succeed."""
    with open(os.devnull) as nothing:
        before = sys.stdin
        sys.stdin = nothing
        try:
            status = runtime.exec(run_id, "node1", argv)
        finally:
            sys.stdin = before
    captured = capfd.readouterr()
    assert status == 0, captured.err
    return captured.out


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until_mono_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < until_mono_s
        time.sleep(0.05)


def answers(path: Path) -> bool:
    """Whether somebody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as knocking:
        try:
            knocking.connect(str(path))
        except OSError:
            return False
    return True


def test_life_of_a_run(runtime: Runtime, place: RunPlace) -> None:
    """Nodes start in any order and are counted, live in namespaces of their own, answer, and are removed once."""
    counts: list[int] = []
    handles = runtime.start(specs_of(place, 4), counts.append)
    assert counts == [1, 2, 3, 4]
    assert [handle.spec.name for handle in handles] == ["node0", "node1", "node2", "node3"]
    assert len({os.readlink(handle.network_namespace) for handle in handles}) == 4
    assert runtime.alive(place.run_id) == {"node0", "node1", "node2", "node3"}
    assert place.run_id in runtime.run_ids()
    wait_for(lambda: all(answers(place.control_dir(index) / "control.sock") for index in range(4)))
    assert runtime.remove(place.run_id) == 4
    assert runtime.alive(place.run_id) == set()
    assert place.run_id not in runtime.run_ids()
    assert runtime.remove(place.run_id) == 0


def test_a_node_has_no_network_but_the_emulated_one(
    lived_in: tuple[Runtime, RunPlace], capfd: pytest.CaptureFixture[str]
) -> None:
    """Until the fabric gives it ports, a node has its loopback and nothing else."""
    runtime, place = lived_in
    links = said(runtime, place.run_id, "ls", "/sys/class/net", capfd=capfd).split()
    assert [link for link in links if link not in ("tunl0", "sit0", "ip6tnl0")] == ["lo"]


STATUSES = """
import json, pathlib
found = {}
for path in pathlib.Path("/proc").glob("[0-9]*/status"):
    lines = path.read_text().splitlines()
    found[path.parent.name] = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
print(json.dumps(found))
"""
OF_THE_FIRST = 1 << 5 | 1 << 6 | 1 << 7  # CAP_KILL, CAP_SETGID, CAP_SETUID (linux/capability.h)


def test_a_node_has_no_privilege(lived_in: tuple[Runtime, RunPlace], capfd: pytest.CaptureFixture[str]) -> None:
    """The first process can change users and end processes, no more; agent and commands are an ordinary user without
    any capability. None may gain one, or write to the root."""
    runtime, place = lived_in
    wait_for(lambda: answers(place.control_dir(1) / "control.sock"))
    statuses = json.loads(said(runtime, place.run_id, "python3", "-c", STATUSES, capfd=capfd))
    first = statuses.pop("1")
    assert first["Uid"].split() == ["0"] * 4
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert int(first[kind], 16) == OF_THE_FIRST, kind
    others = [fields for fields in statuses.values() if fields["State"][0] != "Z"]
    assert {fields["PPid"] for fields in others} == {"0", "1"}, "the agent, and the command that looks"
    for fields in others:
        assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
        assert int(fields["CapBnd"], 16) & ~OF_THE_FIRST == 0
    for fields in (first, *others):
        for kind in ("CapInh", "CapAmb", *(() if fields is first else ("CapPrm", "CapEff"))):
            assert int(fields[kind], 16) == 0, kind
        assert fields["NoNewPrivs"] == "1"
    roots = said(runtime, place.run_id, "cat", "/proc/mounts", capfd=capfd).splitlines()
    assert roots[0].split()[1] == "/"
    assert "ro" in roots[0].split()[3].split(",")


def test_a_node_knows_itself_and_the_others(
    lived_in: tuple[Runtime, RunPlace], capfd: pytest.CaptureFixture[str]
) -> None:
    """A node's host name is its name, and every node's name has its address."""
    runtime, place = lived_in
    assert said(runtime, place.run_id, "hostname", capfd=capfd) == "node1\n"
    assert said(runtime, place.run_id, "getent", "hosts", "node0", capfd=capfd).split() == ["10.64.0.1", "node0"]


def test_a_node_can_ping_and_compute(lived_in: tuple[Runtime, RunPlace], capfd: pytest.CaptureFixture[str]) -> None:
    """Without capabilities ping still starts, and jobs find numpy, with their bytecode already there."""
    runtime, place = lived_in
    assert "ping" in said(runtime, place.run_id, "ping", "-V", capfd=capfd)
    computed = said(
        runtime, place.run_id, "python3", "-c", "import numpy; print(int(numpy.arange(4).sum()), numpy.__cached__)",
        capfd=capfd,
    ).split()  # fmt: skip
    assert computed[0] == "6"
    assert said(runtime, place.run_id, "ls", computed[1], capfd=capfd).strip() == computed[1]


EXEC = """
import sys
from controller.runs import MACHINE
from controller.runtime.choose import open_runtime
sys.exit(open_runtime(sys.argv[1], MACHINE.run).exec(sys.argv[2], "node1", sys.argv[3:]))
"""


def executed(nodes: tuple[Runtime, RunPlace], *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A command in node1 through pipes, as in a shell pipeline."""
    runtime, place = nodes
    return subprocess.run(
        [sys.executable, "-c", EXEC, runtime.name, place.run_id, *argv],
        input=stdin,
        capture_output=True,
        timeout=DEADLINE_S,
    )


def test_exec_gives_the_commands_own_streams_and_status(lived_in: tuple[Runtime, RunPlace]) -> None:
    """Standard output, standard error and the exit status are the command's; many bytes pass unchanged."""
    mixed = executed(lived_in, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (mixed.stdout, mixed.stderr, mixed.returncode) == (b"out\n", b"err\n", 7)
    data = os.urandom(3_000_000)
    echoed = executed(lived_in, "sha256sum", stdin=data)
    assert echoed.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert executed(lived_in, "cat", stdin=data).stdout == data


def test_exec_of_what_is_not_there(lived_in: tuple[Runtime, RunPlace]) -> None:
    """A command that does not exist has the shell's exit status for that."""
    assert executed(lived_in, "no-such-command").returncode in (126, 127)


def test_exec_on_a_terminal(lived_in: tuple[Runtime, RunPlace]) -> None:
    """With a terminal, the command has one too: a shell can be typed into, and its exit status comes back."""
    runtime, place = lived_in
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", EXEC, runtime.name, place.run_id, "sh"])  # noqa: S606
    seen = b""
    typed = [(b"$ ", b"[ -t 0 ] && echo a-terminal; exit 5\n")]
    until_mono_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < until_mono_s:
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # the child has closed its side
            break
        if typed and seen.endswith(typed[0][0]):
            os.write(terminal, typed.pop(0)[1])
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert b"a-terminal\r\n" in seen.replace(b"echo a-terminal", b"")


def test_what_loses_its_parent_in_a_node_leaves_no_zombie(lived_in: tuple[Runtime, RunPlace]) -> None:
    """The first process of a node waits for whatever ends in it."""
    count = 'n=0; for s in /proc/[0-9]*/stat; do grep -q ") Z " $s 2>/dev/null && n=$((n+1)); done; echo $n'
    assert executed(lived_in, "sh", "-c", "sleep 0.05 & sleep 0.06 & exit 0").returncode == 0
    wait_for(lambda: executed(lived_in, "sh", "-c", "pidof sleep || true").stdout == b"")
    wait_for(lambda: executed(lived_in, "bash", "-c", count).stdout == b"0\n")


def agent_of(first: int) -> int:
    """The agent of a node, known by its first process: forked from it, it has the same command line."""
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    (agent,) = [pid for pid in map(int, children) if command_line(pid) == command_line(first)]
    return agent


async def test_a_killed_agent_is_started_again(runtime: Runtime, place: RunPlace) -> None:
    """`kill -9` of an agent: its node lives on, with another one that knows that it is the second."""
    (handle,) = runtime.start(specs_of(place, 1), ignore)
    control = place.control_dir(0) / "control.sock"
    async with AgentClient(control, "node0") as agent:
        await agent.wait_ready(DEADLINE_S, data_plane=False)
        assert (await agent.info()).restarts == 0
    killed = agent_of(handle.pid)
    os.kill(killed, signal.SIGKILL)
    await asyncio.to_thread(wait_for, lambda: not command_line(killed))
    async with AgentClient(control, "node0") as agent:
        await agent.wait_ready(DEADLINE_S, data_plane=False)
        assert (await agent.info()).restarts == 1
    assert runtime.alive(place.run_id) == {"node0"}


def test_a_node_whose_first_process_is_killed_is_gone_and_the_others_are_not(runtime: Runtime, place: RunPlace) -> None:
    """Whatever lived in it ends too, its commands included, and its removal is that of any other node."""
    handles = runtime.start(specs_of(place, 2), ignore)
    argv = [sys.executable, "-c", EXEC, runtime.name, place.run_id, "sh", "-c", "echo in; sleep 600"]
    inside = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert inside.stdout is not None
    assert inside.stdout.readline() == b"in\n"
    os.kill(handles[1].pid, signal.SIGKILL)
    wait_for(lambda: runtime.alive(place.run_id) == {"node0"})
    assert inside.wait(DEADLINE_S) == 137
    inside.stdout.close()
    runtime.remove(place.run_id)
    assert place.run_id not in runtime.run_ids()


def test_remove_touches_nothing_else(runtime: Runtime, place: RunPlace) -> None:
    """Another run's node outlives the removal of a run."""
    with RunPlace.create("other", Path("/out"), 1) as other:
        try:
            runtime.start(specs_of(other, 1), ignore)
            runtime.start(specs_of(place, 2), ignore)
            assert runtime.remove(place.run_id) == 2
            assert runtime.alive(other.run_id) == {"node0"}
        finally:
            runtime.remove(other.run_id)


def test_a_start_that_is_removed_leaves_nothing(runtime: Runtime, place: RunPlace) -> None:
    """Removal while nodes are starting breaks the start off; after it, nothing comes to life any more."""
    first = threading.Event()
    failures: list[Exception] = []

    def start() -> None:
        try:
            runtime.start(specs_of(place, MANY), lambda _: first.set())
        except SkyrackError as error:
            failures.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    assert first.wait(DEADLINE_S)
    assert 0 < runtime.remove(place.run_id) < MANY
    starting.join(DEADLINE_S)
    assert "was removed while its nodes were starting" in str(failures[0])
    assert place.run_id not in runtime.run_ids()


@pytest.mark.parametrize("moment", ["run id", "2", "up", "after up"])
def test_a_killed_controller_leaves_nothing_after_removal(runtime: Runtime, moment: str) -> None:
    """A controller killed before, during and after the start, and while it removes, leaves nothing that stays."""
    process = subprocess.Popen([sys.executable, "-c", STARTER, runtime.name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    wanted = {"run id": None, "after up": "up"}.get(moment, moment)
    for line in process.stdout if wanted else ():
        if line.strip() == wanted:
            break
    if moment == "after up":
        wait_for(lambda: len(runtime.alive(run_id)) < 8)
    process.send_signal(signal.SIGKILL)
    process.wait(DEADLINE_S)
    process.stdout.close()
    assert not any(place.alive for place in list_runs() if place.run_id == run_id)
    remove_run(run_id, [runtime], lambda _: False)
    assert run_id not in runtime.run_ids()
    assert not (MACHINE.run / run_id).exists()
    assert not (MACHINE.store / run_id).exists()
