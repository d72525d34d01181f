"""What the seeds decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from contrapose.claims.verdict import decide, over_seeds
from contrapose.errors import TooFewValues, ValuesNotFinite
from contrapose.evaluation.intervals import Interval


def test_three_seeds_by_hand() -> None:
    """Mean 2, standard deviation 1, t of 2 degrees of freedom at 97.5 % from the printed table."""
    mean, low, high = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert mean - low == pytest.approx(high - mean)


@pytest.mark.parametrize("count", [3, 5, 20])
def test_the_interval_is_that_of_the_paired_t_test(count: int) -> None:
    arm, baseline = np.random.default_rng(count).normal(size=(2, count))
    known = stats.ttest_rel(arm, baseline).confidence_interval(0.95)
    found = over_seeds(arm - baseline)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    """2,000 claims of three seeds whose true gain is 0: about 95 % of the intervals hold it (standard error 0.5 %)."""
    drawn = np.random.default_rng(0).normal(size=(2000, 3))
    held = np.mean([low <= 0 <= high for _, low, high in map(over_seeds, drawn)])
    assert held == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("gains", "least", "verdict"),
    [
        ([0.030, 0.032, 0.031], 0.01, "seen"),
        ([0.030, 0.032, 0.031], 0.0, "seen"),
        ([0.010, 0.050, -0.010], 0.01, "inconclusive"),  # noise
        ([0.001, 0.002, 0.0015], 0.01, "not seen"),  # certain, and too small to count
        ([0.001, 0.002, 0.0015], 0.0, "seen"),
        ([-0.030, -0.032, -0.031], 0.01, "not seen"),  # worse
        ([-0.001, 0.001, 0.0], 0.01, "not seen"),  # a gain that counts is excluded
        ([-0.001, 0.001, 0.0], 0.0, "inconclusive"),
        ([0.0, 0.0, 0.0], 0.0, "not seen"),  # nothing changed at all
        ([0.005, 0.015, 0.010], 0.01, "inconclusive"),  # 0 lies in the interval by a hair: 0.010 ± 0.0124
    ],
)
def test_seeds_decide(gains: list[float], least: float, verdict: str) -> None:
    assert decide(over_seeds(gains), least) == verdict


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ((0.02, 1e-9, 0.04), "seen"),
        ((0.01, 1e-9, 0.02), "seen"),
        ((0.02, 0.0, 0.04), "inconclusive"),
        ((0.009, 0.003, 0.015), "inconclusive"),  # a gain for sure; large enough, perhaps
        ((0.005, -0.001, 0.01), "inconclusive"),
        ((0.005, -0.001, 0.0099), "not seen"),
        ((0.005, 0.001, 0.0099), "not seen"),
    ],
)
def test_where_the_verdict_turns(gain: tuple[float, float, float], verdict: str) -> None:
    """The smallest gain that counts is 0.01."""
    assert decide(Interval(*gain), 0.01) == verdict


@pytest.mark.parametrize(
    ("values", "error"), [([1.0], TooFewValues), ([], TooFewValues), ([1.0, math.nan], ValuesNotFinite)]
)
def test_what_no_interval_can_be_made_of(values: list[float], error: type[Exception]) -> None:
    with pytest.raises(error):
        over_seeds(values)
