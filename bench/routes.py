"""Routes of starlink's first shell towards 100 ground nodes, step after step: `python -m bench.routes`. No root.

The limit is scipy's Dijkstra alone, from the same destinations over the same links, in the same run.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from controller.links.routes import Router, next_ports
from controller.planner import plan
from controller.scenario import Source, parse_scenario
from controller.timeline import LinkTable, Sky

GROUNDS = 100
STEPS = 60
WANTED_MS = 40.0
SHELL = """
name = "shell"
epoch = 2026-01-01T00:00:00Z
duration_s = {duration_s}.0

[[constellation]]
name = "shell"
walker = {{ pattern = "delta", total = 1584, planes = 72, phasing = 39, altitude_m = 550_000, inclination_deg = 53.0 }}
"""
GROUND = """
[[ground]]
name = "ground-{number:02d}"
role = "terminal"
latitude_deg = {latitude_deg:.4f}
longitude_deg = {longitude_deg:.4f}
min_elevation_deg = 25.0
"""


def scenario_text() -> str:
    """1,584 satellites, and ground nodes between 50° south and north."""
    rng = np.random.default_rng(1)
    grounds = [
        GROUND.format(number=number, latitude_deg=rng.uniform(-50, 50), longitude_deg=rng.uniform(-180, 180))
        for number in range(GROUNDS)
    ]
    return SHELL.format(duration_s=STEPS - 1) + "".join(grounds)


def dijkstra_s(n_node: int, links: LinkTable, sky: Sky, destinations: np.ndarray) -> float:
    """What scipy takes to search from all destinations; to make its graph is not counted."""
    a, b = links.a[sky.link], links.b[sky.link]
    ends = (np.concatenate([a, b]), np.concatenate([b, a]))
    graph = coo_array((np.tile(sky.delay_us.astype(np.float64), 2), ends), shape=(n_node, n_node)).tocsr()
    began_s = time.process_time()
    dijkstra(graph, directed=True, indices=destinations)
    return time.process_time() - began_s


def main() -> None:
    """Every step of a minute: repaired, from nothing, and Dijkstra alone, in turns."""
    timeline = plan(parse_scenario(Source("shell.toml", scenario_text(), Path())))
    n_node, links = len(timeline.nodes), timeline.links
    is_ground = np.arange(n_node) >= timeline.n_satellite
    destinations = np.flatnonzero(is_ground)
    router = Router(n_node, links, is_ground, destinations)
    took_s: dict[str, list[float]] = {"repaired": [], "from nothing": [], "Dijkstra alone": []}
    changed = []
    before = None
    for sky in timeline.skies():
        usable = np.ones(len(sky.link), np.bool_)
        began_s = time.process_time()
        routes = router.next_ports(sky, usable)
        repaired_s = time.process_time()
        anew = next_ports(n_node, links, sky, usable, is_ground, destinations)
        took_s["from nothing"].append(time.process_time() - repaired_s)
        took_s["Dijkstra alone"].append(dijkstra_s(n_node, links, sky, destinations))
        assert np.array_equal(routes, anew), "repaired routes are not those from nothing"
        if before is not None:
            took_s["repaired"].append(repaired_s - began_s)
            changed.append(np.count_nonzero(routes != before))
        before = routes
    n_link = np.mean([len(sky.link) for sky in timeline.skies()])
    print(
        f"{n_node} nodes, {n_link:.0f} links, {GROUNDS} destinations, {timeline.n_step} steps; "
        f"{np.mean(changed):.0f} of {n_node * GROUNDS:,} routes change a step; wanted: {WANTED_MS:.0f} ms"
    )
    alone_ms = 1e3 * float(np.mean(took_s["Dijkstra alone"]))
    for how, each_s in took_s.items():
        each_ms = 1e3 * np.array(each_s)
        spread = f"median {np.median(each_ms):.1f}, most {each_ms.max():.1f}"
        share = each_ms.mean() / alone_ms
        print(f"{how:15s} {each_ms.mean():6.1f} ms of CPU a step ({spread}), {share:.2f} of Dijkstra alone")


if __name__ == "__main__":
    main()
