"""Link budgets: what a radio or laser link carries over a range, and how its carrier shifts.

A budget holds for both ways of a link. Rates are exact functions of the range with as few values as the sky allows:
radio by the steps of DVB-S2X, laser in steps of its third digit, so that machines whose sines differ in the last bit
still command the same, and a link is not reshaped at every step.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from controller.links import dvb_s2x
from controller.scenario.link_model import OpticalBudget, RadioBudget
from controller.timeline import FloatArray, IntArray

LIGHT_M_S = 299_792_458.0
BOLTZMANN_J_K = 1.380649e-23  # CODATA 2018, exact; 10 log10 of it is −228.6 dBW/K/Hz
PLANCK_J_S = 6.62607015e-34  # CODATA 2018, exact
LOWEST_RATE_BPS = 1_000  # a link that would carry less does not close

# A link closes with so much less than it needs, below the tables' last digit: a step that rounding puts some metres
# behind max_range_m is not without rate.
_SLACK_DB = 0.001

Budget: TypeAlias = RadioBudget | OpticalBudget


def carrier_hz(budget: Budget) -> float:
    """The frequency of the carrier."""
    return budget.frequency_hz if isinstance(budget, RadioBudget) else LIGHT_M_S / budget.wavelength_m


def doppler_hz(carrier: float, range_rate_m_s: FloatArray) -> FloatArray:
    """What the receiver hears above (positive: the ends approach) or below (negative: they recede) the carrier.

    First order in v ÷ c; what is left out is below 1e-9 of the carrier at orbital speeds. Shapes: those of the rate.
    """
    return -carrier / LIGHT_M_S * range_rate_m_s


def c_n0_dbhz(budget: RadioBudget, range_m: FloatArray, attenuation_db: FloatArray | float = 0.0) -> FloatArray:
    """Carrier over noise density: EIRP + G/T − free-space loss − losses − attenuation − k. Shapes: those of the range.

    Source: Maral and Bousquet, Satellite Communications Systems, 5th edition, section 5.6.
    """
    free_space_loss_db = 20.0 * np.log10(4.0 * np.pi * range_m / _wavelength_m(budget))
    return _c_n0_at_no_distance_dbhz(budget) - free_space_loss_db - attenuation_db


def max_range_m(budget: Budget) -> float:
    """The farthest range at which the link carries at least LOWEST_RATE_BPS under a clear sky."""
    if isinstance(budget, RadioBudget):
        return float(_reach_m(budget, _usable_es_n0_db(budget))[0])
    return math.sqrt(_bit_m2_s(budget) / LOWEST_RATE_BPS)


def rate_bps(budget: Budget, range_m: FloatArray, attenuation_db: FloatArray | float = 0.0) -> IntArray:
    """Useful bits a second that the link carries, each way; 0 where it does not close, or the range is NaN.

    Attenuation is that of the weather, beyond the budget's own losses. Shapes: those of the range.
    """
    # Attenuation is as good as distance: free-space loss goes with the square of the range.
    equivalent_m = np.asarray(range_m * 10.0 ** ((np.asarray(attenuation_db) - _SLACK_DB) / 20.0))
    if isinstance(budget, RadioBudget):
        return _radio_rate_bps(budget, equivalent_m)
    return _optical_rate_bps(budget, equivalent_m)


def symbol_rate_hz(budget: RadioBudget) -> float:
    """Symbols a second that fit the bandwidth."""
    return budget.bandwidth_hz / (1.0 + budget.roll_off_ratio)


def _wavelength_m(budget: Budget) -> float:
    return LIGHT_M_S / carrier_hz(budget)


def _c_n0_at_no_distance_dbhz(budget: RadioBudget) -> float:
    """C/N0 before free-space loss."""
    return budget.eirp_dbw + budget.g_t_db_k - budget.losses_db - 10.0 * math.log10(BOLTZMANN_J_K)


def _modcod_rates_bps(budget: RadioBudget) -> IntArray:
    """What each efficient modulation and code carries, rising."""
    return np.floor(dvb_s2x.EFFICIENCY_BIT_SYMBOL * symbol_rate_hz(budget)).astype(np.int64)


def _usable_es_n0_db(budget: RadioBudget) -> FloatArray:
    """What those that carry at least LOWEST_RATE_BPS ask of Es/N0, rising."""
    return dvb_s2x.ES_N0_DB[_modcod_rates_bps(budget) >= LOWEST_RATE_BPS]


def _reach_m(budget: RadioBudget, es_n0_db: FloatArray) -> FloatArray:
    """How far there is so much Es/N0 = C/N0 ÷ symbol rate. Shapes: those of Es/N0."""
    spare_db = _c_n0_at_no_distance_dbhz(budget) - 10.0 * math.log10(symbol_rate_hz(budget)) - es_n0_db
    return _wavelength_m(budget) / (4.0 * np.pi) * 10.0 ** (spare_db / 20.0)


def _radio_rate_bps(budget: RadioBudget, range_m: FloatArray) -> IntArray:
    rates = _modcod_rates_bps(budget)
    rates = np.append(0, rates[rates >= LOWEST_RATE_BPS])
    reach_m = _reach_m(budget, _usable_es_n0_db(budget))
    # How many reach at least as far: reach falls as rates rise. NaN sorts behind all that is finite: none reaches it.
    n_reaching = len(reach_m) - np.searchsorted(reach_m[::-1], range_m, side="left")
    return rates[n_reaching]


def _bit_m2_s(budget: OpticalBudget) -> float:
    """The rate that photons allow, times the square of the range.

    Received power = power × transmit gain × receive gain × (wavelength ÷ 4π range)² ÷ losses, the gain of an aperture
    being (π diameter ÷ wavelength)². Source: Hemmati (editor), Deep Space Optical Communications, Wiley 2006, ch. 2.
    """
    wavelength_m = budget.wavelength_m
    gains_ratio = (math.pi / wavelength_m) ** 4 * (budget.transmit_aperture_m * budget.receive_aperture_m) ** 2
    losses_ratio = math.pow(10.0, budget.losses_db / 10.0)
    received_m2_w = budget.power_w * gains_ratio * (wavelength_m / (4.0 * math.pi)) ** 2 / losses_ratio
    return received_m2_w / (PLANCK_J_S * carrier_hz(budget) * budget.photons_per_bit)


def _optical_rate_bps(budget: OpticalBudget, range_m: FloatArray) -> IntArray:
    # Nearer than this the terminal is the limit, not the photons.
    saturated_m = math.sqrt(_bit_m2_s(budget) / budget.max_rate_bps)
    allowed = np.nan_to_num(_bit_m2_s(budget) / np.maximum(range_m, saturated_m) ** 2)
    digit = 10 ** (np.floor(np.log10(np.maximum(allowed, LOWEST_RATE_BPS))).astype(np.int64) - 2)
    stepped = np.floor(allowed / digit).astype(np.int64) * digit
    stepped[allowed < LOWEST_RATE_BPS] = 0
    return np.where(range_m <= saturated_m, budget.max_rate_bps, stepped)
