"""Rain: its attenuation, held against the ITU's validation examples, and its coming and going."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from controller.links.rain import (
    RainSpells,
    attenuation_db,
    rain_attenuation_db,
    rain_height_m,
    rain_spells,
    specific_attenuation,
)
from controller.scenario.link_model import Rain
from controller.timeline import FloatArray

PRINTED_DIGITS_DB = 1e-6  # the figures have six places
WORKBOOK_DB = 1e-8
DAY_S = 86_400.0
LONG_S = 400 * DAY_S  # enough for some 1,400 rains
STEADY = Rain(r001_mm_h=30.0)


@dataclass(frozen=True)
class Station:
    """A place of the ITU-R Study Group 3 validation examples, rev. 5.1, as P.839-4, P.1511-2 and P.837-7 see it."""

    latitude_deg: float
    elevation_deg: float
    height_m: float
    rain_height_m: float
    r001_mm_h: float


LONDON = Station(51.5, 31.076991235657, 31.382984, 2_452.733333, 26.48052)
CAPE = Station(33.94, 46.3596926118634, 0.0, 2_563.302756, 27.13586832)  # below 36°, steep
RIO = Station(22.9, 22.2783346840557, 0.0, 4_158.778667, 50.639304)  # below 36°, flatter than 25°


def exceeded_db(station: Station, frequency_hz: float, percent: FloatArray | list[float]) -> FloatArray:
    """P.618's attenuation at a station with horizontal polarisation, exceeded in so many per cent of a year."""
    ratio = np.asarray(percent) / 100.0
    return rain_attenuation_db(
        frequency_hz=frequency_hz,
        elevation_deg=np.full(ratio.shape, station.elevation_deg),
        latitude_deg=station.latitude_deg,
        station_height_m=station.height_m,
        rain_height_m=station.rain_height_m,
        r001_mm_h=station.r001_mm_h,
        tilt_deg=0.0,
        exceeded_ratio=ratio,
    )


@pytest.mark.parametrize(
    ("frequency_hz", "r001_mm_h", "elevation_deg", "tilt_deg", "k", "alpha", "gamma_db_km"),
    [
        (14.25e9, 26.48052, 31.076991235657, 0.0, 0.0397548797329313, 1.12418042813791, 1.58130839366869),
        (29e9, 26.48052, 31.076991235657, 0.0, 0.22106803684893, 0.953200051046016, 5.02180188909084),
        (14.25e9, 63.62668149, 48.2411705405115, 90.0, 0.0422647354773402, 1.07871664199312, 3.72901263518665),
    ],
)
def test_specific_attenuation_matches_the_validation_examples(
    frequency_hz: float,
    r001_mm_h: float,
    elevation_deg: float,
    tilt_deg: float,
    k: float,
    alpha: float,
    gamma_db_km: float,
) -> None:
    """ITU-R P.838-3, rows 20, 32 and 60 of the validation examples, rev. 5.1."""
    found = specific_attenuation(frequency_hz, np.array([elevation_deg]), tilt_deg)
    assert found.k == pytest.approx(k, rel=1e-12)
    assert found.alpha == pytest.approx(alpha, rel=1e-12)
    assert found.k * r001_mm_h**found.alpha == pytest.approx(gamma_db_km, rel=1e-12)


@pytest.mark.parametrize(
    ("frequency_hz", "tilt_deg", "k", "alpha"),
    [
        (1e9, 0.0, 0.0000259, 0.9691),
        (10e9, 0.0, 0.01217, 1.2571),
        (10e9, 90.0, 0.01129, 1.2156),
        (1000e9, 90.0, 1.3822, 0.6365),
    ],
)
def test_coefficients_match_the_table_of_p_838(frequency_hz: float, tilt_deg: float, k: float, alpha: float) -> None:
    """ITU-R P.838-3, table 5: k_H, k_V and their alpha, to the digits printed."""
    found = specific_attenuation(frequency_hz, np.zeros(1), tilt_deg)
    assert found.k[0] == pytest.approx(k, abs=5.1e-8 if k < 1e-3 else 5.1e-6 if k < 0.1 else 5.1e-5)
    assert found.alpha[0] == pytest.approx(alpha, abs=5.1e-5)


