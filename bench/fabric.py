"""What the fabric costs and how exact it is, with the shaper that this kernel has. Root; about half a minute.

Ratios are of one run; single figures wobble with whatever else the machine does.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pyroute2 import IPRoute

from controller.fabric import netlink
from controller.fabric.choose import choose_shaper
from controller.fabric.namespaces import in_scratch_namespace, processes_in
from controller.fabric.netem import TCMSG
from controller.fabric.netlink import ATTRIBUTE, HEADER_FIELDS, NetlinkSocket, message
from controller.fabric.panel import PANEL_FIRST_IFINDEX
from controller.fabric.plan import ShapingPlan
from controller.fabric.probes import ProbePair, Prober, ProbeResult
from tests.kernel.world import MBIT, Link, opened_world, plan, tcp_transfer, wait_for

PROBES = 1_000
TCP_BYTES = 256 << 20
QDISCS = 500
HANDLE = 0x10000
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
        own = ProbePair(here.network_namespace, here.address, here.address)
        _print_error("prober to its own node", _probe(own))
        hop = ProbePair(here.network_namespace, here.address, there.address)
        _print_error(f"one hop, {2 * n_port} ports", _probe(hop) - 2 * 5_030)


def _probe(pair: ProbePair) -> np.ndarray:
    """Round trips in µs of a hundred probes a second, those answered."""
    results: list[ProbeResult] = []
    prober = Prober([pair], 0.01, 1.0, results.append)
    prober.start()
    wait_for(lambda: len(results) >= PROBES, f"{PROBES} probes", timeout_s=60.0)
    prober.stop()
    return np.array([each.rtt_us for each in results if each.rtt_us is not None])


def _print_error(what: str, error_us: np.ndarray) -> None:
    median_us, p99_us = np.percentile(error_us, [50, 99])
    print(f"RTT error, {what:22s} median {median_us:6.0f} µs, p99 {p99_us:6.0f} µs ({len(error_us)} probes)")


def tcp(shaper: str, hops: int, rate_bps: int, size_bytes: int) -> None:
    """TCP through some links of 10 ms in all, one after another."""
    with opened_world(shaper, n_node=hops + 1, n_port=2) as world:
        delay_us = 10_000 // hops
        world.shaper.apply(plan(*(Link(2 * k + 1, 2 * k + 2, delay_us, rate_bps) for k in range(hops))))
        world.route(*((k, hops, 1) for k in range(hops)), *((k, 0, 0) for k in range(1, hops + 1)))
        began_s = time.monotonic()
        took_s, _ = tcp_transfer(world, 0, hops, bytes(size_bytes))
        busy = _delay_line_cpu_s(world.panel.namespace) / (time.monotonic() - began_s)
    share = f", delay line {busy:.0%} of a core" if shaper == "delay-line" else ""
    reached = size_bytes * 8 / took_s / MBIT
    print(f"TCP, {hops} hop(s), {rate_bps / MBIT:5.0f} Mbit/s     {reached:6.1f} Mbit/s{share}")


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
    share = f", delay line {busy:.0%} of a core" if shaper == "delay-line" else ""
    print(f"TCP, {n_link} links in sum         {n_link * size_bytes * 8 / took_s / MBIT:6.1f} Mbit/s{share}")


def _delay_line_cpu_s(namespace: Path) -> float:
    ticks = 0
    for pid in processes_in(namespace):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def plan_changes(shaper: str) -> None:
    """Whole plans of 497 ports, applied and read back."""
    with opened_world(shaper, n_node=71, n_port=7) as world:
        n_port = world.panel.n_port
        port = np.arange(n_port - 1)
        peer = port ^ 1
        times: dict[str, list[float]] = {"applied": [], "read back": []}
        for number in range(20):
            whole = ShapingPlan(
                port,
                peer,
                port + number,
                np.full(n_port - 1, 100 * MBIT),
                np.zeros(n_port - 1),
                np.full(n_port - 1, 1500),
            )
            began_s = time.perf_counter()
            world.shaper.apply(whole)
            applied_s = time.perf_counter()
            world.shaper.read_back()
            times["applied"].append(applied_s - began_s)
            times["read back"].append(time.perf_counter() - applied_s)
        for what, took_s in times.items():
            print(f"a plan of {n_port} ports {what:10s} {np.median(took_s) * 1e3:6.1f} ms")


def qdisc_changes() -> None:
    """Qdiscs changed a second: pyroute2 a call each, `tc -batch`, and one array of messages."""
    rates = in_scratch_namespace(_qdisc_rates)
    slowest = min(rates.values())
    for how, rate in rates.items():
        print(f"qdiscs changed, {how:20s} {rate:10,.0f} a second ({rate / slowest:6.1f} ×)")


def _qdisc_rates() -> dict[str, float]:
    ifindex = np.arange(PANEL_FIRST_IFINDEX, PANEL_FIRST_IFINDEX + QDISCS)
    with IPRoute() as ip:
        for index in ifindex.tolist():
            ip.link("add", ifname=f"p{index}", kind="veth", index=index, peer={"ifname": f"q{index}"})
            ip.tc("add", "tbf", index, handle=HANDLE, rate=10**6, burst=BURST_BYTES, latency="50ms")

        def by_calls() -> None:
            for index in ifindex.tolist():
                ip.tc("change", "tbf", index, handle=HANDLE, rate=RATE_BYTES_S, burst=BURST_BYTES, latency="50ms")

        rates = {"pyroute2": _rate(by_calls, QDISCS)}
    with tempfile.NamedTemporaryFile("w", suffix=".tc") as batch:
        change = "qdisc change dev p{} root handle 1: tbf rate 3mbit burst 64kb latency 50ms\n"
        batch.writelines(change.format(index) for index in ifindex)
        batch.flush()
        rates["tc -batch"] = _rate(lambda: subprocess.run(["tc", "-batch", batch.name], check=True), QDISCS)
    tc = NetlinkSocket.here()

    def by_array() -> None:
        for _ in range(20):
            refused = tc.send_rows(_tbf_rows(ifindex))
            assert not refused, refused[0]

    rates["numpy array"] = _rate(by_array, 20 * QDISCS)
    listed = tc.dump(message(netlink.RTM_GETQDISC, netlink.NLM_F_DUMP, TCMSG.pack(0, 0, 0, 0, 0)))
    told = np.uint32(RATE_BYTES_S).tobytes()  # `tc -batch` had set another
    assert sum(told in each.body for each in listed) == QDISCS, "the qdiscs are not as they were commanded"
    tc.close()
    return rates


def _tbf_rows(ifindex: np.ndarray) -> netlink.Rows:
    rows = netlink.new_rows(TBF_ROWS, len(ifindex), netlink.RTM_NEWQDISC, 0)
    rows["ifindex"], rows["handle"], rows["parent"] = ifindex, HANDLE, 0xFFFFFFFF
    rows["kind_head"], rows["kind"] = (8, 1), b"tbf"
    rows["options_head"], rows["parms_head"] = (44, 2), (40, 1)
    rows["cell_log"], rows["link_layer"], rows["cell_align"], rows["rate_bytes_s"] = 3, 1, -1, RATE_BYTES_S
    rows["limit_bytes"], rows["buffer_ticks"] = 1 << 20, BURST_BYTES
    return rows


def _rate(work: Callable[[], object], count: int) -> float:
    began_s = time.perf_counter()
    work()
    return count / (time.perf_counter() - began_s)


def main() -> None:
    """Run all of it."""
    choice = choose_shaper("auto")
    print(f"shaper: {choice.name} ({choice.reason})")
    round_trips(choice.name, 1)
    round_trips(choice.name, 100)
    tcp(choice.name, 1, 1_000 * MBIT, TCP_BYTES)
    tcp_in_sum(choice.name, 4, TCP_BYTES)
    tcp(choice.name, 8, 50 * MBIT, 25 << 20)
    plan_changes(choice.name)
    qdisc_changes()


if __name__ == "__main__":
    main()
