"""The delay line as a process: whom it obeys, how it dies, what it counts, and what it does late."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.fabric.delay_line import DelayLineShaper
from controller.fabric.namespaces import NAMED, processes_in, remove_namespace
from controller.fabric.netlink import ShapingError
from controller.fabric.panel import panel_run_ids, remove_panel
from tests.kernel.world import Link, dark, living, opened_world, plan, wait_for

OWNER = """
import sys, time
from tests.kernel.world import MBIT, Link, opened_world, plan
with opened_world("delay-line", n_node=2, n_port=1) as world:
    world.shaper.apply(plan(Link(0, 1)))
    print(world.panel.run_id, *(node.network_namespace.name for node in world.nodes), flush=True)
    time.sleep(600)
"""


def test_after_kill_9_of_the_owner_nothing_runs_and_the_panel_can_be_removed() -> None:
    """The delay line dies with its controller; the panel left behind is removed by the run's id."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        with owner.stdout:
            run_id, *nodes = owner.stdout.readline().split()
        lines = processes_in(NAMED / f"skyrack-{run_id}")
        assert len(lines) == 1, "one delay line runs"
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    try:
        wait_for(lambda: not any(living(Path(f"/proc/{pid}")) for pid in lines), "the delay line ended")
        assert run_id in panel_run_ids()
        assert remove_panel(run_id)
        assert run_id not in panel_run_ids()
    finally:
        for name in nodes:
            remove_namespace(name)


def test_a_delay_line_that_died_is_told_at_the_next_plan() -> None:
    """A killed delay line makes the next plan fail, with its status and what it means for the run."""
    with opened_world("delay-line", n_node=2, n_port=1) as world:
        assert isinstance(world.shaper, DelayLineShaper)
        (pid,) = processes_in(world.panel.namespace)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not living(Path(f"/proc/{pid}")), "the delay line ended")
        with pytest.raises(ShapingError, match=f"process {pid}.* status -9"):
            world.shaper.apply(plan(Link(0, 1)))


def test_however_late_a_frame_is_judged_by_the_plan_that_held_when_it_was_sent() -> None:
    """While the delay line stands still, frames are sent, a blackout begins, more are sent, it ends, more are sent: of
    all that it then finds at once, those sent in the blackout vanish and the others arrive."""
    with opened_world("delay-line", n_node=2, n_port=1) as world:
        world.route((0, 1, 0), (1, 0, 0))
        link = plan(Link(0, 1, delay_us=5_000))
        world.shaper.apply(link)
        (pid,) = processes_in(world.panel.namespace)
        with world.sending(0, 1) as traffic:
            os.kill(pid, signal.SIGSTOP)
            try:
                for state in (dark(0, 1), link, dark(0, 1), link):
                    traffic.send(10, 0.0)
                    world.shaper.apply(state)
                traffic.send(10, 0.0)
            finally:
                os.kill(pid, signal.SIGCONT)
            arrived = traffic.received().number.tolist()
    assert arrived == [number for number in range(50) if number // 10 in (0, 2, 4)]


def test_the_delay_line_says_what_it_dropped() -> None:
    """Frames lost and frames a full queue dropped are counted by direction."""
    with opened_world("delay-line", n_node=2, n_port=1) as world:
        assert isinstance(world.shaper, DelayLineShaper)
        world.route((0, 1, 0), (1, 0, 0))
        world.shaper.apply(plan(Link(0, 1, rate_bps=1_000_000, loss_ratio=0.2)))
        with world.sending(0, 1) as traffic:
            traffic.send(500, 0.0, 1_000)
            arrived = len(traffic.received().number)
        drops = world.shaper.drops()
        assert drops.lost[0] > 0
        assert drops.queue[0] > 0
        assert drops.lost[0] + drops.queue[0] + arrived == 500
        assert (drops.lost[1], drops.queue[1], drops.overrun, drops.refused) == (0, 0, 0, 0)


def test_the_same_seed_loses_the_same_frames() -> None:
    """The delay line's losses come from the run's seed alone."""
    lost = []
    for _ in range(2):
        with opened_world("delay-line", n_node=2, n_port=1, seed=7) as world:
            world.route((0, 1, 0), (1, 0, 0))
            world.shaper.apply(plan(Link(0, 1, loss_ratio=0.3)))
            with world.sending(0, 1) as traffic:
                traffic.send(200, 0.0)
                lost.append(traffic.received().number.tolist())
    assert lost[0] == lost[1]
