"""Which shaper a machine can run, found out by trying, and why."""

from __future__ import annotations

import platform
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from controller.errors import InputError, MachineError
from controller.fabric import delay_line_process, netem, netlink
from controller.fabric.delay_line import DelayLineShaper
from controller.fabric.namespaces import in_scratch_namespace
from controller.fabric.netem import NetemShaper
from controller.fabric.netlink import NetlinkSocket, Refusal, attribute, message
from controller.fabric.panel import PANEL_FIRST_IFINDEX, Panel, port_message
from controller.fabric.plan import Shaper, ShapingPlan

NETEM_NEEDS = {"veth", "sch_ingress", "cls_u32", "act_mirred", "sch_netem"}
DELAY_LINE_NEEDS = {"veth", "af_packet"}
REQUESTS = ("auto", "netem", "delay-line")


class Capability(NamedTuple):
    """Something that the fabric may need of the kernel, by the name of its module."""

    name: str
    works: bool
    detail: str  # the kernel's answer where it does not work


class ShaperChoice(NamedTuple):
    """The shaper of a run, and why it was chosen; for the user and for the record."""

    name: str
    reason: str


def panel_capabilities() -> list[Capability]:
    """What the fabric can use here, each tried in a scratch namespace. Raises MachineError without permission."""
    try:
        return in_scratch_namespace(_try_all)
    except PermissionError as error:
        raise MachineError(f"cannot make a network namespace ({error.strerror}): run as root") from error


def choose_shaper(requested: str) -> ShaperChoice:
    """The shaper for this machine. Raises InputError on an unknown request, MachineError if the kernel lacks it."""
    if requested not in REQUESTS:
        raise InputError(f"unknown shaper {requested!r}: choose one of {', '.join(REQUESTS)}")
    lacking = {each.name: each.detail for each in panel_capabilities() if not each.works}
    no_netem = _lack(NETEM_NEEDS, lacking)
    no_delay_line = _lack(DELAY_LINE_NEEDS, lacking)
    if requested == "netem" and no_netem:
        raise MachineError(f"--shaper netem: {no_netem}; use --shaper delay-line, or a kernel that has it")
    if requested == "delay-line" and no_delay_line:
        raise MachineError(f"--shaper delay-line: {no_delay_line}")
    if requested == "auto" and no_netem and no_delay_line:
        raise MachineError(f"no shaper works here: {no_netem}; {no_delay_line}")
    if requested != "auto":
        return ShaperChoice(requested, "asked for")
    if no_netem:
        return ShaperChoice(DelayLineShaper.name, no_netem)
    return ShaperChoice(NetemShaper.name, f"kernel {platform.release()} has all that netem needs")


def open_shaper(choice: ShaperChoice, panel: Panel, seed: int) -> Shaper:
    """The chosen shaper on a connected panel, every port dark. netem draws its losses itself, whatever the seed."""
    if choice.name == NetemShaper.name:
        return NetemShaper(panel)
    return DelayLineShaper(panel, seed)


def _lack(needs: set[str], lacking: dict[str, str]) -> str:
    missing = sorted(needs & lacking.keys())
    return f"kernel {platform.release()} lacks {missing[0]}: {lacking[missing[0]]}" if missing else ""


def _try_all() -> list[Capability]:
    """In a scratch namespace: each part of the fabric, in the order in which they build on each other."""
    ifindex = np.array([PANEL_FIRST_IFINDEX])
    create = netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
    every_frame = attribute(netem.U32_SEL, struct.pack("=BBBx28x", netem.TERMINAL, 0, 1))
    u32 = netem.TCMSG.pack(0, PANEL_FIRST_IFINDEX, netem.FILTER_HANDLE, netem.TC_H_INGRESS, netem.FILTER_INFO)
    u32 += attribute(netem.TCA_KIND, b"u32\0") + attribute(netem.TCA_OPTIONS, every_frame)
    with Path("/proc/thread-self/ns/net").open("rb") as here:
        tc = NetlinkSocket.here()
        try:
            return [
                _tried("veth", tc.send([port_message(0, 0, "isl0", here.fileno())])),
                _tried("af_packet", _try_packet_socket()),
                _tried("sch_ingress", tc.send_rows(netem.clsact_rows(ifindex))),
                _tried("cls_u32", tc.send([message(netlink.RTM_NEWTFILTER, create, u32)])),
                _tried("act_mirred", tc.send_rows(netem.patch_rows(ifindex, ifindex))),
                _tried("sch_netem", tc.send_rows(netem.netem_rows(ifindex, ShapingPlan.dark(1)))),
            ]
        finally:
            tc.close()


def _try_packet_socket() -> list[Refusal]:
    try:
        delay_line_process.open_frames().close()
    except OSError as error:
        return [Refusal(0, error.errno or 0, "packet socket with virtio headers")]
    return []


def _tried(name: str, refusals: list[Refusal]) -> Capability:
    return Capability(name, not refusals, str(refusals[0]) if refusals else "works")
