"""The shaper of kernels that have netem: a redirect from each port to its peer, and a netem on each panel port.

A direction port → peer is a u32 filter with a mirred action on the port's ingress, and the netem at the root of the
peer, which delays what leaves towards the peer's node. Each netem always has a rate: only then does the kernel keep
frames in order when their delay shrinks.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from controller.fabric import netlink
from controller.fabric.netlink import ATTRIBUTE, HEADER_FIELDS, Refusal, Rows, ShapingError, message
from controller.fabric.panel import PANEL_FIRST_IFINDEX, Panel
from controller.fabric.plan import (
    DARK,
    ETHERNET_BYTES,
    LOSS_DECIMALS,
    QUEUE_FLOOR_BYTES,
    ShapingPlan,
    frames_at_once,
    queue_limit_bytes,
)
from controller.fabric.port_sizes import PortSizes
from controller.fabric.shaping import PatchTable, describe
from controller.timeline import BoolArray, FloatArray, IntArray

IDLE_RATE_BPS = 8_000_000_000  # of ports which are patched to nothing
LOSS_SCALE = 2**32 - 1  # netem's probability 1
NO_FILTER = (errno.ENOENT, errno.EINVAL)  # the latter for "cannot find specified filter chain"
MAX_LIMIT = 2**32 - 1

TC_H_ROOT, TC_H_CLSACT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFFFFF2
NETEM_HANDLE, CLSACT_HANDLE = 0x10000, 0xFFFF0000
FILTER_HANDLE, FILTER_INFO = 0x80000800, (1 << 16) | 0x0300  # 800::800; priority 1, protocol ETH_P_ALL, big-endian
TCA_KIND, TCA_OPTIONS = 1, 2
_NETEM_CORR, _NETEM_REORDER, _NETEM_CORRUPT, _NETEM_RATE, _NETEM_ECN, _NETEM_RATE64 = 1, 3, 4, 6, 7, 8
_NETEM_LATENCY64, _NETEM_JITTER64, _NETEM_SLOT = 10, 11, 12
_ALWAYS_ZERO = {_NETEM_CORR: bytes(12), _NETEM_REORDER: bytes(8), _NETEM_CORRUPT: bytes(8), _NETEM_JITTER64: bytes(8)}
_OF_OURS = {*_ALWAYS_ZERO, _NETEM_RATE, _NETEM_RATE64, _NETEM_LATENCY64}
U32_SEL, U32_ACT, ACT_KIND, ACT_OPTIONS, MIRRED_PARMS = 5, 7, 1, 2, 2
EGRESS_REDIRECT, STOLEN, TERMINAL = 1, 4, 1
TCMSG = struct.Struct("=BxxxiIII")  # family, ifindex, handle, parent, info
_QOPT = struct.Struct("=6I")  # struct tc_netem_qopt, as in the rows below

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
        # all else that a netem can do: the kernel keeps what a change does not name
        ("correlation_head", ATTRIBUTE), ("correlation", "V12"), ("reorder_head", ATTRIBUTE), ("reorder", "V8"),
        ("corrupt_head", ATTRIBUTE), ("corrupt", "V8"), ("ecn_head", ATTRIBUTE), ("ecn", "=u4"),
        ("slot_head", ATTRIBUTE), ("slot", "V40"),
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
        self._sizes = PortSizes(panel)
        self._has_hook: BoolArray = np.ones(panel.n_port, np.bool_)  # (n_port,), as the kernel was last seen to have it
        idle = ShapingPlan.dark(panel.n_port)
        for rows in (clsact_rows(panel.ifindex), netem_rows(panel.ifindex, idle)):
            self._raise(self._panel.socket.send_rows(rows), lambda row: f"cannot prepare {panel.port_label(row)}")

    def apply(self, plan: ShapingPlan) -> None:
        """Make these directions so. Raises ShapingError with the port, what was asked, and the kernel's answer."""
        peers_after = self._patches.after(plan)
        lit = np.flatnonzero(plan.peer != DARK)
        unpatched = np.flatnonzero((plan.peer == DARK) & (self._patches.peer[plan.port] != DARK))
        self._sizes.follow(plan)
        shaped = plan.only(plan.peer != DARK)
        self._send(netem_rows(self._ifindex(shaped.peer), shaped), plan, lit)  # shaped before it is patched
        moved = lit[self._patches.peer[plan.port[lit]] != plan.peer[lit]]
        bare = moved[~self._has_hook[plan.port[moved]]]
        self._send(clsact_rows(self._ifindex(plan.port[bare])), plan, bare)
        self._has_hook[plan.port[bare]] = True
        self._send(patch_rows(self._ifindex(plan.port[moved]), self._ifindex(plan.peer[moved])), plan, moved)
        self._send(_key_rows(self._ifindex(plan.port[unpatched]), netlink.RTM_DELTFILTER), plan, unpatched)
        self._patches.peer = peers_after

    def read_back(self) -> ShapingPlan:
        """The filters and qdiscs that the kernel has. A direction that is shaped otherwise than a plan can say, by
        somebody else, has a rate of 0."""
        plan = ShapingPlan.dark(self._panel.n_port)
        answers, refusals = self._panel.socket.get_rows(_key_rows(self._panel.ifindex, netlink.RTM_GETTFILTER))
        unexpected = [each for each in refusals if each.number not in NO_FILTER]  # dark ports have none
        self._raise(unexpected, lambda row: f"cannot read back {self._panel.port_label(row)}")
        for answer in answers:
            peer = _peer_ifindex(answer.body) - PANEL_FIRST_IFINDEX
            plan.peer[answer.sequence] = peer if 0 <= peer < self._panel.n_port else DARK
        # What is in force is known from now on, so that the next plan mends it, whatever was commanded before.
        self._patches.peer = plan.peer.copy()
        self._sizes.read_back(plan)
        qdiscs = self._read_qdiscs()
        lit = plan.peer != DARK
        peer = plan.peer[lit]
        plan.delay_us[lit], plan.rate_bps[lit] = qdiscs.delay_us[peer], qdiscs.rate_bps[peer]
        plan.loss_ratio[lit] = qdiscs.loss_ratio[peer]
        ours = lit & (plan.rate_bps > 0)
        strange = limit_packets(plan.only(ours)) != qdiscs.limit[plan.peer[ours]]
        plan.rate_bps[np.flatnonzero(ours)[strange]] = 0
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

    def _read_qdiscs(self) -> _Qdiscs:
        n_port = self._panel.n_port
        read = _Qdiscs.none(n_port)
        self._has_hook = np.zeros(n_port, np.bool_)
        for answer in self._panel.socket.dump(
            message(netlink.RTM_GETQDISC, netlink.NLM_F_DUMP, TCMSG.pack(0, 0, 0, 0, 0))
        ):
            port = TCMSG.unpack_from(answer.body)[1] - PANEL_FIRST_IFINDEX
            if not 0 <= port < n_port:
                continue
            found = netlink.attributes(answer.body[TCMSG.size :])
            if found.get(TCA_KIND) == b"clsact\0":
                self._has_hook[port] = True
            if found.get(TCA_KIND) != b"netem\0":
                continue
            options = found[TCA_OPTIONS]
            _, limit, loss, gap, duplicate, _ = _QOPT.unpack_from(options)
            detail = netlink.attributes(options[_QOPT.size :])
            if gap or duplicate or detail.keys() - _OF_OURS or any(detail[k] != v for k, v in _ALWAYS_ZERO.items()):
                continue  # not as we make them
            (rate_bytes_s,) = struct.unpack_from("=I", detail[_NETEM_RATE])
            if _NETEM_RATE64 in detail:
                (rate_bytes_s,) = struct.unpack("=Q", detail[_NETEM_RATE64])
            read.delay_us[port] = round(struct.unpack("=q", detail[_NETEM_LATENCY64])[0] / 1000)
            read.rate_bps[port] = rate_bytes_s * 8
            read.limit[port] = limit
            read.loss_ratio[port] = loss / LOSS_SCALE
        return replace(read, loss_ratio=np.round(read.loss_ratio, LOSS_DECIMALS))


