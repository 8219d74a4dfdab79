"""What runs have on this machine, taken down: each run by the runtime that it lives in, whatever another one says."""

from __future__ import annotations

from typing import NamedTuple

from controller import owner, removal, runs
from controller.errors import MachineError
from controller.fabric.panel import panel_run_ids, remove_panel
from controller.runs import RunPlace, list_runs
from controller.runtime.contract import Runtime
from controller.runtime.docker import DockerRuntime
from controller.runtime.engine import engine_is_there
from controller.runtime.namespace import NamespaceRuntime


class Removed(NamedTuple):
    """What came of it."""

    run_ids: list[str]
    refusal: MachineError | None  # why a runtime could not be asked, of which nodes may be left then


def sweep(everything: bool, only: str | None = None, spare: str | None = None) -> Removed:
    """Remove what killed runs left, or `only` one of them, or all but one to `spare`; with `everything`, end the runs
    that live too. What needs no engine is removed, whether or not one answers that may hold more.

    Raises SkyrackError, after all runs have been tried.
    """
    places = [] if only is None else [place for place in list_runs() if place.run_id == only]
    runtimes, refusal = _runtimes_that_answer(places[0].runtime if places else None)
    return Removed(removal.sweep(everything, runtimes, panel_run_ids, remove_panel, only=only, spare=spare), refusal)


def end_run(place: RunPlace) -> Removed:
    """End a run that lives, and remove what it leaves. Idempotent."""
    place.end_controller()
    runtimes, refusal = _runtimes_that_answer(place.runtime)
    removal.remove_run(place.run_id, runtimes, remove_panel)
    return Removed([place.run_id], refusal)


def _runtimes_that_answer(name: str | None) -> tuple[list[Runtime], MachineError | None]:
    """The runtime of a name, or with None every one of which nodes may be removed; and why one of them cannot be asked.

    No other is opened: that an engine is mute may take minutes to be known.
    """
    runtimes: list[Runtime] = []
    if name != DockerRuntime.name:
        runtimes.append(NamespaceRuntime(runs.MACHINE.run))
    if name != NamespaceRuntime.name and owner.is_machine_root():
        try:
            if engine_is_there():
                runtimes.append(DockerRuntime())
        except MachineError as error:
            return runtimes, MachineError(f"{error}; nodes of it may be left")
    return runtimes, None
