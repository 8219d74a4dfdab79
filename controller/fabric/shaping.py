"""What both shapers check before they ask for anything: a plan that cannot be is refused whole, and by name."""

from __future__ import annotations

import numpy as np

from controller.fabric.netlink import ShapingError
from controller.fabric.panel import Panel
from controller.fabric.plan import DARK, ShapingPlan
from controller.timeline import MAX_MTU_BYTES, MIN_MTU_BYTES, BoolArray, IntArray

_MTU_RANGE = f"the MTU must be {MIN_MTU_BYTES} … {MAX_MTU_BYTES} bytes"


class PatchTable:
    """Which port every port is patched to."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self.peer: IntArray = np.full(panel.n_port, DARK, np.int64)  # (n_port,), as in force

    def after(self, plan: ShapingPlan) -> IntArray:
        """The table as it will be. Raises ShapingError if the plan names what is not, or patches two ports into one."""
        n_port = self._panel.n_port
        self._refuse(plan, (plan.port < 0) | (plan.port >= n_port), f"the panel has ports 0 … {n_port - 1}")
        self._refuse(plan, (plan.peer < DARK) | (plan.peer >= n_port), f"the panel has ports 0 … {n_port - 1}")
        lit = plan.peer != DARK
        self._refuse(plan, lit & (plan.peer == plan.port), "a port cannot be patched to itself")
        self._refuse(plan, lit & (plan.rate_bps < 8), "the rate must be at least 8 bit/s")
        self._refuse(plan, lit & (plan.delay_us < 0), "the delay must not be negative")
        self._refuse(plan, lit & ((plan.mtu_bytes < MIN_MTU_BYTES) | (plan.mtu_bytes > MAX_MTU_BYTES)), _MTU_RANGE)
        self._refuse(plan, lit & ~((plan.loss_ratio >= 0) & (plan.loss_ratio <= 1)), "the loss ratio must be 0 … 1")
        # Within one plan: from plan to plan a link may be made before the one that it takes over from is broken.
        taken = np.bincount(plan.peer[lit], minlength=n_port)
        self._refuse(plan, lit & (taken[plan.peer] > 1), "the plan patches another port to the same one")
        after = self.peer.copy()
        after[plan.port] = plan.peer
        return after

    def _refuse(self, plan: ShapingPlan, wrong: BoolArray, why: str) -> None:
        if wrong.any():
            raise ShapingError(f"cannot shape {describe(self._panel, plan, int(np.flatnonzero(wrong)[0]))}: {why}")


def describe(panel: Panel, plan: ShapingPlan, row: int) -> str:
    """What a row of a plan asks, in words."""
    port, peer = int(plan.port[row]), int(plan.peer[row])
    known = [panel.port_label(each) if 0 <= each < panel.n_port else f"port {each}" for each in (port, peer)]
    if peer == DARK:
        return f"{known[0]} → dark"
    return (
        f"{known[0]} → {known[1]}, delay {plan.delay_us[row]} µs, rate {plan.rate_bps[row]} bit/s, "
        f"loss ratio {plan.loss_ratio[row]:g}, MTU {plan.mtu_bytes[row]} bytes"
    )
