"""The largest packets of ports (MTU), and how many frames nodes hand over as one (GSO), in step with their links."""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Iterator

import numpy as np

from controller.fabric import netlink
from controller.fabric.namespaces import in_namespace
from controller.fabric.panel import NODE_FIRST_IFINDEX, Panel
from controller.fabric.plan import DARK, ShapingPlan, frames_at_once
from controller.timeline import MTU_BYTES, IntArray

_IFLA_MTU, _IFLA_GSO_MAX_SEGS = 4, 40
MOST_SEGMENTS = 65_535  # the kernel's own
_SIOCGIFMTU, _IFREQ = 0x8921, struct.Struct("=16si20x")

_SIZE_ROWS = np.dtype(
    [
        *netlink.HEADER_FIELDS,
        ("family", "=u2"), ("hardware", "=u2"), ("ifindex", "=i4"), ("interface_flags", "=u4"), ("change", "=u4"),
        ("mtu_head", netlink.ATTRIBUTE), ("mtu_bytes", "=u4"),
        ("segments_head", netlink.ATTRIBUTE), ("segments", "=u4"),
    ]
)  # fmt: skip


class PortSizes:
    """The sizes of a panel's ports, as they were last set or read."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._at_once: IntArray = np.zeros(panel.n_port, np.int64)  # (n_port,), frames; 0: as the kernel made it
        self._mtu_bytes: IntArray = np.full(panel.n_port, MTU_BYTES)  # (n_port,)

    def follow(self, plan: ShapingPlan) -> None:
        """Size the ports that a plan lights as their links want, at both ends. Raises FabricError, naming the port."""
        panel, port, mtu_bytes, at_once = self._panel, plan.port, plan.mtu_bytes, frames_at_once(plan)
        resized = (plan.peer != DARK) & (mtu_bytes != self._mtu_bytes[port])
        changed = (plan.peer != DARK) & (resized | (at_once != self._at_once[port]))
        ends = _size_rows(panel.ifindex[port[resized]], mtu_bytes[resized], MOST_SEGMENTS)
        panel.raise_of_ports("cannot set the MTU of", port[resized], panel.socket.send_rows(ends))
        node = np.searchsorted(panel.port_start, port, side="right") - 1
        for index in np.unique(node[changed]).tolist():
            mine = changed & (node == index)
            ifindex = NODE_FIRST_IFINDEX + port[mine] - panel.port_start[index]
            rows = _size_rows(ifindex, mtu_bytes[mine], at_once[mine])
            refusals = panel.node_sockets[index].send_rows(rows)
            panel.raise_of_ports("cannot set MTU and segments of", port[mine], refusals)
        self._at_once[port[changed]] = at_once[changed]
        self._mtu_bytes[port[changed]] = mtu_bytes[changed]

    def read_back(self, plan: ShapingPlan) -> None:
        """Write into a plan of every port the MTU that the panel's ends have; from now on, that is known."""
        lit = plan.peer != DARK
        self._mtu_bytes = read_mtus_bytes(self._panel)
        plan.mtu_bytes[lit] = self._mtu_bytes[lit]


def read_mtus_bytes(panel: Panel) -> IntArray:
    """The largest packet of each port, as the panel's ends have it; 0 for one that is gone. Shape: (n_port,)."""
    return in_namespace(panel.namespace, lambda: np.array([*_mtus_bytes(panel.n_port)], np.int64))


def _mtus_bytes(n_port: int) -> Iterator[int]:
    """In the panel's namespace: a call each tells a number, and is ten times as fast as a listing that tells all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for port in range(n_port):
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFMTU, _IFREQ.pack(f"p{port}".encode(), 0))
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                yield 0
            else:
                yield _IFREQ.unpack(answer)[1]


def _size_rows(ifindex: IntArray, mtu_bytes: IntArray, segments: IntArray | int) -> netlink.Rows:
    """Messages that set the largest packet and how many segments a frame has of each interface. Shapes: (n,)."""
    rows = netlink.new_rows(_SIZE_ROWS, len(ifindex), netlink.RTM_SETLINK, 0)
    rows["ifindex"] = ifindex
    rows["mtu_head"], rows["mtu_bytes"] = (8, _IFLA_MTU), mtu_bytes
    rows["segments_head"], rows["segments"] = (8, _IFLA_GSO_MAX_SEGS), segments
    return rows
