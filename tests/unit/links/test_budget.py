"""Link budgets, held against the standards' tables and published worked examples."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.links import dvb_s2x
from controller.links.budget import (
    LIGHT_M_S,
    Budget,
    c_n0_dbhz,
    carrier_hz,
    doppler_hz,
    max_range_m,
    rate_bps,
    symbol_rate_hz,
)
from controller.links.dvb_s2x import Modcod
from controller.scenario.link_model import OpticalBudget, RadioBudget

PRINTED_TO_0_1_DB = 0.05 + 0.05  # the example adds up figures that are each rounded to 0.1 dB
ROUNDED_TO_SIX_PLACES = 5.1e-7
FEC_BITS, SLOT_SYMBOLS, HEADER_SYMBOLS, BASEBAND_HEADER_BITS = 64_800, 90, 90, 80
KU_BAND = RadioBudget(frequency_hz=12e9, bandwidth_hz=36e6, eirp_dbw=51.0, g_t_db_k=13.0)
LASER = OpticalBudget(power_w=1.0, transmit_aperture_m=0.1, receive_aperture_m=0.1, max_rate_bps=10_000_000_000)


def radio(**changes: float) -> RadioBudget:
    """A Ku-band link with some values changed."""
    return RadioBudget.model_validate({**KU_BAND.model_dump(), **changes})


def laser(**changes: float) -> OpticalBudget:
    """A laser link with some values changed."""
    return OpticalBudget.model_validate({**LASER.model_dump(), **changes})


def code_of(modcod: Modcod, is_part_2: bool) -> int:
    """Information bits of a FECFRAME's outer code: EN 302 307-1 table 5a and its like in part 2.

    The BCH code takes 16 bits for each error it corrects: 10 or 8 for four of part 1's codes, else 12. Of part 2, only
    32APSK 2/3-L and 64APSK 5/6 use codes of part 1; its other "2/3" are codes of its own, 20/30.
    """
    rate = Fraction(modcod.name.split()[1].removesuffix("-L"))
    errors = 12
    if not is_part_2 or modcod.name in ("32APSK 2/3-L", "64APSK 5/6"):
        errors = {Fraction(2, 3): 10, Fraction(5, 6): 10, Fraction(8, 9): 8, Fraction(9, 10): 8}.get(rate, 12)
    return int(FEC_BITS * rate) - 16 * errors


@pytest.mark.parametrize("modcod", dvb_s2x.DVB_S2 + dvb_s2x.DVB_S2X, ids=lambda modcod: modcod.name)
def test_efficiencies_follow_from_the_frames_of_the_standard(modcod: Modcod) -> None:
    """Each printed efficiency is (K_bch − 80) ÷ (90 · (slots + 1)), EN 302 307-1 sections 5.1 and 5.5."""
    sizes = {"QPSK": 2, "8PSK": 3, "8APSK": 3, "16APSK": 4, "32APSK": 5, "64APSK": 6, "128APSK": 7, "256APSK": 8}
    slots = math.ceil(FEC_BITS / sizes[modcod.name.split()[0]] / SLOT_SYMBOLS)
    useful_bits = code_of(modcod, modcod in dvb_s2x.DVB_S2X) - BASEBAND_HEADER_BITS
    expected = useful_bits / (slots * SLOT_SYMBOLS + HEADER_SYMBOLS)
    assert modcod.efficiency_bit_symbol == pytest.approx(expected, abs=ROUNDED_TO_SIX_PLACES)


def test_no_modcod_beats_shannon_and_none_is_far_from_it() -> None:
    """A threshold with a wrong digit would stand out: all lie 0.9 to 3.7 dB above the channel's capacity."""
    for modcod in dvb_s2x.DVB_S2 + dvb_s2x.DVB_S2X:
        gap_db = modcod.es_n0_db - 10.0 * math.log10(2.0**modcod.efficiency_bit_symbol - 1.0)
        assert 0.9 < gap_db < 3.7, modcod


def test_the_efficient_modcods_are_the_best_of_the_whole_table() -> None:
    """At every Es/N0 the choice carries as much as the best of all that work there."""
    table = dvb_s2x.DVB_S2 + dvb_s2x.DVB_S2X
    for es_n0_db in np.arange(-2.85, 22.0, 0.01):
        best = max(m.efficiency_bit_symbol for m in table if m.es_n0_db <= es_n0_db + 1e-9)
        chosen = dvb_s2x.EFFICIENCY_BIT_SYMBOL[np.searchsorted(dvb_s2x.ES_N0_DB, es_n0_db + 1e-9, side="right") - 1]
        assert chosen == best, es_n0_db
    assert (np.diff(dvb_s2x.EFFICIENCY_BIT_SYMBOL) > 0).all()
    assert (np.diff(dvb_s2x.ES_N0_DB) > 0).all()


