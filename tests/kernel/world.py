"""A small world for tests: network namespaces as nodes, on a panel, with a shaper; and what to send through it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from controller.fabric.choose import ShaperChoice, open_shaper
from controller.fabric.namespaces import create_namespace, in_namespace, remove_namespace
from controller.fabric.panel import NodePorts, Panel
from controller.fabric.plan import Shaper, ShapingPlan
from controller.fabric.routes import HostRoutes, RouteChanges
from controller.timeline import MTU_BYTES

SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33
UDP_HEADERS_BYTES = 14 + 20 + 8
PORT = 5000
MBIT = 1_000_000
DEADLINE_S = 20.0

_STAMP = struct.Struct("=IQ")  # number, time of day it was sent at in ns
_count = itertools.count()


@dataclass(frozen=True)
class Link:
    """One link to be, port numbers and all; `back_…` where the two directions differ."""

    a: int
    b: int
    delay_us: int = 0
    rate_bps: int = 1_000 * MBIT
    loss_ratio: float = 0.0
    mtu_bytes: int = MTU_BYTES
    back_delay_us: int | None = None
    back_rate_bps: int | None = None
    back_loss_ratio: float | None = None


def plan(*links: Link) -> ShapingPlan:
    """The directions of some links."""
    rows: list[tuple[int, int, int, int, float, int]] = []
    for link in links:
        back_us = link.delay_us if link.back_delay_us is None else link.back_delay_us
        back_bps = link.rate_bps if link.back_rate_bps is None else link.back_rate_bps
        back_loss = link.loss_ratio if link.back_loss_ratio is None else link.back_loss_ratio
        rows.append((link.a, link.b, link.delay_us, link.rate_bps, link.loss_ratio, link.mtu_bytes))
        rows.append((link.b, link.a, back_us, back_bps, back_loss, link.mtu_bytes))
    port, peer, delay_us, rate_bps, loss_ratio, mtu_bytes = (np.array(each) for each in zip(*rows, strict=True))
    return ShapingPlan(port, peer, delay_us, rate_bps, loss_ratio.astype(float), mtu_bytes)


def dark(*ports: int) -> ShapingPlan:
    """Ports patched to nothing."""
    return replace(ShapingPlan.dark(len(ports)), port=np.array(ports))


@dataclass
class World:
    """Nodes 0 … n - 1, each with as many ports."""

    panel: Panel
    shaper: Shaper
    routes: HostRoutes
    nodes: list[NodePorts]

    def route(self, *changes: tuple[int, int, int]) -> None:
        """Apply (node, destination, port) changes."""
        node, destination, port = (np.array(each) for each in zip(*changes, strict=True))
        self.routes.apply(RouteChanges(node, destination, port))

    def udp(self, node: int, port: int) -> socket.socket:
        """A datagram socket in a node, bound to its address, with kernel time stamps and a large buffer."""
        return in_namespace(self.nodes[node].network_namespace, lambda: _udp(self.nodes[node].address, port))

    def sending(self, source: int, target: int) -> Traffic:
        """Datagrams from one node to another."""
        return Traffic(self.udp(source, 0), self.udp(target, PORT), (self.nodes[target].address, PORT))


@dataclass
class Received:
    """What arrived, in order of arrival. Shapes: all (n,)."""

    number: np.ndarray
    sent_s: np.ndarray
    arrived_s: np.ndarray

    @property
    def delay_ms(self) -> np.ndarray:
        """One way, from the send call to the kernel's time stamp on arrival."""
        delay_s: np.ndarray = self.arrived_s - self.sent_s
        return delay_s * 1e3


class Traffic:
    """Numbered datagrams that carry the time they were sent at."""

    def __init__(self, source: socket.socket, sink: socket.socket, target: tuple[str, int]) -> None:
        self._source, self._sink, self._target = source, sink, target
        self.sent_s: list[tuple[float, float]] = []  # times of day between which each was sent, by its number

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._sink.close()

    def send(self, count: int, every_s: float, frame_bytes: int = 100) -> None:
        """Send datagrams, one every so often; those that are late are sent at once."""
        padding = bytes(frame_bytes - UDP_HEADERS_BYTES - _STAMP.size)
        began = time.monotonic()
        for k in range(count):
            wait_s = began + k * every_s - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            now_ns = time.time_ns()
            self._source.sendto(_STAMP.pack(len(self.sent_s), now_ns) + padding, self._target)
            self.sent_s.append((now_ns / 1e9, time.time()))

    def received(self, settle_s: float = 0.4) -> Received:
        """All that has arrived, once nothing more has for `settle_s`."""
        rows = []
        self._sink.settimeout(settle_s)
        while True:
            try:
                data, control, _, _ = self._sink.recvmsg(65_536, 256)
            except TimeoutError:
                break
            seconds, nanoseconds = struct.unpack("=qq", control[0][2])
            number, sent_ns = _STAMP.unpack_from(data)
            rows.append((number, sent_ns / 1e9, seconds + nanoseconds / 1e9))
        table = np.array(rows).reshape(-1, 3)
        return Received(table[:, 0].astype(int), table[:, 1], table[:, 2])