def test_rain_attenuation_matches_the_validation_example_of_p_618() -> None:
    """51.5 N 0.14 W, 14.25 GHz, 31.07699°, R001 26.48052 mm/h, a slant path of 4.690817392 km, horizontal polarisation.

    0.495317, 2.185847 and 6.798072 dB are exceeded for 1, 0.1 and 0.01 % (ITU-R P.618-13, validation examples).
    """
    slant_m, elevation_deg = 4_690.817392, 31.07699
    rain_height = LONDON.height_m + slant_m * np.sin(np.radians(elevation_deg))
    found = rain_attenuation_db(
        frequency_hz=14.25e9,
        elevation_deg=np.full(3, elevation_deg),
        latitude_deg=51.5,
        station_height_m=LONDON.height_m,
        rain_height_m=rain_height,
        r001_mm_h=26.48052,
        tilt_deg=0.0,
        exceeded_ratio=np.array([0.01, 0.001, 0.0001]),
    )
    np.testing.assert_allclose(found, [0.495317, 2.185847, 6.798072], rtol=0.0, atol=PRINTED_DIGITS_DB)


@pytest.mark.parametrize(
    ("station", "frequency_hz", "expected_db"),
    [
        (LONDON, 14.25e9, [0.49531706902299, 2.18584742205216, 6.79807226654774, 14.8998224790914]),
        (LONDON, 29e9, [2.20778604313018, 8.57005837401297, 23.4444452333889, 45.1986563790072]),
        (CAPE, 14.25e9, [0.42101702485133, 1.91338757191163, 5.94180609616685, 12.9815168673357]),
        (CAPE, 29e9, [1.96063611295817, 7.80832250816542, 21.2486196791169, 40.6813301551029]),
        (RIO, 14.25e9, [1.70690128117124, 8.27164744807979, 18.9441035572536, 29.9117129575559]),
        (RIO, 29e9, [6.81336807857281, 29.3189684393228, 59.6257635479902, 83.5996391031569]),
    ],
    ids=["London 14", "London 29", "Cape 14", "Cape 29", "Rio 14", "Rio 29"],
)
def test_rain_attenuation_matches_the_workbook_of_p_618(
    station: Station, frequency_hz: float, expected_db: list[float]
) -> None:
    """ITU-R P.618-13, sheet A_Rain of the validation examples, rev. 5.1, for 1, 0.1, 0.01, 0.001 % of a year."""
    found = exceeded_db(station, frequency_hz, [1.0, 0.1, 0.01, 0.001])
    np.testing.assert_allclose(found, expected_db, rtol=0.0, atol=WORKBOOK_DB)


def test_no_rain_above_the_rain() -> None:
    """A station at or above the rain height is dry, whatever falls below."""
    high = Station(9.05, 20.0, 4_783.9, 4_783.9, 42.9)
    np.testing.assert_array_equal(exceeded_db(high, 20e9, [1.0, 0.01]), 0.0)


def test_any_elevation_has_an_attenuation() -> None:
    """From the horizon to the zenith it is finite; the formulas for below and above 5° meet within 2 %."""
    elevation_deg = np.array([0.0, 1e-9, 1.0, 4.9999, 5.0, 45.0, 90.0])
    found = rain_attenuation_db(
        frequency_hz=20e9,
        elevation_deg=elevation_deg,
        latitude_deg=-50.0,
        station_height_m=0.0,
        rain_height_m=3_000.0,
        r001_mm_h=30.0,
        tilt_deg=45.0,
        exceeded_ratio=np.full(7, 1e-3),
    )
    assert (found > 0.0).all()
    assert (np.diff(found[4:]) < 0.0).all()
    assert found[3] == pytest.approx(found[4], rel=0.02)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_rarer_rain_takes_more() -> None:
    """Over all shares of the year that rain can have, attenuation falls; shares below P.618's 0.001 % are as that."""
    for station in (LONDON, CAPE, RIO):
        found = exceeded_db(station, 20e9, np.geomspace(1e-3, 5.0, 200))
        assert (np.diff(found) < 0.0).all()
        assert exceeded_db(station, 20e9, [1e-9])[0] == found[0]


