"""Run a command in a node that lives without an engine: where its agent is, and as whom.

Run as `python -m node_agent.processes.enter PIDFD UID GID CGROUP_PROCS… -- COMMAND [ARGUMENT…]`; stdin, stdout and
stderr are the caller's. On a terminal the command has one of its own, which belongs to its session as a shell wants it,
and this program passes on what is typed and shown. Exit status: the command's, as a shell has it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import signal
import sys
import termios
import tty
from typing import NoReturn

from node_agent.processes import nodes_root, seclusion

NOT_FOUND, NOT_EXECUTABLE = 127, 126
CHUNK_BYTES = 65536
PLACE = (
    seclusion.CLONE_NEWNS
    | seclusion.CLONE_NEWNET
    | seclusion.CLONE_NEWUTS
    | seclusion.CLONE_NEWIPC
    | seclusion.CLONE_NEWCGROUP
)


def main() -> None:
    """The program."""
    split = sys.argv.index("--")
    node, uid, gid = (int(text) for text in sys.argv[1:4])
    on_terminal = os.isatty(0) and os.isatty(1)
    try:
        for path in sys.argv[4:split]:
            with open(path, "w") as joined:
                joined.write("0")
        seclusion.set_namespace(node, seclusion.CLONE_NEWPID)  # that of the next child
    except OSError as error:
        sys.exit(f"cannot enter the node: {error}")
    pid, terminal = pty.fork() if on_terminal else (os.fork(), -1)
    if not pid:
        _become(node, uid, gid, sys.argv[split + 1 :])
    for number in (signal.SIGINT, signal.SIGQUIT):  # without a terminal of its own the command is told too, and decides
        signal.signal(number, signal.SIG_IGN)
    if on_terminal:
        _pass_on(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.exit(status if status >= 0 else 128 - status)


def _become(node: int, uid: int, gid: int, argv: list[str]) -> NoReturn:
    try:
        seclusion.set_namespace(node, PLACE)
        os.chdir("/")
        seclusion.drop_privileges(uid, gid)
        seclusion.die_with_parent()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):  # Python, or the caller, ignores them
            signal.signal(number, signal.SIG_DFL)
        environment = {**nodes_root.ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
        os.execvpe(argv[0], argv, environment)  # noqa: S606  (the user's own command)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _pass_on(terminal: int) -> None:
    """Between the caller's terminal and the command's, until the command lets go of its own."""

    def resize(*_: object) -> None:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    signal.signal(signal.SIGWINCH, resize)
    resize()
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        readers = [terminal, 0]
        while terminal in readers:
            for ready in select.select(readers, [], [])[0]:
                data = os.read(ready, CHUNK_BYTES)
                if not data:
                    readers.remove(ready)
                while data:
                    data = data[os.write(1 if ready == terminal else terminal, data) :]
    except OSError as error:
        if error.errno != errno.EIO:  # that is the end: nobody holds the other side any more
            raise
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


if __name__ == "__main__":
    main()
