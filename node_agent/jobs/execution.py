"""One attempt at a job: its program is watched, stopped, told to go on, and brought to its whole end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from node_agent.blocking import to_its_end, uninterrupted
from node_agent.errors import Refusal
from node_agent.jobs import outputs
from node_agent.jobs.ending import Ended, Report, mib, reason_of, report_of
from node_agent.jobs.kinds import REPORT, Limits
from node_agent.jobs.logs import STREAMS, JobLogs, Stream
from node_agent.jobs.scratch import Scratch
from node_agent.objects.catalog import for_job
from node_agent.objects.store import ObjectStore
from node_agent.processes.first_process import FirstProcess, Program, ProgramEnd
from node_agent.processes.program import Task
from protos.skyrack.v1 import jobs_pb2

_log = logging.getLogger(__name__)

SAMPLE_S = 0.25
MAX_SHARE = 0.05  # of the time may go into walking through a job's folder
CHECKPOINT_S = 1.0
_MAX_UNMEASURED = 8
_PIPE_DEADLINE_S = 2.0
_READ_BYTES = 64 * 1024

OnCheckpoint = Callable[[str], Awaitable[None]]
"""Told of a new checkpoint, an object in the store."""


@dataclass(frozen=True)
class Means:
    """What every attempt needs of its agent."""

    node: str
    store: ObjectStore
    logs: JobLogs
    first: FirstProcess


async def remove(first: FirstProcess, scratch: Scratch) -> None:
    """Remove what a job has left. Before: nothing of it runs. Idempotent. Raises OSError."""
    if not await to_its_end(scratch.remove):
        await first.clear(scratch.tree, str(scratch.folder))
        if not await to_its_end(scratch.remove):
            raise OSError(errno.ENOTEMPTY, "the job's own user cannot remove all of it", str(scratch.folder))


async def keep_checkpoint(means: Means, scratch: Scratch, job_id: str) -> str:
    """Copy a job's checkpoint into the store. Its name there. Raises Exhausted, OSError."""
    fd = await means.first.open(scratch.tree, str(scratch.checkpoint))
    try:
        name, _ = await means.store.adopt_fd(fd, "its checkpoint", why=for_job(job_id))
    finally:
        os.close(fd)
    return name


