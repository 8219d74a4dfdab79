"""100 MB through ten blackouts of random length: what is sent twice, and what time is lost. Root; three minutes.

A gateway and a satellite on one shaped link, as a run without an engine has them. The transfer is timed once without a
blackout and once with ten, in one run; blackouts are silent, so nobody tells the agents.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench._fabric import figure
from bench.bringup import Stamps
from controller.emulation import Emulation
from controller.faults import LinkOverride
from controller.launch import RunOptions, launch
from controller.overlay import Overlay
from controller.record.model import WorkloadResult
from controller.scenario.fault_model import Fault
from node_agent.objects.transfer import fitting_bytes
from protos.skyrack.v1 import jobs_pb2

SCENARIO = """
name = "blackouts"
epoch = 2026-01-01T00:00:00Z
duration_s = 900.0

[[constellation]]
name = "geo"
walker = { pattern = "delta", total = 1, planes = 1, phasing = 0, altitude_m = 35_786_000, inclination_deg = 0.0 }
isl = { topology = "none" }

[[ground]]
name = "gw"
role = "gateway"
latitude_deg = 0.0
longitude_deg = -100.0
"""
SIZE_BYTES = 100_000_000
N_BLACKOUT = 10
RATE_BPS = 20_000_000
DELAY_US = 10_000
DARK_S = (0.5, 8.0)
LIT_S = (2.0, 4.0)
LOOK_S = 0.02
SEED = 1
CHUNK_BYTES = fitting_bytes(RATE_BPS // 8, took_s=1.0)
SAT, GW = "geo-p00s00", "gw"


async def transfer(emulation: Emulation, job_id: str) -> tuple[float, int]:
    """Bring a new object from the gateway to the satellite: seconds, and bytes that crossed, both ways, all headers."""
    gateway = emulation.desk.gateway(GW)
    put = await gateway.put_bytes(os.urandom(SIZE_BYTES))
    spec = jobs_pb2.JobSpec(
        id=job_id, on_node=SAT, command=jobs_pb2.JobSpec.Command(argv=["true"]),
        inputs=[jobs_pb2.JobInput(object=put.object)],
    )  # fmt: skip
    began_mono_s, before_bytes = time.monotonic(), emulation.ground_bytes(SAT)
    await emulation.desk.submit(GW, spec)
    ended = await emulation.desk.finished(job_id)
    assert ended.job.state == jobs_pb2.JOB_STATE_SUCCEEDED, ended.job.reason
    return time.monotonic() - began_mono_s, emulation.ground_bytes(SAT) - before_bytes


@dataclass(frozen=True)
class Blackout:
    """One, as it was."""

    dark_s: float
    resumed_s: float  # after its end, until data flows again


async def blackouts(emulation: Emulation) -> list[Blackout]:
    """Ten of them."""
    overlay, rng = Overlay(emulation), np.random.default_rng(SEED)
    found = []
    for _ in range(N_BLACKOUT):
        await asyncio.sleep(rng.uniform(*LIT_S))
        fault = overlay.inject(Fault(kind="blackout", target=GW, at_s=emulation.t_s, mode="silent"))
        began_mono_s = time.monotonic()
        await asyncio.sleep(rng.uniform(*DARK_S))
        overlay.clear(fault)
        lit_mono_s, before_bytes = time.monotonic(), emulation.ground_bytes(SAT)
        while emulation.ground_bytes(SAT) < before_bytes + CHUNK_BYTES:  # noqa: ASYNC110 — the kernel counts
            await asyncio.sleep(LOOK_S)
        flows_s = CHUNK_BYTES * 8 / RATE_BPS
        found.append(Blackout(lit_mono_s - began_mono_s, time.monotonic() - lit_mono_s - flows_s))
    return found


async def measure(emulation: Emulation) -> Sequence[WorkloadResult]:
    """All figures."""
    Overlay(emulation).set_link(GW, SAT, LinkOverride(delay_us=DELAY_US, rate_bps=RATE_BPS))
    lit_s, lit_bytes = await transfer(emulation, "lit")
    dark = asyncio.create_task(blackouts(emulation))
    took_s, dark_bytes = await transfer(emulation, "dark")
    assert dark.done(), "the transfer was over before all blackouts were"
    dark_s = sum(each.dark_s for each in dark.result())
    for each in dark.result():
        print(f"    dark for {each.dark_s:.2f} s, data flows {each.resumed_s:.2f} s after it")
    figure("100 MB at 20 Mbit/s without a blackout", lit_s, "s", more=f"wire: {SIZE_BYTES * 8 / RATE_BPS:.0f} s")
    figure("through ten blackouts, link-up time alone", took_s - dark_s, "s", more=f"dark {dark_s:.0f} s")
    figure("ratio", (took_s - dark_s) / lit_s, "", at_most=1.05)
    more_bytes = (dark_bytes - lit_bytes) / N_BLACKOUT
    figure("crossed more for each, handshakes too; a chunk", more_bytes / 1e3, "kB", at_most=round(CHUNK_BYTES / 1e3))
    asyncio.get_running_loop().call_later(1.0, emulation.request_stop)  # the run is to outlive what it is measured by
    return []


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory(prefix="skyrack-bench-") as folder:
        scenario = Path(folder, "blackouts.toml")
        scenario.write_text(SCENARIO)
        options = RunOptions(str(scenario), runtime="namespace", out_dir=Path(folder, "record"), hold=True)
        asyncio.run(launch(options, Stamps(), measure))


if __name__ == "__main__":
    main()
