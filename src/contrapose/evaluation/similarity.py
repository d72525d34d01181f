"""Do similarities rank pairs as people do? Spearman correlation by the protocol of SimCSE's SentEval; and do they read length?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation.intervals import bootstrap_figures
from contrapose.evaluation.result import Score

NEAR = 3  # words: pairs whose lengths differ by at most so many are near (ESimCSE, section 1)
TOP = 5.0  # the highest gold score that people could give


def pair_cosines(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """(n, d) and (n, d) to the n cosines of the rows; 0 where a vector is zero (SentEval turns its NaN into 0).

    Raises EvaluationShapesDiffer, and ValuesNotFinite for embeddings that hold NaN or infinity: a broken encoder is not an indifferent one.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise EvaluationShapesDiffer(
            f"pairs need two arrays of one shape (n, d); got {first.shape} and {second.shape}."
        )
    broken = ~(np.isfinite(first) & np.isfinite(second)).all(axis=1)
    if broken.any():
        raise ValuesNotFinite(f"the embeddings hold NaN or infinity (first in pair {int(broken.argmax())}).")
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.divide((first * second).sum(axis=1), norms, out=np.zeros(len(first)), where=norms > 0)


def spearman(similarities: ArrayLike, gold: ArrayLike) -> float:
    """Spearman's rank correlation of n similarities with n gold scores, ties by average rank; from -1 to 1.

    0 where all similarities are equal (a collapsed encoder ranks nothing). Raises TooFewValues for fewer than two pairs or where all
    gold scores are equal, ValuesNotFinite for NaN, EvaluationShapesDiffer.
    """
    return float(rank_correlation(*_checked(similarities, gold)))


def sts(similarities: ArrayLike, gold: ArrayLike, subset: ArrayLike | None = None) -> dict[str, float]:
    """The three aggregations over the sub-sets of an STS task; "all" is the one to report.

    "all": one Spearman over all pairs together (SimCSE's tables and later ones). "mean": the mean of the sub-sets' own; "wmean": weighted
    by their number of pairs (papers before 2021). They differ by several points. `subset`: (n,) any labels; None: one sub-set.
    Raises as `spearman` does, also for each sub-set.
    """
    similarities, gold = _checked(similarities, gold)
    labels = _labels(subset, len(gold))
    for label in np.unique(labels).tolist():
        own = gold[labels == label]
        if len(own) < 2 or np.ptp(own) == 0:
            raise TooFewValues(
                f"sub-set '{label}' has {len(own)} pairs whose gold scores are all equal, so nothing can be ranked in it."
            )
    order = np.argsort(labels, kind="stable")
    figures = _aggregations(similarities[order], gold[order], np.unique(labels, return_counts=True)[1])
    return {name: float(value) for name, value in figures.items()}


def sts_scores(
    similarities: ArrayLike, gold: ArrayLike, subset: ArrayLike | None = None, *, seed: int = 0
) -> dict[str, Score]:
    """The aggregations of `sts`, each with its 95 % bootstrap interval over pairs, drawn within their sub-sets.

    Named "spearman all", "spearman mean" and "spearman wmean"; without sub-sets, where the three are one, "spearman".
    """
    figures = sts(similarities, gold, subset)
    similarities, gold = _checked(similarities, gold)
    labels = _labels(subset, len(gold))
    sizes = np.unique(labels, return_counts=True)[1]
    intervals = bootstrap_figures(
        lambda rows: _aggregations(similarities[rows], gold[rows], sizes), len(gold), strata=labels, seed=seed
    )
    names = {"all": "spearman"} if subset is None else {name: f"spearman {name}" for name in figures}
    return {name: Score(name, figures[figure], *intervals[figure][1:], n=len(gold)) for figure, name in names.items()}


def length_bias(
    similarities: ArrayLike, gold: ArrayLike, lengths: ArrayLike, near: int = NEAR, top: float = TOP
) -> dict[str, float]:
    """Does an encoder read equal length as equal meaning? Two figures, both 0 without a bias, above 0 with one (ESimCSE, section 1).

    "gap": pairs are near when their lengths differ by at most `near` words, else far; mean similarity of the near less that of the far,
    minus the same difference of gold / `top`. Shared words alone make near pairs more similar, hence the comparison with gold.
    "partial": the partial rank correlation of the similarity with minus the difference in length, given gold; 0 where all
    similarities are equal, or where they rank the pairs exactly as gold does. It does not depend on the scale of either.

    `lengths`: (n, 2), in words. Raises TooFewValues when all pairs are near or all far, EvaluationShapesDiffer, ValuesNotFinite.
    """
    similarities, gold, difference = _with_lengths(similarities, gold, lengths)
    close = difference <= near
    if close.all() or not close.any():
        raise TooFewValues(
            f"all pairs differ in length by {'at most' if close.all() else 'more than'} {near} words; choose another `near`."
        )
    return {name: float(value) for name, value in _bias(similarities, gold, difference, near, top).items()}


