"""The shaper for kernels without netem: a process of its own holds frames back in user space."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np

from controller.fabric import delay_line_process as line
from controller.fabric.netlink import Rows, ShapingError
from controller.fabric.panel import Panel
from controller.fabric.plan import ShapingPlan, queue_limit_bytes
from controller.fabric.shaping import PatchTable, Segments
from controller.timeline import IntArray

ANSWER_TIMEOUT_S = 10.0
END_TIMEOUT_S = 10.0

RECORDS = np.dtype(
    [
        ("port", "=i4"), ("peer", "=i4"), ("delay_us", "=i8"), ("rate_bps", "=i8"), ("loss_ratio", "=f8"),
        ("queue_limit_bytes", "=i8"), ("lost", "=i8"), ("dropped", "=i8"),
    ]
)  # fmt: skip
"""The layout of delay_line_process.RECORD."""


@dataclass(frozen=True)
class Drops:
    """Frames that did not arrive, since the start. Shapes: (n_port,) where arrays."""

    lost: IntArray  # as commanded
    queue: IntArray  # the queue of a direction was full
    overrun: int  # the delay line could not keep up: the emulation was too much for the machine
    refused: int  # a port was gone or down


class DelayLineShaper:
    """Shaping in user space; see delay_line_process."""

    name = "delay-line"

    def __init__(self, panel: Panel, seed: int) -> None:
        self._patches = PatchTable(panel)
        self._segments = Segments(panel)
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(ANSWER_TIMEOUT_S)
        module = [sys.executable, "-m", line.__name__]
        arguments = [str(os.getpid()), str(seed), str(panel.namespace)]
        with theirs:
            self._process = subprocess.Popen(module + arguments, stdin=theirs, stderr=subprocess.PIPE)
        try:
            self.apply(ShapingPlan.dark(panel.n_port))
        except BaseException:
            self.close()
            raise

    def apply(self, plan: ShapingPlan) -> None:
        """Make these directions so. Raises ShapingError if the plan cannot be, or the delay line does not answer."""
        peer = self._patches.after(plan)
        self._segments.bound(plan)
        records = np.zeros(len(plan), RECORDS)
        for name in ("port", "peer", "delay_us", "rate_bps", "loss_ratio"):
            records[name] = getattr(plan, name)
        records["queue_limit_bytes"] = queue_limit_bytes(plan.rate_bps)
        self._ask(line.APPLY, records)
        self._patches.peer = peer

    def read_back(self) -> ShapingPlan:
        """The state that the delay line holds."""
        records, _, _ = self._read()
        return ShapingPlan(
            records["port"].astype(np.int64),
            records["peer"].astype(np.int64),
            records["delay_us"].astype(np.int64),
            records["rate_bps"].astype(np.int64),
            records["loss_ratio"].astype(np.float64),
        )

    def drops(self) -> Drops:
        """What did not arrive, and why."""
        records, overrun, refused = self._read()
        return Drops(records["lost"].astype(np.int64), records["dropped"].astype(np.int64), overrun, refused)

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

    def _read(self) -> tuple[Rows, int, int]:
        records, overrun, refused = self._ask(line.READ_BACK, np.zeros(0, RECORDS))
        return np.sort(records, order="port"), overrun, refused

    def _ask(self, verb: int, records: Rows) -> tuple[Rows, int, int]:
        with self._lock:
            try:
                self._control.sendall(line.HEADER.pack(verb, len(records), 0, 0) + records.tobytes())
                header = line.receive_exactly(self._control, line.HEADER.size)
                if header is None:
                    raise self._ended()
                _, count, overrun, refused = line.HEADER.unpack(header)
                answer = line.receive_exactly(self._control, count * line.RECORD.size)
                if answer is None:
                    raise self._ended()
            except TimeoutError as error:
                raise ShapingError(f"the delay line did not answer within {ANSWER_TIMEOUT_S} s") from error
            except OSError as error:
                raise self._ended() from error
        return np.frombuffer(answer, RECORDS), overrun, refused

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
