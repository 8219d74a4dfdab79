from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.orbit.crossings import Spans, spans
from controller.timeline import FloatArray, IntArray

INSTANT_TOLERANCE_S = 1e-3
STEP_S = 30.0  # of the scan
END_S = 6_000.0


def waves(amplitude: FloatArray, rate_rad_s: FloatArray, phase: FloatArray, level: FloatArray, t_s: FloatArray,
          row: IntArray) -> FloatArray:  # fmt: skip
    """Sums of sines above a level. Shapes: (n_row, n_wave) thrice, level (n_row,), t_s and row (n,)."""
    angle = rate_rad_s[row] * t_s[:, None] + phase[row]
    total: FloatArray = np.sum(amplitude[row] * np.sin(angle), axis=1) - level[row]
    return total


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_spans_are_those_of_dense_sampling(seed: int) -> None:
    """Of random sums of sines, slow against the scan, the spans are where samples 1 s apart are not negative."""
    rng = np.random.default_rng(seed)
    n_row, n_wave = 20, 4
    amplitude = rng.uniform(0.1, 1.0, (n_row, n_wave))
    rate_rad_s = 2.0 * np.pi / rng.uniform(500.0, 6_000.0, (n_row, n_wave))
    phase, level = rng.uniform(0.0, 2.0 * np.pi, (n_row, n_wave)), rng.uniform(-1.0, 1.0, n_row)

    def margin(row: IntArray, t_s: FloatArray) -> FloatArray:
        return waves(amplitude, rate_rad_s, phase, level, t_s, row)

    def sampled(t_s: FloatArray) -> FloatArray:
        rows = np.tile(np.arange(n_row), len(t_s))
        return margin(rows, np.repeat(t_s, n_row)).reshape(len(t_s), n_row)

    scan_s, dense_s = np.arange(0.0, END_S + 1.0, STEP_S), np.arange(0.0, END_S, 1.0)
    found = spans(margin, sampled(scan_s), scan_s)
    assert_in_order(found)
    dense = sampled(dense_s)
    for row in range(n_row):
        own = found.row == row
        told = np.any((dense_s[:, None] >= found.start_s[own]) & (dense_s[:, None] <= found.end_s[own]), axis=1)
        # Nearer to zero than that, an edge found within 0.1 ms may lie on the other side of the sample.
        sure = np.abs(dense[:, row]) > 1e-5
        assert np.array_equal(told[sure], dense[sure, row] >= 0.0)
    for edges_s in (found.start_s, found.end_s):
        inner = (edges_s > 0.0) & (edges_s < END_S)
        before, after = (margin(found.row[inner], edges_s[inner] + shift_s) for shift_s in (-1e-3, 1e-3))
        assert np.all((before >= 0.0) != (after >= 0.0))


def assert_in_order(found: Spans) -> None:
    """Spans are in order of row and start, have a length, and do not touch."""
    assert np.all(found.end_s >= found.start_s)
    same = found.row[1:] == found.row[:-1]
    assert np.all(found.row[1:] >= found.row[:-1])
    assert np.all(found.start_s[1:][same] > found.end_s[:-1][same])


@pytest.mark.parametrize("width_s", [0.2, 3.0, 20.0, 29.0, 31.0])
@pytest.mark.parametrize("centre_s", [1_000.3, 1_005.0, 1_010.1, 1_015.0, 1_019.8])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_lies_between_two_samples_is_found(width_s: float, centre_s: float, sign: float) -> None:
    """A peak, or a dip, narrower than the scan's step is found, and its edges where the function has them."""
    rate_rad_s = 2.0 * np.pi / 5_739.0
    level = np.cos(rate_rad_s * width_s / 2.0)

    def margin(_row: IntArray, t_s: FloatArray) -> FloatArray:
        height: FloatArray = sign * (np.cos(rate_rad_s * (t_s - centre_s)) - level)
        return height

    t_s = np.arange(0.0, 2_000.0, STEP_S)
    found = spans(margin, margin(np.zeros(len(t_s), np.int64), t_s)[:, None], t_s)
    edges_s = [centre_s - width_s / 2.0, centre_s + width_s / 2.0]
    expected = edges_s if sign > 0.0 else [0.0, *edges_s, t_s[-1]]
    assert np.sort(np.concatenate((found.start_s, found.end_s))) == pytest.approx(expected, abs=INSTANT_TOLERANCE_S)


def test_rows_may_have_instants_of_their_own() -> None:
    """Samples at (n_t, n_row) instants: each row is searched at its own."""
    t_s = np.stack((np.linspace(0.0, 10.0, 21), np.linspace(100.0, 130.0, 21)), axis=1)

    def margin(row: IntArray, at_s: FloatArray) -> FloatArray:
        return np.where(row == 0, at_s - 3.21, 117.7 - at_s)

    samples = np.stack([margin(np.full(21, row), t_s[:, row]) for row in range(2)], axis=1)
    found = spans(margin, samples, t_s)
    assert found.row.tolist() == [0, 1]
    assert found.start_s == pytest.approx([3.21, 100.0], abs=INSTANT_TOLERANCE_S)
    assert found.end_s == pytest.approx([10.0, 117.7], abs=INSTANT_TOLERANCE_S)


def test_no_number_is_not_in() -> None:
    """Where a margin is NaN (a satellite after its end) there is no span, and its edge is found like any other."""

    def margin(_row: IntArray, t_s: FloatArray) -> FloatArray:
        return np.where(t_s < 123.456, 1.0, np.nan)

    t_s = np.arange(0.0, 601.0, STEP_S)
    found = spans(margin, margin(np.zeros(len(t_s), np.int64), t_s)[:, None], t_s)
    assert found.row.tolist() == [0]
    assert found.start_s.tolist() == [0.0]
    assert found.end_s == pytest.approx([123.456], abs=INSTANT_TOLERANCE_S)


def test_always_and_never() -> None:
    """A margin that is never negative is one span from end to end, one that always is has none."""
    t_s = np.arange(0.0, 301.0, STEP_S)
    samples = np.stack((np.ones(len(t_s)), -np.ones(len(t_s))), axis=1)
    found = spans(lambda row, _t_s: np.where(row == 0, 1.0, -1.0), samples, t_s)
    assert (found.row.tolist(), found.start_s.tolist(), found.end_s.tolist()) == ([0], [0.0], [300.0])
    none = spans(lambda row, _t_s: np.ones(len(row)), np.empty((11, 0)), t_s)
    assert len(none.row) == 0


def test_a_span_that_begins_at_a_sample_within_microseconds_has_its_own_end() -> None:
    """From just before a sample to two seconds after it: the end is not taken for the sample."""

    def margin(row: IntArray, t_s: FloatArray) -> FloatArray:
        return (t_s - 9.999_999) * (12.0 - t_s)

    t_s = np.arange(0.0, 31.0, 10.0)
    found = spans(margin, margin(np.zeros(4, np.int64), t_s)[:, None], t_s)
    assert found.start_s == pytest.approx([9.999_999], abs=INSTANT_TOLERANCE_S)
    assert found.end_s == pytest.approx([12.0], abs=INSTANT_TOLERANCE_S)
