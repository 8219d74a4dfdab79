"""Rain over ground nodes: when it falls, drawn by seed, and what it takes from a slanting radio path.

Rain comes and goes by a two-state process in continuous time, and each rain has its place in the long-run statistics of
ITU-R P.618: so every run has weather of its own, while all weather together has the attenuation that P.618 tells.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np

from controller.scenario.link_model import Rain
from controller.timeline import FloatArray, IntArray

EARTH_EFFECTIVE_RADIUS_M = 8_500_000.0  # ITU-R P.618-13, equation (2): refraction included
LEAST_EXCEEDED_RATIO = 1e-5  # ITU-R P.618-13 holds from 0.001 % to 5 % of an average year

_DRAWS = 256  # so many dry spells and rains are drawn at once, whatever their number
_LONGEST_US = 1e15  # 31 years, longer than any run: sums of spells stay within 64 bits


@dataclass(frozen=True)
class RainSpells:
    """The rains over one ground node, in order. Shapes: all (n_spell,). Times are seconds since the epoch."""

    start_s: FloatArray
    end_s: FloatArray
    exceeded_ratio: FloatArray  # the share of an average year in which attenuation is higher than in this rain


@dataclass(frozen=True)
class SpecificAttenuation:
    """Rain of R mm/h takes k · R^alpha dB from each kilometre."""

    k: FloatArray
    alpha: FloatArray


@dataclass(frozen=True)
class _Fit:
    """A sum of Gaussians and a line over the logarithm of the frequency: ITU-R P.838-3, equations (2) and (3)."""

    gaussians: FloatArray  # (n, 3): a_j, b_j, c_j
    slope: float
    offset: float

    def at(self, log10_ghz: float) -> float:
        """Its value at one frequency."""
        a, b, c = self.gaussians.T
        return float(np.sum(a * np.exp(-(((log10_ghz - b) / c) ** 2)))) + self.slope * log10_ghz + self.offset


# ITU-R P.838-3, tables 1 to 4.
_LOG_K_H = _Fit(
    np.array(
        [
            [-5.33980, -0.10008, 1.13098],
            [-0.35351, 1.26970, 0.45400],
            [-0.23789, 0.86036, 0.15354],
            [-0.94158, 0.64552, 0.16817],
        ]
    ),
    slope=-0.18961,
    offset=0.71147,
)
_LOG_K_V = _Fit(
    np.array(
        [
            [-3.80595, 0.56934, 0.81061],
            [-3.44965, -0.22911, 0.51059],
            [-0.39902, 0.73042, 0.11899],
            [0.50167, 1.07319, 0.27195],
        ]
    ),
    slope=-0.16398,
    offset=0.63297,
)
_ALPHA_H = _Fit(
    np.array(
        [
            [-0.14318, 1.82442, -0.55187],
            [0.29591, 0.77564, 0.19822],
            [0.32177, 0.63773, 0.13164],
            [-5.37610, -0.96230, 1.47828],
            [16.1721, -3.29980, 3.43990],
        ]
    ),
    slope=0.67849,
    offset=-1.95537,
)
_ALPHA_V = _Fit(
    np.array(
        [
            [-0.07771, 2.33840, -0.76284],
            [0.56727, 0.95545, 0.54039],
            [-0.20238, 1.14520, 0.26809],
            [-48.2991, 0.791669, 0.116226],
            [48.5833, 0.791459, 0.116479],
        ]
    ),
    slope=-0.053739,
    offset=0.83433,
)


def rain_spells(rain: Rain, seed: int, name: str, start_s: float, end_s: float) -> RainSpells:
    """The rains over the ground node `name` that touch the time from start_s to end_s, uncut.

    They follow from the seed and the name alone, counted from the epoch: a run that is longer or begins later sees the
    same weather. At the epoch it rains with the long-run probability; rains and dry spells last exponentially long;
    `exceeded_ratio` is uniform up to that probability, since attenuation is lower than in any rain when it is dry.
    Times are whole microseconds, so that machines whose logarithms differ in the last bit agree.
    """
    key = hashlib.sha256(json.dumps(["rain", seed, name]).encode()).digest()
    bits = np.random.PCG64(int.from_bytes(key, "big"))
    mean_rain_us = rain.mean_duration_s * 1e6
    mean_dry_us = mean_rain_us * (1.0 - rain.probability_ratio) / rain.probability_ratio
    at_us = 0
    starts, ends, exceeded = [], [], []
    rains_at_epoch = bool(_uniform(bits, 1)[0] <= rain.probability_ratio)
    while at_us <= end_s * 1e6:
        share, dry, wet = _uniform(bits, 3 * _DRAWS).reshape(_DRAWS, 3).T
        dry_us, wet_us = _duration_us(mean_dry_us, dry), _duration_us(mean_rain_us, wet)
        if rains_at_epoch:  # then the first dry spell is none
            dry_us[0] = 0
            rains_at_epoch = False
        end_us = at_us + np.cumsum(dry_us + wet_us)
        starts.append(end_us - wet_us)
        ends.append(end_us)
        exceeded.append(share * rain.probability_ratio)
        at_us = int(end_us[-1])
    all_start_s, all_end_s = np.concatenate(starts) / 1e6, np.concatenate(ends) / 1e6
    touches = (all_end_s > start_s) & (all_start_s <= end_s)  # the last step is at the end
    return RainSpells(all_start_s[touches], all_end_s[touches], np.concatenate(exceeded)[touches])


def attenuation_db(
    rain: Rain,
    spells: RainSpells,
    frequency_hz: float,
    latitude_deg: float,
    altitude_m: float,
    t_s: FloatArray,
    elevation_deg: FloatArray,
) -> FloatArray:
    """What rain takes at each time from a path of each elevation; 0 where it is dry. Shapes: times and all (n,).

    `spells` must cover the times. Altitude is the ground node's, above the sea.
    """
    result = np.zeros(np.shape(t_s))
    latest = np.searchsorted(spells.start_s, t_s, side="right") - 1
    wet = latest >= 0
    wet[wet] = t_s[wet] < spells.end_s[latest[wet]]
    rain_height = rain_height_m(latitude_deg) if rain.rain_height_m is None else rain.rain_height_m
    result[wet] = rain_attenuation_db(
        frequency_hz=frequency_hz,
        elevation_deg=elevation_deg[wet],
        latitude_deg=latitude_deg,
        station_height_m=altitude_m,
        rain_height_m=rain_height,
        r001_mm_h=rain.r001_mm_h,
        tilt_deg=rain.polarization_tilt_deg,
        exceeded_ratio=spells.exceeded_ratio[latest[wet]],
    )
    return result


def rain_height_m(latitude_deg: float) -> float:
    """How high above the sea it rains in the yearly mean, by latitude alone (north positive).

    ITU-R P.839-2 (1999), mean height of the 0 °C isotherm. Later editions have a map instead, from which this strays by
    some hundreds of metres: in London it says 2,863 m, the map of P.839-4 2,453 m.
    """
    if latitude_deg > 23.0:
        return max(0.0, 5_000.0 - 75.0 * (latitude_deg - 23.0))
    if latitude_deg >= -21.0:
        return 5_000.0
    return max(0.0, 5_000.0 + 100.0 * (latitude_deg + 21.0))


def specific_attenuation(frequency_hz: float, elevation_deg: FloatArray, tilt_deg: float) -> SpecificAttenuation:
    """k and alpha of ITU-R P.838-3, equations (2) to (5), 1 to 1,000 GHz. Shapes: those of the elevation.

    The tilt is that of the polarisation to the horizon: 0 horizontal, 90 vertical, 45 circular.
    """
    log10_ghz = math.log10(frequency_hz / 1e9)
    k_h, k_v = 10.0 ** _LOG_K_H.at(log10_ghz), 10.0 ** _LOG_K_V.at(log10_ghz)
    alpha_h, alpha_v = _ALPHA_H.at(log10_ghz), _ALPHA_V.at(log10_ghz)
    balance = np.cos(np.radians(elevation_deg)) ** 2 * math.cos(2.0 * math.radians(tilt_deg))
    k = (k_h + k_v + (k_h - k_v) * balance) / 2.0
    alpha = (k_h * alpha_h + k_v * alpha_v + (k_h * alpha_h - k_v * alpha_v) * balance) / (2.0 * k)
    return SpecificAttenuation(k, alpha)


def rain_attenuation_db(
    *,
    frequency_hz: float,
    elevation_deg: FloatArray,
    latitude_deg: float,
    station_height_m: float,
    rain_height_m: float,
    r001_mm_h: float,
    tilt_deg: float,
    exceeded_ratio: FloatArray,
) -> FloatArray:
    """The attenuation by rain that is exceeded in a share of an average year. Shapes: elevation and share (n,) → (n,).

    ITU-R P.618-13, section 2.2.1.1, steps 1 to 10; 0 at and above the rain height. It is made for up to 55 GHz, for
    shares of 1e-5 (smaller ones are taken as that) to 0.05, and elevations from 0.
    """
    height_km = (rain_height_m - station_height_m) / 1e3
    if height_km <= 0.0:
        return np.zeros(np.broadcast(elevation_deg, exceeded_ratio).shape)
    f_ghz, latitude = frequency_hz / 1e9, abs(latitude_deg)
    # A millionth of a degree keeps the horizon itself from a division by zero in the branch that is not taken there.
    elevation = np.maximum(elevation_deg, 1e-6)
    sin, cos = np.sin(np.radians(elevation)), np.cos(np.radians(elevation))

    # Steps 2 and 3: the slant path below the rain height, and its projection on the ground.
    curvature = 2.0 * height_km / (EARTH_EFFECTIVE_RADIUS_M / 1e3)
    slant_km = np.where(elevation >= 5.0, height_km / sin, 2.0 * height_km / (np.sqrt(sin**2 + curvature) + sin))
    ground_km = slant_km * cos
    # Step 5: what each kilometre takes.
    specific = specific_attenuation(frequency_hz, elevation, tilt_deg)
    gamma_db_km = specific.k * r001_mm_h**specific.alpha
    # Step 6: rain cells are smaller than the path.
    horizontal = 1.0 / (1.0 + 0.78 * np.sqrt(ground_km * gamma_db_km / f_ghz) - 0.38 * (1.0 - np.exp(-2.0 * ground_km)))
    # Step 7: and do not reach equally high.
    zeta_deg = np.degrees(np.arctan2(height_km, ground_km * horizontal))
    rainy_km = np.where(zeta_deg > elevation, slant_km * horizontal, height_km / sin)
    chi_deg = max(0.0, 36.0 - latitude)
    bend = 31.0 * (1.0 - np.exp(-elevation / (1.0 + chi_deg))) * np.sqrt(rainy_km * gamma_db_km) / f_ghz**2
    vertical = 1.0 / (1.0 + np.sqrt(sin) * (bend - 0.45))
    # Steps 8 and 9: exceeded for 0.01 % of the year.
    exceeded_001_db = gamma_db_km * rainy_km * vertical
    # Step 10: and for the share asked for; p in per cent.
    p = 100.0 * np.maximum(exceeded_ratio, LEAST_EXCEEDED_RATIO)
    beta = np.where(elevation >= 25.0, 0.0, 1.8 - 4.25 * sin) + 0.005 * chi_deg
    beta = np.where((p >= 1.0) | (latitude >= 36.0), 0.0, beta)
    exponent = 0.655 + 0.033 * np.log(p) - 0.045 * np.log(exceeded_001_db) - beta * (1.0 - p) * sin
    result: FloatArray = exceeded_001_db * (p / 0.01) ** -exponent
    return result


def _duration_us(mean_us: float, uniform: FloatArray) -> IntArray:
    """Exponential durations, in whole microseconds."""
    return np.rint(np.minimum(-mean_us * np.log(uniform), _LONGEST_US)).astype(np.int64)


def _uniform(bits: np.random.PCG64, n: int) -> FloatArray:
    """n even draws from (0, 1], of 53 bits. Raw bits are what numpy promises never to change."""
    raw = np.asarray(bits.random_raw(n), np.uint64)
    return ((raw >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
