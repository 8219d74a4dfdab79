"""Timelines made by hand, for tests of what is done with one: no orbit, no planner, and every value known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from controller.timeline import (
    Block,
    BlockStore,
    ContactTable,
    ContentHash,
    EclipseTable,
    FloatArray,
    Head,
    LinkKind,
    LinkTable,
    MemoryBlocks,
    Node,
    NodeEnd,
    Role,
    Timeline,
)

RADIUS_M = 7_158_137.0
GROUND_RADIUS_M = 6_371_000.0
EPOCH_UTC = datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)
MASK_DEG = 10.0


def head(
    n_satellite: int = 6,
    n_step: int = 60,
    step_s: float = 10.0,
    start_s: float = 0.0,
    node_ends: Sequence[NodeEnd] = (),
) -> Head:
    """A ring of satellites over the equator and two ground nodes below it, joined by ISLs all the time; contacts of
    the ground nodes follow one another, each as long as a satellite is the highest."""
    satellites = [
        Node(f"ring-p00s{k:02d}", Role.SATELLITE, ("isl0", "isl1", "gsl0", "gsl1")) for k in range(n_satellite)
    ]
    grounds = [Node("quito", Role.GATEWAY, ("gsl0",)), Node("nairobi", Role.TERMINAL, ("gsl0",))]
    nodes = (*satellites, *grounds)
    t_s: FloatArray = start_s + step_s * np.arange(n_step, dtype=np.float64)
    ring = [tuple(sorted((k, (k + 1) % n_satellite))) for k in range(n_satellite)]
    pairs = [(a, b, LinkKind.ISL, 1 if b == a + 1 else 0, 0 if b == a + 1 else 1) for a, b in ring]
    for ground in (n_satellite, n_satellite + 1):
        port = 2 + ground - n_satellite
        for k in range(n_satellite):
            a_first = nodes[ground].name < nodes[k].name
            pairs.append((ground, k, LinkKind.GSL, 0, port) if a_first else (k, ground, LinkKind.GSL, port, 0))
    pairs.sort(key=lambda row: (nodes[row[0]].name, nodes[row[1]].name))
    a, b, kind, port_a, port_b = (np.array([row[i] for row in pairs], np.int64) for i in range(5))
    links = LinkTable(a, b, kind, port_a, port_b, np.where(kind == LinkKind.ISL, 0.0, 0.001), np.full(len(a), 1_500))
    eclipses = EclipseTable(
        satellite=np.array([0, 1], np.int64),
        start_s=np.array([t_s[0], t_s[0] + 20.0]),
        end_s=np.array([t_s[0] + 40.0, t_s[-1]]),
        umbra_start_s=np.array([np.nan, t_s[0] + 25.5]),
        umbra_end_s=np.array([np.nan, t_s[-1]]),
        beta_deg=np.array([12.5, -3.25]),
    )
    return Head(
        EPOCH_UTC, step_s, t_s, nodes, links, _contacts(nodes, links, n_satellite, t_s), eclipses, tuple(node_ends), ()
    )


def timeline(
    n_satellite: int = 6,
    n_step: int = 60,
    step_s: float = 10.0,
    start_s: float = 0.0,
    block_steps: int = 16,
    node_ends: Sequence[NodeEnd] = (),
    store: BlockStore | None = None,
) -> Timeline:
    """The same, whole. `node_ends`: from then on that node has no place and no links."""
    top = head(n_satellite, n_step, step_s, start_s, node_ends)
    blocks = MemoryBlocks(block_steps) if store is None else store
    blocks.block_steps = block_steps
    digest = ContentHash(top)
    for first in range(0, n_step, block_steps):
        block = _block(top, first, min(first + block_steps, n_step))
        digest.update(block)
        blocks.append(block)
    return Timeline(**vars(top), blocks=blocks, content_hash=digest.text())


def positions_m(top: Head, t_s: FloatArray) -> FloatArray:
    """Where all nodes are. Shape (n_t,) → (n_t, 3, n_node)."""
    n_satellite = top.n_satellite
    angle = np.radians(360.0 * np.arange(n_satellite) / n_satellite + 0.0603711 * t_s[:, None])
    r_m = np.zeros((len(t_s), 3, len(top.nodes)))
    r_m[:, 0, :n_satellite] = RADIUS_M * np.cos(angle)
    r_m[:, 1, :n_satellite] = RADIUS_M * np.sin(angle)
    for ground, longitude_deg in enumerate((-78.5, 36.8), n_satellite):
        r_m[:, 0, ground] = GROUND_RADIUS_M * np.cos(np.radians(longitude_deg))
        r_m[:, 1, ground] = GROUND_RADIUS_M * np.sin(np.radians(longitude_deg))
    for end in top.node_ends:
        r_m[t_s >= end.at_s, :, end.node] = np.nan
    return r_m


def serving(top: Head, r_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Which satellite is the highest over each ground node, and how high. Shapes: (n_t, 3, n_node) → (n_t, 2) each."""
    n_satellite = top.n_satellite
    ground, satellite = r_m[:, :, n_satellite:], r_m[:, :, :n_satellite]
    sight = satellite[:, :, None, :] - ground[:, :, :, None]
    up = ground / GROUND_RADIUS_M
    sine = np.einsum("tcgs,tcg->tgs", sight, up) / np.linalg.norm(sight, axis=1)
    elevation_deg = np.degrees(np.arcsin(np.nan_to_num(sine, nan=-1.0)))
    return np.argmax(elevation_deg, axis=2), np.max(elevation_deg, axis=2)


