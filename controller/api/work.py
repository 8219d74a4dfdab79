"""What a run answers of its jobs, its objects, and who was denied what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from controller.agents import FINAL_STATES
from controller.api.live import Context, LiveService, answered, refuse
from controller.errors import SkyrackError
from controller.jobs.desk import GatewayJob
from protos.skyrack.v1 import controller_pb2, jobs_pb2, objects_pb2


class WorkService(LiveService):
    """Answers for one emulation, beside its sky. Errors as LiveService has them."""

    async def Put(  # noqa: N802 - the names are the wire's
        self, request_iterator: AsyncIterator[controller_pb2.ViaPutRequest], context: Context
    ) -> objects_pb2.ObjectInfo:
        """Pass a put on to a node on the ground."""
        first = await anext(request_iterator, controller_pb2.ViaPutRequest())
        parts = (message.put async for message in request_iterator)
        return await answered(context, lambda: self._emulation.office.shelf.put(first.via, parts))

    async def Get(  # noqa: N802
        self, request: controller_pb2.ViaGetRequest, context: Context
    ) -> AsyncIterator[objects_pb2.GetResponse]:
        """Pass a get on to a node on the ground, once the object is there; of one that is coded, put it together."""
        try:
            async with aclosing(self._emulation.office.shelf.get(request.via, request.get)) as parts:
                async for part in parts:
                    yield part
        except SkyrackError as error:
            await refuse(context, error)

    async def PutCoded(  # noqa: N802
        self, request_iterator: AsyncIterator[controller_pb2.PutCodedRequest], context: Context
    ) -> AsyncIterator[controller_pb2.CodedObject]:
        """Have an object kept as fragments."""
        first = await anext(request_iterator, controller_pb2.PutCodedRequest())
        chunks = (message.chunk async for message in request_iterator)
        try:
            async with aclosing(self._emulation.office.coded.put(first.header, chunks)) as told:
                async for coded in told:
                    yield coded
        except SkyrackError as error:
            await refuse(context, error)

    async def StatObject(  # noqa: N802
        self, request: controller_pb2.ViaObjectRequest, context: Context
    ) -> controller_pb2.StatObjectResponse:
        """What the run knows of an object."""
        return await answered(context, lambda: self._emulation.office.shelf.stat(request.object))

    async def Submit(  # noqa: N802
        self, request: controller_pb2.ViaSubmitRequest, context: Context
    ) -> controller_pb2.JobAtGateway:
        """Place a job, hand it over, and follow it."""
        asked = (request.policy, tuple(request.pinned_to), request.deadline_s)
        return await self._job(context, lambda: self._emulation.desk.submit(request.via, request.spec, *asked))

    async def Keep(  # noqa: N802
        self, request: controller_pb2.KeepRequest, context: Context
    ) -> controller_pb2.KeepResponse:
        """Have an object kept at nodes."""
        entries = await answered(context, lambda: self._emulation.office.shelf.keep(request))
        return controller_pb2.KeepResponse(jobs=map(self._told, entries))

    async def ListJobs(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> controller_pb2.ListAllJobsResponse:
        """The jobs of all gateways."""
        entries = await answered(context, lambda: self._emulation.desk.list())
        return controller_pb2.ListAllJobsResponse(jobs=map(self._told, entries))

    async def WatchJob(  # noqa: N802
        self, request: controller_pb2.FindJobRequest, context: Context
    ) -> AsyncIterator[controller_pb2.JobAtGateway]:
        """A job now and at every change."""
        try:
            async for entry in self._emulation.desk.watch(request.id, request.after_revision):
                yield self._told(entry)
        except SkyrackError as error:
            await refuse(context, error)

    async def CancelJob(  # noqa: N802
        self, request: controller_pb2.FindJobRequest, context: Context
    ) -> controller_pb2.JobAtGateway:
        """Ask for a job's end."""
        return await self._job(context, lambda: self._emulation.desk.cancel(request.id))

    async def SuspendJob(  # noqa: N802
        self, request: controller_pb2.FindJobRequest, context: Context
    ) -> controller_pb2.JobAtGateway:
        """Have a job stand still."""
        return await self._job(context, lambda: self._emulation.desk.suspend(request.id))

    async def ResumeJob(  # noqa: N802
        self, request: controller_pb2.FindJobRequest, context: Context
    ) -> controller_pb2.JobAtGateway:
        """Let it go on."""
        return await self._job(context, lambda: self._emulation.desk.resume(request.id))

    async def ReadLog(  # noqa: N802
        self, request: controller_pb2.FindLogRequest, context: Context
    ) -> AsyncIterator[jobs_pb2.LogChunk]:
        """What a job has written."""
        asked = jobs_pb2.ReadLogRequest(
            id=request.id, stream=request.stream, offset_bytes=request.offset_bytes, follow=request.follow
        )
        try:
            async for chunk in self._emulation.desk.read_log(asked):
                yield chunk
        except SkyrackError as error:
            await refuse(context, error)

    async def ExplainJob(  # noqa: N802
        self, request: controller_pb2.FindJobRequest, context: Context
    ) -> controller_pb2.Explanation:
        """Why a job is where it is."""
        explanation, entry = await answered(context, lambda: self._emulation.desk.explain(request.id))
        explanation.job.CopyFrom(self._told(entry))
        return explanation

    async def ListObjects(  # noqa: N802
        self, request: controller_pb2.ListObjectsAtRequest, context: Context
    ) -> controller_pb2.ListObjectsAtResponse:
        """The objects of nodes on the ground, and those that are kept as fragments."""
        found = await answered(context, lambda: self._emulation.office.shelf.list(request.via))
        objects = [controller_pb2.ObjectAtNode(node=node, info=info) for node, info in found]
        coded = [] if request.via else await answered(context, lambda: self._emulation.office.coded.told())
        return controller_pb2.ListObjectsAtResponse(objects=objects, coded=coded)

    async def SetTerms(  # noqa: N802
        self, request: controller_pb2.ViaTermsRequest, context: Context
    ) -> objects_pb2.ObjectInfo:
        """Change an object's terms."""
        return await answered(context, lambda: self._emulation.office.shelf.set_terms(request.via, request.set))

    async def DeleteObject(  # noqa: N802
        self, request: controller_pb2.ViaObjectRequest, context: Context
    ) -> controller_pb2.DropObjectResponse:
        """Remove an object."""
        return await answered(context, lambda: self._emulation.office.shelf.delete(request.via, request.object))

    async def Scrub(  # noqa: N802
        self, request: controller_pb2.ViaObjectRequest, context: Context
    ) -> objects_pb2.ScrubReport:
        """Hold objects against their names."""
        return await answered(context, lambda: self._emulation.office.shelf.scrub(request.via, request.object))

    async def Audit(  # noqa: N802
        self, request: controller_pb2.RunAuditRequest, context: Context
    ) -> controller_pb2.RunAuditResponse:
        """What was denied, damaged or repaired."""
        events = await answered(context, lambda: self._emulation.office.audit())
        return controller_pb2.RunAuditResponse(events=events)

    async def RotateCertificates(  # noqa: N802
        self, request: controller_pb2.RotateCertificatesRequest, context: Context
    ) -> controller_pb2.RotateCertificatesResponse:
        """Give nodes new keys and certificates."""
        rotated = await answered(context, lambda: self._emulation.certificates.rotate(request.nodes))
        return controller_pb2.RotateCertificatesResponse(rotated=rotated)

    async def _job(self, context: Context, call: Callable[[], Awaitable[GatewayJob]]) -> controller_pb2.JobAtGateway:
        """A call's one job, told."""
        return self._told(await answered(context, call))

    def _told(self, entry: GatewayJob) -> controller_pb2.JobAtGateway:
        """A job with what the controller knows of it."""
        return controller_pb2.JobAtGateway(
            via=entry.via,
            job=entry.job,
            cause="" if entry.job.state in FINAL_STATES else self._emulation.cause_of_wait(entry),
            policy=self._emulation.desk.policy_of(entry.job.spec.id),
        )
