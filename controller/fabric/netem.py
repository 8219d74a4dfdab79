"""The shaper of kernels that have netem: a redirect from each port to its peer, and a netem on each panel port.

A direction port → peer is a u32 filter with a mirred action on the port's ingress, and the netem at the root of the
peer, which delays what leaves towards the peer's node. Each netem always has a rate: only then does the kernel keep
frames in order when their delay shrinks.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import numpy as np

from controller.fabric import netlink
from controller.fabric.netlink import ATTRIBUTE, HEADER_FIELDS, Refusal, Rows, ShapingError, message
from controller.fabric.panel import PANEL_FIRST_IFINDEX, Panel
from controller.fabric.plan import DARK, FRAME_BYTES, ShapingPlan, queue_limit_bytes
from controller.fabric.shaping import PatchTable, Segments, describe
from controller.timeline import IntArray

IDLE_RATE_BPS = 8_000_000_000  # of ports which are patched to nothing
LOSS_SCALE = 2**32 - 1  # netem's probability 1
NO_FILTER = (errno.ENOENT, errno.EINVAL)  # the latter for "cannot find specified filter chain"
LOSS_DECIMALS = 9  # what that resolves

TC_H_ROOT, TC_H_CLSACT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFFFFF2
NETEM_HANDLE, CLSACT_HANDLE = 0x10000, 0xFFFF0000
FILTER_HANDLE, FILTER_INFO = 0x80000800, (1 << 16) | 0x0300  # 800::800; priority 1, protocol ETH_P_ALL, big-endian
TCA_KIND, TCA_OPTIONS = 1, 2
_NETEM_RATE, _NETEM_RATE64, _NETEM_LATENCY64 = 6, 8, 10
U32_SEL, U32_ACT, ACT_KIND, ACT_OPTIONS, MIRRED_PARMS = 5, 7, 1, 2, 2
EGRESS_REDIRECT, STOLEN, TERMINAL = 1, 4, 1
TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_NETEM_QOPT_BYTES = 24

_TC_FIELDS = [
    *HEADER_FIELDS,
    ("family", "=u4"), ("ifindex", "=i4"), ("handle", "=u4"), ("parent", "=u4"), ("info", "=u4"),
]  # fmt: skip
_NETEM_ROWS = np.dtype(
    [
        *_TC_FIELDS,
        ("kind_head", ATTRIBUTE), ("kind", "S8"),
        ("options_head", ATTRIBUTE),
        # struct tc_netem_qopt: latency (overruled below), limit in packets, loss, gap, duplicate, jitter
        ("latency_ticks", "=u4"), ("limit", "=u4"), ("loss", "=u4"), ("gap", "=u4"), ("duplicate", "=u4"),
        ("jitter_ticks", "=u4"),
        # struct tc_netem_rate: bytes a second (saturated where 64 bits are needed), overhead, cell size, cell overhead
        ("rate_head", ATTRIBUTE), ("rate_bytes_s", "=u4"), ("overhead", "=i4"), ("cell", "=u4"),
        ("cell_overhead", "=i4"),
        ("rate64_head", ATTRIBUTE), ("rate64_bytes_s", "=u8"),
        ("latency_head", ATTRIBUTE), ("latency_ns", "=i8"),
    ]
)  # fmt: skip
_CLSACT_ROWS = np.dtype([*_TC_FIELDS, ("kind_head", ATTRIBUTE), ("kind", "S8")])
_KEY_ROWS = np.dtype([*_TC_FIELDS, ("kind_head", ATTRIBUTE), ("kind", "S4")])
_PATCH_ROWS = np.dtype(
    [
        *_TC_FIELDS,
        ("kind_head", ATTRIBUTE), ("kind", "S4"),
        ("options_head", ATTRIBUTE),
        # struct tc_u32_sel with one key that every frame matches
        ("sel_head", ATTRIBUTE), ("sel_flags", "u1"), ("offshift", "u1"), ("nkeys", "u1"), ("sel_rest", "V29"),
        ("act_head", ATTRIBUTE), ("first_head", ATTRIBUTE),
        ("act_kind_head", ATTRIBUTE), ("act_kind", "S8"),
        ("act_options_head", ATTRIBUTE), ("mirred_head", ATTRIBUTE),
        # struct tc_mirred
        ("index", "=u4"), ("capabilities", "=u4"), ("action", "=i4"), ("references", "=i4"), ("bindings", "=i4"),
        ("mirred_action", "=i4"), ("peer_ifindex", "=u4"),
    ]
)  # fmt: skip


class NetemShaper:
    """Shaping by the kernel."""

    name = "netem"

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._patches = PatchTable(panel)
        self._segments = Segments(panel)
        idle = ShapingPlan.dark(panel.n_port)
        for rows in (clsact_rows(panel.ifindex), netem_rows(panel.ifindex, idle)):
            self._raise(self._panel.socket.send_rows(rows), lambda row: f"cannot prepare {panel.port_label(row)}")

    def apply(self, plan: ShapingPlan) -> None:
        """Make these directions so. Raises ShapingError with the port, what was asked, and the kernel's answer."""
        peers_after = self._patches.after(plan)
        lit = np.flatnonzero(plan.peer != DARK)
        unpatched = np.flatnonzero((plan.peer == DARK) & (self._patches.peer[plan.port] != DARK))
        self._segments.bound(plan)
        shaped = plan.only(plan.peer != DARK)
        self._send(netem_rows(self._ifindex(shaped.peer), shaped), plan, lit)  # shaped before it is patched
        moved = lit[self._patches.peer[plan.port[lit]] != plan.peer[lit]]
        self._send(_patch_rows(self._ifindex(plan.port[moved]), self._ifindex(plan.peer[moved])), plan, moved)
        self._send(_key_rows(self._ifindex(plan.port[unpatched]), netlink.RTM_DELTFILTER), plan, unpatched)
        self._patches.peer = peers_after

    def read_back(self) -> ShapingPlan:
        """The filters and qdiscs that the kernel has."""
        plan = ShapingPlan.dark(self._panel.n_port)
        answers, refusals = self._panel.socket.get_rows(_key_rows(self._panel.ifindex, netlink.RTM_GETTFILTER))
        unexpected = [each for each in refusals if each.number not in NO_FILTER]  # dark ports have none
        self._raise(unexpected, lambda row: f"cannot read back {self._panel.port_label(row)}")
        for answer in answers:
            plan.peer[answer.sequence] = _peer_ifindex(answer.body) - PANEL_FIRST_IFINDEX
        delay_us, rate_bps, loss_ratio = self._read_qdiscs()
        lit = plan.peer != DARK
        plan.delay_us[lit] = delay_us[plan.peer[lit]]
        plan.rate_bps[lit] = rate_bps[plan.peer[lit]]
        plan.loss_ratio[lit] = loss_ratio[plan.peer[lit]]
        return plan

    def close(self) -> None:
        """Nothing runs: qdiscs and filters end with the panel."""

    def _ifindex(self, port: IntArray) -> IntArray:
        return PANEL_FIRST_IFINDEX + port

    def _send(self, rows: Rows, plan: ShapingPlan, plan_rows: IntArray) -> None:
        self._raise(
            self._panel.socket.send_rows(rows),
            lambda row: f"cannot shape {describe(self._panel, plan, int(plan_rows[row]))}",
        )

    def _raise(self, refusals: list[Refusal], what: Callable[[int], str]) -> None:
        if refusals:
            raise ShapingError(f"{what(refusals[0].row)}: {refusals[0]}")

    def _read_qdiscs(self) -> tuple[IntArray, IntArray, np.ndarray]:
        n_port = self._panel.n_port
        delay_us, rate_bps, loss_ratio = np.zeros(n_port, np.int64), np.zeros(n_port, np.int64), np.zeros(n_port)
        for answer in self._panel.socket.dump(
            message(netlink.RTM_GETQDISC, netlink.NLM_F_DUMP, TCMSG.pack(0, 0, 0, 0, 0))
        ):
            ifindex = TCMSG.unpack_from(answer.body)[1]
            found = netlink.attributes(answer.body[TCMSG.size :])
            if found.get(TCA_KIND) != b"netem\0" or not 0 <= ifindex - PANEL_FIRST_IFINDEX < n_port:
                continue
            port = ifindex - PANEL_FIRST_IFINDEX
            options = found[TCA_OPTIONS]
            detail = netlink.attributes(options[_NETEM_QOPT_BYTES:])
            (rate_bytes_s,) = struct.unpack_from("=I", detail[_NETEM_RATE])
            if _NETEM_RATE64 in detail:
                (rate_bytes_s,) = struct.unpack("=Q", detail[_NETEM_RATE64])
            delay_us[port] = round(struct.unpack("=q", detail[_NETEM_LATENCY64])[0] / 1000)
            rate_bps[port] = rate_bytes_s * 8
            loss_ratio[port] = round(struct.unpack_from("=I", options, 8)[0] / LOSS_SCALE, LOSS_DECIMALS)
        return delay_us, rate_bps, loss_ratio


