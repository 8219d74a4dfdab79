"""The lives of jobs beneath an executor: limits, suspension, checkpoints, outputs, ends."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import time
from pathlib import Path

from node_agent.errors import Exhausted
from node_agent.processes.users import JOB_USERS
from protos.skyrack.v1.jobs_pb2 import JobInput, JobLimits, JobSpec
from tests.executing import (
    Answer,
    Node,
    command,
    processes_with,
    python,
    scenario,
    second_life,
    shell,
    told,
    until,
)

COUNT = """
import itertools, os, time
for count in itertools.count():
    with open(os.environ["SKYRACK_OUTPUT_DIR"] + "/count", "w") as file:
        file.write(str(count))
    time.sleep(0.01)
"""
# Writes its checkpoint as is usual: aside, then renamed. Goes on from the one that it finds.
STEPS = """
import os, tempfile, time
path = os.environ["SKYRACK_CHECKPOINT"]
step = int(open(path).read()) if os.path.exists(path) else 0
print("from", step, flush=True)
while step < 100:
    step += 1
    fd, aside = tempfile.mkstemp(dir=os.path.dirname(path))
    os.write(fd, str(step).encode())
    os.close(fd)
    os.rename(aside, path)
    time.sleep(0.1)
"""


@scenario
async def odd_outputs(node: Node) -> Answer:
    """Outputs that are no plain files, or that nobody may read; and one of the job's folders swapped for a link."""
    script = """
cd $SKYRACK_OUTPUT_DIR
echo plain > plain
mkdir -p closed/inner && echo hidden > closed/inner/file && chmod 000 closed/inner/file closed/inner closed
ln -s /etc/passwd link; ln -s / root; mkfifo pipe
mkdir empty
printf x > "$(printf 'bad\\377name')"
"""
    ended = told(await node.run(shell("odd", script)))
    swap = 'cd "$HOME" && mv output elsewhere && ln -s /etc output && rm -rf elsewhere tmp inputs'
    swapped = told(await node.run(shell("swap", swap)))
    return {"odd": ended, "swapped": swapped, "left": os.listdir(node.folder / "scratch")}


@scenario
async def too_many_outputs(node: Node) -> Answer:
    """More files than can be told of, and folders that nest without end."""
    many = await node.run(python("many", """
import os
os.chdir(os.environ["SKYRACK_OUTPUT_DIR"])
for number in range(5000):
    open(str(number), "w").close()
"""))  # fmt: skip
    deep = await node.run(python("deep", """
import os
os.chdir(os.environ["SKYRACK_OUTPUT_DIR"])
for _ in range(3000):
    os.mkdir("d"); os.chdir("d")
"""))  # fmt: skip
    return {"many": told(many), "deep": told(deep), "left": os.listdir(node.folder / "scratch")}


@scenario
async def limits(node: Node) -> Answer:
    """Each limit, passed."""
    forked = """
import os, time
for _ in range(4):
    if not os.fork():
        taken = bytearray(os.urandom(1024)) * 40_000
        time.sleep(60)
time.sleep(60)
"""
    shared = """
import os, time
taken = bytearray(os.urandom(1024)) * 60_000
for _ in range(4):
    if not os.fork():
        time.sleep(1.2)
        os._exit(0)
time.sleep(1.2)
"""
    many_files = """
import os
os.chdir(os.environ["TMPDIR"])
for number in range(100):
    with open(str(number), "wb") as file:
        file.write(bytes(1_000_000))
import time; time.sleep(60)
"""
    one_file = "head -c 100000000 /dev/zero > $TMPDIR/big; echo $?"
    mib = 2**20
    one = python("one", "bytearray(10**9)", memory_bytes=256 * mib)
    specs = {
        "wall": command("wall", "sleep", "60", wall_s=0.5),
        "cpu": shell("cpu", "while true; do true; done", cpu_s=1),
        "address_space": one,
        "memory_of_all": python("all", forked, memory_bytes=128 * mib),
        "memory_shared": python("shared", shared, memory_bytes=128 * mib),
        "disk": python("disk", many_files, disk_bytes=20 * mib),
        "file": shell("file", one_file, disk_bytes=20 * mib),
    }
    return {name: told(await node.run(spec)) for name, spec in specs.items()}


