"""The process that nodes without an engine are forked from: they live and die with it, and with nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from controller.errors import SkyrackError
from controller.processes import all_processes, command_line
from controller.runs import MACHINE, RunPlace
from controller.runtime.choose import open_runtime
from tests.runtimes.test_contract import ignore, specs_of, wait_for


def zygotes(run_id: str, nodes: set[int]) -> list[int]:
    """The processes of a run that are no nodes' first ones: the outer one, the zygote, then agents."""
    return sorted(pid for pid in all_processes() if command_line(pid)[-1:] == [run_id] and pid not in nodes)


def test_nodes_die_with_their_zygote_alone() -> None:
    """kill -9 of the process that waits for it changes nothing; that of the zygote ends every node."""
    runtime = open_runtime("namespace", MACHINE.run)
    with RunPlace.create("test", Path("/out"), 3) as place:
        try:
            handles = runtime.start(specs_of(place, 3), ignore)
            outer, zygote, *_ = zygotes(place.run_id, {handle.pid for handle in handles})
            os.kill(outer, signal.SIGKILL)
            wait_for(lambda: not command_line(outer))
            assert len(runtime.alive(place.run_id)) == 3
            os.kill(zygote, signal.SIGKILL)
            wait_for(lambda: runtime.alive(place.run_id) == set())
        finally:
            runtime.remove(place.run_id)
        assert place.run_id not in runtime.run_ids()


def test_a_node_that_cannot_be_made_is_named_with_the_reason() -> None:
    """A store that is no folder: one error, which names the node; what was started is removed."""
    runtime = open_runtime("namespace", MACHINE.run)
    with RunPlace.create("test", Path("/out"), 2) as place:
        specs = specs_of(place, 2)
        specs[1].store_dir.rmdir()
        specs[1].store_dir.touch()
        try:
            with pytest.raises(SkyrackError, match=r"cannot start node1: .*Not a directory"):
                runtime.start(specs, ignore)
        finally:
            runtime.remove(place.run_id)
        assert place.run_id not in runtime.run_ids()
