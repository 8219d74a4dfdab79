"""When a margin is not negative: intervals of rows that are alike in kind, found together, between the samples.

A margin is a continuous function of time: elevation above a mask, a line of sight's height above the air, sunlight. It
is sampled on a scan that is dense enough to see each of its swings; where it changes sign the instant is found on the
function itself, and where it turns close to zero between two samples, the turning point is looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from controller.timeline import BoolArray, FloatArray, IntArray

Margin: TypeAlias = Callable[[IntArray, FloatArray], FloatArray]
"""The margin of some rows at some instants. Shapes: rows (n,), t_s (n,) → (n,). NaN is taken as negative."""

INSTANT_TOLERANCE_S = 1e-4
_SECANT_ROUNDS, _BISECTION_ROUNDS = 12, 40
_TURN_SAMPLES, _TURN_ROUNDS = 17, 4
# A turning point is looked for where the parabola through three samples comes this close to zero, as a part of its
# bend: margins are no parabolas.
_TURN_SLACK_RATIO = 0.25
_NEGATIVE = -1.0
_EVEN_RATIO = 1e6


@dataclass(frozen=True)
class Spans:
    """Intervals of rows. Shapes: all (n_span,), in order of row and start. Seconds."""

    row: IntArray
    start_s: FloatArray
    end_s: FloatArray


def spans(margin: Margin, samples: FloatArray, t_s: FloatArray) -> Spans:
    """The intervals in which rows have a margin of zero or more, within 0.1 ms.

    Shapes: samples (n_t, n_row) of the margin at t_s, (n_t,) for all rows or (n_t, n_row) for each its own. Intervals
    that reach beyond the samples end with them.
    """
    times = t_s[:, None] if t_s.ndim == 1 else t_s
    n_row = samples.shape[1]

    def value(sample: IntArray, row: IntArray) -> FloatArray:
        return _negative_for_nan(samples[sample, row])

    def at(sample: IntArray, row: IntArray) -> FloatArray:
        instants: FloatArray = times[sample, row if times.shape[1] > 1 else 0]
        return instants

    is_in = samples >= 0.0
    sample, row = np.nonzero(is_in[1:] != is_in[:-1])
    turn_row, turn_s, turn_value, turn_sample = _turns(margin, samples, is_in, at)
    brackets = [
        (row, at(sample, row), at(sample + 1, row), value(sample, row), value(sample + 1, row)),
        (turn_row, at(turn_sample - 1, turn_row), turn_s, value(turn_sample - 1, turn_row), turn_value),
        (turn_row, turn_s, at(turn_sample + 1, turn_row), turn_value, value(turn_sample + 1, turn_row)),
    ]
    rows, left_s, right_s, left, right = (np.concatenate(parts) for parts in zip(*brackets, strict=True))
    # A turn found beside a crossing of the samples may leave a bracket without a change of sign.
    crosses = (left >= 0.0) != (right >= 0.0)
    rows, left_s, right_s, left, right = (x[crosses] for x in (rows, left_s, right_s, left, right))
    instant_s = _roots(margin, rows, left_s, right_s, left, right)

    every = np.arange(n_row)
    opening, closing = is_in[0], is_in[-1]
    last = np.full(n_row, len(samples) - 1)
    start_row = np.concatenate((every[opening], rows[left < 0.0]))
    start_s = np.concatenate((at(np.zeros_like(every), every)[opening], instant_s[left < 0.0]))
    end_row = np.concatenate((rows[left >= 0.0], every[closing]))
    end_s = np.concatenate((instant_s[left >= 0.0], at(last, every)[closing]))
    starts, ends = np.lexsort((start_s, start_row)), np.lexsort((end_s, end_row))
    return Spans(start_row[starts], start_s[starts], end_s[ends])


def _turns(
    margin: Margin, samples: FloatArray, is_in: BoolArray, at: Callable[[IntArray, IntArray], FloatArray]
) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    """Turning points of the other sign than the three samples about them: row, instant, value, middle sample."""
    grows = samples[1:] > samples[:-1]
    alike = (is_in[:-2] == is_in[1:-1]) & (is_in[2:] == is_in[1:-1])
    # Outside a peak is looked for, inside a dip.
    sample, row = np.nonzero(alike & (grows[:-1] != grows[1:]) & (grows[:-1] != is_in[1:-1]))
    s = np.where(is_in[sample + 1, row], -1.0, 1.0)
    before, here, after = (_negative_for_nan(samples[sample + i, row]) for i in range(3))
    bend = before + after - 2.0 * here
    vertex = here - np.divide((after - before) ** 2, 8.0 * bend, out=np.zeros_like(bend), where=bend != 0.0)
    close = s * vertex + _TURN_SLACK_RATIO * np.abs(bend) >= 0.0
    sample, row, s = sample[close] + 1, row[close], s[close]
    low_s, high_s = at(sample - 1, row), at(sample + 1, row)
    best_s, best = at(sample, row), samples[sample, row]
    for _ in range(_TURN_ROUNDS):
        grid_s = np.linspace(low_s, high_s, _TURN_SAMPLES)
        tried = _evaluated(margin, np.tile(row, _TURN_SAMPLES), grid_s.ravel()).reshape(grid_s.shape)
        chosen = np.argmax(s * tried, axis=0)
        columns = np.arange(len(row))
        best_s, best = grid_s[chosen, columns], tried[chosen, columns]
        low_s = grid_s[np.maximum(chosen - 1, 0), columns]
        high_s = grid_s[np.minimum(chosen + 1, _TURN_SAMPLES - 1), columns]
    turned = np.where(s > 0.0, best >= 0.0, best < 0.0)
    return row[turned], best_s[turned], best[turned], sample[turned]


def _negative_for_nan(values: FloatArray) -> FloatArray:
    return np.where(np.isnan(values), _NEGATIVE, values)


def _evaluated(margin: Margin, row: IntArray, t_s: FloatArray) -> FloatArray:
    return _negative_for_nan(margin(row, t_s))


def _roots(
    margin: Margin, row: IntArray, low_s: FloatArray, high_s: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """The instants within brackets at which the margin changes sign. Shapes: all (n,) → (n,).

    Regula falsi with the Illinois rule (Dowell and Jarratt, BIT 11 (1971) 168), all brackets together; what has not
    settled after some rounds, such as the step of a satellite's end, is halved until it has.
    """
    low_s, high_s, low, high = low_s.copy(), high_s.copy(), low.copy(), high.copy()
    root_s = np.full(len(row), np.inf)
    todo = np.arange(len(row))
    for number in range(_SECANT_ROUNDS + _BISECTION_ROUNDS):
        if not len(todo):
            break
        a_s, b_s, a, b = low_s[todo], high_s[todo], low[todo], high[todo]
        halve = number >= _SECANT_ROUNDS
        new_s = (a_s + b_s) / 2.0 if halve else b_s - b * (b_s - a_s) / (b - a)
        new = _evaluated(margin, row[todo], new_s)
        settled = (np.abs(new_s - root_s[todo]) < INSTANT_TOLERANCE_S / 2.0) & (b_s - a_s < INSTANT_TOLERANCE_S)
        if not halve:
            # Not while one end is next to zero and the other far from it: there each step is small, root or not.
            even = np.maximum(np.abs(a), np.abs(b)) < _EVEN_RATIO * np.minimum(np.abs(a), np.abs(b))
            settled = even & (np.abs(new_s - root_s[todo]) < INSTANT_TOLERANCE_S / 10.0) | (new == 0.0)
        root_s[todo] = new_s
        with_low = (new >= 0.0) == (a >= 0.0)
        # Illinois: an end that stays for the second time counts half.
        low_s[todo], low[todo] = np.where(with_low, new_s, a_s), np.where(with_low, new, a * (0.5 if number else 1.0))
        high_s[todo], high[todo] = np.where(with_low, b_s, new_s), np.where(with_low, b * (0.5 if number else 1.0), new)
        todo = todo[~settled]
    return root_s
