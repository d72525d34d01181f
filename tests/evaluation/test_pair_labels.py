"""Pairs that belong together told from others: against scikit-learn, with ties, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_auc_score

from contrapose.errors import EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation import pair_label_scores, pair_labels


@pytest.mark.parametrize("digits", [1, 8])
@pytest.mark.parametrize("seed", range(5))
def test_figures_are_scikit_learns(seed: int, digits: int) -> None:
    """One digit: many ties."""
    drawn = np.random.default_rng(seed)
    labels = drawn.integers(0, 2, 40)
    scores = np.round(drawn.normal(size=40) + labels, digits)
    found = pair_labels(scores, labels)
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / (precision + recall + 1e-8)
    best = f1.argmax()
    expected = {"f1max": f1[best], "precision": precision[best], "recall": recall[best], "threshold": thresholds[best]}
    expected |= {"roc auc": roc_auc_score(labels, scores)}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["ratio"] == pytest.approx(abs(scores[labels == 1].mean() / (scores[labels == 0].mean() + 1e-8)))


def test_a_cosine_of_0_counts() -> None:
    """The official code looks for positives by what is not 0."""
    assert pair_labels([0.0, -1.0, -1.0], [1, 0, 0])["roc auc"] == 1


def test_intervals_hold_the_figures() -> None:
    drawn = np.random.default_rng(0)
    labels = np.arange(60) % 2
    scores = drawn.normal(size=60) + labels
    figures = pair_labels(scores, labels)
    for name, score in pair_label_scores(scores, labels).items():
        assert score.value == pytest.approx(figures[name])
        assert score.low <= score.high
    assert pair_label_scores(scores, labels)["roc auc"].low < figures["roc auc"]


@pytest.mark.parametrize(
    ("scores", "labels", "error", "said"),
    [
        ([0.1, 0.2], [1, 2], TooFewValues, "must be 0 and 1, and both must be there; got 1, 2"),
        ([0.1, 0.2], [1, 1], TooFewValues, "got 1"),
        ([0.1, np.nan], [1, 0], ValuesNotFinite, "NaN"),
        ([0.1], [1, 0], EvaluationShapesDiffer, "got .1,. and .2,."),
    ],
)
def test_bad_input(scores: list[float], labels: list[int], error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        pair_labels(scores, labels)