@scenario
async def inputs_are_no_disk_used(node: Node) -> Answer:
    """A job with a large input and a small limit of disk."""
    name = await node.keep(os.urandom(30_000_000))
    spec = shell("given", "sleep 0.7; wc -c < $SKYRACK_INPUTS", disk_bytes=2**20)
    spec.inputs.append(JobInput(object=name))
    return told(await node.run(spec))


@scenario
async def suspended(node: Node) -> Answer:
    """A counter that is stopped for longer than its wall limit, and goes on."""
    execution = await node.start(python("count", COUNT, wall_s=4))
    ending = asyncio.create_task(node.ended(execution))
    path = node.scratch("count") / "output/count"

    def count() -> int:
        with open(path) as file:
            return int(file.read() or -1)

    await until(lambda: path.exists() and count() > 5, "it counts")
    await execution.suspend()
    stood = count()
    await asyncio.sleep(5)
    still = count()
    await execution.resume()
    await until(lambda: count() > stood + 5, "it counts on")
    ended = told(await ending)
    return {"stood": stood, "still": still, "ended": ended}


@scenario
async def suspended_and_cancelled(node: Node) -> Answer:
    """A job that is stopped is cancelled, and so is one that runs; each with a daemon."""
    answer: Answer = {}
    for name, is_stopped in (("stopped", True), ("running", False)):
        mark = f"9{os.getpid()}{len(answer)}"
        execution = await node.start(shell(name, f"setsid sleep {mark} & sleep {mark}"))
        ending = asyncio.create_task(node.ended(execution))
        await until(lambda mark=mark: len(processes_with(f"sleep\0{mark}")) == 2, "both sleep")  # type: ignore[misc]
        await asyncio.sleep(0)
        if is_stopped:
            await execution.suspend()
        ending.cancel()
        await asyncio.wait({ending})
        answer[name] = {"cancelled": ending.cancelled(), "left": processes_with(f"sleep\0{mark}")}
    answer["scratch"] = os.listdir(node.folder / "scratch")
    return answer


@scenario
async def cancelled_at_once(node: Node) -> Answer:
    """Jobs whose start is cancelled, at every moment of it; then as many as may have processes at a time."""
    mark = f"9{os.getpid()}5"
    started = 0
    for number in range(40):
        starting = asyncio.create_task(node.start(command(f"start{number}", "sleep", mark)))
        await asyncio.sleep(number * 0.0002)
        starting.cancel()
        await asyncio.wait({starting})
        if not starting.cancelled():
            started += 1
            ending = asyncio.create_task(node.ended(starting.result()))
            await asyncio.sleep(0)
            ending.cancel()
            await asyncio.wait({ending})
    left, scratch = processes_with(f"sleep\0{mark}"), os.listdir(node.folder / "scratch")
    most = [await node.start(command(f"many{number}", "sleep", "60")) for number in range(JOB_USERS)]
    try:
        await node.start(command("one-more", "true"))
        refused = ""
    except Exhausted as error:
        refused = str(error)
    endings = [asyncio.create_task(node.ended(each)) for each in most]
    await asyncio.sleep(0)
    for each in endings:
        each.cancel()
    await asyncio.wait(endings)
    after = told(await node.run(shell("after", "echo here")))
    return {"left": left, "scratch": scratch, "refused": refused, "after": after, "started": started}


@scenario
async def checkpoints(node: Node) -> Answer:
    """A job is cancelled half-way, and goes on from its last checkpoint."""
    execution = await node.start(python("steps", STEPS))
    ending = asyncio.create_task(node.ended(execution))
    await until(lambda: len(node.checkpoints) >= 2, "two checkpoints are kept")
    await execution.suspend()
    at_suspend = int(node.content(node.checkpoints[-1]))
    in_folder = int((node.scratch("steps") / "checkpoint/state").read_bytes()) if os.geteuid() == 0 else at_suspend
    ending.cancel()
    await asyncio.wait({ending})
    spec = python("again", STEPS, wall_s=0.5)
    ended = told(await node.run(spec, node.checkpoints[-1]))
    return {"at_suspend": at_suspend, "in_folder": in_folder, "kept": len(node.checkpoints), "ended": ended}


