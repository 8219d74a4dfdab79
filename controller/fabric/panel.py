"""The patch panel: one network namespace a run, and a veth pair for every port of every node.

The panel's end of port number k is `p<k>` in the panel; the node's end carries the port's name in the node. All node
ends share one MAC, and each has one permanent neighbour, the next hop of every host route: whoever is patched behind
a port, frames are addressed right. No ARP or neighbour discovery ever flows, nor does a node say anything else by
itself: a link carries what programs send. The panel's ends have another MAC, so that the panel's own network stack
takes frames for a stranger's and drops them.

Every node has an IPv4 address, and where the kernel has IPv6 a unique local one made of it.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controller.errors import InputError
from controller.fabric import netlink
from controller.fabric.namespaces import (
    NAMED,
    create_namespace,
    in_namespace,
    processes_in,
    remove_namespace,
    wait_until,
    write_sysctls,
)
from controller.fabric.netlink import FabricError, NetlinkSocket, Refusal, attribute, attributes, message
from controller.owner import is_root_of_own
from controller.processes import command_line
from controller.timeline import MTU_BYTES, IntArray

PREFIX = "skyrack-"
NEXT_HOP = "169.254.0.1"
NEXT_HOP_IPV6 = "fe80::1"
ULA_PREFIX = bytes.fromhex("fd736b790000000000000000")  # fd and "sky", then zeros up to the IPv4 address
NODE_MAC = bytes.fromhex("02736b790001")  # locally administered; "sky" in the middle
PANEL_MAC = bytes.fromhex("02736b790002")
# Interfaces are numbered by us: known before they are made, clear of lo and of the kernel's own tunnels. The two ends
# of a port differ: the kernel takes equal numbers for "no peer", and is in no hurry to notice the carrier.
NODE_FIRST_IFINDEX = 100
PANEL_FIRST_IFINDEX = 10_000
LOOPBACK_IFINDEX = 1
REMOVAL_TIMEOUT_S = 30.0
CARRIER_TIMEOUT_S, CARRIERS_A_SECOND = 60.0, 25  # the slowest kernels notice some hundred
CHECKED_PORTS = 512  # a check: about a millisecond

PANEL_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv6/conf/default/disable_ipv6": "1",
    "ipv4/ip_forward": "0",
}
NODE_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/all/forwarding": "1",
    "ipv6/conf/default/forwarding": "0",  # the line above suffices; a port that says so too joins the routers' group
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_redirects": "0",
    "ipv6/conf/default/router_solicitations": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/addr_gen_mode": "1",  # no link-local addresses: ports are unnumbered
    "ipv4/ip_forward": "1",
    "ipv4/conf/all/rp_filter": "0",  # a path may come back over another port
    "ipv4/conf/default/rp_filter": "0",
    # ping without capabilities; a user namespace knows one group alone
    "ipv4/ping_group_range": "0 0" if is_root_of_own() else "0 2147483647",
}

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_IFINFOMSG = struct.Struct("=BxHiII")
_IFF_UP = 1
_IFLA_OPERSTATE, _IF_OPER_UP = 16, b"\x06"
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 18, 28
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_IFLA_STATS_LINK_64 = 1

_STATS_ROW = np.dtype(
    [
        ("family", "=u4"), ("ifindex", "=i4"), ("mask", "=u4"), ("head", netlink.ATTRIBUTE),
        ("rx_packets", "=u8"), ("tx_packets", "=u8"), ("rx_bytes", "=u8"), ("tx_bytes", "=u8"),
    ]
)  # fmt: skip


def ipv6_address(address: str) -> str:
    """The unique local IPv6 address (RFC 4193) of the node that has this IPv4 address, which are its last 32 bits."""
    return socket.inet_ntop(socket.AF_INET6, ULA_PREFIX + socket.inet_aton(address))


def kernel_has_ipv6() -> bool:
    """Whether there is IPv6: it may be left out of a kernel, or be off since its boot. Asking loads it as a module."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return False
        raise
    return True


@dataclass(frozen=True)
class NodePorts:
    """A node as the panel needs it."""

    network_namespace: Path  # /proc/<pid>/ns/net or /run/netns/<name>
    address: str  # IPv4, becomes a /32 on lo; a /128 made of it stands beside it
    ports: tuple[str, ...]
    name: str = ""  # for messages; the address where there is none

    @property
    def label(self) -> str:
        """What messages call the node."""
        return self.name or self.address