@dataclass(frozen=True)
class _Qdiscs:
    """The netem at each port, zeros where there is none, or one that is not as we make them. Shapes: (n_port,)."""

    delay_us: IntArray
    rate_bps: IntArray
    limit: IntArray
    loss_ratio: FloatArray

    @classmethod
    def none(cls, n_port: int) -> _Qdiscs:
        """None at any port."""
        return cls(np.zeros(n_port, np.int64), np.zeros(n_port, np.int64), np.zeros(n_port, np.int64), np.zeros(n_port))


def limit_packets(plan: ShapingPlan) -> IntArray:
    """How many packets the netem of each direction holds: those under way at its rate and delay, and its queue.

    A netem counts packets, small ones and frames of many segments (GSO) alike, and those under way with those that
    wait. What is under way is counted in frames of the MTU, or senders of single frames would never fill a long link;
    the queue in the largest frames that the port hands over, or TCP, which sends such, would find it so many times as
    deep. It is as many packets as QUEUE_FLOOR_BYTES makes of single frames at the least.
    """
    one = plan.mtu_bytes + ETHERNET_BYTES
    under_way = -(-(plan.rate_bps * plan.delay_us // 8_000_000) // one)
    queue = np.maximum(-(-queue_limit_bytes(plan) // (frames_at_once(plan) * one)), -(-QUEUE_FLOOR_BYTES // one))
    limit: IntArray = np.minimum(under_way + queue, MAX_LIMIT)
    return limit


def netem_rows(ifindex: IntArray, plan: ShapingPlan) -> Rows:
    """Messages that make the netem at the root of each interface (n,) as each direction of a plan (n,) asks."""
    create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    rows = netlink.new_rows(_NETEM_ROWS, len(plan), netlink.RTM_NEWQDISC, create)
    rows["ifindex"], rows["handle"], rows["parent"] = ifindex, NETEM_HANDLE, TC_H_ROOT
    rows["kind_head"], rows["kind"] = (10, TCA_KIND), b"netem"
    rows["options_head"] = _to_the_end(rows, "options_head", TCA_OPTIONS)
    plan = replace(plan, rate_bps=np.where(plan.rate_bps > 0, plan.rate_bps, IDLE_RATE_BPS))
    rows["limit"] = limit_packets(plan)
    rows["loss"] = np.round(plan.loss_ratio * LOSS_SCALE)
    rows["rate_head"], rows["rate_bytes_s"] = (20, _NETEM_RATE), np.minimum(plan.rate_bps // 8, 2**32 - 1)
    rows["rate64_head"], rows["rate64_bytes_s"] = (12, _NETEM_RATE64), plan.rate_bps // 8
    rows["latency_head"], rows["latency_ns"] = (12, _NETEM_LATENCY64), plan.delay_us * 1000
    rows["correlation_head"], rows["reorder_head"] = (16, _NETEM_CORR), (12, _NETEM_REORDER)
    rows["corrupt_head"], rows["ecn_head"], rows["slot_head"] = (12, _NETEM_CORRUPT), (8, _NETEM_ECN), (44, _NETEM_SLOT)
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


def patch_rows(ifindex: IntArray, peer_ifindex: IntArray) -> Rows:
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
    """Where a filter redirects to; 0 if it does something else."""
    at: dict[int, bytes] = netlink.attributes(filter_body[TCMSG.size :])
    for kind in (TCA_OPTIONS, U32_ACT, 1, ACT_OPTIONS):
        at = netlink.attributes(at.get(kind, b""))
    mirred = at.get(MIRRED_PARMS, bytes(28))
    return int.from_bytes(mirred[24:28], sys.byteorder)
