"""What the fabric costs and how exact it is, with the shaper that this kernel has. Root; about a minute.

Ratios are of one run; single figures wobble with whatever else the machine does. bench/netem.py is about netem.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench._fabric import Kind, figure, panel_cost, qdisc_changes, round_trips_us, shell1_step
from controller.fabric import netlink
from controller.fabric.choose import choose_shaper
from controller.fabric.namespaces import processes_in
from controller.fabric.netlink import ATTRIBUTE, HEADER_FIELDS
from controller.fabric.probes import ProbePair
from tests.kernel.world import MBIT, Link, opened_world, plan, tcp_transfer

TCP_BYTES = 256 << 20
RATE_BYTES_S, BURST_BYTES = 2_000_000, 65_536

# tbf stands in for netem, which not every kernel has: one fixed-size message a qdisc, as in controller.fabric.netem.
TBF_ROWS = np.dtype(
    [
        *HEADER_FIELDS,
        ("family", "=u4"), ("ifindex", "=i4"), ("handle", "=u4"), ("parent", "=u4"), ("info", "=u4"),
        ("kind_head", ATTRIBUTE), ("kind", "S4"), ("options_head", ATTRIBUTE), ("parms_head", ATTRIBUTE),
        ("cell_log", "u1"), ("link_layer", "u1"), ("overhead", "=u2"), ("cell_align", "=i2"), ("mpu", "=u2"),
        ("rate_bytes_s", "=u4"), ("peak", "V12"), ("limit_bytes", "=u4"), ("buffer_ticks", "=u4"), ("mtu", "=u4"),
    ]
)  # fmt: skip


def round_trips(shaper: str, n_port: int) -> None:
    """RTT error over one idle hop of 5.03 ms each way, both nodes with so many ports; beside it the prober's own."""
    with opened_world(shaper, n_node=2, n_port=n_port) as world:
        world.route((0, 1, 0), (1, 0, 0))
        world.shaper.apply(plan(*(Link(k, n_port + k, delay_us=5_030) for k in range(n_port))))
        here, there = world.nodes
        own_us = round_trips_us(ProbePair(here.network_namespace, here.address, here.address), interval_s=0.01)
        error_us = round_trips_us(ProbePair(here.network_namespace, here.address, there.address), interval_s=0.01)
        error_us -= 2 * 5_030
    print(f"Round trips over one idle hop of 5.03 ms each way, {2 * n_port} ports:")
    figure("the prober to its own node, median", float(np.median(own_us)), "µs")
    figure("error, median", float(np.median(error_us)), "µs", at_most=200)
    figure("error, p99", float(np.percentile(error_us, 99)), "µs", at_most=2_000)


def tcp(shaper: str, hops: int, rate_bps: int, size_bytes: int, at_least: float | None = None) -> None:
    """TCP through some links of 10 ms in all, one after another."""
    with opened_world(shaper, n_node=hops + 1, n_port=2) as world:
        delay_us = 10_000 // hops
        world.shaper.apply(plan(*(Link(2 * k + 1, 2 * k + 2, delay_us, rate_bps) for k in range(hops))))
        world.route(*((k, hops, 1) for k in range(hops)), *((k, 0, 0) for k in range(1, hops + 1)))
        began_s = time.monotonic()
        took_s, _ = tcp_transfer(world, 0, hops, bytes(size_bytes))
        busy = _delay_line_cpu_s(world.panel.namespace) / (time.monotonic() - began_s)
    share = f"delay line {busy:.0%} of a core" if shaper == "delay-line" else ""
    reached = size_bytes * 8 / took_s / MBIT
    figure(f"{hops} hop(s) at {rate_bps / MBIT:,.0f} Mbit/s", reached, "Mbit/s", at_least=at_least, more=share)


def tcp_in_sum(shaper: str, n_link: int, size_bytes: int) -> None:
    """TCP through some links of 10 ms at the same time; senders and receivers are threads of one process."""
    with opened_world(shaper, n_node=2 * n_link, n_port=1) as world:
        world.shaper.apply(plan(*(Link(2 * k, 2 * k + 1, 10_000, 1_000 * MBIT) for k in range(n_link))))
        world.route(*((k, k ^ 1, 0) for k in range(2 * n_link)))
        began_s = time.monotonic()
        with ThreadPoolExecutor(n_link) as pool:
            sent = [pool.submit(tcp_transfer, world, 2 * k, 2 * k + 1, bytes(size_bytes)) for k in range(n_link)]
            for each in sent:
                each.result()
        took_s = time.monotonic() - began_s
        busy = _delay_line_cpu_s(world.panel.namespace) / took_s
    share = f"delay line {busy:.0%} of a core" if shaper == "delay-line" else ""
    reached = n_link * size_bytes * 8 / took_s / MBIT
    figure(f"{n_link} links of 1,000 Mbit/s in sum", reached, "Mbit/s", at_least=1_000, more=share)


def _delay_line_cpu_s(namespace: Path) -> float:
    ticks = 0
    for pid in processes_in(namespace):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def _tbf_rows(ifindex: np.ndarray) -> netlink.Rows:
    rows = netlink.new_rows(TBF_ROWS, len(ifindex), netlink.RTM_NEWQDISC, 0)
    rows["ifindex"], rows["handle"], rows["parent"] = ifindex, 0x10000, 0xFFFFFFFF
    rows["kind_head"], rows["kind"] = (8, 1), b"tbf"
    rows["options_head"], rows["parms_head"] = (44, 2), (40, 1)
    rows["cell_log"], rows["link_layer"], rows["cell_align"], rows["rate_bytes_s"] = 3, 1, -1, RATE_BYTES_S
    rows["limit_bytes"], rows["buffer_ticks"] = 1 << 20, BURST_BYTES
    return rows


TBF = Kind(
    name="tbf",
    told={"rate": 10**6, "burst": BURST_BYTES, "latency": "50ms"},
    batch="rate 3mbit burst 64kb latency 50ms",
    rows=_tbf_rows,
    mark=np.uint32(RATE_BYTES_S).tobytes(),
)


def main() -> None:
    """Run all of it."""
    choice = choose_shaper("auto")
    print(f"Shaper: {choice.name} ({choice.reason})")
    round_trips(choice.name, 1)
    round_trips(choice.name, 100)
    print("TCP through 10 ms:")
    tcp(choice.name, 1, 1_000 * MBIT, TCP_BYTES, at_least=500)
    tcp_in_sum(choice.name, 4, TCP_BYTES)
    tcp(choice.name, 8, 50 * MBIT, 25 << 20)
    panel_cost(turns=20, lasting_s=0.3)
    print(f"All of starlink-shell1's directions, by {choice.name}:")
    shell1_step(choice.name)
    qdisc_changes(TBF, at_least=200_000)


if __name__ == "__main__":
    main()
