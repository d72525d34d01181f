"""Is a difference larger than the spread over seeds? Intervals over seeds, and the three verdicts."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import TooFewValues, ValuesNotFinite
from contrapose.evaluation.intervals import Interval

Verdict = Literal["seen", "not seen", "inconclusive"]

INTERVAL = (
    "95 % t interval over seeds (n − 1 degrees of freedom); of differences, over the paired differences of equal seeds"
)
RULE = (
    "seen: the whole interval of the gain lies above 0, and its mean reaches the smallest gain that counts. "
    "not seen: the interval ends below the smallest gain that counts, or not above 0. inconclusive: anything else."
)


def over_seeds(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of (n,) values, one a seed, and its t interval: mean ± t · s / √n with n − 1 degrees of freedom (Student, 1908).

    It speaks of other seeds on the same data and test rows; not of other data. Seeds are few, so a bootstrap would be too narrow.
    Raises TooFewValues for fewer than two values, ValuesNotFinite.
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise TooFewValues(f"an interval over seeds needs at least two of them; got values of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValuesNotFinite(
            f"the value of seed {int((~np.isfinite(values)).argmax())} is not finite; its mean says nothing."
        )
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return Interval(float(mean), float(mean - half), float(mean + half))


def decide(gain: Interval, least: float = 0.0) -> Verdict:
    """The verdict on a gain (above 0: as the paper says), where `least` is the smallest that counts. See `RULE`."""
    if gain.high <= 0 or gain.high < least:
        return "not seen"
    return "seen" if gain.low > 0 and gain.mean >= least else "inconclusive"