class Panel:
    """The panel of one run. Its owner closes it; `remove_panel` does the same after the owner was killed."""

    def __init__(self, run_id: str, namespace: Path, has_ipv6: bool) -> None:
        self.run_id = run_id
        self.namespace = namespace
        self.has_ipv6 = has_ipv6
        self.nodes: tuple[NodePorts, ...] = ()
        self.port_start: IntArray = np.zeros(1, np.int64)  # (n_node + 1,): first port number of each node; their count
        self.node_sockets: tuple[NetlinkSocket, ...] = ()  # (n_node,), each in its node's namespace
        self.socket = NetlinkSocket(namespace)
        self._made, self._next_check = _identity(namespace), 0

    @classmethod
    def create(cls, run_id: str) -> Panel:
        """A new, empty panel. Raises SkyrackError if the run has one, MachineError without permission."""
        has_ipv6 = kernel_has_ipv6()
        namespace = create_namespace(_namespace_name(run_id))
        try:
            in_namespace(namespace, lambda: write_sysctls(PANEL_SYSCTLS))
            return cls(run_id, namespace, has_ipv6)
        except BaseException:
            remove_namespace(namespace.name)
            raise

    @property
    def n_port(self) -> int:
        """How many ports the panel has."""
        return int(self.port_start[-1])

    @property
    def ifindex(self) -> IntArray:
        """The panel's end of each port. Shape: (n_port,)."""
        return np.arange(PANEL_FIRST_IFINDEX, PANEL_FIRST_IFINDEX + self.n_port)

    def port_label(self, port: int) -> str:
        """What messages call a port."""
        node = int(np.searchsorted(self.port_start, port, side="right")) - 1
        return f"port {port} ({self.nodes[node].label} {self.nodes[node].ports[port - int(self.port_start[node])]})"

    def connect(self, nodes: Sequence[NodePorts]) -> None:
        """Give every node its address, its ports and its neighbours. Once in a panel's life.

        Ports are numbered through: nodes in order, each node's ports in order. Raises FabricError, naming the node.
        """
        if self.nodes:
            raise FabricError(f"panel {self.namespace.name}: its nodes are connected already")
        sockets: list[NetlinkSocket] = []
        try:
            for node in nodes:
                in_namespace(node.network_namespace, lambda: write_sysctls(NODE_SYSCTLS))
                sockets.append(NetlinkSocket(node.network_namespace))
        except OSError as error:
            raise FabricError(f"cannot enter the network namespace of {node.label}: {error}") from error
        finally:
            self.nodes, self.node_sockets = tuple(nodes), tuple(sockets)
        self.port_start = np.cumsum([0, *(len(node.ports) for node in nodes)])
        for index, node in enumerate(nodes):
            self._make_ports(node, int(self.port_start[index]))
        for node, node_socket in zip(nodes, sockets, strict=True):
            refusals = node_socket.send(_node_messages(node, self.has_ipv6))
            _raise_refusals(f"cannot address {node.label} as {node.address}", refusals)
        self._wait_for_carriers()

    def _wait_for_carriers(self) -> None:
        """Wait until every end of every port is in operation.

        The kernel puts a new interface to work when it has noticed its carrier, and notices some hundred a second:
        until then whatever is sent into it vanishes.
        """
        waiting = [(self.socket, self.namespace.name)]
        waiting += [(own, node.label) for own, node in zip(self.node_sockets, self.nodes, strict=True)]

        def all_up() -> bool:
            while waiting and _is_in_operation(waiting[-1][0]):
                waiting.pop()
            return not waiting

        timeout_s = CARRIER_TIMEOUT_S + self.n_port / CARRIERS_A_SECOND
        if not wait_until(all_up, timeout_s, pause_s=0.05):
            raise FabricError(f"ports of {waiting[-1][1]} were not in operation within {timeout_s:.0f} s")

    def counters(self) -> tuple[IntArray, IntArray]:
        """Bytes that came from the nodes and went to the nodes, each by port. Shapes: (n_port,) twice."""
        request = struct.pack("=B3xII", 0, 0, 1 << (_IFLA_STATS_LINK_64 - 1))
        size = _STATS_ROW.itemsize
        listed = self.socket.dump(message(netlink.RTM_GETSTATS, netlink.NLM_F_DUMP, request))
        rows = np.frombuffer(b"".join(each.body[:size] for each in listed if len(each.body) >= size), _STATS_ROW)
        rows = rows[(rows["ifindex"] >= PANEL_FIRST_IFINDEX) & (rows["ifindex"] < PANEL_FIRST_IFINDEX + self.n_port)]
        from_node_bytes, to_node_bytes = np.zeros(self.n_port, np.int64), np.zeros(self.n_port, np.int64)
        from_node_bytes[rows["ifindex"] - PANEL_FIRST_IFINDEX] = rows["rx_bytes"]
        to_node_bytes[rows["ifindex"] - PANEL_FIRST_IFINDEX] = rows["tx_bytes"]
        return from_node_bytes, to_node_bytes

    def check(self) -> None:
        """Raise FabricError if somebody has taken the panel's name or ports away: no link is what it seems then.

        Some of the ports, and the next ones at the next call.
        """
        if _identity(self.namespace) != self._made:
            raise FabricError(f"the panel {self.namespace} was removed from outside; start the run again")
        first = self._next_check % max(1, self.n_port)
        self._next_check = first + CHECKED_PORTS
        ports = range(first, min(self._next_check, self.n_port))
        refusals = self.socket.send([_nothing_message(PANEL_FIRST_IFINDEX + port) for port in ports])
        if refusals:
            label = self.port_label(ports[refusals[0].row])
            raise FabricError(f"{label} was removed from the panel {self.namespace} from outside; start the run again")

    def set_carriers(self, port: IntArray, *, on: bool) -> None:
        """Let nodes see a carrier on some of their ports, or none. Shape: (n,). Raises FabricError, naming the port."""
        messages = [_flags_message(int(self.ifindex[each]), _IFF_UP if on else 0) for each in port]
        refusals = self.socket.send(messages) if messages else []
        self.raise_of_ports(f"cannot switch {'on' if on else 'off'} the carrier of", port, refusals)

    def raise_of_ports(self, what: str, port: IntArray, refusals: Sequence[Refusal]) -> None:
        """Raise FabricError for the first refusal of messages about some ports, one each. Shape: (n,)."""
        if refusals:
            raise FabricError(f"{what} {self.port_label(int(port[refusals[0].row]))}: {refusals[0]}")

    def close(self) -> None:
        """Remove the panel, and with it every port of the run. Idempotent."""
        self.socket.close()
        for node_socket in self.node_sockets:
            node_socket.close()
        remove_panel(self.run_id)

    def _make_ports(self, node: NodePorts, first: int) -> None:
        with node.network_namespace.open("rb") as handle:
            messages = [port_message(first + k, k, name, handle.fileno()) for k, name in enumerate(node.ports)]
            refusals = self.socket.send(messages)
        if refusals:
            port = node.ports[refusals[0].row]
            raise FabricError(f"cannot make port {port} of {node.label}: {refusals[0]}")