@contextlib.contextmanager
def opened_world(shaper: str, n_node: int, n_port: int = 2, seed: int = 1) -> Iterator[World]:
    """A world, taken down whatever happens."""
    mark = f"{os.getpid()}-{next(_count)}"
    names = [f"kt-{mark}-{node}" for node in range(n_node)]
    with contextlib.ExitStack() as stack:
        nodes = []
        for node, name in enumerate(names):
            namespace = create_namespace(name)
            stack.callback(remove_namespace, name)
            ports = tuple(f"isl{k}" for k in range(n_port))
            nodes.append(NodePorts(namespace, f"10.77.{node // 250}.{node % 250 + 1}", ports, f"node{node}"))
        panel = Panel.create(f"kt-{mark}")
        stack.callback(panel.close)
        panel.connect(nodes)
        opened = open_shaper(ShaperChoice(shaper, "test"), panel, seed)
        stack.callback(opened.close)
        yield World(panel, opened, HostRoutes(panel), nodes)


def tcp_transfer(world: World, source: int, target: int, data: bytes) -> tuple[float, str]:
    """Send bytes over TCP. Seconds from the first to the last byte received, and the SHA-256 of what arrived."""
    to, at = world.nodes[target], world.nodes[source]
    listener = in_namespace(to.network_namespace, lambda: socket.create_server((to.address, PORT)))
    answer: list[tuple[float, str]] = []

    def receive() -> None:
        connection, _ = listener.accept()
        digest, began = hashlib.sha256(), 0.0
        with connection:
            connection.settimeout(DEADLINE_S)
            while part := connection.recv(1 << 18):
                began = began or time.monotonic()
                digest.update(part)
        answer.append((time.monotonic() - began, digest.hexdigest()))

    with listener:
        listener.settimeout(DEADLINE_S)
        receiver = threading.Thread(target=receive)
        receiver.start()
        with in_namespace(
            at.network_namespace, lambda: socket.create_connection((to.address, PORT), DEADLINE_S)
        ) as out:
            out.sendall(data)
        receiver.join(DEADLINE_S)
    return answer[0]


def tcp_flood(world: World, source: int, target: int, flows: int, lasting_s: float) -> np.ndarray:
    """Send as much as some TCP connections can for a time. What they received together, as it came: seconds since the
    first byte, bytes so far. Shape: (n, 2)."""
    to, at = world.nodes[target], world.nodes[source]
    listener = in_namespace(to.network_namespace, lambda: socket.create_server((to.address, PORT)))
    rows: list[tuple[float, int]] = []
    lock, ended = threading.Lock(), time.monotonic() + lasting_s

    def receive(connection: socket.socket) -> None:
        with connection:
            while part := connection.recv(1 << 16):
                with lock:
                    rows.append((time.monotonic(), len(part)))

    def send() -> None:
        with in_namespace(at.network_namespace, lambda: socket.create_connection((to.address, PORT))) as out:
            # what the socket still holds when the time is over is not sent
            out.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while time.monotonic() < ended:
                out.send(bytes(1 << 14))

    with listener, ThreadPoolExecutor(2 * flows) as pool:
        listener.settimeout(DEADLINE_S)
        work = []
        for _ in range(flows):
            work.append(pool.submit(send))
            work.append(pool.submit(_until_reset, receive, listener.accept()[0]))
        for each in work:
            each.result(DEADLINE_S)
    times, sizes = np.array(sorted(rows)).T
    return np.stack([times - times[0], np.cumsum(sizes)], axis=1)


def _until_reset(receive: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        receive(connection)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = DEADLINE_S) -> None:
    """Wait until something is so; fail, saying what was not, when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)


def living(path: Path) -> bool:
    """Whether a process folder is that of a live process, not of a zombie."""
    try:
        return b") Z " not in (path / "stat").read_bytes()
    except OSError:
        return False


def _udp(address: str, port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    opened.bind((address, port))
    return opened
