"""A run with real agents and a real sky, and nothing between them: every node reaches every other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller.agents import AgentClient
from controller.faults import FaultSchedule
from controller.jobs.desk import GatewayJob
from controller.jobs.office import Office
from controller.planner import plan
from controller.scenario import Scenario, Source, parse_scenario
from controller.schedule import Commanded, Schedule
from tests.agent.fleet import Fleet

SCENARIO = """
name = "small"
epoch = 2026-01-01T00:00:00Z
duration_s = 120.0

[[constellation]]
name = "cn"
walker = { pattern = "star", total = 2, planes = 2, phasing = 0, altitude_m = 20_000_000, inclination_deg = 90.0 }
isl = { topology = "nearest-k", k = 2 }
jurisdiction = "CN"

[[constellation]]
name = "us"
walker = { pattern = "star", total = 2, planes = 1, phasing = 0, altitude_m = 22_000_000, inclination_deg = 90.0 }
isl = { topology = "none" }
jurisdiction = "US"

[[ground]]
name = "gw-cn"
role = "gateway"
latitude_deg = 40.0
longitude_deg = 10.0
min_elevation_deg = 0.0
antennas = 8
jurisdiction = "CN"

[[ground]]
name = "gw-us"
role = "gateway"
latitude_deg = 41.0
longitude_deg = 12.0
min_elevation_deg = 0.0
antennas = 8
jurisdiction = "US"
"""


@dataclass
class SmallRun:
    """What placement may look at."""

    scenario: Scenario
    schedule: Schedule
    agents: dict[str, AgentClient]
    t_s: float = 0.0
    downs: dict[str, str] = field(default_factory=dict)
    blackouts: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Commanded:
        """The step of its time."""
        return self.schedule.at(int(self.t_s))

    def down_of(self, node: str) -> str:
        """As it was set."""
        return self.downs.get(node, "")

    def blackout_of(self, node: str) -> str:
        """As it was set."""
        return self.blackouts.get(node, "")


async def small_run(
    fleet: Fleet, text: str = SCENARIO, agents_lie_in: Mapping[str, str] | None = None, options: tuple[str, ...] = ()
) -> SmallRun:
    """Its agents, up; those of `agents_lie_in` believe to lie elsewhere than the scenario says."""
    scenario = parse_scenario(Source("small.toml", text, Path()))
    timeline = plan(scenario)
    jurisdictions = {**scenario.jurisdictions, **(agents_lie_in or {})}
    await fleet.launch(*scenario.node_names, jurisdictions=jurisdictions, options=options)
    agents = {name: await fleet.client(name) for name in scenario.node_names}
    return SmallRun(scenario, Schedule.of(timeline, FaultSchedule.from_scenario(scenario, timeline)), agents)


@asynccontextmanager
async def office(run: SmallRun, fleet: Fleet, seen: list[GatewayJob]) -> AsyncIterator[Office]:
    """Its desks; what they are told of jobs is seen."""
    opened = await Office.open(run, fleet.folder / "controller.db", seen.append)
    try:
        yield opened
    finally:
        await opened.close()