def length_bias_scores(
    similarities: ArrayLike, gold: ArrayLike, lengths: ArrayLike, near: int = NEAR, top: float = TOP, *, seed: int = 0
) -> dict[str, Score]:
    """The figures of `length_bias` with their 95 % bootstrap intervals over pairs: "length bias" is "partial", "length gap" is "gap"."""
    figures = length_bias(similarities, gold, lengths, near, top)
    s, g, d = _with_lengths(similarities, gold, lengths)
    intervals = bootstrap_figures(lambda rows: _bias(s[rows], g[rows], d[rows], near, top), len(g), seed=seed)
    return {
        name: Score(name, figures[figure], *intervals[figure][1:], n=len(g))
        for figure, name in (("partial", "length bias"), ("gap", "length gap"))
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's over the last axis of two arrays (…, n), not checked; 0 where all of `first` is equal, NaN where all of `second` is."""
    from scipy.stats import rankdata

    x, y = (
        ranks - ranks.mean(axis=-1, keepdims=True) for ranks in (rankdata(each, axis=-1) for each in (first, second))
    )
    spread = np.square(x).sum(axis=-1) * np.square(y).sum(axis=-1)
    found = np.divide((x * y).sum(axis=-1), np.sqrt(spread), out=np.zeros(spread.shape), where=spread > 0)
    return np.where(np.ptp(second, axis=-1) == 0, np.nan, found)


def _aggregations(similarities: np.ndarray, gold: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """Over the last axis, on which the sub-sets stand one after another; NaN where one's gold scores are all equal."""
    whole = rank_correlation(similarities, gold)
    ends = np.cumsum(sizes)
    own = np.stack(
        [
            rank_correlation(similarities[..., end - size : end], gold[..., end - size : end])
            for size, end in zip(sizes, ends, strict=True)
        ]
    )
    return {"all": whole, "mean": own.mean(axis=0), "wmean": np.average(own, axis=0, weights=sizes)}


def _bias(
    similarities: np.ndarray, gold: np.ndarray, difference: np.ndarray, near: int, top: float
) -> dict[str, np.ndarray]:
    """Over the last axis; NaN where a draw leaves nothing to compare."""
    close = difference <= near
    nears, fars = close.sum(axis=-1), (~close).sum(axis=-1)
    with np.errstate(invalid="ignore"):  # 0 / 0 where all pairs of a draw are near, or all far
        gap, due = (
            (values * close).sum(axis=-1) / nears - (values * ~close).sum(axis=-1) / fars
            for values in (similarities, gold / top)
        )
    with_length, with_gold = rank_correlation(similarities, -difference), rank_correlation(similarities, gold)
    gold_with_length = rank_correlation(gold, -difference)
    rest = (1 - with_gold**2) * (1 - gold_with_length**2)
    left = with_length - with_gold * gold_with_length
    with np.errstate(invalid="ignore", divide="ignore"):
        partial = np.where(rest < 1e-12, 0.0, left / np.sqrt(np.maximum(rest, 1e-12)))
    return {"gap": gap - due, "partial": np.where(np.isnan(left), np.nan, partial)}


def _labels(subset: ArrayLike | None, rows: int) -> np.ndarray:
    labels = np.zeros(rows, int) if subset is None else np.asarray(subset)
    if labels.shape != (rows,):
        raise EvaluationShapesDiffer(f"{rows} pairs need {rows} sub-set labels; got {labels.shape}.")
    return labels


def _with_lengths(
    similarities: ArrayLike, gold: ArrayLike, lengths: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    similarities, gold = _checked(similarities, gold)
    lengths = np.asarray(lengths, dtype=np.float64)
    if lengths.shape != (len(gold), 2):
        raise EvaluationShapesDiffer(f"{len(gold)} pairs need lengths of shape ({len(gold)}, 2); got {lengths.shape}.")
    if not np.isfinite(lengths).all():
        raise ValuesNotFinite("the lengths hold NaN or infinity; no pair of these can be called near or far.")
    return similarities, gold, np.abs(lengths[:, 0] - lengths[:, 1])


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
