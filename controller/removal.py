"""What dead runs have left, removed: nodes, panels, folders. Only what carries a run's id is ever touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controller.errors import MachineError, SkyrackError
from controller.runs import MACHINE, RUN_ID, Roots, folder_ids, list_runs, register, remove_folders
from controller.runtime.contract import Runtime


def remove_run(
    run_id: str, runtimes: Sequence[Runtime], remove_panel: Callable[[str], bool], roots: Roots = MACHINE
) -> None:
    """Remove everything that carries the id of a run whose controller is dead. Idempotent.

    Folders go last: while they are there, a sweep that was itself killed can be done again. The panel goes also when a
    runtime refuses.
    """
    try:
        for runtime in runtimes:
            runtime.remove(run_id)
    finally:
        remove_panel(run_id)
    remove_folders(run_id, roots)


def sweep(
    everything: bool,
    runtimes: Sequence[Runtime],
    panel_run_ids: Callable[[], set[str]],
    remove_panel: Callable[[str], bool],
    roots: Roots = MACHINE,
    *,
    only: str | None = None,
    spare: str | None = None,
) -> list[str]:
    """Remove what dead runs left, or `only` one of them, or all but one to `spare`; with `everything`, end the runs
    that live too. The ids of the runs removed, sorted.

    A run whose runtime is known is asked for there alone: that another does not answer keeps no run from its end.
    Safe beside runs that start, live and end meanwhile. Raises SkyrackError, after all runs have been tried.
    """
    # What carries an id is asked for before what lives: a run that starts in between has its lock before it has
    # anything else, and is seen to live.
    refusals = []
    found = panel_run_ids()
    for runtime in runtimes:
        try:
            found |= runtime.run_ids()
        except SkyrackError as error:
            refusals.append(str(error))
    found = {run_id for run_id in found if RUN_ID.fullmatch(run_id)}
    try:
        found |= {*folder_ids(roots.store), *folder_ids(roots.run)}
        with register(roots):
            places = {place.run_id: place for place in list_runs(roots)}
            living = {place.run_id: place for place in places.values() if place.alive}
    except PermissionError as error:
        raise MachineError(f"cannot look into {error.filename}: run as root, through sudo") from error
    if only is not None:
        found &= {only}
    found -= {spare}
    removed = []
    for run_id in sorted(found | living.keys() if everything else found - living.keys()):
        try:
            if run_id in living:
                living[run_id].end_controller()
            own = [each for each in runtimes if run_id not in places or places[run_id].runtime == each.name]
            remove_run(run_id, own, remove_panel, roots)
        except SkyrackError as error:
            refusals.append(f"run {run_id}: {error}")
        else:
            removed.append(run_id)
    if refusals:
        raise SkyrackError("; ".join(refusals))
    return removed
