"""The fabric of one run: its panel, what shapes its links, and the routes in its nodes, changed as one."""

from __future__ import annotations

from dataclasses import dataclass

from controller.fabric.panel import Panel
from controller.fabric.plan import Shaper, ShapingPlan
from controller.fabric.routes import HostRoutes
from controller.schedule import Change


@dataclass(frozen=True)
class RunFabric:
    """A fabric that is up."""

    panel: Panel
    shaper: Shaper
    routes: HostRoutes

    def apply(self, change: Change) -> None:
        """New and changed links first, then routes, wave after wave, then what goes dark."""
        self.panel.set_carriers(change.plugged_in, on=True)
        self.shaper.apply(change.made)
        for wave in change.routes:
            self.routes.apply(wave)
        self.shaper.apply(change.broken)
        self.panel.set_carriers(change.unplugged, on=False)

    def repair_drift(self, commanded: ShapingPlan) -> int:
        """Compare the kernel's state with what is commanded, command again what differs, and say how much did."""
        drifted = commanded.changed_from(self.shaper.read_back())
        self.shaper.apply(drifted)
        return len(drifted)

    def crossed_bytes(self, ports: slice) -> int:
        """Bytes that have crossed some ports so far, both ways, headers included."""
        from_node_bytes, to_node_bytes = self.panel.counters()
        return int(from_node_bytes[ports].sum() + to_node_bytes[ports].sum())
