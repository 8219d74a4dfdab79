"""What links carry: a fixed rate, or what a budget gives at each range and in each weather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.links.budget import Budget, carrier_hz, max_range_m, rate_bps
from controller.links.rain import RainSpells, attenuation_db, rain_spells
from controller.scenario.link_model import IslPolicy, RadioBudget, Rain
from controller.scenario.model import Ground
from controller.timeline import FloatArray, IntArray


@dataclass(frozen=True)
class Weather:
    """Rain over one ground node."""

    rain: Rain
    spells: RainSpells
    latitude_deg: float
    altitude_m: float


@dataclass(frozen=True)
class Service:
    """What every link of one kind carries: a constellation's ISLs, a ground node's GSLs."""

    fixed_rate_bps: int
    loss_ratio: float
    mtu_bytes: int
    budget: Budget | None = None
    weather: Weather | None = None

    @classmethod
    def of_isl(cls, policy: IslPolicy) -> Service:
        """What a policy's links carry."""
        return cls(policy.rate_bps, policy.loss_ratio, policy.mtu_bytes, policy.optical or policy.radio)

    @classmethod
    def of_ground(cls, ground: Ground, seed: int, start_s: float, end_s: float) -> Service:
        """What a ground node's links carry between two instants."""
        weather = None
        if ground.rain is not None:
            spells = rain_spells(ground.rain, seed, ground.name, start_s, end_s)
            weather = Weather(ground.rain, spells, ground.latitude_deg, ground.altitude_m)
        return cls(ground.rate_bps, ground.loss_ratio, ground.mtu_bytes, ground.radio, weather)

    @property
    def reach_m(self) -> float:
        """How far the link closes under a clear sky; inf for a fixed rate."""
        return np.inf if self.budget is None else max_range_m(self.budget)

    @property
    def carrier_hz(self) -> float:
        """Of the budget; NaN for a fixed rate."""
        return np.nan if self.budget is None else carrier_hz(self.budget)


@dataclass(frozen=True)
class Services:
    """The services of a scenario, by their number."""

    services: tuple[Service, ...]

    def clear_sky_bps(self, service: IntArray, range_m: FloatArray) -> FloatArray:
        """What links carry at ranges when nothing falls. Shapes: service (n,), range (…, n) → (…, n)."""
        rates = np.array([each.fixed_rate_bps for each in self.services], np.float64)[service]
        result = np.broadcast_to(rates, range_m.shape).copy()
        for budget, columns in self._by_budget(service, weather=True):
            result[..., columns] = rate_bps(budget, range_m[..., columns])
        return result

    def rates_bps(self, service: IntArray, t_s: FloatArray, range_m: FloatArray, elevation_deg: FloatArray) -> IntArray:
        """What links carry, in the weather that there is; 0 where they do not close.

        Shapes: service (n,), t (n_t,), range and elevation (n_t, n) → (n_t, n).
        """
        fixed = np.array([each.fixed_rate_bps for each in self.services], np.int64)[service]
        result = np.broadcast_to(fixed, range_m.shape)
        if all(each.budget is None for each in self.services):
            return result
        result = result.copy()
        for budget, columns in self._by_budget(service, weather=False):
            result[:, columns] = rate_bps(budget, range_m[:, columns])
        for number, each in enumerate(self.services):
            columns = np.flatnonzero(service == number)
            if each.weather is None or not isinstance(each.budget, RadioBudget) or not len(columns):
                continue
            there, weather = range_m[:, columns], each.weather
            fade_db = attenuation_db(
                weather.rain, weather.spells, each.budget.frequency_hz, weather.latitude_deg, weather.altitude_m,
                np.broadcast_to(t_s[:, None], there.shape), elevation_deg[:, columns],
            )  # fmt: skip
            result[:, columns] = rate_bps(each.budget, there, fade_db)
        return result

    def _by_budget(self, service: IntArray, weather: bool) -> Sequence[tuple[Budget, IntArray]]:
        """Each budget with the columns whose service has it; those under weather only where asked for."""
        numbers: dict[Budget, list[int]] = {}
        for number, each in enumerate(self.services):
            if each.budget is not None and (weather or each.weather is None):
                numbers.setdefault(each.budget, []).append(number)
        found = [(budget, np.flatnonzero(np.isin(service, own))) for budget, own in numbers.items()]
        return [(budget, columns) for budget, columns in found if len(columns)]
