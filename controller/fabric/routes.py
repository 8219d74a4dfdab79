"""Host routes in the nodes, changed by difference: what comes is made before what goes is broken."""

from __future__ import annotations

import socket

import numpy as np

from controller.fabric import netlink
from controller.fabric.netlink import NetlinkSocket, RouteError
from controller.fabric.panel import NEXT_HOP, NODE_FIRST_IFINDEX, Panel
from controller.links.routes import WITHDRAWN, RouteChanges
from controller.timeline import BoolArray, IntArray

__all__ = ["WITHDRAWN", "HostRoutes", "RouteChanges"]

_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_ANY, _RTNH_F_ONLINK = 0, 255, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7

_TARGET: list[tuple[str, object]] = [
    *netlink.HEADER_FIELDS,
    ("family", "u1"), ("dst_len", "u1"), ("src_len", "u1"), ("tos", "u1"),
    ("table", "u1"), ("protocol", "u1"), ("scope", "u1"), ("kind", "u1"), ("route_flags", "=u4"),
    ("dst_head", netlink.ATTRIBUTE), ("dst", ">u4"),
]  # fmt: skip
_WITHDRAWAL = np.dtype(_TARGET)
_ADDITION = np.dtype(
    [
        *_TARGET,
        ("oif_head", netlink.ATTRIBUTE), ("oif", "=u4"),
        ("gateway_head", netlink.ATTRIBUTE), ("gateway", ">u4"),
        ("prefsrc_head", netlink.ATTRIBUTE), ("prefsrc", ">u4"),
    ]
)  # fmt: skip


class HostRoutes:
    """The host routes of a panel's nodes."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._sockets: list[NetlinkSocket] = []
        for node in panel.nodes:
            try:
                self._sockets.append(NetlinkSocket(node.network_namespace))
            except OSError as error:
                self.close()
                raise RouteError(f"cannot enter the network namespace of {node.label}: {error}") from error
        self._address = np.array([_number(node.address) for node in panel.nodes], np.int64)

    def apply(self, changes: RouteChanges) -> None:
        """Make these changes: first all that come or move, then all that go.

        Raises RouteError, which names the node, the destination and the kernel's answer.
        """
        going = changes.port == WITHDRAWN
        self._send(changes, ~going)
        self._send(changes, going)

    def close(self) -> None:
        """Let go of the nodes; their routes stay as they are. Idempotent."""
        for node_socket in self._sockets:
            node_socket.close()

    def _send(self, changes: RouteChanges, chosen: BoolArray) -> None:
        chosen_rows = np.flatnonzero(chosen)
        order = chosen_rows[np.argsort(changes.node[chosen_rows], kind="stable")]
        if not len(order):
            return
        rows = self._rows(changes, order)
        node = changes.node[order]
        bounds = np.flatnonzero(np.diff(node)) + 1
        for first, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(order)], strict=True):
            refusals = self._sockets[int(node[first])].send_rows(rows[first:end])
            if refusals:
                row = order[first + refusals[0].row]
                raise RouteError(f"{self._label(changes, int(row))}: {refusals[0]}")

    def _rows(self, changes: RouteChanges, order: IntArray) -> netlink.Rows:
        """Messages for these rows, all of which come, or all of which go."""
        node, port = changes.node[order], changes.port[order]
        going = port[0] == WITHDRAWN
        if going:
            rows = netlink.new_rows(_WITHDRAWAL, len(order), netlink.RTM_DELROUTE, 0)
        else:
            create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
            rows = netlink.new_rows(_ADDITION, len(order), netlink.RTM_NEWROUTE, create)
            rows["protocol"] = _RTPROT_STATIC
            rows["kind"] = _RTN_UNICAST
            rows["route_flags"] = _RTNH_F_ONLINK
            rows["oif_head"], rows["oif"] = (8, _RTA_OIF), NODE_FIRST_IFINDEX + port
            rows["gateway_head"], rows["gateway"] = (8, _RTA_GATEWAY), _number(NEXT_HOP)
            rows["prefsrc_head"], rows["prefsrc"] = (8, _RTA_PREFSRC), self._address[node]
        rows["family"], rows["dst_len"] = socket.AF_INET, 32
        rows["table"] = _RT_TABLE_MAIN
        rows["scope"] = _RT_SCOPE_ANY if going else _RT_SCOPE_UNIVERSE
        rows["dst_head"], rows["dst"] = (8, _RTA_DST), self._address[changes.destination[order]]
        return rows

    def _label(self, changes: RouteChanges, row: int) -> str:
        nodes = self._panel.nodes
        at, to = nodes[int(changes.node[row])], nodes[int(changes.destination[row])]
        port = int(changes.port[row])
        if port == WITHDRAWN:
            return f"cannot withdraw the route of {at.label} to {to.label} ({to.address})"
        name = at.ports[port] if 0 <= port < len(at.ports) else f"number {port}"
        return f"cannot route {at.label} to {to.label} ({to.address}) by port {name}"


def _number(address: str) -> int:
    return int.from_bytes(socket.inet_aton(address), "big")
