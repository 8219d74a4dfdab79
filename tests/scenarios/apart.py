"""Jobs that reach for what is not theirs, or will not end."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.executing import (
    Answer,
    Node,
    processes_with,
    python,
    scenario,
    shared_memory_segments,
    shell,
    state,
    told,
    until,
)


@scenario
async def apart(node: Node) -> Answer:
    """Jobs with users of their own, who try to reach what is not theirs. Wants users of their own."""
    other = await node.start(shell("other", "echo secret > $HOME/mine; chmod 666 $HOME/mine; sleep 60"))
    others_end = asyncio.create_task(node.ended(other))
    await until(lambda: (node.scratch("other") / "mine").exists(), "the other has written")
    kept = await node.keep(b"kept")
    (node.folder / "keys").mkdir(mode=0o700)
    (node.folder / "keys" / "node.pem").write_text("key")
    control = node.folder / "control.sock"
    mask = os.umask(0o177)
    listener = await asyncio.start_unix_server(lambda *_: None, control)
    os.umask(mask)
    reached = {
        "object": node.folder / "objects" / kept.removeprefix("sha256:"),
        "key": node.folder / "keys/node.pem",
        "other's file": node.scratch("other") / "mine",
        "agent's memory": Path(f"/proc/{os.getpid()}/mem"),
        "agent's environment": Path(f"/proc/{os.getpid()}/environ"),
        "agent's files": Path(f"/proc/{os.getpid()}/fd"),
        "other's environment": Path(f"/proc/{other.pid}/environ"),
        "first process's environment": Path("/proc/1/environ"),
        "scratch": node.folder / "scratch",
    }
    code = f"""
import json, os, signal, socket
tried = {{}}
for name, path in { ({name: str(path) for name, path in reached.items()})!r}.items():
    try:
        os.listdir(path) if name in ("scratch", "agent's files") else open(path, "rb").read(1)
        tried[name] = "reached"
    except OSError as error:
        tried[name] = error.strerror
for name, pid in (("agent", {os.getpid()}), ("first process", 1), ("other", {other.pid})):
    try:
        os.kill(pid, signal.SIGTERM)
        tried["signal to " + name] = "reached"
    except OSError as error:
        tried["signal to " + name] = error.strerror
try:
    socket.socket(socket.AF_UNIX).connect({str(control)!r})
    tried["control socket"] = "reached"
except OSError as error:
    tried["control socket"] = error.strerror
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps([tried, {{key: status[key] for key in ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "NoNewPrivs")}}]))
"""
    ended = told(await node.run(python("spy", code)))
    listener.close()
    others_end.cancel()
    await asyncio.wait({others_end})
    return ended


@scenario
async def escapees(node: Node) -> Answer:
    """A daemon without the job's environment, session or parent, while the job lives and when it has ended."""
    mark = f"9{os.getpid()}3"
    daemon = f"env -i setsid sh -c 'env -i setsid sleep {mark} & exit' & wait"
    execution = await node.start(shell("lasts", f"{daemon}; sleep 60"))
    ending = asyncio.create_task(node.ended(execution))
    await until(lambda: bool(processes_with(f"sleep\0{mark}")), "it has escaped")
    await execution.suspend()
    (pid,) = processes_with(f"sleep\0{mark}")
    stopped = state(pid)
    ending.cancel()
    await asyncio.wait({ending})
    after_cancel = processes_with(f"sleep\0{mark}")
    ended = told(await node.run(shell("ends", daemon)))
    return {"state": stopped, "after_cancel": after_cancel, "ended": ended, "after": processes_with(f"sleep\0{mark}")}


@scenario
async def spoilt(node: Node) -> Answer:
    """A job that leaves things in the folders that all share, and one that takes all processes that it may have."""
    left = """
import os, time
for folder in ("/tmp", "/dev/shm"):
    os.chdir(folder)
    os.makedirs("a/b/c"); open("a/b/c/file", "w").close(); os.chmod("a/b", 0)
    os.symlink("/etc", "link"); os.mkfifo("pipe")
    try:
        with open("big", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError as error:
        print(error.strerror)
import ctypes
print(ctypes.CDLL(None).shmget(1234, 1 << 20, 0o1600) >= 0)
"""
    bomb = """
import os, time
count = 0
try:
    while True:
        if not os.fork():
            time.sleep(60)
        count += 1
except OSError as error:
    print(count, error.strerror, flush=True)
"""
    spoiler = told(await node.run(python("spoiler", left)))
    after = {folder: os.listdir(folder) for folder in ("/tmp", "/dev/shm")}  # noqa: S108
    shared = shared_memory_segments()
    bomber = told(await node.run(python("bomber", bomb)))
    users = [entry for entry in os.listdir("/proc") if entry.isdigit()]
    return {"spoiler": spoiler, "after": after, "shared": shared, "bomber": bomber, "processes": len(users)}


@scenario
async def network(node: Node) -> Answer:
    """What sockets a job may make, with the network and without; and ways around the filter."""
    code = """
import ctypes, json, mmap, os, platform, socket
made = {}
for family in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_UNIX"):
    try:
        socket.socket(getattr(socket, family), socket.SOCK_DGRAM).close()
        made[family] = "made"
    except OSError as error:
        made[family] = error.strerror
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    answer = libc.syscall(*map(ctypes.c_long, arguments))
    return "made" if answer >= 0 else os.strerror(ctypes.get_errno())
params = ctypes.create_string_buffer(120)
made["io_uring"] = call(425, 4, ctypes.addressof(params))
if platform.machine() == "x86_64":
    made["x32"] = call(41 | 0x40000000, 2, 1, 0)
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("53 b814000000 cd80 5b c3"))  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
    entry = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    made["i386"] = "made" if entry() >= 0 else os.strerror(-entry())
print(json.dumps(made))
"""
    asked = python("asked", code)
    asked.network = True
    inherited = shell("inherited", f"exec {sys.executable} -c 'import socket; socket.socket()'")
    return {
        "not asked": told(await node.run(python("not-asked", code))),
        "asked": told(await node.run(asked)),
        "inherited": told(await node.run(inherited)),
    }
