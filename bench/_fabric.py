"""What the benchmarks of the fabric share: figures beside their limits, and ways to measure."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pyroute2 import IPRoute

from controller.fabric import netlink
from controller.fabric.namespaces import (
    create_namespace,
    in_namespace,
    in_scratch_namespace,
    remove_namespace,
    write_sysctls,
)
from controller.fabric.netem import TCMSG, clsact_rows, patch_rows
from controller.fabric.netlink import NetlinkSocket, message
from controller.fabric.panel import PANEL_FIRST_IFINDEX, NodePorts, Panel
from controller.fabric.plan import ShapingPlan
from controller.fabric.probes import ProbePair, Prober, ProbeResult
from controller.fabric.routes import HostRoutes, RouteChanges
from controller.timeline import MTU_BYTES
from tests.kernel.world import MBIT, opened_world, wait_for

SHELL1_DIRECTIONS = 6_336  # starlink-shell1: 72 × 22 satellites, two links each, two directions a link
QDISCS = 500
PORT = 5_000

_count = itertools.count()


def figure(
    what: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None, more: str = ""
) -> None:
    """Print a figure, and whether it keeps to its limit."""
    limit, keeps = "", True
    if at_least is not None:
        limit, keeps = f"at least {at_least:,g}", value >= at_least
    if at_most is not None:
        limit, keeps = f"at most {at_most:,g}", value <= at_most
    verdict = f"[{limit}{'' if keeps else ': MISSED'}]" if limit else ""
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
    print(f"  {what:<58}{number:>12} {unit:<12}{verdict} {more}".rstrip(), flush=True)


@dataclass(frozen=True)
class Pair:
    """Two nodes that are joined somehow, as namespaces with an address each."""

    namespaces: tuple[Path, Path]
    addresses: tuple[str, str]

    @property
    def probe(self) -> ProbePair:
        """From the first to the second."""
        return ProbePair(self.namespaces[0], *self.addresses)


@contextlib.contextmanager
def _two_namespaces() -> Iterator[tuple[Path, Path]]:
    mark = f"bench-{os.getpid()}-{next(_count)}"
    with contextlib.ExitStack() as stack:
        made = []
        for end in "ab":
            made.append(create_namespace(f"{mark}-{end}"))
            stack.callback(remove_namespace, f"{mark}-{end}")
        yield made[0], made[1]


@contextlib.contextmanager
def plain_veth() -> Iterator[Pair]:
    """Two nodes at the ends of one veth pair."""
    addresses = ("10.78.0.1", "10.78.0.2")
    with _two_namespaces() as (a, b):
        _ip("-n", a.name, "link", "add", "v", "type", "veth", "peer", "name", "v", "netns", b.name)
        for namespace, address in zip((a, b), addresses, strict=True):
            in_namespace(namespace, lambda: write_sysctls({"ipv4/ping_group_range": "0 2147483647"}))
            _ip("-n", namespace.name, "address", "add", f"{address}/24", "dev", "v")
            for device in ("lo", "v"):
                _ip("-n", namespace.name, "link", "set", device, "up")
        yield Pair((a, b), addresses)


@contextlib.contextmanager
def unshaped_panel() -> Iterator[Pair]:
    """Two nodes whose ports are patched together on a panel, and not shaped."""
    with _two_namespaces() as (a, b):
        nodes = [NodePorts(a, "10.78.0.1", ("isl0",)), NodePorts(b, "10.78.0.2", ("isl0",))]
        panel = Panel.create(f"bench-{os.getpid()}-{next(_count)}")
        try:
            panel.connect(nodes)
            for rows in (clsact_rows(panel.ifindex), patch_rows(panel.ifindex, panel.ifindex[::-1])):
                refused = panel.socket.send_rows(rows)
                assert not refused, refused[0]
            HostRoutes(panel).apply(RouteChanges(np.array([0, 1]), np.array([1, 0]), np.array([0, 0])))
            yield Pair((a, b), (nodes[0].address, nodes[1].address))
        finally:
            panel.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def round_trips_us(pair: ProbePair, probes: int = 1_000, interval_s: float = 0.005) -> np.ndarray:
    """Round trips of probes, those answered."""
    results: list[ProbeResult] = []
    prober = Prober([pair], interval_s, 1.0, results.append)
    prober.start()
    wait_for(lambda: len(results) >= probes, f"{probes} probes", timeout_s=120.0)
    prober.stop()
    return np.array([each.rtt_us for each in results if each.rtt_us is not None])


def stream_bps(pair: Pair, lasting_s: float) -> float:
    """What one TCP connection carries, as fast as it can."""
    to = (pair.addresses[1], PORT)
    listener = in_namespace(pair.namespaces[1], lambda: socket.create_server(to))
    ended, received = threading.Event(), 0

    def send() -> None:
        data = bytes(1 << 20)
        with in_namespace(pair.namespaces[0], lambda: socket.create_connection(to)) as out:
            while not ended.is_set():
                out.sendall(data)

    sender = threading.Thread(target=send)
    with listener:
        sender.start()
        connection, _ = listener.accept()
        with connection:
            into, began_s = bytearray(1 << 20), time.perf_counter()
            while (took_s := time.perf_counter() - began_s) < lasting_s:
                received += connection.recv_into(into)
            ended.set()
            while connection.recv_into(into):  # what is under way, so that the sender can end
                pass
    sender.join()
    return received * 8 / took_s


def panel_cost(turns: int, lasting_s: float) -> None:
    """The panel's own cost: two veth pairs and a redirect beside one veth pair, in turns, now one first and now the
    other. Throughput between two threads wobbles by half: the median of turns counts."""
    carried: dict[str, list[float]] = {"veth": [], "panel": []}
    medians_us: dict[str, list[float]] = {"veth": [], "panel": []}
    with plain_veth() as veth, unshaped_panel() as panel:
        for turn in range(turns):
            for name, pair in (("veth", veth), ("panel", panel))[:: 1 - 2 * (turn % 2)]:
                carried[name].append(stream_bps(pair, lasting_s))
                medians_us[name].append(float(np.median(round_trips_us(pair.probe, 100))))
    veth_bps, panel_bps = (float(np.median(carried[name])) for name in ("veth", "panel"))
    part = np.array(carried["panel"]) / np.array(carried["veth"])
    veth_us, panel_us = (float(np.median(medians_us[name])) for name in ("veth", "panel"))
    print("The panel's own cost, unshaped, beside one veth pair:")
    figure("TCP over one veth pair", veth_bps / MBIT, "Mbit/s")
    figure("TCP over the panel", panel_bps / MBIT, "Mbit/s")
    figure("  part of it, median of turns", float(np.median(part)) * 100, "%", at_least=80)
    figure("round trip over one veth pair, median", veth_us, "µs")
    figure("round trip over the panel, median", panel_us, "µs")
    figure("  more", panel_us - veth_us, "µs", at_most=20)


def shell1_step(shaper: str, turns: int = 20, share: int = 1) -> None:
    """A step that changes every direction of starlink-shell1, and one reading of them all. Where the kernel is
    slow to make so many ports: of a part of them, and times so many times as long."""
    with opened_world(shaper, n_node=64 // share, n_port=SHELL1_DIRECTIONS // 64) as world:
        port = np.arange(world.panel.n_port)
        many, none = np.ones(len(port), np.int64), np.zeros(len(port))
        before = ShapingPlan(port, port ^ 1, 5_000 * many, 100 * MBIT * many, none, MTU_BYTES * many)
        world.shaper.apply(before)
        took_ms, read_ms = [], []
        for number in range(turns):
            after = replace(before, delay_us=5_001 + port % 97 + number)
            began_s = time.perf_counter()
            changed = after.changed_from(before)
            world.shaper.apply(changed)
            took_ms.append((time.perf_counter() - began_s) * 1e3 * share)
            assert len(changed) == SHELL1_DIRECTIONS // share
            before = after
            if number % 5 == 0:
                began_s = time.perf_counter()
                assert len(after.changed_from(world.shaper.read_back())) == 0
                read_ms.append((time.perf_counter() - began_s) * 1e3 * share)
    scaled = f" ({share} × 1/{share})" if share > 1 else ""
    figure(f"a step that changes {SHELL1_DIRECTIONS:,} directions{scaled}", float(np.median(took_ms)), "ms", at_most=60)
    figure("  the slowest", max(took_ms), "ms")
    figure("  read back", float(np.median(read_ms)), "ms")


@dataclass(frozen=True)
class Kind:
    """A kind of qdisc, and three ways to change it."""

    name: str
    told: dict[str, object]  # pyroute2
    batch: str  # tc
    rows: Callable[[np.ndarray], netlink.Rows]
    mark: bytes  # what a listing says of each after `rows`


def qdisc_changes(kind: Kind, *, at_least: float | None) -> None:
    """Qdiscs changed a second: pyroute2 a call each, `tc -batch`, and one array of messages."""
    by_calls, by_batch, by_array = in_scratch_namespace(lambda: _qdisc_rates(kind))
    print(f"Changing {QDISCS} qdiscs ({kind.name}), which is what a direction costs:")
    figure("pyroute2, one call each", by_calls, "a second")
    figure("tc -batch", by_batch, "a second")
    figure("one array of messages", by_array, "a second", at_least=at_least)
    figure("  to tc -batch", by_array / by_batch, "times", at_least=5)
    figure("  to pyroute2", by_array / by_calls, "times", at_least=200)


def _qdisc_rates(kind: Kind) -> tuple[float, float, float]:
    ifindex = np.arange(PANEL_FIRST_IFINDEX, PANEL_FIRST_IFINDEX + QDISCS)
    with IPRoute() as ip:
        for index in ifindex.tolist():
            ip.link("add", ifname=f"p{index}", kind="veth", index=index, peer={"ifname": f"q{index}"})
            ip.tc("add", kind.name, index, handle=0x10000, **kind.told)

        def calls() -> None:
            for index in ifindex.tolist():
                ip.tc("change", kind.name, index, handle=0x10000, **kind.told)

        by_calls = _rate(calls, QDISCS)
    with tempfile.NamedTemporaryFile("w", suffix=".tc") as batch:
        batch.writelines(f"qdisc change dev p{index} root handle 1: {kind.name} {kind.batch}\n" for index in ifindex)
        batch.flush()
        by_batch = _rate(lambda: subprocess.run(["tc", "-batch", batch.name], check=True), QDISCS)
    tc, repeat = NetlinkSocket.here(), 20

    def array() -> None:
        for _ in range(repeat):
            refused = tc.send_rows(kind.rows(ifindex))
            assert not refused, refused[0]

    by_array = _rate(array, repeat * QDISCS)
    listed = tc.dump(message(netlink.RTM_GETQDISC, netlink.NLM_F_DUMP, TCMSG.pack(0, 0, 0, 0, 0)))
    # `tc -batch` had set another
    assert sum(kind.mark in each.body for each in listed) == QDISCS, "the qdiscs are not as they were commanded"
    tc.close()
    return by_calls, by_batch, by_array


def _rate(work: Callable[[], object], count: int) -> float:
    began_s = time.perf_counter()
    work()
    return count / (time.perf_counter() - began_s)
