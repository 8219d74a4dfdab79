"""The largest packet of a link: kept by both its ports, told on the way, and changed by a handover. Real packets."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial

import pytest

from controller.fabric.namespaces import in_namespace
from controller.fabric.netlink import ShapingError
from controller.fabric.panel import ipv6_address
from controller.fabric.port_sizes import read_mtus_bytes
from tests.kernel.world import MBIT, PORT, Link, World, dark, opened_world, plan, tcp_transfer, wait_for

IP_MTU_DISCOVER, IP_PMTUDISC_DO, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO = 10, 2, 23, 2
HEADERS_BYTES = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
TCP_HEADERS_BYTES = 20 + 20 + 12  # of IPv4, TCP and its time stamps (RFC 7323)
ARRIVES_S = 2.0


def sent_whole(world: World, source: int, target: int, family: socket.AddressFamily, packet_bytes: int) -> str:
    """What becomes of one datagram that may not be taken apart: "arrives", "vanishes", or the name of its error."""

    def opened(node: int, port: int) -> socket.socket:
        own = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET:
            own.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        else:
            own.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
        own.bind((_address(world, node, family), port))
        return own

    def here(node: int, port: int) -> socket.socket:
        return in_namespace(world.nodes[node].network_namespace, partial(opened, node, port))

    with here(source, 0) as out, here(target, PORT) as sink:
        sink.settimeout(ARRIVES_S)
        size_bytes = packet_bytes - HEADERS_BYTES[family]
        try:
            out.sendto(bytes(size_bytes), (_address(world, target, family), PORT))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        try:
            return "arrives" if len(sink.recv(65_536)) == size_bytes else "torn"
        except TimeoutError:
            return "vanishes"


def _address(world: World, node: int, family: socket.AddressFamily) -> str:
    address = world.nodes[node].address
    return address if family == socket.AF_INET else ipv6_address(address)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("mtu_bytes", [1_280, 1_500, 9_000])
def test_a_datagram_of_the_mtu_passes_and_one_byte_more_is_refused(
    pair: World, mtu_bytes: int, family: socket.AddressFamily
) -> None:
    """Both ways, whole, with either protocol; the sender is told of what is too long."""
    pair.shaper.apply(plan(Link(0, 1, delay_us=2_000, mtu_bytes=mtu_bytes)))
    for source, target in ((0, 1), (1, 0)):
        assert sent_whole(pair, source, target, family, mtu_bytes) == "arrives"
        assert sent_whole(pair, source, target, family, mtu_bytes + 1) == "EMSGSIZE"


@pytest.mark.parametrize("mtu_bytes", [1_280, 9_000])
def test_tcp_takes_its_segments_from_the_mtu(pair: World, mtu_bytes: int) -> None:
    """A connection's segments fill the link's packets, and what it carries arrives whole."""
    pair.shaper.apply(plan(Link(0, 1, delay_us=2_000, rate_bps=50 * MBIT, mtu_bytes=mtu_bytes)))
    here, there = pair.nodes
    listener = in_namespace(there.network_namespace, lambda: socket.create_server((there.address, PORT + 1)))
    with listener:
        connect: Callable[[], socket.socket] = lambda: socket.create_connection((there.address, PORT + 1), 10.0)  # noqa: E731
        with in_namespace(here.network_namespace, connect) as out:
            assert out.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == mtu_bytes - TCP_HEADERS_BYTES
    took_s, _ = tcp_transfer(pair, 0, 1, bytes(1 << 20))
    assert (1 << 20) * 8 / took_s <= 1.05 * 50 * MBIT


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_smaller_link_on_the_way_is_told_to_the_sender(shaper_name: str, family: socket.AddressFamily) -> None:
    """What passes the first link and not the second is answered by the node between: the sender learns the path's MTU
    (RFC 1191, RFC 8201), and what is as large as that arrives."""
    with opened_world(shaper_name, n_node=3, n_port=2) as world:
        world.shaper.apply(plan(Link(0, 2, delay_us=1_000, mtu_bytes=9_000), Link(3, 4, delay_us=1_000)))
        world.route((0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 2, 1), (2, 1, 0), (2, 0, 0))
        assert sent_whole(world, 0, 2, family, 1_501) == "vanishes"
        wait_for(lambda: sent_whole(world, 0, 2, family, 1_501) == "EMSGSIZE", "the sender knows")
        assert sent_whole(world, 0, 2, family, 1_500) == "arrives"


def test_a_port_follows_the_link_that_is_patched_now(trio: World) -> None:
    """A handover from a link of 9,000 to one of 1,280 and back changes what the port carries, at both of its ends; its
    old partner keeps what it has while it is dark."""
    large, small = plan(Link(0, 1, mtu_bytes=9_000)), plan(Link(0, 2, mtu_bytes=1_280))
    for made, broken, target, mtu_bytes in ((large, 2, 1, 9_000), (small, 1, 2, 1_280), (large, 2, 1, 9_000)):
        trio.shaper.apply(made)
        trio.shaper.apply(dark(broken))
        assert sent_whole(trio, 0, target, socket.AF_INET, mtu_bytes) == "arrives"
        assert sent_whole(trio, 0, target, socket.AF_INET, mtu_bytes + 1) == "EMSGSIZE"
        held = trio.shaper.read_back()
        assert held.mtu_bytes[[0, target]].tolist() == [mtu_bytes, mtu_bytes]
    assert read_mtus_bytes(trio.panel).tolist() == [9_000, 9_000, 1_280]


def test_an_mtu_that_a_port_cannot_have_is_refused_by_name(pair: World) -> None:
    """Nothing of such a plan is done."""
    with pytest.raises(ShapingError, match=r"node0 isl0.*MTU 60 bytes: the MTU must be"):
        pair.shaper.apply(plan(Link(0, 1, mtu_bytes=60)))
    assert read_mtus_bytes(pair.panel).tolist() == [1_500, 1_500]