def test_c_n0_of_a_geostationary_uplink_matches_a_solved_exercise() -> None:
    """Question 12.1 of a published set of solutions (1library.co, aplicaciones-espacio-teleco-…-etsit-upct.zlg8j512).

    38,500 km at 6.285 GHz lose 200.1 dB; with transmit power Pt the receiver has Pt − 117.7 dBW against a noise of
    −127.3 dBW in 27 MHz (74.3 dBHz), so C/N0 is Pt + 83.9 dBHz. Gains 53.9 and 29.0 dB, 500 K, other losses 0.5 dB.
    """
    pt_dbw = 10.0
    budget = radio(
        frequency_hz=6.285e9,
        bandwidth_hz=27e6,
        eirp_dbw=pt_dbw + 53.9,
        g_t_db_k=29.0 - 10.0 * math.log10(500.0),
        losses_db=0.5,
    )
    assert c_n0_dbhz(budget, np.array([38_500e3]))[0] == pytest.approx(
        pt_dbw - 117.7 + 127.3 + 74.3, abs=PRINTED_TO_0_1_DB
    )


def test_c_n0_of_a_low_orbit_downlink_matches_a_published_budget() -> None:
    """EURASIP Journal on Wireless Communications and Networking 2020, 10.1186/s13638-020-01674-9, table 1.

    2,200 MHz, EIRP 38.3 dBm, free-space loss 162.2 dB (that of 1,398 km), depointing 10 dB, gain 38.2 dBi and
    130 K: 81.8 dBHz.
    """
    budget = radio(frequency_hz=2.2e9, eirp_dbw=8.3, g_t_db_k=38.2 - 10.0 * math.log10(130.0), losses_db=10.0)
    assert c_n0_dbhz(budget, np.array([1_398e3]))[0] == pytest.approx(81.8, abs=PRINTED_TO_0_1_DB)


def test_rate_of_a_broadcast_transponder_matches_the_standards_example() -> None:
    """EN 302 307-1 annex H, table H.1: QPSK 3/4 at 30.9 Mbaud, roll-off 0.2, carries 46 Mbit/s."""
    budget = radio(bandwidth_hz=30.9e6 * 1.2, roll_off_ratio=0.2)
    assert symbol_rate_hz(budget) == pytest.approx(30.9e6)
    es_n0_db = c_n0_dbhz(budget, np.array([1e7]))[0] - 10.0 * math.log10(30.9e6)
    qpsk_3_4_at_m = np.array([1e7 * 10.0 ** ((es_n0_db - 4.03) / 20.0)])
    assert rate_bps(budget, qpsk_3_4_at_m)[0] == pytest.approx(46e6, abs=0.05e6)


def test_each_modcod_is_used_where_the_link_has_what_it_asks() -> None:
    """Rates change where Es/N0 = C/N0 − 10 log10(symbol rate) passes the table's values, to 0.002 dB."""
    symbol_rate = symbol_rate_hz(KU_BAND)
    es_n0_at_1_m_db = c_n0_dbhz(KU_BAND, np.array([1.0])) - 10.0 * math.log10(symbol_rate)
    for miss_db, index in ((-0.002, slice(None)), (0.002, slice(0, -1))):
        range_m = 10.0 ** ((es_n0_at_1_m_db - dvb_s2x.ES_N0_DB + miss_db) / 20.0)
        expected = np.floor(dvb_s2x.EFFICIENCY_BIT_SYMBOL * symbol_rate).astype(np.int64)
        if miss_db > 0.0:
            expected = np.append(0, expected[index])
        np.testing.assert_array_equal(rate_bps(KU_BAND, range_m), expected)


def test_received_light_matches_a_published_calculation() -> None:
    """33 dBm, two apertures of 10 cm, 1,550 nm, 7,000 km, losses 12.02 dB: −41.8274 dBm, 51 photons/bit at 10 Gbit/s.

    Source: henrique-muon/henrique-sandbox, "Optical ISL link budget" (Julia, CODATA 2018), after Majumdar and Ricklin,
    Free-Space Laser Communications, Springer 2008.
    """
    power_w = 10.0 ** (33.0 / 10.0) / 1e3
    losses_db = 2.0 * 3.0 + 2.0 * 10.0 * math.log10(2.0)
    photon_j = 6.62607015e-34 * LIGHT_M_S / 1.55e-6
    photons_s = 10.0 ** (-41.827397049647175 / 10.0) / 1e3 / photon_j
    assert round(photons_s / 10e9) == 51
    budget = laser(power_w=power_w, losses_db=losses_db, photons_per_bit=photons_s / 10e9, max_rate_bps=10**12)
    just_nearer_m = 7_000e3 * (1.0 - 1e-9)
    assert rate_bps(budget, np.array([just_nearer_m])) == [10_000_000_000]
    assert max_range_m(budget) == pytest.approx(7_000e3 * math.sqrt(10e9 / 1e3), rel=1e-12)


