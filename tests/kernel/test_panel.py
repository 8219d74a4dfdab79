"""The panel: made, counted, removed; nothing of a run stays, and nothing of anybody else's goes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from controller.errors import InputError, SkyrackError
from controller.fabric.delay_line import DelayLineShaper
from controller.fabric.namespaces import (
    NAMED,
    create_namespace,
    in_namespace,
    in_scratch_namespace,
    processes_in,
    remove_namespace,
)
from controller.fabric.netlink import FabricError
from controller.fabric.panel import NodePorts, Panel, panel_run_ids, remove_panel
from controller.fabric.plan import DARK, ShapingPlan
from tests.kernel.world import Link, World, dark, opened_world, plan


def test_a_port_of_a_node_is_up_and_needs_no_neighbour_discovery(pair: World) -> None:
    """A connected node has its addresses on lo, its ports up, a permanent neighbour a port and family, and may ping."""
    namespace = pair.nodes[0].network_namespace.name

    def shown(*what: str) -> str:
        return subprocess.run(["ip", "-n", namespace, *what], capture_output=True, text=True, check=True).stdout

    assert "inet 10.77.0.1/32 scope global lo" in shown("address", "show", "lo")
    assert "UP" in shown("link", "show", "isl0")
    assert "inet" not in shown("address", "show", "isl0")
    next_hops = ["169.254.0.1"]
    if pair.panel.has_ipv6:
        assert "inet6 fd73:6b79::a4d:1/128 scope global" in shown("address", "show", "lo")
        next_hops.append("fe80::1")
    for next_hop in next_hops:
        assert f"{next_hop} dev isl0 lladdr 02:73:6b:79:00:01" in shown("neigh")
    assert shown("neigh").count("PERMANENT") == len(next_hops)
    read = in_namespace(
        pair.nodes[0].network_namespace,
        lambda: {
            each: Path("/proc/sys/net/ipv4", each).read_text().split() for each in ("ip_forward", "ping_group_range")
        },
    )
    assert read == {"ip_forward": ["1"], "ping_group_range": ["0", "2147483647"]}


def test_entering_a_namespace_leaves_the_caller_where_it_was(pair: World) -> None:
    """Work is done inside, errors come out, and the caller's own namespace is never another."""
    before = Path("/proc/self/ns/net").stat().st_ino
    inside = in_namespace(pair.nodes[0].network_namespace, lambda: Path("/proc/thread-self/ns/net").stat().st_ino)
    assert inside != before
    with pytest.raises(ZeroDivisionError):
        in_scratch_namespace(lambda: 1 // 0)
    assert Path("/proc/thread-self/ns/net").stat().st_ino == before


def test_counters_count_what_passed(pair: World) -> None:
    """Bytes from and to each node are counted at the panel, headers and all."""
    pair.shaper.apply(plan(Link(0, 1)))
    with pair.sending(0, 1) as traffic:
        traffic.send(50, 0.0, 1_000)
        assert len(traffic.received().number) == 50
    from_node_bytes, to_node_bytes = pair.panel.counters()
    np.testing.assert_array_equal(from_node_bytes, [50_000, 0])
    np.testing.assert_array_equal(to_node_bytes, [0, 50_000])


def test_what_is_under_way_at_a_handover_still_arrives(trio: World) -> None:
    """A re-patched port sends to its new peer; what it sent before arrives at the old one, as late as it would have."""
    trio.shaper.apply(plan(Link(0, 1, delay_us=200_000)))
    with trio.sending(0, 1) as old, trio.sending(0, 2) as new:
        old.send(50, 0.001)
        trio.shaper.apply(plan(Link(0, 2, delay_us=5_000)))
        trio.shaper.apply(dark(1))
        new.send(50, 0.001)
        over, after = old.received(), new.received()
    assert over.number.tolist() == list(range(50))
    assert after.number.tolist() == list(range(50))
    assert abs(np.percentile(over.delay_ms, 20) - 200.0) <= 2.0


@pytest.mark.parametrize(
    ("words", "word", "instead"),
    [
        ("qdisc replace dev p1 root netem delay 70ms", 0, 70_000),
        ("qdisc del dev p1 root", -1, DARK),
        ("qdisc change dev p1 root netem delay 5ms rate 1gbit limit 3 corrupt 30% reorder 90%", 3, 1),
        ("filter del dev p0 ingress", -1, DARK),
        ("qdisc del dev p0 clsact", -1, DARK),
    ],
)
def test_a_direction_broken_from_outside_is_found_and_comes_back(
    pair: World, words: str, word: int, instead: int
) -> None:
    """What is changed behind the shaper's back is in force, is read back as one direction that drifted, and heals."""
    commanded = plan(Link(0, 1, delay_us=5_000))
    pair.shaper.apply(commanded)
    if isinstance(pair.shaper, DelayLineShaper):  # it has no qdisc: somebody writes into the memory that it obeys
        (pid,) = processes_in(pair.panel.namespace)
        _break_record(pid, int(commanded.delay_us[0]), word, instead)
    else:
        subprocess.run(["tc", "-n", pair.panel.namespace.name, *words.split()], check=True, capture_output=True)
    with pair.sending(0, 1) as traffic:
        traffic.send(40, 0.0)
        broken_ms = traffic.received().delay_ms
    assert len(broken_ms) < 40 or abs(np.percentile(broken_ms, 20) - 5.0) > 2.0, "it is broken indeed"
    drifted = commanded.changed_from(pair.shaper.read_back())
    assert drifted.port.tolist() == [0]
    pair.shaper.apply(drifted)
    assert len(commanded.changed_from(pair.shaper.read_back())) == 0
    with pair.sending(0, 1) as traffic:
        traffic.send(50, 0.004)
        delay_ms = traffic.received().delay_ms
    assert len(delay_ms) == 50
    assert abs(np.percentile(delay_ms, 20) - 5.0) <= 1.0


def test_an_mtu_changed_from_outside_is_found_and_comes_back(pair: World) -> None:
    """A packet size that the link does not have is drift, and is mended, as what shapes is."""
    commanded = plan(Link(0, 1, mtu_bytes=4_000))
    pair.shaper.apply(commanded)
    subprocess.run(["ip", "-n", pair.panel.namespace.name, "link", "set", "p1", "mtu", "1400"], check=True)
    drifted = commanded.changed_from(pair.shaper.read_back())
    assert drifted.port.tolist() == [1]
    pair.shaper.apply(drifted)
    assert len(commanded.changed_from(pair.shaper.read_back())) == 0


def _break_record(pid: int, delay_us: int, word: int, instead: int) -> None:
    """Change a word, counted from the delay, of the first record of this delay in a delay line's memory."""
    memory = next(each for each in Path(f"/proc/{pid}/fd").iterdir() if "memfd:" in str(each.readlink()))
    with memory.open("r+b") as opened:
        first = np.frombuffer(opened.read(), np.int64).tolist().index(delay_us)
        opened.seek(8 * (first + word))
        opened.write(np.int64(instead).tobytes())


def test_a_panel_is_removed_once_and_only_it(shaper_name: str) -> None:
    """Removing a run's panel ends its delay line, is idempotent, and leaves every other namespace."""
    foreign = f"kt-{os.getpid()}-foreign"
    create_namespace(foreign)
    try:
        with opened_world(shaper_name, n_node=2) as world:
            run_id = world.panel.run_id
            assert run_id in panel_run_ids()
            world.shaper.close()
            assert remove_panel(run_id)
            assert not remove_panel(run_id)
            assert run_id not in panel_run_ids()
        assert os.path.ismount(NAMED / foreign)  # Path.is_mount is for folders only
    finally:
        assert remove_namespace(foreign)


def test_a_run_id_cannot_leave_the_folder_of_names() -> None:
    """A run id that is a path is refused as wrong input."""
    for run_id in ("../x", "", "a/b", "a b"):
        with pytest.raises(InputError, match="run id"):
            remove_panel(run_id)


def test_a_second_panel_of_a_run_is_refused_and_the_first_stays(pair: World) -> None:
    """A taken name is said, with the remedy."""
    with pytest.raises(SkyrackError, match="skyrack down"):
        Panel.create(pair.panel.run_id)
    assert pair.panel.run_id in panel_run_ids()


def test_a_node_that_is_gone_is_named(shaper_name: str) -> None:
    """Connecting a node whose namespace has ended says which, and the panel can still be removed."""
    panel = Panel.create(f"kt-{os.getpid()}-gone")
    try:
        with pytest.raises(FabricError, match="iridium-p00s00"):
            panel.connect([NodePorts(Path("/run/netns/kt-no-such"), "10.77.0.1", ("isl0",), "iridium-p00s00")])
    finally:
        panel.close()
    assert panel.run_id not in panel_run_ids()


def test_many_ports_are_connected_and_shaped_in_seconds(shaper_name: str) -> None:
    """A panel of 497 ports is connected, patched whole and read back exactly."""
    with opened_world(shaper_name, n_node=71, n_port=7) as world:
        n_port = world.panel.n_port
        assert n_port == 497
        whole = ShapingPlan.dark(n_port)
        pairs = np.random.default_rng(1).permutation(n_port)[: n_port // 2 * 2].reshape(-1, 2)
        for port, peer in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
            whole.peer[port] = peer
            whole.delay_us[port] = 1_000 + port
            whole.rate_bps[port] = 100_000_000
        world.shaper.apply(whole)
        assert len(whole.changed_from(world.shaper.read_back())) == 0
