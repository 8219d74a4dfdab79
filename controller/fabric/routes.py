"""Host routes in the nodes, changed by difference: what comes is made before what goes is broken."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.fabric import netlink
from controller.fabric.netlink import RouteError
from controller.fabric.panel import NEXT_HOP, NEXT_HOP_IPV6, NODE_FIRST_IFINDEX, Panel, ipv6_address
from controller.links.routes import WITHDRAWN, RouteChanges
from controller.timeline import BoolArray, IntArray

__all__ = ["WITHDRAWN", "HostRoutes", "RouteChanges"]

_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_ANY, _RTNH_F_ONLINK = 0, 255, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7


@dataclass(frozen=True)
class _Family:
    """The routes of one protocol: how their messages are laid out, and the addresses in them."""

    number: int
    withdrawal: np.dtype[np.void]
    addition: np.dtype[np.void]
    gateway: np.void
    address: netlink.Rows  # (n_node,)


def _family(number: int, next_hop: str, addresses: Sequence[str]) -> _Family:
    packed = [socket.inet_pton(number, each) for each in (next_hop, *addresses)]
    layout = np.dtype(f"V{len(packed[0])}")
    target: list[tuple[str, object]] = [
        *netlink.HEADER_FIELDS,
        ("family", "u1"), ("dst_len", "u1"), ("src_len", "u1"), ("tos", "u1"),
        ("table", "u1"), ("protocol", "u1"), ("scope", "u1"), ("kind", "u1"), ("route_flags", "=u4"),
        ("dst_head", netlink.ATTRIBUTE), ("dst", layout),
    ]  # fmt: skip
    way: list[tuple[str, object]] = [
        ("oif_head", netlink.ATTRIBUTE), ("oif", "=u4"),
        ("gateway_head", netlink.ATTRIBUTE), ("gateway", layout),
        ("prefsrc_head", netlink.ATTRIBUTE), ("prefsrc", layout),
    ]  # fmt: skip
    own = np.frombuffer(b"".join(packed), layout)
    return _Family(number, np.dtype(target), np.dtype(target + way), own[0], own[1:])


class HostRoutes:
    """The host routes of a connected panel's nodes, the same for IPv4 and IPv6, by the panel's own sockets in them."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        addresses = [node.address for node in panel.nodes]
        self._families = [_family(socket.AF_INET, NEXT_HOP, addresses)]
        if panel.has_ipv6:
            self._families.append(_family(socket.AF_INET6, NEXT_HOP_IPV6, [ipv6_address(each) for each in addresses]))

    def apply(self, changes: RouteChanges) -> None:
        """Make these changes: first all that come or move, then all that go.

        Raises RouteError, which names the node, the destination and the kernel's answer.
        """
        going = changes.port == WITHDRAWN
        self._send(changes, ~going)
        self._send(changes, going)

    def _send(self, changes: RouteChanges, chosen: BoolArray) -> None:
        chosen_rows = np.flatnonzero(chosen)
        order = chosen_rows[np.argsort(changes.node[chosen_rows], kind="stable")]
        if not len(order):
            return
        node = changes.node[order]
        bounds = np.flatnonzero(np.diff(node)) + 1
        for family in self._families:
            rows = _rows(family, changes, order)
            for first, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(order)], strict=True):
                refusals = self._panel.node_sockets[int(node[first])].send_rows(rows[first:end])
                if refusals:
                    row = order[first + refusals[0].row]
                    raise RouteError(f"{self._label(changes, int(row))}: {refusals[0]}")

    def _label(self, changes: RouteChanges, row: int) -> str:
        nodes = self._panel.nodes
        at, to = nodes[int(changes.node[row])], nodes[int(changes.destination[row])]
        port = int(changes.port[row])
        if port == WITHDRAWN:
            return f"cannot withdraw the route of {at.label} to {to.label} ({to.address})"
        name = at.ports[port] if 0 <= port < len(at.ports) else f"number {port}"
        return f"cannot route {at.label} to {to.label} ({to.address}) by port {name}"


def _rows(family: _Family, changes: RouteChanges, order: IntArray) -> netlink.Rows:
    """Messages for these rows, all of which come, or all of which go."""
    node, port = changes.node[order], changes.port[order]
    going = port[0] == WITHDRAWN
    size = family.address.dtype.itemsize
    if going:
        rows = netlink.new_rows(family.withdrawal, len(order), netlink.RTM_DELROUTE, 0)
    else:
        create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
        rows = netlink.new_rows(family.addition, len(order), netlink.RTM_NEWROUTE, create)
        rows["protocol"] = _RTPROT_STATIC
        rows["kind"] = _RTN_UNICAST
        rows["route_flags"] = _RTNH_F_ONLINK
        rows["oif_head"], rows["oif"] = (8, _RTA_OIF), NODE_FIRST_IFINDEX + port
        rows["gateway_head"], rows["gateway"] = (4 + size, _RTA_GATEWAY), family.gateway
        rows["prefsrc_head"], rows["prefsrc"] = (4 + size, _RTA_PREFSRC), family.address[node]
    rows["family"], rows["dst_len"] = family.number, 8 * size
    rows["table"] = _RT_TABLE_MAIN
    rows["scope"] = _RT_SCOPE_ANY if going else _RT_SCOPE_UNIVERSE
    rows["dst_head"], rows["dst"] = (4 + size, _RTA_DST), family.address[changes.destination[order]]
    return rows