def _block(top: Head, first: int, end: int) -> Block:
    t_s, n_satellite, links = top.t_s[first:end], top.n_satellite, top.links
    r_m = positions_m(top, t_s)
    satellite, elevation_deg = serving(top, r_m)
    is_gsl = links.kind == LinkKind.GSL
    ground = np.where(links.a >= n_satellite, links.a, links.b)
    other = np.where(links.a >= n_satellite, links.b, links.a)
    there = ~np.isnan(r_m[:, 0, links.a] + r_m[:, 0, links.b])
    highest = satellite[:, np.where(is_gsl, ground - n_satellite, 0)] == other
    elevation = elevation_deg[:, np.where(is_gsl, ground - n_satellite, 0)]
    is_up = there & (~is_gsl | (highest & (elevation >= MASK_DEG)))
    step, link = np.nonzero(is_up)
    sight_m = r_m[step, :, links.a[link]] - r_m[step, :, links.b[link]]
    range_m = np.linalg.norm(sight_m, axis=1)
    light = np.where(np.arange(len(top.nodes)) % 2, 1.0, 0.25) * np.ones((len(t_s), 1))
    light[np.isnan(r_m[:, 0])] = np.nan
    return Block(
        first_step=first,
        r_ecef_m=r_m,
        illumination_ratio=light.astype(np.float32),
        step_start=np.searchsorted(step, np.arange(len(t_s) + 1)).astype(np.int64),
        link=link.astype(np.int32),
        range_m=range_m,
        range_rate_m_s=np.full(len(link), -12.5, np.float32),
        delay_us=np.rint(range_m / 299.792458).astype(np.int32),
        rate_bps=np.where(is_gsl[link], 50_000_000, 100_000_000).astype(np.int64),
        elevation_deg=np.where(is_gsl[link], elevation[step, link], np.nan).astype(np.float32),
    )


def _contacts(nodes: Sequence[Node], links: LinkTable, n_satellite: int, t_s: FloatArray) -> ContactTable:
    """Each ISL all the time; of each ground node one contact after the other, of 100 s."""
    first_s, last_s = float(t_s[0]), float(t_s[-1])
    rows = [(first_s, last_s, int(link)) for link in np.flatnonzero(links.kind == LinkKind.ISL)]
    gsl = np.flatnonzero(links.kind == LinkKind.GSL)
    for number, start_s in enumerate(np.arange(first_s, last_s, 100.0).tolist()):
        rows.append((round(start_s + 0.25, 2), round(min(start_s + 100.0, last_s), 2), int(gsl[number % len(gsl)])))
    rows.sort(key=lambda row: (row[0], nodes[links.a[row[2]]].name, nodes[links.b[row[2]]].name))
    starts_s, ends_s = (np.array([row[i] for row in rows]) for i in (0, 1))
    link = np.array([row[2] for row in rows])
    is_gsl = links.kind[link] == LinkKind.GSL
    return ContactTable(
        a=links.a[link], b=links.b[link], kind=links.kind[link], start_s=starts_s, end_s=ends_s,
        max_elevation_deg=np.where(is_gsl, 47.25, np.nan),
        min_range_m=np.where(is_gsl, 812_100.1234, 4_032_000.0),
        max_range_rate_m_s=np.where(is_gsl, 6_543.21, 0.5),
        max_doppler_hz=np.where(is_gsl, 261_000.5, np.nan),
        volume_bytes=np.rint((ends_s - starts_s) * 6_250_000).astype(np.int64),
    )  # fmt: skip
