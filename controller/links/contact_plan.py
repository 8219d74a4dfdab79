"""The contact plan: when which nodes are linked, and what each contact is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from controller.links.budget import doppler_hz
from controller.links.service import Services
from controller.links.whereabouts import Whereabouts
from controller.timeline import ContactTable, FloatArray, IntArray, LinkKind

_SAMPLES = 33
_REFINED, _ROUNDS = 9, 3
_AT_ONCE = 4_000
_AT_LEAST_M = 1e-3  # two in one place have no line between them


@dataclass(frozen=True)
class Holds:
    """Ports patched to each other, and from when to when. Shapes: all (n_hold,). Nodes are the timeline's."""

    a: IntArray
    b: IntArray
    kind: IntArray  # LinkKind
    port_a: IntArray
    port_b: IntArray
    service: IntArray
    start_s: FloatArray
    end_s: FloatArray


def contact_table(holds: Holds, names: Sequence[str], where: Whereabouts, services: Services) -> ContactTable:
    """One contact for each unbroken time that two nodes are joined, whatever their ports. names[a] < names[b]."""
    first, merged = _merged(holds, len(names))
    a, b, kind, service = (getattr(holds, key)[first] for key in ("a", "b", "kind", "service"))
    start_s, end_s = np.round(merged[:, 0], 2), np.round(merged[:, 1], 2)
    values = np.concatenate(
        [
            _worth(a[part], b[part], kind[part], service[part], merged[part], where, services)
            for part in (slice(i, i + _AT_ONCE) for i in range(0, max(len(a), 1), _AT_ONCE))
        ]
    )
    carrier_hz = np.array([each.carrier_hz for each in services.services], np.float64)[service]
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(np.array(names), kind="stable")] = np.arange(len(names))
    order = np.lexsort((rank[b], rank[a], start_s))
    return ContactTable(
        a[order], b[order], kind[order], start_s[order], end_s[order],
        max_elevation_deg=values[order, 0],
        min_range_m=values[order, 1],
        max_range_rate_m_s=values[order, 2],
        max_doppler_hz=np.abs(doppler_hz(carrier_hz, values[:, 2]))[order],
        volume_bytes=values[order, 3].astype(np.int64),
    )  # fmt: skip


def _merged(holds: Holds, n_node: int) -> tuple[IntArray, FloatArray]:
    """The first hold of each contact (n_contact,), and its start and end (n_contact, 2)."""
    pair = holds.a * n_node + holds.b
    order = np.lexsort((holds.start_s, pair))
    if not len(order):
        return order, np.empty((0, 2))
    pair, start_s, end_s = pair[order], holds.start_s[order], holds.end_s[order]
    # A pair's holds may overlap through other ports: what counts is the latest end so far.
    shift_s = (np.cumsum(np.diff(pair, prepend=pair[0]) != 0)) * (end_s.max() - start_s.min() + 1.0)
    latest_s = np.maximum.accumulate(end_s + shift_s) - shift_s
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (np.diff(pair) != 0) | (start_s[1:] > latest_s[:-1] + 1e-6)
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], len(order)) - 1
    return order[starts], np.stack((start_s[starts], latest_s[ends]), axis=1)


def _worth(
    a: IntArray,
    b: IntArray,
    kind: IntArray,
    service: IntArray,
    times_s: FloatArray,
    where: Whereabouts,
    services: Services,
) -> FloatArray:
    """Highest elevation, least range, greatest speed along the line, and volume of contacts. Shape (n, 4).

    Each is sampled evenly; the highest and the nearest are then looked for between the samples about the best.
    """
    n_satellite = int(where.starts[-1])
    n = len(a)
    is_gsl = kind == LinkKind.GSL
    ground, satellite = np.where(a >= n_satellite, a, b), np.where(a >= n_satellite, b, a)
    near = np.where(is_gsl, ground, a)
    far = np.where(is_gsl, satellite, b)

    def seen(grid_s: FloatArray) -> FloatArray:
        """Elevation, range and range rate. Shape (n_sample, n) → (3, n_sample, n)."""
        rows, at_s = np.tile(np.arange(n), len(grid_s)), grid_s.ravel()
        here, there = where.ecef_at(near[rows], at_s), where.ecef_at(far[rows], at_s)
        away_m = there.r_m - here.r_m
        range_m = np.maximum(np.linalg.norm(away_m, axis=-1), _AT_LEAST_M)
        range_rate_m_s = np.sum(away_m * (there.v_m_s - here.v_m_s), axis=-1) / range_m
        sine = np.full(len(rows), np.nan)
        of_ground = np.flatnonzero(is_gsl[rows])
        up = where.sites.stand(near[rows[of_ground]] - n_satellite, at_s[of_ground]).axes.up
        sine[of_ground] = np.sum(away_m[of_ground] * up, axis=-1) / range_m[of_ground]
        elevation_deg = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
        return np.stack((elevation_deg, range_m, range_rate_m_s)).reshape(3, *grid_s.shape)

    # Just inside, so that a satellite's end still has it in place.
    inside_s = np.minimum(1e-6, (times_s[:, 1] - times_s[:, 0]) / 4.0)
    low_s, high_s = times_s[:, 0] + inside_s, times_s[:, 1] - inside_s
    grid_s = np.linspace(low_s, high_s, _SAMPLES)
    elevation_deg, range_m, range_rate_m_s = seen(grid_s)
    rates_bps = services.clear_sky_bps(service, range_m)
    volume_bytes = np.trapezoid(rates_bps, axis=0) / (_SAMPLES - 1) * (times_s[:, 1] - times_s[:, 0]) / 8.0
    nearest = _refined(range_m, grid_s, lambda at_s: seen(at_s)[1], sign=-1.0)
    highest = (
        _refined(elevation_deg, grid_s, lambda at_s: seen(at_s)[0], sign=1.0) if is_gsl.any() else elevation_deg[0]
    )
    return np.stack((highest, nearest, np.max(np.abs(range_rate_m_s), axis=0), volume_bytes), axis=1)


def _refined(
    values: FloatArray, grid_s: FloatArray, evaluate: Callable[[FloatArray], FloatArray], sign: float
) -> FloatArray:
    """The greatest (sign 1) or least (-1) value of each column, looked for between the samples. Shape (n,).

    Shapes: values and grid_s (n_sample, n). A column without values stays so.
    """
    columns = np.arange(values.shape[1])
    for _ in range(_ROUNDS):
        best = np.argmax(np.nan_to_num(sign * values, nan=-np.inf), axis=0)
        low_s = grid_s[np.maximum(best - 1, 0), columns]
        high_s = grid_s[np.minimum(best + 1, len(grid_s) - 1), columns]
        grid_s = np.linspace(low_s, high_s, _REFINED)
        values = evaluate(grid_s)
    best = np.argmax(np.nan_to_num(sign * values, nan=-np.inf), axis=0)
    chosen: FloatArray = values[best, columns]
    return chosen