def remove_panel(run_id: str) -> bool:
    """Remove what a run has of a panel: its delay line, ports and namespace. False if there was nothing."""
    namespace = NAMED / _namespace_name(run_id)
    if not namespace.exists():
        return False
    _end_delay_lines(namespace)
    return remove_namespace(namespace.name)


def panel_run_ids() -> set[str]:
    """The runs which have a panel on this machine."""
    if not NAMED.is_dir():
        return set()
    return {path.name.removeprefix(PREFIX) for path in NAMED.iterdir() if path.name.startswith(PREFIX)}


def _namespace_name(run_id: str) -> str:
    if not _RUN_ID.fullmatch(run_id):
        raise InputError(f"run id {run_id!r}: letters, digits, '-', '_' and '.' only, at most 64 of them")
    return PREFIX + run_id


def _end_delay_lines(namespace: Path) -> None:
    """A delay line that outlives its controller keeps the namespace alive; nobody else's process is touched."""

    def living() -> set[int]:
        return {pid for pid in processes_in(namespace) if "controller.fabric.delay_line_process" in command_line(pid)}

    for pid in living():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself
            continue
    if not wait_until(lambda: not living(), REMOVAL_TIMEOUT_S):
        raise FabricError(f"delay line of {namespace.name} did not end within {REMOVAL_TIMEOUT_S} s: {living()}")


