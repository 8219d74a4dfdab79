"""IPv6 beside IPv4: the same hops, and nothing on a link but what programs send."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import time
from functools import partial

import numpy as np

from controller.fabric.namespaces import in_namespace
from controller.fabric.panel import ipv6_address
from controller.fabric.routes import WITHDRAWN, RouteChanges
from tests.kernel.world import Link, World, opened_world, plan, wait_for

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, PACKET_OUTGOING = 0x0003, 0x0800, 0x86DD, 4
ICMP_ECHO, ICMP_ANSWER = (ETH_P_IP, 1, 8), (ETH_P_IP, 1, 0)
ICMPV6_ECHO, ICMPV6_ANSWER = (ETH_P_IPV6, 58, 128), (ETH_P_IPV6, 58, 129)
LISTEN_S = 3.0
TOLERANCE_MS = 2.0
ROUTING_S = 0.5  # ten times what it takes on two idle cores


def test_ipv6_goes_the_way_of_ipv4(shaper_name: str) -> None:
    """A node's IPv6 address answers over three hops, after the time that they take, and has no route when withdrawn."""
    with opened_world(shaper_name, n_node=4) as chain:
        chain.shaper.apply(plan(*(Link(2 * k + 1, 2 * k + 2, delay_us=4_000) for k in range(3))))
        chain.route(*((k, 3, 1) for k in range(3)), *((k, 0, 0) for k in range(1, 4)))
        answered = _ping(chain, 0, ipv6_address(chain.nodes[3].address))
        chain.route((0, 3, WITHDRAWN))
        refused = _ping(chain, 0, ipv6_address(chain.nodes[3].address))
    assert "5 received" in answered.stdout, answered
    assert "ttl=62" in answered.stdout, "two nodes stand between"
    fastest_ms = min(float(each) for each in re.findall(r"time=([0-9.]+) ms", answered.stdout))
    assert abs(fastest_ms - 24.0) <= TOLERANCE_MS
    assert "Network is unreachable" in refused.stderr


def test_a_link_carries_what_programs_send_and_nothing_else(pair: World) -> None:
    """From the making of a port on, neither ARP nor neighbour discovery nor multicast comes out of it: pings alone do.

    Listens for as long as a kernel takes to look for routers and duplicates, and to tell of its groups (RFC 4861, RFC
    4862, RFC 3810: a second each, a few times). Counters count from the port's making.
    """
    namespace = pair.panel.namespace
    frames = in_namespace(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
    with frames:
        pair.shaper.apply(plan(Link(0, 1, delay_us=5_000)))
        pair.panel.set_carriers(np.array([0, 1]), on=False)
        pair.panel.set_carriers(np.array([0, 1]), on=True)
        assert _frames_from_nodes(frames, LISTEN_S) == []
        for address in (pair.nodes[1].address, ipv6_address(pair.nodes[1].address)):
            wait_for(partial(_answers, pair, address), f"an answer of {address}")
        heard = _frames_from_nodes(frames, LISTEN_S)
    echoes = {ICMP_ECHO: 98, ICMP_ANSWER: 98, ICMPV6_ECHO: 118, ICMPV6_ANSWER: 118}  # bytes: 56 and all headers
    assert {_kind(frame) for frame in heard} == set(echoes)
    assert all(len(frame) == echoes[_kind(frame)] for frame in heard)
    from_node_bytes, _ = pair.panel.counters()
    assert from_node_bytes.sum() == sum(len(frame) for frame in heard)


def _answers(world: World, address: str) -> bool:
    return _ping(world, 0, address).returncode == 0


def _ping(world: World, source: int, address: str) -> subprocess.CompletedProcess[str]:
    """Five pings out of a node."""
    command = ["ping", "-n", "-c", "5", "-i", "0.05", "-s", "56", "-W", "2", address]
    return in_namespace(
        world.nodes[source].network_namespace, lambda: subprocess.run(command, capture_output=True, text=True)
    )


def _frames_from_nodes(frames: socket.socket, quiet_s: float) -> list[bytes]:
    """What came in at the panel's ports, up to a silence of so long."""
    heard: list[bytes] = []
    frames.settimeout(quiet_s)
    while True:
        try:
            frame, (port, _, direction, *_) = frames.recvfrom(65_536)
        except TimeoutError:
            return heard
        if port.startswith("p") and direction != PACKET_OUTGOING:
            heard.append(frame)


def _kind(frame: bytes) -> tuple[int, int, int]:
    """Protocol, and what is in the packet: its own protocol and first byte."""
    (protocol,) = struct.unpack_from("!H", frame, 12)
    next_at, payload_at = (23, 34) if protocol == ETH_P_IP else (20, 54)
    return protocol, frame[next_at], frame[payload_at]


def test_routes_between_all_of_71_nodes_are_a_small_part_of_a_step(shaper_name: str) -> None:
    """Every two of 71 nodes are routed, and routed anew, in both families, each in under ROUTING_S."""
    n_node = 71
    node, destination = np.nonzero(~np.eye(n_node, dtype=np.bool_))
    with opened_world(shaper_name, n_node) as world:
        for port in (0, 1):
            began_s = time.monotonic()
            world.routes.apply(RouteChanges(node, destination, np.full(len(node), port)))
            assert time.monotonic() - began_s <= ROUTING_S
        for family in ("-4", "-6"):
            shown = ["ip", family, "-n", world.nodes[5].network_namespace.name, "route", "show", "dev", "isl1"]
            routes = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.splitlines()
            assert sum(" via " in route for route in routes) == n_node - 1
