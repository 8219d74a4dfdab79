"""The shaper for kernels without netem: a process of its own holds frames back in user space."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np

from controller.fabric import delay_line_process as line
from controller.fabric.netlink import ShapingError
from controller.fabric.panel import Panel
from controller.fabric.plan import DARK, ShapingPlan, queue_limit_bytes
from controller.fabric.plan_memory import DROPPED, LOST, PlanMemory
from controller.fabric.port_sizes import PortSizes
from controller.fabric.shaping import PatchTable
from controller.timeline import IntArray

ANSWER_TIMEOUT_S = 10.0
END_TIMEOUT_S = 10.0

RECORDS = np.dtype(
    [("peer", "=i8"), ("delay_us", "=i8"), ("rate_bps", "=i8"), ("loss_ratio", "=f8"), ("queue_limit_bytes", "=i8")]
)
"""The layout of plan_memory.RECORD."""
COMMANDED = ("peer", "delay_us", "rate_bps", "loss_ratio")


@dataclass(frozen=True)
class Drops:
    """Frames that did not arrive, since the start. Shapes: (n_port,) where arrays."""

    lost: IntArray  # as commanded
    queue: IntArray  # the queue of a direction was full
    overrun: int  # the delay line could not keep up: the emulation was too much for the machine
    refused: int  # a port was gone or down


class DelayLineShaper:
    """Shaping in user space; see delay_line_process for how, and plan_memory for how a plan gets there."""

    name = "delay-line"

    def __init__(self, panel: Panel, seed: int) -> None:
        self._panel = panel
        self._patches = PatchTable(panel)
        self._sizes = PortSizes(panel)
        self._lock = threading.Lock()
        self._records = np.zeros(panel.n_port, RECORDS)  # all that is commanded
        self._records["peer"] = DARK
        descriptor = os.memfd_create("skyrack-delay-line")
        try:
            os.ftruncate(descriptor, PlanMemory.size_bytes(panel.n_port))
            self._memory = PlanMemory(descriptor, panel.n_port)
            self._memory.publish(self._records.tobytes(), 0)
            self._control, theirs = socket.socketpair()
            self._control.settimeout(ANSWER_TIMEOUT_S)
            with theirs:
                numbers = (descriptor, panel.n_port, os.getpid(), seed)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", line.__name__, *map(str, numbers), str(panel.namespace)],
                    pass_fds=[descriptor], stdin=theirs.fileno(), stderr=subprocess.PIPE,
                )  # fmt: skip
        finally:
            os.close(descriptor)
        try:
            self._ask()
        except BaseException:
            self.close()
            raise

    def apply(self, plan: ShapingPlan) -> None:
        """Make these directions so. Raises ShapingError if the plan cannot be, or the delay line is gone."""
        peer = self._patches.after(plan)
        self._sizes.follow(plan)
        with self._lock:
            if self._control.fileno() < 0 or self._process.poll() is not None:
                raise self._ended()
            for name in COMMANDED:
                self._records[name][plan.port] = getattr(plan, name)
            self._records["queue_limit_bytes"][plan.port] = queue_limit_bytes(plan)
            self._memory.publish(self._records.tobytes(), time.monotonic_ns())
        self._patches.peer = peer

    def read_back(self) -> ShapingPlan:
        """The state that the delay line holds, as it sees it. A direction with another queue than its own, which a plan
        cannot say, has a rate of 0."""
        with self._lock:
            self._ask()
            held = np.frombuffer(self._memory.held(), RECORDS)
        plan = ShapingPlan.dark(self._panel.n_port)
        for name in COMMANDED:
            getattr(plan, name)[:] = held[name]
        self._sizes.read_back(plan)
        strange = (plan.peer != DARK) & (held["queue_limit_bytes"] != queue_limit_bytes(plan))
        plan.rate_bps[strange] = 0
        return plan

    def drops(self) -> Drops:
        """What did not arrive, and why."""
        with self._lock:
            overrun, refused = self._ask()
            counters = np.frombuffer(self._memory.counters(), np.int64).reshape(-1, 2)
        return Drops(counters[:, LOST], counters[:, DROPPED], overrun, refused)

    def close(self) -> None:
        """End the delay line. Idempotent."""
        self._control.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_TIMEOUT_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._memory.close()

    def _ask(self) -> tuple[int, int]:
        """Have the delay line show what it holds; frames it was too slow for, and frames that ports refused."""
        try:
            self._control.sendall(line.ASK)
            answer = self._control.recv(line.ANSWER.size, socket.MSG_WAITALL)
        except TimeoutError as error:
            raise ShapingError(f"the delay line did not answer within {ANSWER_TIMEOUT_S} s") from error
        except OSError as error:
            raise self._ended() from error
        if len(answer) < line.ANSWER.size:
            raise self._ended()
        _, overrun, refused = line.ANSWER.unpack(answer)
        return overrun, refused

    def _ended(self) -> ShapingError:
        """Why the delay line is gone, in its own last words."""
        if self._control.fileno() < 0:
            return ShapingError("the delay line is closed")
        try:
            _, last_words = self._process.communicate(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return ShapingError(f"the delay line (process {self._process.pid}) closed its control socket and hangs")
        said = (last_words or b"").decode("utf-8", "replace").strip().splitlines()
        return ShapingError(
            f"the delay line (process {self._process.pid}) ended with status {self._process.returncode}"
            + (f": {said[-1]}" if said else "")
            + "; no link works any more, start the run again"
        )
