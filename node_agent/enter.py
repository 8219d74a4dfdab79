"""Run a command in a node that lives without an engine: where its agent is, and as whom.

Run as `python -m node_agent.enter PIDFD UID GID CGROUP_PROCS… -- COMMAND [ARGUMENT…]`; stdin, stdout, stderr and the
terminal are the caller's. Exit status: the command's, as a shell has it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from node_agent import nodes_root, seclusion

NOT_FOUND, NOT_EXECUTABLE = 127, 126
NODES = (
    seclusion.CLONE_NEWNS
    | seclusion.CLONE_NEWNET
    | seclusion.CLONE_NEWUTS
    | seclusion.CLONE_NEWIPC
    | seclusion.CLONE_NEWCGROUP
    | seclusion.CLONE_NEWPID
)


def main() -> None:
    """The program."""
    split = sys.argv.index("--")
    node, uid, gid = (int(text) for text in sys.argv[1:4])
    try:
        for path in sys.argv[4:split]:
            with open(path, "w") as joined:
                joined.write("0")
        seclusion.set_namespace(node, NODES)
    except OSError as error:
        sys.exit(f"cannot enter the node: {error}")
    pid = os.fork()  # the namespace of processes is that of children
    if not pid:
        _become(uid, gid, sys.argv[split + 1 :])
    for number in (signal.SIGINT, signal.SIGQUIT):  # the terminal tells the command too, and it decides
        signal.signal(number, signal.SIG_IGN)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.exit(status if status >= 0 else 128 - status)


def _become(uid: int, gid: int, argv: list[str]) -> NoReturn:
    try:
        os.chdir("/")
        environment = {**nodes_root.ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
        seclusion.drop_privileges(uid, gid)
        seclusion.die_with_parent()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):  # Python, or the caller, ignores them
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], argv, environment)  # noqa: S606  (the user's own command)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
