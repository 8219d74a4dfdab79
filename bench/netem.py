"""What netem costs and how exact it is: on this kernel if it has netem, else in User-Mode Linux. Root; a few minutes.

The guest has one CPU and slow system calls: its figures stand beside others of the same guest, and say nothing of what
a machine reaches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench._fabric import Kind, figure, panel_cost, plain_veth, qdisc_changes, round_trips_us, shell1_step
from controller.fabric import netlink
from controller.fabric.choose import NETEM_NEEDS, panel_capabilities
from controller.fabric.netem import netem_rows
from controller.fabric.plan import ShapingPlan
from controller.fabric.probes import ProbePair
from controller.timeline import MTU_BYTES
from tests.kernel.world import MBIT, Link, opened_world, plan

ROOT = Path(__file__).parents[1]
DELAY_US = 5_030


def round_trips() -> None:
    """RTT error over one idle hop, beside the round trip over a plain veth pair of the same kernel."""
    with plain_veth() as veth, opened_world("netem", n_node=2, n_port=1) as world:
        world.route((0, 1, 0), (1, 0, 0))
        world.shaper.apply(plan(Link(0, 1, delay_us=DELAY_US)))
        here, there = world.nodes
        hop = ProbePair(here.network_namespace, here.address, there.address)
        plain, over_hop = [], []
        for _ in range(3):
            plain.append(round_trips_us(veth.probe, 300, 0.01))
            over_hop.append(round_trips_us(hop, 300, 0.01))
    plain_us, error_us = np.concatenate(plain), np.concatenate(over_hop) - 2 * DELAY_US
    print("Round trips over one idle hop of 5.03 ms each way:")
    figure("error, median", float(np.median(error_us)), "µs", at_most=350)
    figure("error, p99", float(np.percentile(error_us, 99)), "µs")
    figure("round trip over a plain veth pair, median", float(np.median(plain_us)), "µs")
    figure("  more than that", float(np.median(error_us) - np.median(plain_us)), "µs")


def _rows(ifindex: np.ndarray) -> netlink.Rows:
    states = (0, 1, DELAY_US, 100 * MBIT, 0.01, MTU_BYTES)
    return netem_rows(ifindex, ShapingPlan(*(np.full(len(ifindex), state) for state in states)))


NETEM = Kind(
    name="netem",
    told={"delay": 7_000, "loss": 2, "limit": 500},
    batch="delay 7ms rate 50mbit loss 2% limit 500",
    rows=_rows,
    mark=np.int64(DELAY_US * 1_000).tobytes(),
)


def main() -> None:
    """Run all of it, where there is netem."""
    if not {each.name for each in panel_capabilities() if each.works} >= NETEM_NEEDS:
        print("This kernel has no netem: these are figures of User-Mode Linux.", flush=True)
        guest = ["deploy/uml-run", "--timeout", "600", "--memory", "3G", sys.executable, "-m", "bench.netem"]
        sys.exit(subprocess.run(guest, cwd=ROOT).returncode)
    print(f"Kernel {os.uname().release}, {os.cpu_count()} CPU(s)")
    round_trips()
    panel_cost(turns=10, lasting_s=0.3)
    qdisc_changes(NETEM, at_least=None)
    print("All of starlink-shell1's directions, by netem:")
    shell1_step("netem", turns=6, share=4)


if __name__ == "__main__":
    main()
