"""How sure a mean is: bootstrap intervals over the evaluated rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues, ValuesNotFinite

BLOCK = (
    2**18
)  # rows drawn at once for a figure that is no mean: some arrays of 2 MiB, which the processor's cache still helps
DRAWN = 2**22  # values drawn at once: 32 MiB of float64, and as much for their numbers


class Interval(NamedTuple):
    """A mean between the ends of its interval."""

    mean: float
    low: float
    high: float


def bootstrap(values: ArrayLike, *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95) -> Interval:
    """The mean of (n,) values, one a row, and its percentile bootstrap interval (Efron, 1979).

    Rows are drawn with replacement, so the interval speaks of other rows from the same source; not of other seeds, nor
    of other data. The same seed gives the same interval. Works in blocks of four million draws, whatever n is.

    Raises TooFewValues for fewer than two, ValuesNotFinite for NaN, EvaluationSettingInvalid, EvaluationShapesDiffer.
    """
    from scipy import stats  # half a second, which only evaluations should pay

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise EvaluationShapesDiffer(f"an interval needs one value a row, shape (n,); got {values.shape}.")
    if len(values) < 2:
        raise TooFewValues(f"an interval needs at least two rows; got {len(values)}.")
    if not np.isfinite(values).all():
        first = int((~np.isfinite(values)).argmax())
        raise ValuesNotFinite(
            f"the values per row hold {values[first]} (first in row {first}), so their mean says nothing."
        )
    if resamples < 1 or not 0 < confidence < 1:
        raise EvaluationSettingInvalid(
            f"resamples must be 1 or more and confidence between 0 and 1 (0.95); got {resamples} and {confidence}."
        )
    drawn = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, DRAWN // len(values)),
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(values.mean()), float(drawn.low), float(drawn.high))


def bootstrap_difference(
    after: ArrayLike, before: ArrayLike, *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """The mean of `after` - `before` over the same n rows, and its interval: is one system better than another?

    Paired: the rows' own difficulty cancels, so it is narrower than the two systems' intervals suggest. An interval
    without 0 is a difference that other rows would show as well. Raises as `bootstrap` does.
    """
    after, before = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if after.shape != before.shape:
        raise EvaluationShapesDiffer(
            f"a paired difference needs both systems on the same rows; got values of shape {after.shape} and {before.shape}."
        )
    return bootstrap(after - before, seed=seed, resamples=resamples, confidence=confidence)


def bootstrap_figures(
    figures: Callable[[np.ndarray], Mapping[str, ArrayLike]],
    rows: int,
    *,
    strata: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Figures that are no means over rows (a correlation, an R2), each between the ends of its percentile bootstrap interval.

    `figures(numbers)` computes them of the rows with these numbers, integers (…, n) from 0 to n - 1 in which some stand twice, over the
    last axis; every figure is computed of the same draws. strata: (n,) labels; rows are then drawn within each label, which keeps its
    number of rows and its place: `numbers` has those of the first label first. A draw in which a figure is NaN (all gold scores
    drawn are equal, say) is left out for that figure; where it is NaN in all of them, so are the ends.

    Raises TooFewValues for fewer than two rows, EvaluationSettingInvalid, EvaluationShapesDiffer.
    """
    if rows < 2:
        raise TooFewValues(f"an interval needs at least two rows; got {rows}.")
    if resamples < 1 or not 0 < confidence < 1:
        raise EvaluationSettingInvalid(
            f"resamples must be 1 or more and confidence between 0 and 1 (0.95); got {resamples} and {confidence}."
        )
    labels = np.zeros(rows) if strata is None else np.asarray(strata)
    if labels.shape != (rows,):
        raise EvaluationShapesDiffer(f"{rows} rows need {rows} strata; got {labels.shape}.")
    parts = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    draw = np.random.default_rng(seed)
    block = max(1, BLOCK // rows)
    drawn = [
        figures(np.concatenate([part[draw.integers(len(part), size=(many, len(part)))] for part in parts], axis=1))
        for many in (min(block, resamples - start) for start in range(0, resamples, block))
    ]
    intervals = {}
    for name, value in figures(np.concatenate(parts)).items():
        known = np.concatenate([np.atleast_1d(each[name]) for each in drawn])
        known = known[np.isfinite(known)]
        low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2]) if len(known) else (np.nan, np.nan)
        intervals[name] = Interval(float(value), float(low), float(high))
    return intervals
