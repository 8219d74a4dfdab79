"""What a run answers to the command line: `skyrack.v1.Controller` on the run's Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np

from controller.agents import FINAL_STATES
from controller.api.live import Context, LiveService, answered, override_messages, refuse, utc_text_at
from controller.emulation import Emulation
from controller.errors import InputError, SkyrackError
from controller.jobs.desk import GatewayJob
from controller.timeline import LinkKind, Role
from protos.skyrack.v1 import controller_pb2, controller_pb2_grpc, jobs_pb2, objects_pb2

STOP_GRACE_S = 1.0


class ControllerService(LiveService):
    """Answers for one emulation. Input errors become INVALID_ARGUMENT, all others of skyrack's FAILED_PRECONDITION."""

    def __init__(self, emulation: Emulation, out_dir: Path) -> None:
        super().__init__(emulation)
        self._out_dir = out_dir

    async def GetStatus(  # noqa: N802 - the name is the wire's
        self, request: controller_pb2.GetStatusRequest, context: Context
    ) -> controller_pb2.RunStatus:
        """The run as it stands."""
        return run_status(self._emulation, self._out_dir)

    async def Put(  # noqa: N802
        self, request_iterator: AsyncIterator[controller_pb2.ViaPutRequest], context: Context
    ) -> objects_pb2.ObjectInfo:
        """Pass a put on to a gateway."""
        first = await anext(request_iterator)
        parts = (message.put async for message in request_iterator)
        return await answered(context, lambda: self._emulation.desk.gateway(first.via).put(parts))

    async def Get(  # noqa: N802
        self, request: controller_pb2.ViaGetRequest, context: Context
    ) -> AsyncIterator[objects_pb2.GetResponse]:
        """Pass a get on to a gateway."""
        try:
            gateway = self._emulation.desk.gateway(request.via)
            async for part in gateway.get_responses(request.get):
                yield part
        except SkyrackError as error:
            await refuse(context, error)

    async def Submit(  # noqa: N802
        self, request: controller_pb2.ViaSubmitRequest, context: Context
    ) -> controller_pb2.JobAtGateway:
        """Hand a job to a gateway, and follow it."""
        on_node = request.spec.on_node
        if on_node and on_node not in self._emulation.index_of:
            await refuse(context, InputError(f"there is no node {on_node!r} in this run (`skyrack status` lists them)"))
        return self._told(await answered(context, lambda: self._emulation.desk.submit(request.via, request.spec)))

    async def ListJobs(  # noqa: N802
        self, request: jobs_pb2.ListJobsRequest, context: Context
    ) -> controller_pb2.ListAllJobsResponse:
        """The jobs of all gateways."""
        entries = await answered(context, lambda: self._emulation.desk.list())
        return controller_pb2.ListAllJobsResponse(jobs=[self._told(entry) for entry in entries])

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
        return self._told(await answered(context, lambda: self._emulation.desk.cancel(request.id)))

    async def Stop(  # noqa: N802
        self, request: controller_pb2.StopRequest, context: Context
    ) -> controller_pb2.StopResponse:
        """End the run soon."""
        self._emulation.request_stop()
        return controller_pb2.StopResponse()

    def _told(self, entry: GatewayJob) -> controller_pb2.JobAtGateway:
        """A job with what the emulator knows of it."""
        cause = "" if entry.job.state in FINAL_STATES else self._emulation.cause_of_wait(entry)
        return controller_pb2.JobAtGateway(via=entry.via, job=entry.job, cause=cause)


def run_status(emulation: Emulation, out_dir: Path) -> controller_pb2.RunStatus:
    """The state of a run as the wire has it."""
    timeline, state = emulation.timeline, emulation.state
    up = state.sky.link[state.usable]
    ends = np.concatenate([timeline.links.a[up], timeline.links.b[up]])
    links_up = np.bincount(ends, minlength=len(timeline.nodes))
    illumination_ratio = np.nan_to_num(state.sky.illumination_ratio)  # a node that is down sees nothing
    t_s = emulation.t_s
    nodes = [
        controller_pb2.NodeStatus(
            name=node.name,
            role=node.role,
            address=handle.spec.address,
            handle=handle.id,
            links_up=int(links_up[index]),
            illumination_ratio=float(illumination_ratio[index]),
            blackout=emulation.blackout_of(node.name),
            down=emulation.down_of(node.name),
            ground_link_bytes=0 if node.role is Role.SATELLITE else emulation.ground_bytes(node.name),
        )
        for index, (node, handle) in enumerate(zip(timeline.nodes, emulation.handles, strict=False))
    ]
    probes = [
        controller_pb2.ProbeStatus(
            a=probed.a,
            b=probed.b,
            commanded_rtt_us=-1 if probed.commanded_rtt_us is None else probed.commanded_rtt_us,
            measured_rtt_us=-1 if probed.measured_rtt_us is None else round(probed.measured_rtt_us),
        )
        for probed in (emulation.probing.newest() if emulation.probing else [])
    ]
    faults = [f"{fault.words} {fault.until_words}" for fault in emulation.schedule.faults.active(emulation.t_s)]
    isl_up = int((timeline.links.kind[up] == LinkKind.ISL).sum())
    return controller_pb2.RunStatus(
        run_id=emulation.place.run_id,
        scenario=emulation.scenario.name,
        phase=emulation.phase,
        t_s=t_s,
        duration_s=emulation.scenario.duration_s,
        utc=utc_text_at(emulation, t_s),
        runtime=emulation.runtime.name,
        shaper=emulation.shaper_choice.name,
        shaper_reason=emulation.shaper_choice.reason,
        step=state.step,
        overruns=emulation.overruns,
        links_up=len(up),
        isls_up=isl_up,
        out_dir=str(out_dir),
        nodes=nodes,
        probes=probes,
        faults=faults,
        start_s=float(timeline.t_s[0]),
        time_scale=emulation.scenario.time_scale,
        paused=emulation.paused,
        overrides=override_messages(emulation),
    )


async def serve(emulation: Emulation, out_dir: Path) -> grpc.aio.Server:
    """Answer on the run's socket, which its owner alone can open. The caller stops the server."""
    server = grpc.aio.server()
    controller_pb2_grpc.add_ControllerServicer_to_server(ControllerService(emulation, out_dir), server)
    server.add_insecure_port(f"unix:{emulation.place.api_socket}")
    await server.start()
    emulation.place.api_socket.chmod(0o600)
    return server
