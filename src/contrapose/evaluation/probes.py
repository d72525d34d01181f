"""What a simple rule reads off frozen embeddings: a linear probe, k nearest neighbours, a linear probe of a few labels.

Every function takes training rows with their labels and test rows without, so that nothing of the test split can be fitted: the prediction
for a test row does not depend on the other test rows. Rows are embeddings (n, d), or a sparse matrix of a control such as TF-IDF.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation.classification import accuracy, confusions, macro_f1

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    Rows = ArrayLike | csr_matrix

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # inverse L2 penalties that are tried
FOLDS = 5
MANY = 5000  # training rows from which on a single fold chooses the penalty: the choice is sure by then, and five times as fast
FEW_SHOT_STRENGTH = 10.0
NEIGHBOURS = 10
SCORES = 2**22  # cosines that stand in memory at once: 16 MiB of float32, and some as much again


def linear_probe(
    train: Rows, labels: ArrayLike, test: Rows, *, strength: float | None = None, seed: int = 0
) -> np.ndarray:
    """The labels (m,) that a logistic regression on n training rows predicts for m test rows.

    train: (n, d); labels: (n,); test: (m, d). strength: the inverse L2 penalty (scikit-learn's C); None: the one that
    `choose_strength` finds in the training rows. Rows are scaled as `scaled` says. Raises TooFewValues for a single class, and where
    the penalty is to be chosen, for a class with fewer than two training rows; EvaluationShapesDiffer, ValuesNotFinite.
    """
    train, labels, test = _checked(train, labels, test)
    if strength is None:
        strength = choose_strength(train, labels, seed=seed)
    train, test = scaled(train, test)
    return _predicted(strength, train, labels, test)


def linear_probe_probabilities(train: Rows, labels: ArrayLike, test: Rows, *, strength: float) -> np.ndarray:
    """What `linear_probe` gives each class: (m, c) for m test rows, classes in the order of `np.unique(labels)`; rows sum to 1.

    Raises as `linear_probe` does.
    """
    train, labels, test = _checked(train, labels, test)
    train, test = scaled(train, test)
    return _fitted(strength, train, labels).predict_proba(test)


def strength_by_development(
    train: Rows, labels: ArrayLike, development: Rows, truth: ArrayLike, strengths: Sequence[float] = STRENGTHS
) -> tuple[float, float]:
    """The one of `strengths` whose probe has the highest macro-F1 on development rows, of equals the smallest; and that macro-F1.

    For data whose split is given with development rows, as citation graphs have it. Raises as `linear_probe` does.
    """
    truth = np.asarray(truth)
    found = [macro_f1(confusions(linear_probe(train, labels, development, strength=each), truth)) for each in strengths]
    best = int(np.argmax(found))
    return strengths[best], float(found[best])


def choose_strength(train: Rows, labels: ArrayLike, *, seed: int = 0) -> float:
    """The one of STRENGTHS with the highest accuracy + macro-F1 in five-fold cross-validation, stratified by label; of equals the smallest.

    By accuracy alone the rarer labels would be given up where one is common. From MANY rows on, one of the five folds alone is
    predicted. Raises as `linear_probe` does.
    """
    from sklearn.model_selection import StratifiedKFold

    train, labels, _ = _checked(train, labels, train)
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise TooFewValues(
            f"class '{classes[counts.argmin()]}' has one training row; a linear probe needs two of every class, to choose its penalty."
        )
    folds = StratifiedKFold(min(FOLDS, int(counts.max())), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer rows than there are folds: it stands in as many as it has
        parts = list(folds.split(np.zeros(len(labels)), labels))
    parts = parts[: 1 if len(labels) >= MANY else None]
    predicted: list[list[np.ndarray]] = [[] for _ in STRENGTHS]
    for fitted, held_out in parts:
        rows, others = scaled(train[fitted], train[held_out])
        for found, strength in zip(predicted, STRENGTHS, strict=True):
            found.append(_predicted(strength, rows, labels[fitted], others))
    truth = np.concatenate([labels[held_out] for _, held_out in parts])
    tables = [confusions(np.concatenate(found), truth) for found in predicted]
    return STRENGTHS[int(np.argmax([accuracy(table) + macro_f1(table) for table in tables]))]


def knn_probe(train: Rows, labels: ArrayLike, test: Rows, *, k: int = NEIGHBOURS) -> np.ndarray:
    """The labels (m,) that most of the k nearest of n training rows have, by cosine.

    Exact and streamed. Rows that are as near as the k-th share the votes that are left, so the order of rows never matters, and an encoder
    that gives every row the same vector predicts the most frequent class. Of classes with equally many votes, the one whose rows are nearer on
    the whole; of those, the first. k is cut to the training rows. A zero row has cosine 0 with everything.
    Raises TooFewValues for a single class, EvaluationShapesDiffer, ValuesNotFinite, EvaluationSettingInvalid for k below 1.
    """
    from scipy.sparse import csr_matrix

    train, labels, test = _checked(train, labels, test)
    classes, codes = np.unique(labels, return_inverse=True)
    member = csr_matrix((np.ones(len(codes)), (np.arange(len(codes)), codes)))  # (n, classes)
    predicted = []
    for weights, cosines in neighbours(train, test, k):
        votes = np.asarray((weights @ member).todense()).round(9)
        nearness = np.asarray((weights.multiply(cosines) @ member).todense()).round(6)
        first = np.where(votes == votes.max(axis=1, keepdims=True), nearness, -np.inf)
        predicted.append(classes[first.argmax(axis=1)])
    return np.concatenate(predicted)


def neighbours(train: Rows, test: Rows, k: int) -> Iterator[tuple[csr_matrix, np.ndarray]]:
    """Blocks of test rows: the weights of their k nearest training rows (b, n), which sum to k, and the cosines (b, n).

    Cosines are summed in float64 and compared to seven places, so that equal vectors tie whatever the order in which a processor adds.
    """
    from scipy.sparse import csr_matrix, issparse
    from sklearn.preprocessing import normalize

    if k < 1:
        raise EvaluationSettingInvalid(f"k counts neighbours and starts at 1; got {k}.")
    rows, columns = normalize(test), normalize(train).T
    k, block = min(k, columns.shape[1]), max(1, SCORES // columns.shape[1])
    for start in range(0, rows.shape[0], block):
        product = rows[start : start + block] @ columns
        cosines = np.round(product.toarray() if issparse(product) else product, 7).astype(np.float32)
        least = np.partition(cosines, -k, axis=1)[:, [-k]]
        nearer, level = cosines > least, cosines == least
        share = (k - nearer.sum(axis=1, keepdims=True)) / level.sum(axis=1, keepdims=True)
        yield csr_matrix(np.where(level, share, nearer)), cosines


def majority_class(labels: ArrayLike, rows: int) -> np.ndarray:
    """The most frequent label, `rows` times: what a rule that sees no row would say. Of equally frequent ones, the first."""
    classes, counts = np.unique(np.asarray(labels), return_counts=True)
    return np.repeat(classes[counts.argmax()], rows)


def few_shot(
    train: Rows, labels: ArrayLike, test: Rows, truth: ArrayLike, *, shots: int = 5, draws: int = 10, seed: int = 0
) -> dict[str, np.ndarray]:
    """ "accuracy" and "macro-F1" (draws,) of a linear probe that sees `shots` training rows of each class, drawn anew each time.

    The penalty is fixed, since so few rows leave none to choose it by (strength 10). The scale of the columns comes from all training rows,
    which needs no label. `scores(few_shot(…))` gives the mean with an interval over the draws: it speaks of other labels for the
    same rows, not of other test rows. Raises TooFewValues for a class with fewer training rows; as `linear_probe` does otherwise.
    """
    if shots < 1 or draws < 1:
        raise EvaluationSettingInvalid(f"shots and draws must be 1 or more; got {shots} and {draws}.")
    train, labels, test = _checked(train, labels, test)
    truth = np.asarray(truth)
    if truth.shape != (test.shape[0],):
        raise EvaluationShapesDiffer(f"{test.shape[0]} test rows need as many labels; got {truth.shape}.")
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < shots:
        raise TooFewValues(
            f"class '{classes[counts.argmin()]}' has {counts.min()} training rows, fewer than the {shots} to be drawn."
        )
    train, test = scaled(train, test)
    draw, tables = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = np.concatenate(
            [draw.choice(np.flatnonzero(labels == each), size=shots, replace=False) for each in classes]
        )
        predicted = _predicted(FEW_SHOT_STRENGTH, train[drawn], labels[drawn], test)
        tables.append(confusions(predicted, truth))
    return {
        name: np.array([float(figure(table)) for table in tables])
        for name, figure in (("accuracy", accuracy), ("macro-F1", macro_f1))
    }


def scaled(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    """Both on the scale of the training rows, so that one range of penalties serves every encoder: their squared length is 1 on average.

    Dense columns are centred and divided by their deviation first, for an encoder's columns may differ in scale by orders. Sparse rows are
    divided by one number alone: centring would fill them in, and a column of a rare word would be made as loud as that of a common one.
    """
    from scipy.sparse import issparse
    from sklearn.preprocessing import StandardScaler

    if not issparse(train):
        columns = StandardScaler().fit(train)
        train, test = columns.transform(train), columns.transform(test)
    square = (train.multiply(train) if issparse(train) else train * train).sum() / train.shape[0]
    length = np.sqrt(square) or 1.0  # a collapsed encoder, all of whose rows are zero by now
    return train / length, test / length


def _predicted(strength: float, train: Rows, labels: np.ndarray, test: Rows) -> np.ndarray:
    return _fitted(strength, train, labels).predict(test)


def _fitted(strength: float, train: Rows, labels: np.ndarray) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # the last steps of a thousand change no prediction that matters
        return LogisticRegression(C=strength, max_iter=1000).fit(train, labels)


def _checked(train: Rows, labels: ArrayLike, test: Rows) -> tuple[Rows, np.ndarray, Rows]:
    train, test = _rows("training", train), _rows("test", test)
    labels = np.asarray(labels)
    if labels.shape != (train.shape[0],):
        raise EvaluationShapesDiffer(f"{train.shape[0]} training rows need as many labels; got {labels.shape}.")
    if train.shape[1] != test.shape[1]:
        raise EvaluationShapesDiffer(f"training rows have {train.shape[1]} dimensions and test rows {test.shape[1]}.")
    if len(np.unique(labels)) < 2:
        raise TooFewValues("a probe needs at least two classes in the training rows.")
    return train, labels, test


def _rows(name: str, rows: Rows) -> Rows:
    from scipy.sparse import csr_matrix, issparse

    if issparse(rows):
        rows = csr_matrix(rows, dtype=np.float64)
        known = np.isfinite(rows.data).all()
    else:
        if hasattr(rows, "detach"):  # a tensor, perhaps in bf16, which NumPy does not know
            rows = rows.detach().cpu().double().numpy()
        rows = np.asarray(rows, dtype=np.float64)
        known = np.isfinite(rows).all()
    if rows.ndim != 2 or not rows.shape[0]:
        raise EvaluationShapesDiffer(f"{name} rows need shape (rows, dimensions), at least one row; got {rows.shape}.")
    if not known:
        raise ValuesNotFinite(f"the {name} rows hold NaN or infinity; nothing can be read off them.")
    return rows
