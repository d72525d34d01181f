"""Numbers read off frozen embeddings: ridge regression and the mean of the nearest rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation.intervals import bootstrap_figures
from contrapose.evaluation.probes import NEIGHBOURS, neighbours, scaled
from contrapose.evaluation.result import Score
from contrapose.evaluation.similarity import rank_correlation

PENALTIES = tuple(10.0**power for power in range(-4, 5))


def ridge_probe(train: ArrayLike, targets: ArrayLike, test: ArrayLike, *, penalty: float | None = None) -> np.ndarray:
    """What a ridge regression on n training rows predicts for m test rows, of the shape of `targets`: (m,) or (m, t).

    train: (n, d); targets: (n,) or (n, t), t numbers a row; test: (m, d). penalty: of the squared weights; None: of PENALTIES the one
    with the least squared error when each training row is left out in turn. Rows are scaled as `probes.scaled` says.
    Raises EvaluationShapesDiffer, ValuesNotFinite, and TooFewValues for fewer than two training rows.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    train, targets, test = _checked(train, targets, test)
    train, test = scaled(train, test)
    ridge = RidgeCV(PENALTIES) if penalty is None else Ridge(penalty)
    return ridge.fit(train, targets).predict(test)


def knn_regression(train: ArrayLike, targets: ArrayLike, test: ArrayLike, *, k: int = NEIGHBOURS) -> np.ndarray:
    """The mean target of the k nearest training rows by cosine, of the shape of `targets`; ties as in `probes.knn_probe`."""
    train, targets, test = _checked(train, targets, test)
    return np.concatenate(
        [np.asarray(weights @ targets) / weights.sum(axis=1).mean() for weights, _ in neighbours(train, test, k)]
    )


def regression(predicted: ArrayLike, truth: ArrayLike, *, seed: int = 0) -> dict[str, Score]:
    """ "R2", "spearman" and "MAE" of (m,) predicted numbers, with their 95 % bootstrap intervals over rows.

    R2 is 1 for a perfect prediction, 0 for the mean of `truth`, below 0 for anything worse; ranks tie by average. MAE: mean absolute
    error, in the unit of the numbers. Raises TooFewValues where all of `truth` is equal, EvaluationShapesDiffer, ValuesNotFinite.
    """
    predicted, truth = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise EvaluationShapesDiffer(
            f"n predicted and n true numbers are needed; got {predicted.shape} and {truth.shape}."
        )
    if not (np.isfinite(predicted).all() and np.isfinite(truth).all()):
        raise ValuesNotFinite("the predicted or the true numbers hold NaN or infinity.")
    if len(truth) < 2 or np.ptp(truth) == 0:
        raise TooFewValues(f"{len(truth)} true numbers that are all equal leave nothing to explain.")

    def figures(rows: np.ndarray) -> dict[str, np.ndarray]:
        said, true = predicted[rows], truth[rows]
        spread = np.square(true - true.mean(axis=-1, keepdims=True)).sum(axis=-1)
        missed = np.square(true - said).sum(axis=-1)
        explained = 1 - np.divide(missed, spread, out=np.full(spread.shape, np.nan), where=spread > 0)
        return {
            "R2": explained,
            "spearman": rank_correlation(said, true),
            "MAE": np.abs(true - said).mean(axis=-1),
        }

    intervals = bootstrap_figures(figures, len(truth), seed=seed)
    return {name: Score(name, *interval, n=len(truth)) for name, interval in intervals.items()}


def _checked(train: ArrayLike, targets: ArrayLike, test: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    train, targets, test = (np.asarray(rows, dtype=np.float64) for rows in (train, targets, test))
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1]:
        raise EvaluationShapesDiffer(
            f"rows of shapes (n, d) and (m, d) are needed; got {train.shape} and {test.shape}."
        )
    if targets.ndim not in (1, 2) or len(targets) != len(train):
        raise EvaluationShapesDiffer(f"{len(train)} training rows need as many targets; got {targets.shape}.")
    for name, rows in (("training rows", train), ("targets", targets), ("test rows", test)):
        if not np.isfinite(rows).all():
            raise ValuesNotFinite(f"the {name} hold NaN or infinity; nothing can be read off them.")
    if len(train) < 2:
        raise TooFewValues(f"a regression needs at least two training rows; got {len(train)}.")
    return train, targets, test