def limit_packets(delay_us: IntArray, rate_bps: IntArray) -> IntArray:
    """How many frames a netem holds: those under way at its rate and delay, and its queue. Shapes: (n,)."""
    under_way_bytes = rate_bps * delay_us // 8_000_000
    return -(-(under_way_bytes + queue_limit_bytes(rate_bps)) // FRAME_BYTES)


def netem_rows(ifindex: IntArray, plan: ShapingPlan) -> Rows:
    """Messages that make the netem at the root of each interface (n,) as each direction of a plan (n,) asks."""
    create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    rows = netlink.new_rows(_NETEM_ROWS, len(plan), netlink.RTM_NEWQDISC, create)
    rows["ifindex"], rows["handle"], rows["parent"] = ifindex, NETEM_HANDLE, TC_H_ROOT
    rows["kind_head"], rows["kind"] = (10, TCA_KIND), b"netem"
    rows["options_head"] = _to_the_end(rows, "options_head", TCA_OPTIONS)
    rate_bps = np.where(plan.rate_bps > 0, plan.rate_bps, IDLE_RATE_BPS)
    rows["limit"] = np.minimum(limit_packets(plan.delay_us, rate_bps), 2**32 - 1)
    rows["loss"] = np.round(plan.loss_ratio * LOSS_SCALE)
    rows["rate_head"], rows["rate_bytes_s"] = (20, _NETEM_RATE), np.minimum(rate_bps // 8, 2**32 - 1)
    rows["rate64_head"], rows["rate64_bytes_s"] = (12, _NETEM_RATE64), rate_bps // 8
    rows["latency_head"], rows["latency_ns"] = (12, _NETEM_LATENCY64), plan.delay_us * 1000
    return rows


def clsact_rows(ifindex: IntArray) -> Rows:
    """Messages that give each interface (n,) its hook for filters."""
    create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    rows = netlink.new_rows(_CLSACT_ROWS, len(ifindex), netlink.RTM_NEWQDISC, create)
    rows["ifindex"], rows["handle"], rows["parent"] = ifindex, CLSACT_HANDLE, TC_H_CLSACT
    rows["kind_head"], rows["kind"] = (11, TCA_KIND), b"clsact"
    return rows


def _key_rows(ifindex: IntArray, kind: int) -> Rows:
    """Messages about the one filter of each interface."""
    rows = netlink.new_rows(_KEY_ROWS, len(ifindex), kind, 0)
    _name_filters(rows, ifindex)
    return rows


def _patch_rows(ifindex: IntArray, peer_ifindex: IntArray) -> Rows:
    """Messages that send what comes in at each interface (n,) out of its peer (n,), in place of what was."""
    create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    rows = netlink.new_rows(_PATCH_ROWS, len(ifindex), netlink.RTM_NEWTFILTER, create)
    _name_filters(rows, ifindex)
    rows["options_head"] = _to_the_end(rows, "options_head", TCA_OPTIONS)
    rows["sel_head"], rows["sel_flags"], rows["nkeys"] = (36, U32_SEL), TERMINAL, 1
    rows["act_head"] = _to_the_end(rows, "act_head", U32_ACT)
    rows["first_head"] = _to_the_end(rows, "first_head", 1)  # the first action of the list
    rows["act_kind_head"], rows["act_kind"] = (11, ACT_KIND), b"mirred"
    rows["act_options_head"] = _to_the_end(rows, "act_options_head", ACT_OPTIONS | netlink.NLA_F_NESTED)
    rows["mirred_head"] = _to_the_end(rows, "mirred_head", MIRRED_PARMS)
    rows["action"], rows["mirred_action"], rows["peer_ifindex"] = STOLEN, EGRESS_REDIRECT, peer_ifindex
    return rows


def _to_the_end(rows: Rows, field: str, kind: int) -> tuple[int, int]:
    """The head of an attribute that holds all the rest of the message."""
    fields = rows.dtype.fields
    assert fields is not None  # rows are structured
    return rows.dtype.itemsize - fields[field][1], kind


def _name_filters(rows: Rows, ifindex: IntArray) -> None:
    rows["ifindex"], rows["handle"], rows["parent"], rows["info"] = ifindex, FILTER_HANDLE, TC_H_INGRESS, FILTER_INFO
    rows["kind_head"], rows["kind"] = (8, TCA_KIND), b"u32"


def _peer_ifindex(filter_body: bytes) -> int:
    """Where a filter redirects to."""
    at: dict[int, bytes] = netlink.attributes(filter_body[TCMSG.size :])
    for kind in (TCA_OPTIONS, U32_ACT, 1, ACT_OPTIONS):
        at = netlink.attributes(at[kind])
    (ifindex,) = struct.unpack_from("=I", at[MIRRED_PARMS], 24)
    return int(ifindex)
