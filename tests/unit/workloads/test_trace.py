"""The trace of an open load: what it is drawn as, and that it is the same from the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from controller.errors import InputError
from controller.workloads.trace import Load, Share, digest, parsed_mix, trace

TERMINALS, SATELLITES = ("suva", "reykjavik"), tuple(f"s{number}" for number in range(20))
MIX = (Share("hot-spots", 1024, 3.0), Share("hash", 32, 1.0))
LOAD = Load(rate_per_min=30.0, jobs=4000, mix=MIX, seed=11)
LEAST_P_VALUE = 0.001  # the seed is fixed: this is no chance, but a check that it is drawn as it is said


def test_gaps_are_exponential_and_counts_are_poisson() -> None:
    """Gaps have the law and the mean of the rate, are not correlated, and counts in 10 s have variance = mean."""
    at_s = np.array([arrival.at_s for arrival in trace(LOAD, TERMINALS, SATELLITES)])
    gaps_s = np.diff(at_s, prepend=0.0)
    assert gaps_s.min() > 0
    assert stats.kstest(gaps_s, stats.expon(scale=2.0).cdf).pvalue > LEAST_P_VALUE
    assert abs(np.corrcoef(gaps_s[:-1], gaps_s[1:])[0, 1]) < 4 / np.sqrt(len(gaps_s))
    counts = np.bincount((at_s // 10).astype(int))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=4 * np.sqrt(2 / len(counts)))
    assert counts.mean() == pytest.approx(5.0, rel=0.1)


def test_kinds_places_and_scenes_are_drawn_by_their_weights() -> None:
    """Kinds follow the mix; terminals and satellites are all as likely; and no two jobs have the same content."""
    arrivals = trace(LOAD, TERMINALS, SATELLITES)
    searches = sum(arrival.workload == "hot-spots" for arrival in arrivals)
    assert stats.binomtest(searches, LOAD.jobs, 0.75).pvalue > LEAST_P_VALUE
    for key, values in (("terminal", TERMINALS), ("satellite", SATELLITES)):
        counts = [sum(getattr(arrival, key) == value for arrival in arrivals) for value in values]
        assert stats.chisquare(counts).pvalue > LEAST_P_VALUE
    assert len({arrival.seed for arrival in arrivals}) > LOAD.jobs - 10
    assert [arrival.number for arrival in arrivals] == list(range(LOAD.jobs))


def test_the_same_seed_is_the_same_trace() -> None:
    """To the last digit, also of a longer one's beginning; another seed is another trace."""
    arrivals = trace(LOAD, TERMINALS, SATELLITES)
    assert arrivals == trace(LOAD, TERMINALS, SATELLITES)
    assert digest(arrivals) == digest(trace(LOAD, TERMINALS, SATELLITES))
    assert digest(arrivals) != digest(trace(replace(LOAD, seed=12), TERMINALS, SATELLITES))
    assert trace(replace(LOAD, jobs=50), TERMINALS, SATELLITES) == arrivals[:50]


def test_another_mix_leaves_the_moments() -> None:
    """So loads of different kinds can be held against each other."""
    other = replace(LOAD, mix=(Share("matrix", 100, 1.0),))
    one, two = (trace(load, TERMINALS, SATELLITES) for load in (LOAD, other))
    assert [arrival.at_s for arrival in one] == [arrival.at_s for arrival in two]


def test_a_mix_is_read_as_it_is_written() -> None:
    """Name, size, weight; what is left out has its default."""
    assert parsed_mix("hot-spots:3, hash@64, matrix@100:0.5") == (
        Share("hot-spots", 1024, 3.0),
        Share("hash", 64, 1.0),
        Share("matrix", 100, 0.5),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hot-spot:3", "there is no workload 'hot-spot'; there are hot-spots"),
        ("hash:x", r"write NAME\[@SIZE\]\[:WEIGHT\]"),
        ("hash:0", "the weight must be above 0"),
        ("hash:nan", "the weight must be above 0"),
        ("changes@100", "the size must be 384 pixels a side or more"),
        ("hash,hash:2", "twice"),
        ("", "there is no workload ''"),
    ],
)
def test_a_wrong_mix_is_one_message(text: str, message: str) -> None:
    """Which names what is wrong and what would be right."""
    with pytest.raises(InputError, match=message):
        parsed_mix(text)


@pytest.mark.parametrize("change", [{"jobs": 0}, {"rate_per_min": 0.0}, {"rate_per_min": float("nan")}, {"seed": -1}])
def test_a_load_that_cannot_be_is_refused(change: dict[str, float]) -> None:
    """No jobs, no rate, or no seed."""
    with pytest.raises(InputError, match="there must be jobs and a rate"):
        replace(LOAD, **change)  # type: ignore[arg-type]
