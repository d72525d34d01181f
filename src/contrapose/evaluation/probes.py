"""What a simple classifier reads off frozen embeddings: a linear probe and k nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationShapesDiffer, TooFewValues

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # inverse L2 penalties tried on the training split
FOLDS = 5


def linear_probe(
    train: ArrayLike, train_labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike, *, seed: int = 0
) -> np.ndarray:
    """(m,) 1.0 where a logistic regression on frozen embeddings is right, else 0.0; its mean is the accuracy.

    Embeddings (n, d) and (m, d) are standardised by the training split's mean and deviation; the L2 penalty is chosen by stratified
    cross-validation within the training split, so nothing of the test split is fitted. Raises TooFewValues for a single class, or a
    class with fewer than two training rows.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, labels, test, truth = _checked(train, train_labels, test, test_labels)
    folds = min(FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    if folds < 2:
        raise TooFewValues("a linear probe needs at least two training rows of every class, to choose its penalty.")
    probe = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": STRENGTHS},
        cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
    ).fit(train, labels)
    return (probe.predict(test) == truth).astype(np.float64)


def knn_probe(
    train: ArrayLike, train_labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike, *, k: int = 10
) -> np.ndarray:
    """(m,) 1.0 where the majority of the k nearest training rows by cosine is right, else 0.0; k is cut to the training rows.

    Ties in votes go to the class of the smaller label, a rule that does not look at the test split.
    """
    from sklearn.neighbors import KNeighborsClassifier

    train, labels, test, truth = _checked(train, train_labels, test, test_labels)
    neighbours = KNeighborsClassifier(min(k, len(train)), metric="cosine", algorithm="brute").fit(train, labels)
    return (neighbours.predict(test) == truth).astype(np.float64)


def _checked(
    train: ArrayLike, train_labels: ArrayLike, test: ArrayLike, test_labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    train, test = np.asarray(train, dtype=np.float64), np.asarray(test, dtype=np.float64)
    labels, truth = np.asarray(train_labels), np.asarray(test_labels)
    for rows, own, name in ((train, labels, "training"), (test, truth, "test")):
        if rows.ndim != 2 or own.shape != rows.shape[:1]:
            raise EvaluationShapesDiffer(
                f"{name} rows need shape (n, d) and n labels; got {rows.shape} and {own.shape}."
            )
    if train.shape[1] != test.shape[1]:
        raise EvaluationShapesDiffer(f"training rows have {train.shape[1]} dimensions and test rows {test.shape[1]}.")
    if len(np.unique(labels)) < 2:
        raise TooFewValues("a probe needs at least two classes in the training rows.")
    return train, labels, test, truth
