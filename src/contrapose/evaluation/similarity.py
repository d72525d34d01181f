"""Do similarities rank pairs as people do? Spearman correlation by the protocol of SimCSE's SentEval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation.result import Score

RESAMPLES = 1000


def pair_cosines(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """(n, d) and (n, d) to the n cosines of the rows; 0 where a vector is zero (SentEval turns its NaN into 0)."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise EvaluationShapesDiffer(
            f"pairs need two arrays of one shape (n, d); got {first.shape} and {second.shape}."
        )
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.divide((first * second).sum(axis=1), norms, out=np.zeros(len(first)), where=norms > 0)


def spearman(similarities: ArrayLike, gold: ArrayLike) -> float:
    """Spearman's rank correlation of n similarities with n gold scores, ties by average rank; from -1 to 1.

    0 where all similarities are equal (a collapsed encoder ranks nothing). Raises TooFewValues for fewer than two pairs or where all
    gold scores are equal, ValuesNotFinite for NaN, EvaluationShapesDiffer.
    """
    from scipy.stats import rankdata

    similarities, gold = _checked(similarities, gold)
    ranks = [rankdata(values) for values in (similarities, gold)]
    if np.ptp(similarities) == 0:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def sts(similarities: ArrayLike, gold: ArrayLike, subset: ArrayLike | None = None) -> dict[str, float]:
    """The three aggregations over the sub-sets of an STS task; "all" is the one to report.

    "all": one Spearman over all pairs together (SimCSE's tables and later ones). "mean": the mean of the sub-sets' own; "wmean": weighted
    by their number of pairs (papers before 2021). They differ by several points. `subset`: (n,) any labels; None: one sub-set.
    """
    similarities, gold = _checked(similarities, gold)
    labels = np.zeros(len(gold)) if subset is None else np.asarray(subset)
    parts = [labels == label for label in np.unique(labels)]
    own = [spearman(similarities[part], gold[part]) for part in parts]
    sizes = [part.sum() for part in parts]
    return {
        "all": spearman(similarities, gold),
        "mean": float(np.mean(own)),
        "wmean": float(np.average(own, weights=sizes)),
    }


def spearman_score(similarities: ArrayLike, gold: ArrayLike, *, name: str = "spearman", seed: int = 0) -> Score:
    """Spearman with its 95 % percentile bootstrap interval over pairs."""
    from scipy import stats

    similarities, gold = _checked(similarities, gold)
    drawn = stats.bootstrap(
        (similarities, gold),
        lambda s, g: 0.0 if np.ptp(s) == 0 or np.ptp(g) == 0 else spearman(s, g),
        n_resamples=RESAMPLES,
        paired=True,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Score(name, spearman(similarities, gold), float(drawn.low), float(drawn.high), len(gold))


def length_bias(similarities: ArrayLike, gold: ArrayLike, lengths: ArrayLike, near: int = 3) -> dict[str, float]:
    """Does an encoder read equal length as equal meaning? Two figures, both 0 without a bias (ESimCSE, section 1).

    "gap": pairs are split at a difference in length of at most `near` words; the mean similarity of the near pairs less that of the
    far ones, minus the same difference of gold / 5 (gold from 0 to 5). "partial": the partial rank correlation of the similarity
    with minus the difference in length, given gold. `lengths` is (n, 2), in words. Raises TooFewValues when all pairs are near or far.
    """
    from scipy.stats import rankdata

    similarities, gold = _checked(similarities, gold)
    difference = np.abs(np.diff(np.asarray(lengths, dtype=np.float64), axis=1))[:, 0]
    close = difference <= near
    if close.all() or not close.any():
        raise TooFewValues(
            f"all pairs differ in length by {'at most' if close.all() else 'more than'} {near} words; choose another `near`."
        )
    gap, due = (values[close].mean() - values[~close].mean() for values in (similarities, gold / 5))
    s, g, d = (rankdata(values) for values in (similarities, gold, -difference))
    r = np.corrcoef([s, g, d])
    partial = (r[0, 2] - r[0, 1] * r[1, 2]) / np.sqrt((1 - r[0, 1] ** 2) * (1 - r[1, 2] ** 2))
    return {"gap": float(gap - due), "partial": float(partial)}


def _checked(similarities: ArrayLike, gold: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    similarities, gold = np.asarray(similarities, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if similarities.shape != gold.shape or gold.ndim != 1:
        raise EvaluationShapesDiffer(
            f"n similarities and n gold scores are needed; got {similarities.shape} and {gold.shape}."
        )
    if not (np.isfinite(similarities).all() and np.isfinite(gold).all()):
        raise ValuesNotFinite("similarities or gold scores hold NaN or infinity; nothing can be ranked by them.")
    if len(gold) < 2 or np.ptp(gold) == 0:
        raise TooFewValues(
            f"{len(gold)} gold scores that are all equal rank nothing; give at least two different ones."
        )
    return similarities, gold
