"""What a user lays over the sky while the run is up: faults, and links that are set. All in force at once."""

from __future__ import annotations

from dataclasses import asdict

from controller.emulation import Emulation
from controller.errors import InputError
from controller.faults import LinkOverride
from controller.scenario.fault_model import Fault


class Overlay:
    """Changes the faults of one emulation. Every method raises SkyrackError unless the run is up."""

    def __init__(self, emulation: Emulation) -> None:
        self._emulation, self._faults = emulation, emulation.schedule.faults

    def inject(self, fault: Fault) -> str:
        """A fault from now on; its id. Raises InputError for a target that there is not."""
        self._emulation.require_up()
        name = self._faults.inject(fault, self._emulation.t_s)
        asked = fault.model_dump(mode="json", exclude_unset=True, exclude={"kind", "at_s"})
        self._emulation.overlay_changed("fault-injected", id=name, fault=fault.kind, asked=asked)
        return name

    def clear(self, which: str) -> int:
        """End a fault by its id, or all of a target; how many. Raises InputError where there is none."""
        self._emulation.require_up()
        cleared = self._faults.clear(which, self._emulation.t_s)
        if not cleared:
            raise InputError(f"no fault has the id or the target {which!r} (`skyrack fault list`)")
        self._emulation.overlay_changed("fault-cleared", which=which, cleared=cleared)
        return cleared

    def set_link(self, a: str, b: str, override: LinkOverride) -> None:
        """Have the links between two nodes so until cleared. Raises InputError where none ever joins them."""
        self._emulation.require_up()
        self._faults.set_link(a, b, override)
        self._emulation.overlay_changed("link-set", a=a, b=b, **asdict(override))

    def clear_link(self, a: str, b: str) -> bool:
        """Leave the links between two nodes to geometry and faults again; whether they were set."""
        self._emulation.require_up()
        was_set = self._faults.clear_link(a, b)
        if was_set:
            self._emulation.overlay_changed("link-cleared", a=a, b=b)
        return was_set
