"""Which run a command means."""

from __future__ import annotations

from controller.api.client import ControllerClient
from controller.errors import InputError, MachineError
from controller.runs import RunPlace, list_runs


def living_runs(run_id: str | None = None) -> list[RunPlace]:
    """The runs that live, or the one of an id if it does."""
    try:
        return [run for run in list_runs() if run_id in (None, run.run_id) and run.alive]
    except PermissionError as error:
        raise MachineError("only the owner of a run can speak to it: use sudo, as for `skyrack up`") from error


def the_run(run_id: str | None) -> RunPlace:
    """The run of an id, or the only one that lives. Raises InputError if there is none, or a choice."""
    living = living_runs(run_id)
    if not living:
        named = f"run {run_id} does not live" if run_id else "no run is up"
        raise InputError(f"{named}; start one with `skyrack up SCENARIO`")
    if len(living) > 1:
        raise InputError(f"several runs are up, choose one with --run: {', '.join(run.run_id for run in living)}")
    return living[0]


def client_of(run_id: str | None) -> ControllerClient:
    """A client of the run that a command means."""
    return ControllerClient(the_run(run_id).api_socket)