@scenario
async def killed(node: Node) -> Answer:
    """The agent of a job with a checkpoint and a daemon is killed."""
    mark = f"9{os.getppid()}7"
    (node.folder / "mark").write_text(mark)
    execution = await node.start(shell("left", f"echo so-far > $HOME/new; mv $HOME/new $SKYRACK_CHECKPOINT;"
                                               f"setsid sleep {mark} & sleep {mark}"))  # fmt: skip
    assert execution is not None
    await until(lambda: len(processes_with(f"sleep\0{mark}")) == 2, "both sleep")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still here")


@second_life
async def killed_again(node: Node) -> Answer:
    """Nothing runs of the job, and its checkpoint is there."""
    left = processes_with(f"sleep\0{(node.folder / 'mark').read_text()}")
    name = await node.executor.rescue("left")
    assert name is not None
    nothing = await node.executor.rescue("nothing")
    await node.executor.clear_all()
    return {
        "left": left,
        "checkpoint": node.content(name).decode(),
        "nothing": nothing,
        "scratch": os.listdir(node.folder / "scratch"),
    }


@scenario
async def printed(node: Node) -> Answer:
    """Little and much, and a second attempt."""
    (small,) = [await node.run(shell("small", "echo out; echo err >&2"))]
    loud = await node.run(shell("loud", "head -c 20000000 /dev/zero | tr '\\0' a; echo end"))
    following = await node.start(shell("followed", "for i in 1 2 3; do echo $i; sleep 0.3; done"))

    async def follow() -> list[tuple[int, str]]:
        return [(at, data.decode()) async for at, data in node.logs.read("followed", "stdout", follow=True)]

    pieces, _ = await asyncio.gather(follow(), node.ended(following))
    first = await node.run(shell("twice", "echo one, long"))
    second = await node.run(shell("twice", "echo two"))
    return {
        "small": told(small),
        "loud_kept": node.logs.size_bytes("loud", "stdout"),
        "loud_end": loud.stdout[-5:].decode(),
        "loud_tail": len(loud.stdout),
        "pieces": pieces,
        "twice": [first.stdout.decode(), second.stdout.decode()],
        "files": sorted(os.listdir(node.folder / "logs")),
    }


@scenario
async def wasm(node: Node) -> Answer:
    """Modules that end well, badly, and not at all."""
    answer: Answer = {}
    texts = {path.stem: path.read_bytes() for path in (Path(__file__).parents[1] / "agent/wasm").glob("*.wat")}
    for name in ("sums", "sums", "traps", "loops", "copies", "grows", "exits"):
        spec = JobSpec(id=f"{name}-{len(answer)}", wasm_object=await node.keep(texts[name]), arguments=["one", "two"])
        spec.environment["TINT"] = "red"
        spec.limits.CopyFrom(JobLimits(fuel=100_000 if name == "loops" else 0, memory_bytes=16 * 2**20))
        spec.inputs.append(JobInput(object=await node.keep(b"twelve bytes")))
        ended = await node.run(spec)
        contents = {each.name: node.content(each.object).decode() for each in ended.outputs}
        answer[spec.id] = told(ended) | {"contents": contents}
    for name, content in (("nonsense", b"\0asm nonsense"), ("imports", texts["imports"])):
        spec = JobSpec(id=name, wasm_object=await node.keep(content))
        answer[name] = told(await node.run(spec))
    return answer


@scenario
async def overhead(node: Node) -> Answer:
    """An empty program beneath the executor, and bare, by turns."""
    ours_s, bare_s = [], []
    for number in range(60):
        start_s = time.perf_counter()
        await node.run(command(f"empty{number}", "true"))
        middle_s = time.perf_counter()
        await asyncio.to_thread(subprocess.run, ["true"], check=True)
        ours_s.append(middle_s - start_s)
        bare_s.append(time.perf_counter() - middle_s)
    return {"ours_ms": 1e3 * statistics.median(ours_s), "bare_ms": 1e3 * statistics.median(bare_s)}
