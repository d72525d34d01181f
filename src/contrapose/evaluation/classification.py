"""Predicted labels against true ones: accuracy and macro-F1, each with its interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues
from contrapose.evaluation.result import Score


def classification(
    predicted: ArrayLike, truth: ArrayLike, *, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> dict[str, Score]:
    """ "accuracy" and "macro-F1" of (n,) predicted labels, with their percentile bootstrap intervals over rows.

    Macro-F1 is the plain mean of the F1 of every label that stands in `truth` or `predicted`, so a rare class counts as much as a common
    one. Both are functions of the table of confusions, and drawing n rows with replacement is drawing a table from the multinomial
    distribution of its cells: the interval costs the same whatever n is.

    Raises TooFewValues for fewer than two rows, EvaluationShapesDiffer, EvaluationSettingInvalid.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise EvaluationShapesDiffer(
            f"n predicted and n true labels are needed; got {predicted.shape} and {truth.shape}."
        )
    if len(truth) < 2:
        raise TooFewValues(f"an interval needs at least two rows; got {len(truth)}.")
    if resamples < 1 or not 0 < confidence < 1:
        raise EvaluationSettingInvalid(
            f"resamples must be 1 or more and confidence between 0 and 1 (0.95); got {resamples} and {confidence}."
        )
    table = confusions(predicted, truth)
    cells = np.flatnonzero(table)  # a draw never fills an empty one
    drawn = np.zeros((resamples, table.size))
    shares = table.ravel()[cells] / len(truth)
    drawn[:, cells] = np.random.default_rng(seed).multinomial(len(truth), shares, size=resamples)
    drawn = drawn.reshape(resamples, *table.shape)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    return {
        name: Score(name, float(figure(table)), *map(float, np.quantile(figure(drawn), ends)), n=len(truth))
        for name, figure in (("accuracy", accuracy), ("macro-F1", macro_f1))
    }


def confusions(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(c, c) counts: row the true label, column the predicted one; the c labels that stand in either, in order."""
    labels, codes = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    true, said = codes[: len(truth)], codes[len(truth) :]
    return np.bincount(true * len(labels) + said, minlength=len(labels) ** 2).reshape(len(labels), len(labels))


def accuracy(table: np.ndarray) -> np.ndarray:
    """Of one table of confusions (c, c), or of each of several (…, c, c)."""
    return np.trace(table, axis1=-2, axis2=-1) / table.sum(axis=(-2, -1))


def macro_f1(table: np.ndarray) -> np.ndarray:
    """Mean over the labels that a table knows of 2 TP / (2 TP + FP + FN); tables of shape (…, c, c)."""
    right = np.diagonal(table, axis1=-2, axis2=-1)
    mentions = table.sum(axis=-1) + table.sum(axis=-2)  # 2 TP + FP + FN
    known = mentions > 0
    f1 = np.divide(2 * right, mentions, out=np.zeros(mentions.shape), where=known)
    return f1.sum(axis=-1) / known.sum(axis=-1)


def one_against_rest(probabilities: ArrayLike, truth: ArrayLike, classes: ArrayLike) -> np.ndarray:
    """AUC of each class against all others, plainly averaged over classes: from (n, c) and (n,) true labels to one number.

    Also over draws: (…, n, c) and (…, n) to (…). `classes` (c,) names the columns. 0.5 at chance; ties count half. NaN where a class has no row, or
    all of them. Raises EvaluationShapesDiffer.
    """
    from scipy.stats import rankdata

    probabilities, truth, classes = np.asarray(probabilities), np.asarray(truth), np.asarray(classes)
    if probabilities.shape != (*truth.shape, len(classes)):
        raise EvaluationShapesDiffer(
            f"probabilities of {truth.shape} rows and {len(classes)} classes are needed; got {probabilities.shape}."
        )
    areas = []
    for column, label in enumerate(classes):
        own = truth == label
        inside, outside = own.sum(axis=-1), (~own).sum(axis=-1)
        ranks = rankdata(probabilities[..., column], axis=-1)
        above = (ranks * own).sum(axis=-1) - inside * (inside + 1) / 2
        areas.append(
            np.divide(above, inside * outside, out=np.full(np.shape(above), np.nan), where=inside * outside > 0)
        )
    return np.mean(areas, axis=0)
