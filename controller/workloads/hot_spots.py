"""Hot spots in an Earth-observation scene: searched on the ground after a bent pipe, and in orbit.

A satellite captures a scene of 24 MB. *Bent pipe*: the scene goes down to the gateway and is searched there. *In
orbit*: the search runs on the satellite, and only the finding goes down. Both must find what was put into the scene;
then a second scene is sent down just before the scenario's blackout of the gateway, waits it out, and completes.
"""

from __future__ import annotations

import hashlib
import json
import time

import numpy as np

from controller.emulation import Emulation
from controller.errors import SkyrackError
from controller.jobs.desk import state_name
from controller.narrator import Narrator
from controller.record.model import WorkloadResult
from controller.timeline import Role
from controller.workloads.catalogue import CATALOGUE, script
from controller.workloads.scripts.capture_scene import SIDE_PIXELS
from protos.skyrack.v1 import jobs_pb2

SETTLE_S = 5.0
BLACKOUT_LEAD_S = 5.0
SEARCH = CATALOGUE["hot-spots"]
FINDING = "finding.json"


class HotSpots:
    """The workload on one emulation, through one gateway."""

    def __init__(self, emulation: Emulation, narrator: Narrator) -> None:
        self._emulation, self._narrator = emulation, narrator
        timeline = emulation.timeline
        gateways = [node.name for node in timeline.nodes if node.role is Role.GATEWAY]
        if not gateways:
            raise SkyrackError("the hot-spot workload needs a gateway in the scenario")
        blacked_out = [fault.target for fault in emulation.scenario.faults if fault.target in gateways]
        self.gateway = (blacked_out or gateways)[0]
        self.satellite = ""

    async def run(self) -> list[WorkloadResult]:
        """All of it. Raises SkyrackError if a job fails or does not find what is there."""
        emulation, seed = self._emulation, self._emulation.scenario.seed
        await emulation.until(float(emulation.timeline.t_s[0]) + SETTLE_S)
        self.satellite = self._farthest_satellite()
        self._narrator.say(f"the scene lies under {self.satellite}; the gateway is {self.gateway}")
        self._search = await self._put_script(SEARCH.script)
        self._capture = await self._put_script(SEARCH.capture or "")
        first = await self._take_scene("scene-1", seed)
        outcomes = [
            await self._insight("bent pipe", "bent-pipe-1", "scene-1", first, seed, on_node=self.gateway),
            await self._insight("in orbit", "in-orbit-1", "scene-1", first, seed, on_node=self.satellite),
        ]
        blackouts = [f for f in emulation.scenario.faults if f.target == self.gateway and f.at_s > emulation.t_s]
        if blackouts and blackouts[0].end_s < emulation.timeline.t_s[-1]:
            second = await self._take_scene("scene-2", seed + 1)
            await emulation.until(blackouts[0].at_s - BLACKOUT_LEAD_S)
            way = "bent pipe, blackout"
            outcomes.append(await self._insight(way, "bent-pipe-2", "scene-2", second, seed + 1, on_node=self.gateway))
        if outcomes[0].finding_digest != outcomes[1].finding_digest:
            raise SkyrackError("the bent pipe and the search in orbit found different things in one scene")
        return outcomes

    def _farthest_satellite(self) -> str:
        """The satellite with the longest commanded round trip to the gateway: the one that gains most in orbit."""
        emulation = self._emulation
        satellites = [i for i, node in enumerate(emulation.timeline.nodes) if node.role is Role.SATELLITE]
        gateways = np.full(len(satellites), emulation.index_of[self.gateway])
        trips = emulation.schedule.round_trips(emulation.state, gateways, np.array(satellites))
        return emulation.timeline.nodes[satellites[int(np.argmax(trips.rtt_us))]].name

    async def _put_script(self, name: str) -> str:
        """Bring a script to the gateway."""
        info = await self._emulation.desk.gateway(self.gateway).put_bytes(script(name))
        return info.object

    async def _take_scene(self, job_id: str, seed: int) -> str:
        """Have the satellite capture a scene and keep it; the object."""
        spec = jobs_pb2.JobSpec(
            id=job_id, on_node=self.satellite, script_object=self._capture,
            arguments=SEARCH.capture_arguments(seed, SIDE_PIXELS), keep_outputs_on_node=True,
        )  # fmt: skip
        (output,) = (await self._done(spec)).outputs
        return output.object

    async def _insight(
        self, label: str, job_id: str, scene: str, captured: str, seed: int, on_node: str
    ) -> WorkloadResult:
        """Search a scene somewhere, with the finding brought to the gateway, and measure it."""
        spec = jobs_pb2.JobSpec(
            id=job_id,
            on_node=on_node,
            script_object=self._search,
            inputs=[jobs_pb2.JobInput(object=captured, at_node=self.satellite)],
        )
        before_bytes, began_mono_s = self._emulation.ground_bytes(self.gateway), time.monotonic()
        job = await self._done(spec)
        elapsed_s = time.monotonic() - began_mono_s
        ground_bytes = self._emulation.ground_bytes(self.gateway) - before_bytes
        output = next(output for output in job.outputs if output.name == FINDING)
        finding = await self._emulation.desk.gateway(self.gateway).get_bytes(output.object)
        if wrong := SEARCH.verify(seed, SIDE_PIXELS, {FINDING: finding}):
            raise SkyrackError(f"job {job_id} did not find what was put into its scene: {wrong}")
        return WorkloadResult(
            way=label,
            scene=scene,
            job=job_id,
            satellite=self.satellite,
            gateway=self.gateway,
            time_to_insight_s=elapsed_s,
            ground_link_bytes=ground_bytes,
            finding=f"{len(json.loads(finding)['hot_spots'])} hot spots",
            finding_digest=f"sha256:{hashlib.sha256(finding).hexdigest()}",
        )

    async def _done(self, spec: jobs_pb2.JobSpec) -> jobs_pb2.Job:
        """A job, submitted and succeeded. Raises SkyrackError if it ends otherwise."""
        desk = self._emulation.desk
        await desk.submit(self.gateway, spec)
        job = (await desk.finished(spec.id)).job
        if job.state != jobs_pb2.JOB_STATE_SUCCEEDED:
            tail = job.stderr.decode(errors="replace").strip()
            raise SkyrackError(f"job {spec.id} ended as {state_name(job.state)}: {job.reason} {tail}".strip())
        return job


async def hot_spots(emulation: Emulation, narrator: Narrator) -> list[WorkloadResult]:
    """Run the workload on an emulation that is up."""
    return await HotSpots(emulation, narrator).run()