def test_a_laser_carries_what_its_terminal_can_and_no_more() -> None:
    """Near, the rate is max_rate_bps to the bit; far, it falls with the square of the range, in three digits."""
    budget = laser(max_rate_bps=1_234_567_891)
    range_m = np.geomspace(1.0, 1e12, 2_000)
    rates = rate_bps(budget, range_m)
    assert rates[0] == 1_234_567_891
    assert rates[-1] == 0
    between = rates[(rates < budget.max_rate_bps) & (rates > 0)]
    assert len(between) > 100
    assert all(set(str(rate)[3:]) <= {"0"} for rate in between)
    exact = (max_range_m(budget) / range_m) ** 2 * 1e3
    some = (rates < budget.max_rate_bps) & (rates > 0)
    assert (rates[some] <= exact[some] * 1.001).all()
    assert (rates[some] >= exact[some] * 0.99).all()


@pytest.mark.parametrize(
    "budget",
    [KU_BAND, radio(bandwidth_hz=1e3, roll_off_ratio=1.0), radio(bandwidth_hz=1e11), LASER, laser(max_rate_bps=1_000)],
    ids=["ku", "a kilohertz", "100 GHz", "laser", "a kilobit"],
)
def test_max_range_is_where_the_link_ends(budget: Budget) -> None:
    """Up to max_range_m a link carries at least 1,000 bit/s, and from a thousandth beyond it nothing."""
    edge_m = max_range_m(budget)
    inside, outside = rate_bps(budget, edge_m * np.array([1.0, 1.001]))
    assert inside >= 1_000
    assert outside == 0


def test_steps_that_rounding_puts_behind_the_edge_still_carry() -> None:
    """Contacts are cut to 10 ms: at 10 km/s that is 100 m, which must not leave an open link without rate."""
    budget = radio(eirp_dbw=30.0)
    assert max_range_m(budget) > 1_000e3
    assert rate_bps(budget, np.array([max_range_m(budget) + 100.0]))[0] > 0


@given(range_m=st.floats(1.0, 1e9), attenuation_db=st.floats(0.0, 100.0), further=st.floats(1.0, 10.0))
def test_more_range_or_weather_never_carries_more(range_m: float, attenuation_db: float, further: float) -> None:
    """Rates fall, or stay, with range and with attenuation."""
    for budget in (KU_BAND, LASER):
        clear, wet, far = rate_bps(
            budget, np.array([range_m, range_m, range_m * further]), np.array([0.0, attenuation_db, 0.0])
        )
        assert clear >= wet
        assert clear >= far


def test_attenuation_works_as_distance() -> None:
    """20 dB of weather are worth ten times the range, for radio and light, alone or for each range."""
    range_m = np.geomspace(1e5, 1e8, 50)
    for budget in (KU_BAND, LASER):
        expected = rate_bps(budget, range_m * 10.0 * (1.0 - 1e-12))
        assert len(set(expected)) > 5
        np.testing.assert_array_equal(rate_bps(budget, range_m, 20.0), expected)
        np.testing.assert_array_equal(rate_bps(budget, range_m, np.full(50, 20.0)), expected)
    lost_db = c_n0_dbhz(KU_BAND, range_m) - c_n0_dbhz(KU_BAND, range_m, 20.0)
    np.testing.assert_allclose(lost_db, 20.0)


@pytest.mark.parametrize("budget", [KU_BAND, LASER], ids=["radio", "laser"])
def test_no_place_no_rate(budget: Budget) -> None:
    """A node that has left the sky is nowhere: rate 0; two at one place have the highest; shapes are kept."""
    rates = rate_bps(budget, np.array([[np.nan, 0.0], [np.inf, 1.0]]))
    assert rates.dtype == np.int64
    assert rates.shape == (2, 2)
    assert (rates[:, 0] == 0).all()
    assert rates[0, 1] == rates[1, 1] > 0
    assert rate_bps(budget, np.empty(0)).shape == (0,)
    assert rate_bps(budget, np.array([1.0]), np.array([np.inf])) == [0]


def test_doppler_is_speed_over_wavelength_and_positive_on_approach() -> None:
    """7.5 km/s of approach shift 1,550 nm by v ÷ λ = +4.8387 GHz, and 20 GHz by +500.346 kHz."""
    assert doppler_hz(carrier_hz(LASER), np.array([-7_500.0]))[0] == pytest.approx(4.838710e9, rel=1e-6)
    assert doppler_hz(20e9, np.array([-7_500.0]))[0] == pytest.approx(500_346.1, abs=0.1)
    assert doppler_hz(20e9, np.array([7_500.0, 0.0])) == pytest.approx([-500_346.1, 0.0], abs=0.1)
    assert carrier_hz(KU_BAND) == 12e9
