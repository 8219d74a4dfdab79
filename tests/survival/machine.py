"""A machine of the tests' own within this one: what is killed, filled and removed in it is nobody else's.

It has its own process ids, mounts, control groups, /run and /var/lib, and in them a Docker Engine with its own
containerd, data root and sockets. With the first of its processes all others end, and nothing of it stays. Files
elsewhere, and the network that no node is in, are this machine's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from controller.runtime.image import node_image
from tests.commands import CommandLine, wait_until

END_S = 20.0
ENGINE_S = 30.0
CGROUPS = """
findmnt --noheadings --output TARGET --types cgroup,cgroup2 | while read -r root; do
    mkdir "$root/$0"
    for file in cpuset.cpus cpuset.mems; do  # which of version 1 begin empty
        if [ -e "$root/$0/$file" ]; then cat "$root/$file" > "$root/$0/$file"; fi
    done
    echo $$ > "$root/$0/cgroup.procs"
done
exec "$@"
"""
"""Control groups of a name, and a command in them."""

INIT = """
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir -p /run/netns
findmnt --noheadings --output TARGET --types cgroup,cgroup2 | while read -r root; do
    mount --bind "$root/$0" "$root"
    if [ -e "$root/cgroup.subtree_control" ]; then
        mkdir "$root/init"
        echo $$ > "$root/init/cgroup.procs"
        sed "s/[^ ]*/+&/g" "$root/cgroup.controllers" > "$root/cgroup.subtree_control"
    fi
done
echo ready
exec 3<&0
cat <&3 & wait $!
"""
"""The first process, which takes these for all that there are. bash reaps whoever loses its parent, as dockerd expects
when it looks for a dead containerd. It ends when its standard input does, so also when the tests are killed."""

DOCKERD = (
    "dockerd", "--bridge=none", "--iptables=false", "--ip-forward=false", "--host=unix:///run/docker.sock",
    "--exec-root=/run/docker", "--pidfile=/run/docker.pid", "--exec-opt=native.cgroupdriver=cgroupfs",
)  # fmt: skip


class Machine:
    """A machine with an engine that can be killed and started again."""

    def __init__(self, holder: subprocess.Popen[str], folder: Path) -> None:
        first_pid = int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        self._holder, self._folder = holder, folder
        self._engine: subprocess.Popen[bytes] | None = None
        self.commands = CommandLine(
            ("nsenter", f"--target={first_pid}", "--mount", "--pid", "--cgroup", f"--wdns={Path.cwd()}", "--"),
            Path(f"/proc/{first_pid}/root"),
        )

    def start_engine(self) -> None:
        """Start the engine, and wait until it answers."""
        with (self._folder / "engine.log").open("ab") as log:
            self._engine = subprocess.Popen(
                [*self.commands.enter, *DOCKERD, f"--data-root={self._folder / 'data'}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until("the engine answers", self._engine_answers, ENGINE_S)

    def kill_engine(self) -> None:
        """`kill -9` of dockerd, and of nothing else: containers and containerd live on."""
        assert self._engine is not None
        self.kill(int((self.commands.root / "run/docker.pid").read_text()))
        self._engine.wait(END_S)

    def mend(self) -> None:
        """Start the engine unless it runs, and remove what runs have left."""
        if self._engine is None or self._engine.poll() is not None:
            self.start_engine()
        if self.runs() or self.commands.run("docker", "ps", "--all", "--quiet"):
            self.commands.skyrack("down", "--all")

    def runs(self) -> list[str]:
        """The runs that have a folder on the machine, dead or alive."""
        roots = (self.commands.root / "run/skyrack", self.commands.root / "var/lib/skyrack")
        return sorted({path.name for root in roots for path in root.glob("[a-z]*")})

    def controller(self, run_id: str) -> int:
        """The process of a run's controller."""
        pid: int = json.loads((self.commands.root / "run/skyrack" / run_id / "run.json").read_text())["pid"]
        return pid

    def load_image(self) -> None:
        """Have the image of the nodes, from this machine's engine."""
        with subprocess.Popen(["docker", "save", node_image()], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                [*self.commands.enter, "docker", "load"], stdin=saving.stdout, check=True, capture_output=True
            )
        assert saving.returncode == 0

    def seen(self, path: Path) -> Path:
        """A path of the machine's as it is seen from here, where its mounts are not."""
        return self.commands.root / path.relative_to("/")

    def kill(self, pid: int) -> None:
        """`kill -9`, by the machine's own process id."""
        self.commands.run("kill", "-KILL", pid)

    def end(self) -> None:
        """End every process."""
        self._holder.kill()  # and with it its child, the first of the machine's processes
        if self._engine is not None:
            self._engine.wait(END_S)

    def _engine_answers(self) -> bool:
        assert self._engine is not None
        assert self._engine.poll() is None, (self._folder / "engine.log").read_text()[-2000:]
        asked = subprocess.run([*self.commands.enter, "docker", "version"], capture_output=True, check=False)
        return asked.returncode == 0


def without_cgroups(name: str) -> bool:
    """Remove the cgroups of a machine, innermost first, as far as nobody is in them. Whether none is left."""
    for tree in Path("/sys/fs/cgroup").glob(f"**/{name}"):
        for path, _, _ in os.walk(tree, topdown=False):
            with contextlib.suppress(OSError):  # somebody is still in it: the next look
                os.rmdir(path)
    return not any(Path("/sys/fs/cgroup").glob(f"**/{name}"))


@contextlib.contextmanager
def own_machine() -> Iterator[Machine]:
    """A machine whose engine answers and has the image of the nodes; gone afterwards, whatever happens."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="survival-of-skyrack-"))  # a disk, also where /tmp is none
    unshare = (
        "unshare", "--mount", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc", "--propagation=private",
    )  # fmt: skip
    holder = subprocess.Popen(
        ["bash", "-ec", CGROUPS, folder.name, *unshare, "bash", "-ec", INIT, folder.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder, contextlib.ExitStack() as clean_up:
        clean_up.callback(shutil.rmtree, folder)
        clean_up.callback(wait_until, "the cgroups are empty", lambda: without_cgroups(folder.name), END_S)
        clean_up.callback(holder.kill)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        machine = Machine(holder, folder)
        clean_up.callback(machine.end)
        machine.start_engine()
        machine.load_image()
        yield machine


if __name__ == "__main__":  # to look around in one
    with own_machine() as opened:
        subprocess.run([*opened.commands.enter, *sys.argv[1:]])
