"""Ridge and neighbours for numbers, against scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score

from contrapose.errors import EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation import knn_regression, regression, ridge_probe
from contrapose.evaluation.probes import scaled
from contrapose.evaluation.regression import PENALTIES


def linear(n: int = 80, d: int = 5, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return rows, rows @ np.arange(1.0, d + 1) + 7 + noise * np.random.default_rng(seed + 100).normal(size=n)


TRAIN, TARGETS = linear()
TEST, TRUTH = linear(seed=1)


def ridge(rows: np.ndarray, targets: np.ndarray, others: np.ndarray, penalty: float) -> np.ndarray:
    """The normal equations, the mean of the targets unpenalised; columns are centred."""
    weights = np.linalg.solve(
        rows.T @ rows + penalty * np.eye(rows.shape[1]), rows.T @ (targets - targets.mean(axis=0))
    )
    return others @ weights + targets.mean(axis=0)


def test_ridge_solves_the_normal_equations():
    rows, others = scaled(TRAIN, TEST)
    np.testing.assert_allclose(ridge_probe(TRAIN, TARGETS, TEST, penalty=2.5), ridge(rows, TARGETS, others, 2.5))


@pytest.mark.parametrize("noise", [0.01, 20.0])
def test_the_penalty_is_the_best_when_each_row_is_left_out(noise):
    train, targets = linear(30, 12, noise)
    rows, others = scaled(train, TEST[:, [0] * 12])

    def left_out(penalty: float) -> float:
        kept = [np.arange(30) != row for row in range(30)]
        centred = [(rows[each] - rows[each].mean(axis=0), rows[~each] - rows[each].mean(axis=0), each) for each in kept]
        return sum(float((ridge(x, targets[each], one, penalty) - targets[~each])[0] ** 2) for x, one, each in centred)

    best = min(PENALTIES, key=left_out)
    np.testing.assert_allclose(
        ridge_probe(train, targets, TEST[:, [0] * 12]), ridge(rows, targets, others, best), rtol=1e-6
    )


def test_several_targets_are_predicted_together():
    both = np.stack([TARGETS, -2 * TARGETS], axis=1)
    predicted = ridge_probe(TRAIN, both, TEST, penalty=1.0)
    assert predicted.shape == (80, 2)
    np.testing.assert_allclose(predicted[:, 0], ridge_probe(TRAIN, TARGETS, TEST, penalty=1.0))


def test_no_test_row_has_a_say_in_the_prediction_of_another():
    crowd = np.concatenate([TEST[:5], np.full((100, 5), 1e6)])
    for probe in (ridge_probe, knn_regression):
        np.testing.assert_allclose(probe(TRAIN, TARGETS, crowd)[:5], probe(TRAIN, TARGETS, TEST[:5]))


def test_neighbours_predict_the_mean_of_the_nearest():
    train, targets = np.array([[1.0, 0], [1, 0.1], [0, 1], [-1, 0]]), np.array([1.0, 3, 50, 90])
    assert knn_regression(train, targets, np.array([[2.0, 0.0]]), k=2) == pytest.approx([2])
    assert knn_regression(train, targets, np.array([[2.0, 0.0]]), k=99) == pytest.approx([36])
    both = np.stack([targets, -targets], axis=1)
    np.testing.assert_allclose(knn_regression(train, both, np.array([[2.0, 0.0]]), k=2), [[2, -2]])


def test_neighbours_that_tie_share_the_last_place():
    train, targets = np.array([[1.0, 0], [0, 1], [0, 2], [0, 3]]), np.array([10.0, 1, 2, 3])
    assert knn_regression(train, targets, np.array([[1.0, 0.5]]), k=2) == pytest.approx([(10 + 2) / 2])


def test_figures_are_those_of_scikit_learn_and_scipy():
    predicted = ridge_probe(TRAIN, TARGETS, TEST)
    scores = regression(predicted, TRUTH)
    assert scores["R2"].value == pytest.approx(r2_score(TRUTH, predicted))
    assert scores["spearman"].value == pytest.approx(stats.spearmanr(predicted, TRUTH).statistic)
    assert scores["MAE"].value == pytest.approx(mean_absolute_error(TRUTH, predicted))
    for score in scores.values():
        assert score.low < score.value < score.high


def test_the_mean_of_the_truth_explains_nothing():
    assert regression(np.full(80, TRUTH.mean()), TRUTH)["R2"].value == pytest.approx(0)
    assert regression(np.full(80, TRUTH.mean()), TRUTH)["spearman"].value == 0


def test_truth_that_is_all_equal_is_refused():
    with pytest.raises(TooFewValues, match="all equal"):
        regression([1.0, 2.0], [3.0, 3.0])


@pytest.mark.parametrize("name", ["training rows", "targets", "test rows"])
def test_nan_is_refused_by_name(name):
    given = {"training rows": TRAIN.copy(), "targets": TARGETS.copy(), "test rows": TEST.copy()}
    given[name].flat[3] = math.nan
    with pytest.raises(ValuesNotFinite, match=name):
        ridge_probe(*given.values())


@pytest.mark.parametrize(
    ("train", "targets", "test"), [(TRAIN, TARGETS[:3], TEST), (TRAIN, TARGETS, TEST[:, :2]), (TRAIN[0], TARGETS, TEST)]
)
def test_shapes_must_fit(train, targets, test):
    with pytest.raises(EvaluationShapesDiffer):
        ridge_probe(train, targets, test)


def test_one_row_teaches_nothing():
    with pytest.raises(TooFewValues):
        ridge_probe(TRAIN[:1], TARGETS[:1], TEST)