@pytest.mark.parametrize(
    ("latitude_deg", "expected_m"),
    [(90.0, 0.0), (51.5, 2_862.5), (23.0, 5_000.0), (0.0, 5_000.0), (-21.0, 5_000.0), (-33.9, 3_710.0), (-80.0, 0.0)],
)
def test_rain_height_follows_p_839_2(latitude_deg: float, expected_m: float) -> None:
    """5 − 0.075 (φ − 23) km north of 23°, 5 km to 21° S, then 5 + 0.1 (φ + 21) km, none below the sea."""
    assert rain_height_m(latitude_deg) == pytest.approx(expected_m)


def test_rains_are_the_same_on_every_machine() -> None:
    """Seed 1's first rains over two places, to the microsecond."""
    first = rain_spells(STEADY, 1, "beijing", 0.0, DAY_S)
    assert first.start_s[:2].tolist() == [0.0, 62_152.734865]
    assert first.end_s[:2].tolist() == [1_989.016840, 63_488.301386]
    np.testing.assert_allclose(first.exceeded_ratio[:2], [0.006652544359379198, 0.03405038058107841], rtol=1e-12)
    assert rain_spells(STEADY, 1, "kiruna", 0.0, 10 * DAY_S).start_s[0] == 66_213.170338


def test_weather_depends_on_seed_and_name_alone() -> None:
    """A longer run begins with the same rain, a later one sees the same; seeds and places have their own."""
    whole = rain_spells(STEADY, 7, "quito", 0.0, LONG_S)
    part = rain_spells(STEADY, 7, "quito", 0.0, LONG_S / 3.0)
    n = len(part.start_s)
    assert 100 < n < len(whole.start_s)
    late = rain_spells(STEADY, 7, "quito", LONG_S / 2.0, LONG_S)
    for field in ("start_s", "end_s", "exceeded_ratio"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[:n])
        np.testing.assert_array_equal(getattr(late, field), getattr(whole, field)[-len(late.start_s) :])
    for other in (rain_spells(STEADY, 8, "quito", 0.0, LONG_S), rain_spells(STEADY, 7, "lima", 0.0, LONG_S)):
        assert not set(other.start_s[1:]) & set(whole.start_s[1:])


def test_rains_that_touch_the_run_are_there_and_no_others() -> None:
    """A rain that has begun before the run or outlasts it is given whole; none lies outside; they are in order."""
    whole = rain_spells(STEADY, 3, "quito", 0.0, LONG_S)
    middle_s = float(whole.start_s[5] + whole.end_s[5]) / 2.0
    inside = rain_spells(STEADY, 3, "quito", middle_s, float(whole.start_s[8] + whole.end_s[8]) / 2.0)
    np.testing.assert_array_equal(inside.start_s, whole.start_s[5:9])
    between = rain_spells(STEADY, 3, "quito", float(whole.end_s[5]), float(whole.start_s[6]) - 1e-6)
    assert len(between.start_s) == 0
    up_to_the_next = rain_spells(STEADY, 3, "quito", float(whole.end_s[5]), float(whole.start_s[6]))
    np.testing.assert_array_equal(up_to_the_next.start_s, whole.start_s[6:7])
    assert (whole.start_s[1:] >= whole.end_s[:-1]).all()
    assert (whole.end_s >= whole.start_s).all()


