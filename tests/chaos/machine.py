"""A machine of the run's own within this one, without an engine: process ids, mounts, users, /run, /var/lib.

What is killed, filled and left there is nobody else's, and other runs' sweeps do not meet a run whose controller was
killed. Its stores lie on a disk in memory, which a fault may make as small as what is on it. With the
first process all others end.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from node_agent.processes import seclusion

ALONE = "SKYRACK_CHAOS_ALONE"
WHOLE_MAP = "0 0 4294967295"  # user_namespaces(7)
DISK = "1200m"
SHARED = Path("/etc/opt")
"""Programs in nodes see this folder of the machine, read-only: through a socket in it they reach the witness."""

WITNESS = SHARED / "witness"
WORK = SHARED / "work.py"
INIT = f"""
mount -t tmpfs none /run
mkdir /run/netns
mount -t tmpfs -o size={DISK} none /var/lib
mount -t tmpfs none {SHARED}
mount -t tmpfs -o ro none /sys/fs/cgroup
if engine=$(command -v dockerd); then mount --bind /dev/null "$engine"; fi
"$@" &
wait $!
"""
"""The first process: bash reaps whoever loses its parent."""


def be_alone() -> None:
    """Go on in a machine of this process's own: begins the program anew there. Needs root."""
    if os.environ.get(ALONE):
        WORK.write_bytes(Path(__file__).with_name("work.py").read_bytes())
        return
    _have_users_of_own()
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private")
    argv = [*unshare, "bash", "-ec", INIT, "bash", sys.executable, "-m", "tests.chaos.run", *sys.argv[1:]]
    os.execvpe(argv[0], argv, {**os.environ, ALONE: "1"})  # noqa: S606 — ourselves


def _have_users_of_own() -> None:
    """Enter a user namespace with the same users as outside. By it, others' sweeps know that these runs are not theirs:
    they see these processes, and not this machine's /run."""
    ready, go = os.pipe()
    this = os.getpid()
    helper = os.fork()
    if not helper:  # it stays outside, whence alone such a map can be written
        os.read(ready, 1)
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{this}/{kind}").write_text(WHOLE_MAP)
        os._exit(0)
    seclusion.unshare(seclusion.CLONE_NEWUSER)
    os.write(go, b"x")
    if os.waitpid(helper, 0)[1]:
        sys.exit("a chaos run needs root")
    os.close(ready)
    os.close(go)
