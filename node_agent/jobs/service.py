"""The jobs' service on the wire: each call a verb of the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from node_agent.errors import InvalidArgument
from node_agent.jobs.engine import Engine
from node_agent.jobs.logs import Stream
from node_agent.security.access import EMULATOR, caller
from node_agent.services import Context, answer, answers
from protos.skyrack.v1 import jobs_pb2, jobs_pb2_grpc

_STREAMS: Final[dict[jobs_pb2.LogStream.ValueType, Stream]] = {
    jobs_pb2.LOG_STREAM_STDOUT: "stdout",
    jobs_pb2.LOG_STREAM_STDERR: "stderr",
}


class Jobs(jobs_pb2_grpc.JobsServicer):
    """The engine, on the wire."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Submit(self, request: jobs_pb2.SubmitRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """Take charge of a job."""
        who = caller()
        return await answer(context, self._engine.submit(request.spec, "" if who == EMULATOR else who.name))

    async def Get(self, request: jobs_pb2.GetJobRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """One job."""
        return await answer(context, self._engine.told.job(request.id))

    async def List(self, request: jobs_pb2.ListJobsRequest, context: Context) -> jobs_pb2.ListJobsResponse:  # noqa: N802
        """All jobs, a message full at a time."""
        return await answer(context, self._engine.told.page(request.after_id))

    async def Watch(self, request: jobs_pb2.WatchJobRequest, context: Context) -> AsyncIterator[jobs_pb2.Job]:  # noqa: N802
        """A job now and at every change."""
        async for job in answers(context, self._engine.told.watch(request.id, request.after_revision)):
            yield job

    async def ReadLog(  # noqa: N802
        self, request: jobs_pb2.ReadLogRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.LogChunk]:
        """What a job has written."""
        stream = _STREAMS.get(request.stream)
        if stream is None:
            raise InvalidArgument(f"stream {request.stream} is neither stdout (0) nor stderr (1)")
        pieces = self._engine.told.read_log(request.id, stream, request.offset_bytes, follow=request.follow)
        async for offset_bytes, data in answers(context, pieces):
            yield jobs_pb2.LogChunk(offset_bytes=offset_bytes, data=data)

    async def Cancel(self, request: jobs_pb2.CancelJobRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """End a job."""
        return await answer(context, self._engine.cancel(request.id))

    async def Return(  # noqa: N802
        self, request: jobs_pb2.ReturnJobRequest, context: Context
    ) -> jobs_pb2.ReturnJobResponse:
        """Take charge of a result on its way back."""
        await answer(context, self._engine.results.take(request.job))
        return jobs_pb2.ReturnJobResponse()

    async def Release(  # noqa: N802
        self, request: jobs_pb2.ReleaseJobRequest, context: Context
    ) -> jobs_pb2.ReleaseJobResponse:
        """Its result is safe elsewhere."""
        await answer(context, self._engine.results.release(request.id))
        return jobs_pb2.ReleaseJobResponse()

    async def Suspend(self, request: jobs_pb2.SuspendJobRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """Stop a job until it is resumed."""
        return await answer(context, self._engine.suspend(request.id))

    async def Resume(self, request: jobs_pb2.ResumeJobRequest, context: Context) -> jobs_pb2.Job:  # noqa: N802
        """Let a job go on."""
        return await answer(context, self._engine.resume(request.id))