def port_message(port: int, node_port: int, name: str, node_namespace: int) -> bytes:
    """One veth pair, both ends made in place, numbered and with their MACs; the panel's end is up.

    The node's end cannot be: while it is made, the kernel has not joined the two yet. Each end has one queue: the
    kernel would give it one a processor, each with its memory.
    """
    one_queue = attribute(_IFLA_NUM_TX_QUEUES, struct.pack("=I", 1)) + attribute(
        _IFLA_NUM_RX_QUEUES, struct.pack("=I", 1)
    )
    node_end = (
        _IFINFOMSG.pack(0, 0, NODE_FIRST_IFINDEX + node_port, 0, 0)
        + attribute(_IFLA_IFNAME, name.encode() + b"\0")
        + attribute(_IFLA_ADDRESS, NODE_MAC)
        + attribute(_IFLA_MTU, struct.pack("=I", MTU_BYTES))
        + attribute(_IFLA_NET_NS_FD, struct.pack("=I", node_namespace))
        + one_queue
    )
    veth = attribute(_IFLA_INFO_KIND, b"veth\0") + attribute(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, node_end))
    panel_end = (
        _IFINFOMSG.pack(0, 0, PANEL_FIRST_IFINDEX + port, _IFF_UP, _IFF_UP)
        + attribute(_IFLA_IFNAME, f"p{port}\0".encode())
        + attribute(_IFLA_ADDRESS, PANEL_MAC)
        + attribute(_IFLA_MTU, struct.pack("=I", MTU_BYTES))
        + attribute(_IFLA_LINKINFO, veth)
        + one_queue
    )
    return message(netlink.RTM_NEWLINK, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, panel_end)


def _node_messages(node: NodePorts, has_ipv6: bool) -> list[bytes]:
    """lo and the ports up, the node's addresses on lo, and the neighbours of each port."""
    create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    families = [(socket.AF_INET, node.address, NEXT_HOP)]
    if has_ipv6:
        families.append((socket.AF_INET6, ipv6_address(node.address), NEXT_HOP_IPV6))
    ports = range(NODE_FIRST_IFINDEX, NODE_FIRST_IFINDEX + len(node.ports))
    messages = [_flags_message(LOOPBACK_IFINDEX, _IFF_UP)]
    messages += [_flags_message(each, _IFF_UP) for each in ports]
    for family, text, next_hop in families:
        address = socket.inet_pton(family, text)
        on_loopback = struct.pack("=BBBBI", family, len(address) * 8, 0, 0, LOOPBACK_IFINDEX)
        on_loopback += attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
        messages.append(message(netlink.RTM_NEWADDR, create, on_loopback))
        for ifindex in ports:
            neighbour = struct.pack("=BxxxiHBB", family, ifindex, _NUD_PERMANENT, 0, 0)
            neighbour += attribute(_NDA_DST, socket.inet_pton(family, next_hop)) + attribute(_NDA_LLADDR, NODE_MAC)
            messages.append(message(netlink.RTM_NEWNEIGH, create, neighbour))
    return messages


def _flags_message(ifindex: int, flags: int) -> bytes:
    """Bring an interface up, or down."""
    return message(netlink.RTM_SETLINK, 0, _IFINFOMSG.pack(0, 0, ifindex, flags, _IFF_UP))


def _nothing_message(ifindex: int) -> bytes:
    """Change nothing of an interface, which has to exist for that."""
    return message(netlink.RTM_SETLINK, 0, _IFINFOMSG.pack(0, 0, ifindex, 0, 0))


def _is_in_operation(own: NetlinkSocket) -> bool:
    """Whether every port of a namespace is up and its carrier noticed (RFC 2863's operational state)."""
    links = own.dump(message(netlink.RTM_GETLINK, netlink.NLM_F_DUMP, _IFINFOMSG.pack(0, 0, 0, 0, 0)))
    numbers = (_IFINFOMSG.unpack_from(link.body)[2] for link in links)
    ports = [link for link, number in zip(links, numbers, strict=True) if number >= NODE_FIRST_IFINDEX]
    states = (attributes(link.body[_IFINFOMSG.size :]).get(_IFLA_OPERSTATE) for link in ports)
    return all(state == _IF_OPER_UP for state in states)


def _identity(namespace: Path) -> tuple[int, int] | None:
    """By what the kernel tells namespaces apart; None where there is no such name."""
    try:
        found = namespace.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _raise_refusals(what: str, refusals: list[Refusal]) -> None:
    if refusals:
        raise FabricError(f"{what}: {refusals[0]}")
