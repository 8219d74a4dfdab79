"""What the sky costs: a shell's whole orbit against SGP4's bare positions, how that grows, and where the time goes.

About two minutes. Ratios are of one run; single figures wobble with whatever else the machine does.
"""

from __future__ import annotations

import cProfile
import multiprocessing
import pstats
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from sgp4.api import SatrecArray

from controller.orbit.elements import walker_orbits
from controller.orbit.julian import julian_dates
from controller.planner import plan
from controller.scenario import Scenario, Source, parse_scenario
from controller.scenario.model import Walker
from controller.timeline import Block

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ORBIT_S = 5_739
GROUND_NODES = 100
STATUS = Path("/proc/self/status")
LIMIT_RATIO, LIMIT_GB = 3.0, 2.0
# planes, slots, altitude in km, inclination: one shell of Starlink (FCC 18-38), and the three of GW-A59 (ITU filing).
SHELLS = {
    66: [(6, 11, 780, 86.4)],
    1_584: [(72, 22, 550, 53.0)],
    6_080: [(8, 60, 590, 85.0), (40, 50, 600, 50.0), (60, 60, 508, 55.0)],
}
PARTS = {
    "SGP4 and interpolation": ("orbit/track.py", ("teme", "ecef", "at", "ecef_at", "track")),
    "passes": ("links/passes.py", ("passes",)),
    "handover": ("links/handover.py", ("handovers",)),
    "ISL access": ("links/isl_access.py", ("usable",)),
    "eclipses": ("orbit/eclipse.py", ("eclipses",)),
    "contacts' worth": ("links/contact_plan.py", ("contact_table",)),
    "blocks of steps": ("expand.py", ("_block",)),
    "content hash": ("timeline.py", ("update",)),
}


class Passing:
    """A store that lets blocks go: what streaming to a file costs beside the disk."""

    block_steps = 1

    def __init__(self) -> None:
        self.n_byte = 0

    def append(self, block: Block) -> None:
        """Count the block and forget it."""
        self.n_byte += block.n_byte

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Block:
        raise IndexError(index)


def scenario(shells: list[tuple[int, int, int, float]]) -> Scenario:
    """Shells with +Grid links and ground nodes over the inhabited world, one orbit at steps of a second."""
    random = np.random.default_rng(3)
    text = f'name = "bench"\nepoch = 2026-01-01T00:00:00Z\nduration_s = {ORBIT_S}.0\nstep_s = 1.0\n'
    for i, (planes, slots, altitude_km, inclination_deg) in enumerate(shells):
        text += (
            f'[[constellation]]\nname = "shell{i}"\nwalker = {{ pattern = "delta", total = {planes * slots}, '
            f"planes = {planes}, phasing = 1, altitude_m = {altitude_km}_000, inclination_deg = {inclination_deg} }}\n"
        )
    for i in range(GROUND_NODES):
        text += (
            f'[[ground]]\nname = "ground{i}"\nrole = "gateway"\nmin_elevation_deg = 25.0\n'
            f"latitude_deg = {random.uniform(-60, 60)}\nlongitude_deg = {random.uniform(-180, 180)}\n"
        )
    return parse_scenario(Source("bench", text, Path()))


@dataclass(frozen=True)
class Cost:
    """What planning took."""

    wall_s: float
    peak_gb: float
    blocks_gb: float
    contacts: int


def planned(shells: list[tuple[int, int, int, float]], answer: Connection) -> None:
    """Plan in a process of its own, so that its memory is its own."""
    checked, store = scenario(shells), Passing()
    began_s = time.perf_counter()
    timeline = plan(checked, store)
    wall_s = time.perf_counter() - began_s
    peak_gb = next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")) / 1e6
    answer.send(Cost(wall_s, peak_gb, store.n_byte / 1e9, len(timeline.contacts.a)))


def apart(work: Callable[[list[tuple[int, int, int, float]], Connection], None], n: int) -> Cost:
    """Run in a fresh process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(SHELLS[n], there))
    process.start()
    there.close()
    try:
        cost = here.recv()
    except EOFError:
        sys.exit(f"planning {n} satellites failed")
    process.join()
    assert isinstance(cost, Cost)
    return cost


def floor_s() -> float:
    """SGP4's positions of shell 1 alone, at each second of the orbit, one core."""
    shell = Walker(pattern="delta", total=1_584, planes=72, phasing=1, altitude_m=550_000.0, inclination_deg=53.0)
    satellites = SatrecArray(walker_orbits(shell, EPOCH))
    dates = julian_dates(EPOCH, np.arange(ORBIT_S + 1, dtype=np.float64))
    began_s = time.perf_counter()
    satellites.sgp4(dates.day, dates.fraction)
    return time.perf_counter() - began_s


def where_the_time_goes() -> None:
    """Cumulative time of the stages of shell 1: stages that call others contain them."""
    profile = cProfile.Profile()
    checked = scenario(SHELLS[1_584])
    profile.enable()
    plan(checked, Passing())
    profile.disable()
    table = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # typeshed leaves it out
    whole_s = max(row[3] for row in table.values())
    print(f"where the time goes (of {whole_s:.1f} s, under the profiler; stages that call others contain them)")
    for part, (file, functions) in PARTS.items():
        rows = [row for (path, _, name), row in table.items() if path.endswith(file) and name in functions]
        own_s = sum(row[2] for row in rows) if part.startswith("SGP4") else sum(row[3] for row in rows)
        print(f"  {part:<24}{own_s:6.2f} s  {'█' * round(40 * own_s / whole_s)}")


def main() -> None:
    """Print all of it."""
    bare_s = floor_s()
    costs = {n: apart(planned, n) for n in SHELLS}
    one = costs[1_584]
    print(f"shell 1, one orbit at 1 s, {GROUND_NODES} ground nodes: {one.contacts} contacts, {one.blocks_gb:.2f} GB")
    print(f"  SatrecArray's positions alone   {bare_s:6.2f} s")
    print(
        f"  the whole sky without routes    {one.wall_s:6.2f} s   ratio {one.wall_s / bare_s:.2f} (limit {LIMIT_RATIO})"
    )
    print(f"  peak memory                     {one.peak_gb:6.2f} GB  (limit {LIMIT_GB})")
    print(f"  faster than real time           {ORBIT_S / one.wall_s:6.0f} times")
    print("cost a satellite and step, as constellations grow")
    each_ns = {n: cost.wall_s / n / (ORBIT_S + 1) * 1e9 for n, cost in costs.items()}
    for n, cost in costs.items():
        bar = "█" * round(40 * each_ns[n] / max(each_ns.values()))
        print(f"  {n:>5} satellites {each_ns[n]:6.0f} ns  {cost.wall_s:6.1f} s  {cost.peak_gb:5.2f} GB  {bar}")
    where_the_time_goes()


if __name__ == "__main__":
    main()
