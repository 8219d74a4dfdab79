"""What a run cannot go on without is taken from it: it says so in one message, and removes all that it made."""

from __future__ import annotations

from pathlib import Path

from tests.survival.machine import Machine
from tests.survival.runs import A, foreground


def test_a_killed_delay_line(machine: Machine, tmp_path: Path) -> None:
    """`kill -9` of the delay line."""
    with foreground(machine, tmp_path) as run:
        pid = run.process_of("controller.fabric.delay_line_process")
        machine.kill(pid)
        message = run.fails(exit_status=1)
        assert (
            message
            == f"the delay line (process {pid}) ended with status -9; no link works any more, start the run again"
        )
        assert machine.commands.leftovers(run.run_id) == []
        run.recorded(message)


def test_a_killed_delay_line_while_the_sky_stands(machine: Machine, tmp_path: Path) -> None:
    """No step comes that would notice."""
    with foreground(machine, tmp_path) as run:
        machine.commands.skyrack("pause")
        machine.kill(run.process_of("controller.fabric.delay_line_process"))
        message = run.fails(exit_status=1)
        assert message.startswith("the delay line (process ")
        assert machine.commands.leftovers(run.run_id) == []
        run.recorded(message)


def test_a_panel_whose_name_is_removed(machine: Machine, tmp_path: Path) -> None:
    """`ip netns delete` of the panel's namespace: its name goes at once, itself only with its last user."""
    with foreground(machine, tmp_path) as run:
        machine.commands.run("ip", "netns", "delete", f"skyrack-{run.run_id}")
        message = run.fails(exit_status=1)
        assert message == f"the panel /run/netns/skyrack-{run.run_id} was removed from outside; start the run again"
        assert machine.commands.leftovers(run.run_id) == []
        run.recorded(message)


def test_a_panel_whose_ports_are_removed(machine: Machine, tmp_path: Path) -> None:
    """The panel dies while its name stays: all that is in it goes."""
    with foreground(machine, tmp_path) as run:
        ports = 'for port in /sys/class/net/p*; do ip link delete "${port##*/}"; done'
        machine.commands.run("ip", "netns", "exec", f"skyrack-{run.run_id}", "bash", "-ec", ports)
        message = run.fails(exit_status=1)
        assert message.startswith(f"port 0 ({A} isl0) was removed from the panel /run/netns/skyrack-{run.run_id} ")
        assert machine.commands.leftovers(run.run_id) == []
        run.recorded(message)
