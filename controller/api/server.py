"""What a run answers to the command line: `skyrack.v1.Controller` on the run's Unix socket."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import numpy as np

from controller.api.live import Context, override_messages, utc_text_at
from controller.api.work import WorkService
from controller.emulation import Emulation
from controller.timeline import LinkKind, Role
from protos.skyrack.v1 import controller_pb2, controller_pb2_grpc

STOP_GRACE_S = 1.0


class ControllerService(WorkService):
    """Answers for one emulation. Input errors become INVALID_ARGUMENT, all others of skyrack's FAILED_PRECONDITION."""

    def __init__(self, emulation: Emulation, out_dir: Path) -> None:
        super().__init__(emulation)
        self._out_dir = out_dir

    async def GetStatus(  # noqa: N802 - the name is the wire's
        self, request: controller_pb2.GetStatusRequest, context: Context
    ) -> controller_pb2.RunStatus:
        """The run as it stands."""
        return run_status(self._emulation, self._out_dir)

    async def Stop(  # noqa: N802
        self, request: controller_pb2.StopRequest, context: Context
    ) -> controller_pb2.StopResponse:
        """End the run soon."""
        self._emulation.request_stop()
        return controller_pb2.StopResponse()


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
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{emulation.place.api_socket}")
    finally:
        os.umask(mask)
    await server.start()
    return server
