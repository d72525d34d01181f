"""Accuracy and macro-F1 against scikit-learn; the interval against drawing rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues
from contrapose.evaluation import classification


def drawn(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.choice(list("abcdefgh"[:classes]), n), draw.choice(list("bcdefghi"[:classes]), n)  # not the same labels


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 40), classes=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_figures_are_those_of_scikit_learn(n, classes, seed):
    predicted, truth = drawn(n, classes, seed)
    scores = classification(predicted, truth, resamples=2)
    assert scores["accuracy"].value == pytest.approx(accuracy_score(truth, predicted))
    assert scores["macro-F1"].value == pytest.approx(f1_score(truth, predicted, average="macro", zero_division=0))
    assert {score.n for score in scores.values()} == {n}


def test_a_rare_class_counts_as_much_as_a_common_one():
    truth = np.array(["common"] * 98 + ["rare"] * 2)
    scores = classification(np.array(["common"] * 100), truth)
    assert scores["accuracy"].value == pytest.approx(0.98)
    assert scores["macro-F1"].value == pytest.approx((2 * 98 / (98 + 100) + 0) / 2)


def test_intervals_are_those_of_drawn_rows():
    draw = np.random.default_rng(0)
    truth = draw.choice(list("aab"), 150)
    predicted = np.where(draw.uniform(size=150) < 0.7, truth, draw.choice(list("ab"), 150))
    rows = np.random.default_rng(1).integers(150, size=(600, 150))
    expected = {
        "accuracy": [accuracy_score(truth[each], predicted[each]) for each in rows],
        "macro-F1": [f1_score(truth[each], predicted[each], average="macro") for each in rows],
    }
    for name, score in classification(predicted, truth).items():
        assert (score.low, score.high) == pytest.approx(np.quantile(expected[name], [0.025, 0.975]), abs=0.02), name


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    predicted, truth = drawn(50, 3, 0)
    assert classification(predicted, truth, seed=3) == classification(predicted, truth, seed=3)
    assert classification(predicted, truth, seed=3) != classification(predicted, truth, seed=4)


def test_one_row_has_no_spread():
    with pytest.raises(TooFewValues):
        classification(["a"], ["a"])


def test_labels_come_in_pairs():
    with pytest.raises(EvaluationShapesDiffer):
        classification(["a", "b"], ["a", "b", "a"])


@pytest.mark.parametrize("settings", [{"resamples": 0}, {"confidence": 95}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(EvaluationSettingInvalid):
        classification(["a", "b"], ["a", "b"], **settings)
