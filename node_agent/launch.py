"""Between the agent and a job's program: set the limits that only the process itself can set, then become the program.

Run as `python -I -S launch.py AGENT_PID MEMORY_BYTES CPU_S PROGRAM [ARGUMENT…]`; imports nothing of the agent's, since
it starts once a job. A hook between fork and exec would do the same, but forking a process that has gRPC's threads is
not safe.
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
COMMAND_NOT_FOUND = 127  # what a shell answers


def main() -> None:
    """Set the limits and exec."""
    agent_pid, memory_bytes, cpu_s = (int(text) for text in sys.argv[1:4])
    argv = sys.argv[4:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != agent_pid:
        sys.exit("the agent has ended")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # SIGXCPU, a second later SIGKILL
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    try:
        os.execvp(argv[0], argv)  # noqa: S606 — the job's program is what the user asked for
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.exit(COMMAND_NOT_FOUND)


if __name__ == "__main__":
    main()
