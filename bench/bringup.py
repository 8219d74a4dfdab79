"""How long whole runs take to come up and to go, what a node costs, and whether the loop keeps time. Root; minutes.

The limits are those that the project set itself for two cores and 24 GB; beside them stands what a node costs Docker
and what it costs without an engine, in one run. How many of 4,408 satellites the machine holds is tried at the end.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from bench._fabric import figure
from controller.emulation import Emulation
from controller.launch import RunOptions, launch
from controller.owner import is_machine_root

SETTLE_S, WATCH_S = 10.0, 30.0
BESIDE_BYTES = 2_000_000_000  # what else the machine does, with room to breathe
SHELL_PLANE = 58  # 4,408 satellites are 76 planes of so many

WALKER = """
name = "walker-{total}"
epoch = 2026-01-01T12:00:00Z
duration_s = 300.0
step_s = 1.0

[[constellation]]
name = "sat"
walker = {{ pattern = "delta", total = {total}, planes = {planes}, phasing = 1, altitude_m = 550_000, {inclined} }}
isl = {{ topology = "plus-grid" }}

[[ground]]
name = "london"
role = "gateway"
latitude_deg = 51.5
longitude_deg = -0.1

[[ground]]
name = "nairobi"
role = "gateway"
latitude_deg = -1.3
longitude_deg = 36.8
"""


class Stamps:
    """A narrator that notes when something was first done whole, in seconds since its making."""

    def __init__(self) -> None:
        self._began_mono_s = time.monotonic()
        self.at_s: dict[str, float] = {}

    def progress(self, what: str, done: int, total: int) -> None:
        """Note the last of each."""
        if done == total:
            self.note(what)

    def say(self, text: str) -> None:
        """Note what comes before the first colon."""
        self.note(text.split(":")[0])

    def note(self, what: str) -> None:
        """It is done now."""
        self.at_s.setdefault(what, time.monotonic() - self._began_mono_s)


TAKEN = ("AnonPages", "Shmem", "SUnreclaim", "KernelStack", "PageTables", "Percpu")
"""What of the machine's memory is somebody's, caches left out (proc(5), meminfo)."""


def own_bytes() -> int:
    """What this process, the controller, has taken for itself."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def memory_bytes(*kinds: str) -> int:
    """The machine's memory of some kinds, as /proc/meminfo counts it."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(fields[kind].split()[0]) for kind in kinds) * 1024


def bring_up(
    scenario: str,
    runtime: str,
    *,
    up_s: float | None = None,
    node_mb: float | None = None,
    all_gb: float | None = None,
) -> float:
    """One run from nothing to nothing, every figure beside its limit. Memory a node in MB."""
    with tempfile.TemporaryDirectory(prefix="skyrack-bench-", dir="/var/tmp") as folder:
        return asyncio.run(_bring_up(scenario, runtime, Path(folder), up_s, node_mb, all_gb))


async def _bring_up(
    scenario: str, runtime: str, folder: Path, up_s: float | None, node_mb: float | None, all_gb: float | None
) -> float:
    stamps, before_bytes, own_before_bytes = Stamps(), memory_bytes(*TAKEN), own_bytes()
    seen: dict[str, float] = {}

    async def watch(emulation: Emulation) -> None:
        await asyncio.sleep(SETTLE_S)
        seen["taken_bytes"], settled = memory_bytes(*TAKEN) - before_bytes, emulation.overruns
        seen["own_bytes"] = own_bytes() - own_before_bytes
        seen["nodes"] = len(emulation.handles)
        await asyncio.sleep(WATCH_S)
        seen["overruns"] = emulation.overruns - settled
        stamps.note("stop")
        emulation.request_stop()

    watching: list[asyncio.Task[None]] = []

    def on_ready(emulation: Emulation) -> None:
        stamps.note("up")
        watching.append(asyncio.create_task(watch(emulation)))

    options = RunOptions(scenario, runtime=runtime, out_dir=folder / "record", hold=True)
    await launch(options, stamps, on_ready=on_ready)
    await watching[0]
    at_s, nodes = stamps.at_s, seen["nodes"]
    a_node_mb = (seen["taken_bytes"] - seen["own_bytes"]) / nodes / 1e6
    print(f"{Path(scenario).stem}, {nodes:.0f} nodes, {runtime}:")
    figure("up, every agent answering", at_s["up"], "s", at_most=up_s)
    phases = [("sky computed", "sky"), ("nodes started", "Starting nodes"), ("ports joined", "Joining ports")]
    last_s = 0.0
    for what, stamp in [*phases, ("agents answering", "Agents answering")]:
        figure(f"  {what}, after", at_s[stamp] - last_s, "s")
        last_s = at_s[stamp]
    figure("memory a node, what the kernel keeps for it included", a_node_mb, "MB", at_most=node_mb)
    figure("memory in all, with the controller's", seen["taken_bytes"] / 1e9, "GB", at_most=all_gb)
    figure(f"overruns in {WATCH_S:g} s, after settling", seen["overruns"], "", at_most=0)
    figure("down, nothing left", at_s["writing the report"] - at_s["stop"], "s", at_most=15)
    return a_node_mb


def walker(folder: Path, total: int, planes: int) -> str:
    """A scenario file of so many satellites."""
    path = folder / f"walker-{total}.toml"
    path.write_text(WALKER.format(total=total, planes=planes, inclined="inclination_deg = 53.0"))
    return str(path)


def main() -> None:
    """Run all of it."""
    assert is_machine_root(), "as root, for Docker"
    with tempfile.TemporaryDirectory(prefix="skyrack-bench-") as name:
        folder = Path(name)
        of_docker = bring_up("iridium-66", "docker", up_s=40.0)
        without = bring_up("iridium-66", "namespace")
        figure("a node of Docker's takes", of_docker / without, "× as much")
        bring_up(walker(folder, 500, 20), "namespace", up_s=60.0, node_mb=8.0)
        a_node_mb = bring_up("starlink-shell1", "namespace", up_s=300.0, all_gb=16.0)
        planes = min(76, int((memory_bytes("MemAvailable") - BESIDE_BYTES) / 1e6 / a_node_mb) // SHELL_PLANE)
        print(f"Of 4,408 satellites, {planes * SHELL_PLANE:,} are tried: so many fit into this machine's memory.")
        bring_up(walker(folder, planes * SHELL_PLANE, planes), "namespace")


if __name__ == "__main__":
    main()
