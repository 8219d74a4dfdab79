"""What is told of the jobs here, and of what they print, to whoever may ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from node_agent.jobs.ledger import Ledger
from node_agent.jobs.logs import JobLogs, Stream
from node_agent.jobs.states import FINAL
from protos.skyrack.v1 import jobs_pb2

_MAX_PAGE_BYTES: Final = 3 * 2**20
"""Of a list of jobs: a message holds it, and one job more."""


class Told:
    """The jobs of one agent, to read."""

    def __init__(self, ledger: Ledger, logs: JobLogs) -> None:
        self._ledger, self._logs = ledger, logs

    async def job(self, job_id: str) -> jobs_pb2.Job:
        """One job. Raises NotFound."""
        return await self._ledger.settled(job_id)

    async def page(self, after_id: str) -> jobs_pb2.ListJobsResponse:
        """The jobs after one, oldest first, without what they printed; as many as fit a message."""
        answer, size_bytes = jobs_pb2.ListJobsResponse(), 0
        for job in self._ledger.briefs(after_id):
            size_bytes += job.ByteSize()
            if size_bytes > _MAX_PAGE_BYTES and answer.jobs:
                answer.more = True
                break
            answer.jobs.append(job)
        return answer

    async def read_log(
        self, job_id: str, stream: Stream, offset_bytes: int, *, follow: bool
    ) -> AsyncIterator[tuple[int, bytes]]:
        """What a job has printed here, and where it belongs. Raises NotFound, OutOfRange."""
        record = self._ledger.record(job_id)
        while True:
            changed, is_over = record.changed, record.told.state in FINAL
            async for at_bytes, piece in self._logs.read(job_id, stream, offset_bytes, follow=follow):
                yield at_bytes, piece
                offset_bytes = at_bytes + len(piece)
            if is_over or not follow:
                return
            await changed.wait()

    def watch(self, job_id: str, after_revision: int) -> AsyncIterator[jobs_pb2.Job]:
        """A job now and at every change."""
        return self._ledger.watch(job_id, after_revision)
