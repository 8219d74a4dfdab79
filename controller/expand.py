"""From what happens in the sky to where everything is at each step: blocks of steps, one after another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from controller.links.budget import LIGHT_M_S
from controller.links.service import Services
from controller.links.whereabouts import Whereabouts
from controller.orbit.frames import gmst_rad
from controller.orbit.julian import julian_dates
from controller.orbit.sun import ground_illumination_ratio, satellite_illumination_ratio, sun_mod_m
from controller.timeline import Block, BoolArray, Float32Array, FloatArray, IntArray, LinkKind, LinkTable

# Numbers of one kind that a block holds, so that its arrays stay near the processor.
_BLOCK_CELLS = 1 << 19
_INSTANT_S = 1e-6
"""Instants closer than this are one: a step's is a product of floats."""


_AT_LEAST_M = 1e-3  # two in one place have no line between them


def delay_us(range_m: FloatArray) -> IntArray:
    """One-way delay of light in vacuum, to the nearest microsecond. Shape kept."""
    return np.rint(range_m * (1e6 / LIGHT_M_S)).astype(np.int64)


@dataclass(frozen=True)
class Patches:
    """Which links are patched when. Shapes: `link` to `end_s` (n_patch,), service (n_link,)."""

    table: LinkTable
    service: IntArray
    link: IntArray
    start_s: FloatArray
    end_s: FloatArray


@dataclass
class Expansion:
    """The blocks of a run, each computed when it is asked for from all that its steps follow from."""

    epoch_utc: datetime
    t_s: FloatArray
    where: Whereabouts
    patches: Patches
    services: Services

    def __post_init__(self) -> None:
        n_node = int(self.where.starts[-1]) + len(self.where.sites.grounds)
        self.block_steps = max(1, min(len(self.t_s), _BLOCK_CELLS // (3 * n_node)))
        # A state holds from its instant, so that a patch is seen by the steps from its start until just before its end;
        # one that lasts until the last instant is still there at it.
        self._first_step = np.searchsorted(self.t_s, self.patches.start_s - _INSTANT_S)
        end_step = np.searchsorted(self.t_s, self.patches.end_s - _INSTANT_S)
        self._end_step = np.where(self.patches.end_s >= self.t_s[-1] - _INSTANT_S, len(self.t_s), end_step)
        self._newest: Block | None = None

    def __len__(self) -> int:
        return -(-len(self.t_s) // self.block_steps)

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        first = index * self.block_steps
        if self._newest is None or self._newest.first_step != first:
            self._newest = self._block(first, min(first + self.block_steps, len(self.t_s)))
        return self._newest

    def _block(self, first: int, end: int) -> Block:
        """The steps from `first` until before `end`."""
        t_s, n_t = self.t_s[first:end], end - first
        first_step, end_step = self._first_step, self._end_step
        motion = self.where.ecef(t_s)
        now = np.flatnonzero((first_step < end) & (end_step > first) & (end_step > first_step))
        link, column = np.unique(self.patches.link[now], return_inverse=True)
        is_up = _mask(n_t, len(link), column, first_step[now] - first, end_step[now] - first)

        table = self.patches.table
        a, b, kind = table.a[link], table.b[link], table.kind[link]
        away_m = np.take(motion.r_m, b, axis=2)
        away_m -= np.take(motion.r_m, a, axis=2)
        away_m_s = np.take(motion.v_m_s, b, axis=2)
        away_m_s -= np.take(motion.v_m_s, a, axis=2)
        range_m = np.sqrt(np.einsum("txl,txl->tl", away_m, away_m))
        range_rate_m_s = np.einsum("txl,txl->tl", away_m, away_m_s)
        range_rate_m_s /= np.maximum(range_m, _AT_LEAST_M)
        elevation_deg = np.full(range_m.shape, np.nan, np.float32)
        gsl = np.flatnonzero(kind == LinkKind.GSL)
        if len(gsl):
            elevation_deg[:, gsl] = self._elevations_deg(t_s, a[gsl], b[gsl], away_m[:, :, gsl], range_m[:, gsl])
        rates_bps = self.services.rates_bps(self.patches.service[link], t_s, range_m, elevation_deg)
        is_up &= rates_bps > 0

        n_up = is_up.sum(axis=1)
        # All of them up, as in most blocks of a grid, needs no choosing.
        chosen = slice(None) if is_up.all() else np.flatnonzero(is_up)
        return Block(
            first_step=first,
            r_ecef_m=motion.r_m,
            illumination_ratio=self._illumination(t_s, motion.r_m),
            step_start=np.concatenate([[0], np.cumsum(n_up)]),
            link=np.broadcast_to(link.astype(np.int32), is_up.shape).ravel()[chosen],
            range_m=range_m.ravel()[chosen],
            range_rate_m_s=range_rate_m_s.astype(np.float32).ravel()[chosen],
            delay_us=delay_us(range_m).astype(np.int32).ravel()[chosen],
            rate_bps=rates_bps.ravel()[chosen],
            elevation_deg=elevation_deg.ravel()[chosen],
        )

    def _elevations_deg(
        self, t_s: FloatArray, a: IntArray, b: IntArray, away_m: FloatArray, range_m: FloatArray
    ) -> FloatArray:
        """At the ground nodes of links. Shapes: a and b (n,), away (n_t, 3, n), range (n_t, n) → (n_t, n)."""
        n_satellite = int(self.where.starts[-1])
        ground = np.where(a >= n_satellite, a, b) - n_satellite
        up = self.where.sites.stands(t_s).axes.up[:, :, ground]
        towards = np.where(a >= n_satellite, 1.0, -1.0)
        sine = np.einsum("txl,txl->tl", away_m, up) * towards / range_m
        elevation_deg: FloatArray = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
        return elevation_deg

    def _illumination(self, t_s: FloatArray, r_ecef_m: FloatArray) -> Float32Array:
        """How much of the Sun each node sees. Shapes: (n_t,), (n_t, 3, n_node) → (n_t, n_node)."""
        dates = julian_dates(self.epoch_utc, t_s)
        angle, sun_m = gmst_rad(dates), sun_mod_m(dates)
        cos, sin = np.cos(angle), np.sin(angle)
        sun_ecef_m = np.stack(
            (cos * sun_m[:, 0] + sin * sun_m[:, 1], cos * sun_m[:, 1] - sin * sun_m[:, 0], sun_m[:, 2]), axis=-1
        )
        n_satellite = int(self.where.starts[-1])
        parts = [satellite_illumination_ratio(r_ecef_m[:, :, :n_satellite], sun_ecef_m)]
        if self.where.sites.grounds:
            of_ground = ground_illumination_ratio(self.where.sites.stands(t_s).axes.up, sun_ecef_m)
            parts.append(of_ground.astype(np.float32))
        return np.concatenate(parts, axis=1)


def _mask(n_t: int, n_link: int, column: IntArray, first: IntArray, end: IntArray) -> BoolArray:
    """Which links are up at which of a block's steps. Shapes: column, first and end (n_patch,) → (n_t, n_link)."""
    changes = np.zeros((n_t + 1, n_link), np.int8)
    np.add.at(changes, (np.clip(first, 0, n_t), column), 1)
    np.add.at(changes, (np.clip(end, 0, n_t), column), -1)
    return np.cumsum(changes[:-1], axis=0, dtype=np.int8) > 0