@pytest.mark.parametrize("probability_ratio", [0.05, 0.01])
def test_rain_falls_as_often_and_as_long_as_the_scenario_says(probability_ratio: float) -> None:
    """Durations are exponential, shares of the year uniform, and the share of rain is the probability's."""
    rain = Rain(r001_mm_h=1.0, mean_duration_s=60.0, probability_ratio=probability_ratio)
    spells = rain_spells(rain, 11, "quito", 0.0, 200 * DAY_S)
    duration_s = spells.end_s - spells.start_s
    assert duration_s.sum() / (200 * DAY_S) == pytest.approx(rain.probability_ratio, rel=0.05)
    assert stats.kstest(duration_s, "expon", args=(0.0, 60.0)).pvalue > 0.01
    dry_s = spells.start_s[1:] - spells.end_s[:-1]
    mean_dry_s = 60.0 * (1.0 / rain.probability_ratio - 1.0)
    assert stats.kstest(dry_s, "expon", args=(0.0, mean_dry_s)).pvalue > 0.01
    assert stats.kstest(spells.exceeded_ratio, "uniform", args=(0.0, rain.probability_ratio)).pvalue > 0.01
    assert spells.exceeded_ratio.min() > 0.0


def test_endless_rain_and_endless_drought_are_weather_too() -> None:
    """However long spells are, the first of them begins or does not: no sum runs over."""
    for name in ("quito", "lima", "oslo"):
        spells = rain_spells(Rain(r001_mm_h=1.0, mean_duration_s=1e30), 1, name, 0.0, 62 * DAY_S)
        assert len(spells.start_s) <= 1
        assert (spells.end_s - spells.start_s > 62 * DAY_S).all()


def test_it_may_rain_at_the_epoch_as_at_any_other_time() -> None:
    """Over many places the share with rain at the epoch is the probability: no run begins with a spell of fine days."""
    raining = [len(rain_spells(STEADY, 5, f"place-{i}", 0.0, 1e-3).start_s) for i in range(2_000)]
    assert np.mean(raining) == pytest.approx(STEADY.probability_ratio, abs=3.0 * np.sqrt(0.05 * 0.95 / 2_000))


def test_it_attenuates_while_it_rains_and_not_when_it_is_dry() -> None:
    """From a rain's start up to, not with, its end the path loses what P.618 tells for that rain; otherwise nothing."""
    rain = Rain(r001_mm_h=LONDON.r001_mm_h, rain_height_m=LONDON.rain_height_m, polarization_tilt_deg=0.0)
    spells = RainSpells(np.array([10.0, 50.0]), np.array([20.0, 60.0]), np.array([0.01, 0.0001]))
    t_s = np.array([0.0, 10.0, 19.999, 20.0, 49.0, 50.0, 59.9, 60.0, 1e6])
    elevation_deg = np.full(9, LONDON.elevation_deg)
    found = attenuation_db(rain, spells, 14.25e9, 51.5, LONDON.height_m, t_s, elevation_deg)
    expected = [0.0, 0.495317, 0.495317, 0.0, 0.0, 6.798072, 6.798072, 0.0, 0.0]
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=PRINTED_DIGITS_DB)
    dry = RainSpells(np.empty(0), np.empty(0), np.empty(0))
    np.testing.assert_array_equal(attenuation_db(rain, dry, 14.25e9, 51.5, 0.0, t_s, elevation_deg), 0.0)
    by_latitude = Rain(r001_mm_h=LONDON.r001_mm_h, polarization_tilt_deg=0.0)
    assert attenuation_db(by_latitude, spells, 14.25e9, 51.5, 0.0, t_s, elevation_deg)[1] > 0.495317


def test_all_weather_together_has_the_statistics_of_p_618() -> None:
    """Over years, attenuation is above P.618's values for 1, 0.3 and 0.1 % in these shares of the time."""
    rain = Rain(
        r001_mm_h=LONDON.r001_mm_h,
        rain_height_m=LONDON.rain_height_m,
        mean_duration_s=60.0,
        polarization_tilt_deg=0.0,
    )
    end_s = 1_000 * DAY_S
    spells = rain_spells(rain, 1, "london", 0.0, end_s)
    t_s = np.linspace(0.0, end_s, 2_000_000, endpoint=False)
    found = attenuation_db(rain, spells, 14.25e9, 51.5, LONDON.height_m, t_s, np.full(t_s.shape, LONDON.elevation_deg))
    for percent, within in ((1.0, 0.03), (0.3, 0.05), (0.1, 0.1)):
        share = np.mean(found > exceeded_db(LONDON, 14.25e9, [percent])[0])
        assert 100.0 * share == pytest.approx(percent, rel=within)
