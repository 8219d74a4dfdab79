"""Which run a command means."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from controller import owner
from controller.errors import InputError
from controller.runs import RunPlace, list_runs

if TYPE_CHECKING:
    from controller.api.client import ControllerClient


def living_runs(run_id: str | None = None) -> list[RunPlace]:
    """The runs that live, or the one of an id if it does."""
    return [run for run in list_runs() if run_id in (None, run.run_id) and run.alive]


def the_run(run_id: str | None) -> RunPlace:
    """The run of an id, or the only one that lives. Raises InputError if there is none, or a choice."""
    living = living_runs(run_id)
    if not living:
        named = f"run {run_id} does not live" if run_id else "no run is up"
        hint = "root's are root's alone: use sudo" if owner.root_has_runs() else "start one with `skyrack up SCENARIO`"
        raise InputError(f"{named}; {hint}")
    if len(living) > 1:
        raise InputError(f"several runs are up, choose one with --run: {', '.join(run.run_id for run in living)}")
    return living[0]


def live_with(place: RunPlace) -> None:
    """Go where a run lives that an ordinary user has in namespaces of his own. Starts skyrack anew to do so."""
    if os.geteuid() != 0:
        owner.join(place.pid, sys.argv[1:])


def client_of(run_id: str | None) -> ControllerClient:
    """A client of the run that a command means."""
    from controller.api.client import ControllerClient

    return ControllerClient(the_run(run_id).api_socket)
