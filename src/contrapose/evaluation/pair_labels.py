"""Do two rows belong together? Similarities of pairs against labels of 1 and 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation.intervals import bootstrap_figures
from contrapose.evaluation.result import Score

TINY = 1e-8  # in the denominators of the official code


def pair_labels(similarities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """How well n similarities tell pairs that belong together (label 1) from others (0).

    "f1max": the best F1 over all thresholds, "precision", "recall" and "threshold" there; the threshold is chosen on these very pairs, so it
    flatters. Of several best ones the lowest counts. "roc auc": the probability that a pair of label 1 is above one of label 0, ties half.
    "ratio": |mean similarity of label 1 / mean of label 0|. F1 and ratio have 1e-8 in their denominators (MoE embeddings, official code).
    Raises EvaluationShapesDiffer, ValuesNotFinite, and TooFewValues for labels that are not 0 or 1, or all alike.
    """
    return {name: float(value) for name, value in _figures(*_checked(similarities, labels)).items()}


def pair_label_scores(similarities: ArrayLike, labels: ArrayLike, *, seed: int = 0) -> dict[str, Score]:
    """The figures of `pair_labels` with their 95 % bootstrap intervals over pairs, drawn within each label."""
    similarities, labels = _checked(similarities, labels)
    order = np.argsort(labels, kind="stable")
    similarities, labels = similarities[order], labels[order]
    intervals = bootstrap_figures(
        lambda rows: _figures(similarities[rows], labels[rows]), len(labels), strata=labels, seed=seed
    )
    return {name: Score(name, *interval, n=len(labels)) for name, interval in intervals.items()}


def _figures(similarities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Over the last axis."""
    order = np.argsort(similarities, axis=-1, kind="stable")  # ascending: each place is a threshold
    ordered, hits = np.take_along_axis(similarities, order, -1), np.take_along_axis(labels, order, -1)
    positives = hits.sum(axis=-1, keepdims=True)
    above = np.flip(np.flip(hits, -1).cumsum(axis=-1), -1)  # label 1 at or above the threshold
    precision = above / np.arange(hits.shape[-1], 0, -1)
    recall = above / positives
    f1 = 2 * precision * recall / (precision + recall + TINY)
    first = np.ones(ordered.shape, dtype=bool)  # of equal similarities the first place takes in all of them
    first[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    best = np.where(first, f1, -1.0).argmax(axis=-1)[..., None]

    def at_best(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, best, -1)[..., 0]

    from scipy.stats import rankdata

    positives = positives[..., 0]
    others = hits.shape[-1] - positives
    ranks = (rankdata(similarities, axis=-1) * labels).sum(axis=-1)
    together, apart = (similarities * labels).sum(axis=-1), (similarities * (1 - labels)).sum(axis=-1)
    return {
        "f1max": at_best(f1),
        "precision": at_best(precision),
        "recall": at_best(recall),
        "threshold": at_best(ordered),
        "roc auc": (ranks - positives * (positives + 1) / 2) / (positives * others),
        "ratio": np.abs((together / positives) / (apart / others + TINY)),
    }


def _checked(similarities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    similarities, labels = np.asarray(similarities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if similarities.shape != labels.shape or labels.ndim != 1:
        raise EvaluationShapesDiffer(
            f"n similarities and n labels are needed; got {similarities.shape} and {labels.shape}."
        )
    if not np.isfinite(similarities).all():
        raise ValuesNotFinite("similarities hold NaN or infinity; no pair of these can be told from others.")
    if not np.isin(labels, (0, 1)).all() or len(np.unique(labels)) < 2:
        found = ", ".join(f"{value:g}" for value in np.unique(labels)[:5])
        raise TooFewValues(f"labels must be 0 and 1, and both must be there; got {found or 'none'}.")
    return similarities, labels