class Execution:
    """A job's program, from its start."""

    def __init__(
        self,
        means: Means,
        spec: jobs_pb2.JobSpec,
        scratch: Scratch,
        limits: Limits,
        given_bytes: int,
        on_checkpoint: OnCheckpoint,
        leave: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._means, self._spec, self._scratch, self._limits = means, spec, scratch, limits
        self._given_bytes, self._on_checkpoint, self._leave = given_bytes, on_checkpoint, leave
        self._time = _Stopwatch()
        self._pumps: list[_Pump] = []
        self._peak_bytes = 0
        self._measure_mono_s = time.monotonic() + SAMPLE_S  # when its folder is to be walked through
        self._unmeasured = 0
        self._seen = scratch.seen_checkpoint()
        self._keeping = asyncio.Lock()
        self._program: Program | None = None
        self._is_settled = False  # nothing of it runs any more

    @property
    def pid(self) -> int:
        """Of its program, also when that has ended."""
        assert self._program is not None
        return self._program.pid

    async def begin(self, task: Task) -> None:
        """Start the program. Raises OSError."""
        self._means.logs.begin(self._spec.id)
        writers: list[int] = []
        try:
            for stream in STREAMS:
                reader, writer = os.pipe2(os.O_CLOEXEC)
                writers.append(writer)
                os.set_blocking(reader, False)
                self._pumps.append(_Pump(reader, self._means.logs, self._spec.id, stream))
            self._time = _Stopwatch()
            self._program = await self._means.first.start(self._scratch.tree, task, *writers)
        except BaseException:
            for pump in self._pumps:
                pump.close()
            self._means.logs.close(self._spec.id)
            raise
        finally:
            for writer in writers:
                os.close(writer)

    @property
    def is_suspended(self) -> bool:
        """Whether its processes are stopped."""
        return not self._time.runs

    async def suspend(self) -> None:
        """Stop all its processes. After: none runs, its wall limit stands, its checkpoint is kept. Idempotent.

        Raises OSError.
        """
        if self._time.runs and not self._is_over:
            await self._means.first.signal(self._scratch.tree, signal.SIGSTOP)
            self._time.stop()
            await self._look_at_checkpoint()

    async def resume(self) -> None:
        """Let its processes go on. Idempotent. Raises OSError."""
        if not self._time.runs and not self._is_over:
            self._time.go_on()
            await self._means.first.signal(self._scratch.tree, signal.SIGCONT)

    async def ended(self) -> Ended:
        """Wait for its end, or bring it about at a limit. After: nothing of it runs, and what is to be kept of it is;
        `leave` is to follow, whatever this came to.

        Before: nothing else was awaited since `start`. Cancelled, it does the same before it leaves. Raises OSError if
        some of it cannot be ended.
        """
        following = asyncio.create_task(self._follow_checkpoints())
        try:
            over = await self._end_or_limit()
            end = await uninterrupted(self._end())
            return await self._told(end, over)
        finally:
            following.cancel()
            await uninterrupted(self._finish(following))

    async def leave(self) -> None:
        """Remove what is left of it. What cannot be ended keeps its user and its folder."""
        if self._is_settled:
            await uninterrupted(self._leave())

    async def give_up(self) -> None:
        """Bring about its end, in place of `ended` and `leave`. Raises OSError if some of it cannot be ended."""
        try:
            await self._finish(None)
        finally:
            await self.leave()

    @property
    def has_begun(self) -> bool:
        """Whether its program was started."""
        return self._program is not None

    @property
    def _is_over(self) -> bool:
        return self._program is None or self._program.end.done()

    async def _end_or_limit(self) -> str:
        """Wait until the program has ended, or is to be ended; then, why."""
        assert self._program is not None
        while True:
            left_s = self._limits.wall_s - self._time.elapsed_s if self._time.runs else SAMPLE_S
            await asyncio.wait({self._program.end}, timeout=max(0.0, min(SAMPLE_S, left_s)))
            if self._program.end.done():
                return ""
            if not self._time.runs:
                continue
            if self._time.elapsed_s >= self._limits.wall_s:
                return f"over its wall limit of {self._limits.wall_s:g} s"
            if over := await self._over():
                return over

    async def _over(self) -> str:
        """Which limit of the whole job is passed, if one is."""
        tree, limits, now_mono_s = self._scratch.tree, self._limits, time.monotonic()
        memory_bytes = await to_its_end(tree.memory_bytes)
        if memory_bytes <= limits.memory_bytes and now_mono_s < self._measure_mono_s:
            self._peak_bytes = max(self._peak_bytes, memory_bytes)
            return ""
        try:
            measure = await self._means.first.measure(tree, str(self._scratch.folder))
        except OSError as error:
            if error.errno == errno.ELOOP:
                return str(error.strerror)
            self._unmeasured += 1  # a node that it fills with processes has none left to look at it
            return f"it cannot be measured: {error.strerror}" if self._unmeasured >= _MAX_UNMEASURED else ""
        self._unmeasured = 0
        took_s = time.monotonic() - now_mono_s
        self._measure_mono_s = time.monotonic() + max(SAMPLE_S, took_s / MAX_SHARE)
        self._peak_bytes = max(self._peak_bytes, min(memory_bytes, measure.memory_bytes or memory_bytes))
        if min(memory_bytes, measure.memory_bytes) > limits.memory_bytes:
            return f"over its memory limit of {mib(limits.memory_bytes)}"
        if measure.disk_bytes - self._given_bytes > limits.disk_bytes:
            return f"over its disk limit of {mib(limits.disk_bytes)}"
        return ""

    async def _end(self) -> ProgramEnd:
        """Kill what runs of it, and take in what it has printed. Idempotent. Raises OSError."""
        assert self._program is not None
        if not self._program.end.done():
            await self._means.first.signal(self._scratch.tree, signal.SIGKILL)
        end = await self._program.end
        for pump in self._pumps:
            with suppress(TimeoutError):  # somebody else may have been given the other end
                async with asyncio.timeout(_PIPE_DEADLINE_S):
                    await pump.drained.wait()
            pump.close()
        return end

    async def _told(self, end: ProgramEnd, over: str) -> Ended:
        """The end in words, and the outputs in the store."""
        report = await to_its_end(report_of, self._scratch.folder / REPORT) if self._spec.wasm_object else Report()
        stdout, stderr = [self._means.logs.tail(self._spec.id, stream) for stream in STREAMS]
        reason = over or report.reason or reason_of(end.returncode, stderr, self._limits)
        kept: list[jobs_pb2.JobOutput] = []
        fits = True
        try:
            kept = await self._collect()
        except (Refusal, OSError) as no:
            why = no.strerror if isinstance(no, OSError) else str(no)
            fits, reason = False, reason if end.returncode or over else f"its outputs cannot be kept: {why}"
        return Ended(
            succeeded=fits and end.returncode == 0 and not over,
            exit_status=end.returncode if end.returncode >= 0 else 128 - end.returncode,
            signal=max(0, -end.returncode),
            reason=reason,
            stdout=stdout,
            stderr=stderr,
            outputs=kept,
            usage=jobs_pb2.JobUsage(
                cpu_s=end.cpu_s,
                wall_s=self._time.elapsed_s,
                peak_memory_bytes=self._peak(end),
                fuel=report.fuel,
            ),
        )

    def _peak(self, end: ProgramEnd) -> int:
        """The kernel's figure, unless that is of the process that became the program, and not of the program."""
        is_its_own = end.peak_bytes > end.before_bytes or not self._peak_bytes
        return max(self._peak_bytes, end.peak_bytes if is_its_own else 0)

    async def _collect(self) -> list[jobs_pb2.JobOutput]:
        if outputs.is_empty(self._scratch.outputs):  # as a rule told in no time
            return []
        await self._means.first.open_up(self._scratch.tree, str(self._scratch.outputs))
        return await outputs.collect(self._scratch.outputs, self._spec, self._means.store, self._means.node)

    async def _finish(self, following: asyncio.Task[None] | None) -> None:
        """Whatever happened: nothing of it runs, its last checkpoint and its log are kept."""
        try:
            await self._end()
            self._is_settled = True
            if following is not None:
                await asyncio.wait({following})
                if not following.cancelled() and (error := following.exception()):
                    raise error
            await self._look_at_checkpoint()
            await self._means.logs.finish(self._spec.id)
        finally:
            for pump in self._pumps:
                pump.close()
            self._means.logs.close(self._spec.id)

    async def _follow_checkpoints(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            await self._look_at_checkpoint()

    async def _look_at_checkpoint(self) -> None:
        """Keep the job's checkpoint if it is another one."""
        async with self._keeping:
            seen = self._scratch.seen_checkpoint()
            if seen is None or seen == self._seen:
                return
            self._seen = seen
            try:
                await self._on_checkpoint(await keep_checkpoint(self._means, self._scratch, self._spec.id))
            except (Refusal, OSError) as error:  # the job goes on, the one before stays
                _log.warning("job %s: its checkpoint is not kept: %s", self._spec.id, error)


class _Stopwatch:
    """Wall-clock seconds, those when it stood not counted."""

    def __init__(self) -> None:
        self._before_s = 0.0
        self._since_mono_s: float | None = time.monotonic()

    @property
    def runs(self) -> bool:
        return self._since_mono_s is not None

    @property
    def elapsed_s(self) -> float:
        return self._before_s + (time.monotonic() - self._since_mono_s if self._since_mono_s is not None else 0.0)

    def stop(self) -> None:
        self._before_s, self._since_mono_s = self.elapsed_s, None

    def go_on(self) -> None:
        self._since_mono_s = time.monotonic()


class _Pump:
    """Carries what a program prints into its log."""

    def __init__(self, fd: int, logs: JobLogs, job_id: str, stream: Stream) -> None:
        self._fd, self._logs, self._job_id, self._stream = fd, logs, job_id, stream
        self.drained = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, self._carry)

    def close(self) -> None:
        """Read no more. Idempotent."""
        if not self.drained.is_set():
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self.drained.set()

    def _carry(self) -> None:
        with suppress(BlockingIOError):
            if data := os.read(self._fd, _READ_BYTES):
                self._logs.append(self._job_id, self._stream, data)
            else:
                self.close()
