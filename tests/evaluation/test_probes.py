"""Probes against scikit-learn and against rules written out row by row; nothing of the test split is fitted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation import few_shot, knn_probe, linear_probe, majority_class, probes
from contrapose.evaluation.probes import choose_strength, scaled


def blobs(
    n: int = 90, d: int = 6, classes: int = 3, apart: float = 2.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds whose centres lie `apart`, and their labels."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return apart * np.eye(d)[labels] + draw.normal(size=(n, d)), np.array(list("abcdef"))[labels]


TRAIN, LABELS = blobs()
TEST, TRUTH = blobs(seed=1)


# -------------------------------------------------------------------------------------------------------- linear probe


def test_the_linear_probe_is_scikit_learns_on_standardised_columns():
    columns = (TRAIN - TRAIN.mean(axis=0)) / TRAIN.std(axis=0)
    others = (TEST - TRAIN.mean(axis=0)) / TRAIN.std(axis=0)
    length = math.sqrt(TRAIN.shape[1])
    theirs = LogisticRegression(C=3.0).fit(columns / length, LABELS).predict(others / length)
    assert linear_probe(TRAIN, LABELS, TEST, strength=3.0).tolist() == theirs.tolist()


def test_the_penalty_chosen_is_the_best_of_cross_validation(monkeypatch):
    """Two dimensions speak, two hundred are noise: a weak penalty reads the noise."""
    draw = np.random.default_rng(0)
    rows, labels = blobs(60, 2, 2, apart=1.5)
    noisy = np.concatenate([rows, draw.normal(size=(60, 200))], axis=1)
    monkeypatch.setattr(probes, "STRENGTHS", (0.01, 1.0, 10_000.0))
    held_out = {
        strength: (cross_val_predict(LogisticRegression(C=strength), scaled(noisy, noisy)[0], labels) == labels).mean()
        for strength in probes.STRENGTHS
    }
    assert held_out[choose_strength(noisy, labels)] == max(held_out.values())
    assert len(set(held_out.values())) > 1


@pytest.mark.parametrize("change", [lambda x: 1000 * x, lambda x: x + 50, lambda x: x * np.geomspace(1e-3, 1e3, 6)])
def test_the_scale_of_an_encoder_does_not_matter(change):
    assert linear_probe(change(TRAIN), LABELS, change(TEST)).tolist() == linear_probe(TRAIN, LABELS, TEST).tolist()


def test_no_test_row_has_a_say_in_the_prediction_of_another():
    """Leakage: a test row so large that any mean, deviation or penalty that looked at it would be another."""
    alone = linear_probe(TRAIN, LABELS, TEST[:20]), knn_probe(TRAIN, LABELS, TEST[:20])
    crowd = np.concatenate([TEST[:20], np.full((300, 6), 1e6)])
    together = linear_probe(TRAIN, LABELS, crowd), knn_probe(TRAIN, LABELS, crowd)
    for one, other in zip(alone, together, strict=True):
        assert one.tolist() == other[:20].tolist()


def test_a_collapsed_encoder_predicts_the_most_frequent_class():
    same, labels = np.tile(TRAIN[0], (30, 1)), np.array(["a"] * 12 + ["b"] * 18)
    assert set(linear_probe(same, labels, same[:5])) == {"b"}


def test_sparse_rows_are_scaled_as_a_whole_and_give_what_dense_ones_do():
    rows = np.maximum(TRAIN, 0)
    train, test = scaled(csr_matrix(rows), csr_matrix(2 * rows))
    length = np.sqrt(np.square(rows).sum(axis=1).mean())
    np.testing.assert_allclose(train.toarray(), rows / length)
    np.testing.assert_allclose(test.toarray(), 2 * rows / length)
    theirs = LogisticRegression(C=3.0).fit(rows / length, LABELS).predict(np.maximum(TEST, 0) / length)
    ours = linear_probe(csr_matrix(rows), LABELS, csr_matrix(np.maximum(TEST, 0)), strength=3.0)
    assert ours.tolist() == theirs.tolist()


def test_many_training_rows_are_validated_by_one_fold(monkeypatch):
    fitted = []
    real = probes._predicted
    monkeypatch.setattr(probes, "_predicted", lambda *given: fitted.append(1) or real(*given))
    choose_strength(TRAIN, LABELS)
    assert len(fitted) == 5 * len(probes.STRENGTHS)
    monkeypatch.setattr(probes, "MANY", 90)
    choose_strength(TRAIN, LABELS)
    assert len(fitted) == 6 * len(probes.STRENGTHS)


def test_a_rare_class_stands_in_every_training_fold():
    labels = np.array(["a"] * 44 + ["b"] * 44 + ["rare"] * 2)
    assert linear_probe(blobs()[0], labels, TEST).shape == (90,)


def test_a_class_with_one_row_leaves_no_choice_of_penalty():
    labels = np.array([*LABELS[:-1], "once"])
    with pytest.raises(TooFewValues, match="'once' has one training row"):
        linear_probe(TRAIN, labels, TEST)
    assert linear_probe(TRAIN, labels, TEST, strength=1.0).shape == (90,)


# ----------------------------------------------------------------------------------------------------------- neighbours


def by_hand(train: np.ndarray, labels: list[str], row: np.ndarray, k: int) -> str:
    """Votes of the k nearest, those level with the last sharing what is left; then nearness; then the alphabet."""
    lengths = np.linalg.norm(train, axis=1) * np.linalg.norm(row)
    cosines = [float(np.float32(round(t @ row / n, 7))) if n else 0.0 for t, n in zip(train, lengths, strict=True)]
    last = sorted(cosines, reverse=True)[k - 1]
    left = k - sum(c > last for c in cosines)
    level = sum(c == last for c in cosines)
    votes, near = {}, {}
    for cosine, label in zip(cosines, labels, strict=True):
        weight = 1.0 if cosine > last else left / level if cosine == last else 0.0
        votes[label] = votes.get(label, 0.0) + weight
        near[label] = near.get(label, 0.0) + weight * cosine
    return min(votes, key=lambda label: (-round(votes[label], 9), -round(near[label], 6), label))


@settings(max_examples=80, deadline=None)
@given(n=st.integers(2, 20), classes=st.integers(2, 4), k=st.integers(1, 20), seed=st.integers(0, 10_000))
def test_neighbours_vote_as_by_hand(n, classes, k, seed):
    draw = np.random.default_rng(seed)
    train, test = draw.integers(-1, 2, (n, 2)).astype(float), draw.integers(-1, 2, (7, 2)).astype(float)  # ties, zeros
    labels = draw.choice(list("abcd"[:classes]), n)
    labels[:2] = "a", "b"
    expected = [by_hand(train, labels.tolist(), row, min(k, n)) for row in test]
    assert knn_probe(train, labels, test, k=k).tolist() == expected
    assert knn_probe(csr_matrix(train), labels, csr_matrix(test), k=k).tolist() == expected


@pytest.mark.parametrize("k", [1, 5])
def test_without_ties_neighbours_are_those_of_scikit_learn(k):
    theirs = KNeighborsClassifier(k, metric="cosine").fit(TRAIN[:60], LABELS[:60] == "a").predict(TEST)
    assert knn_probe(TRAIN[:60], LABELS[:60] == "a", TEST, k=k).tolist() == theirs.tolist()  # two classes, k odd


def test_the_order_of_training_rows_does_not_matter():
    draw = np.random.default_rng(0)
    train, labels = draw.integers(0, 2, (40, 3)).astype(float), draw.choice(list("abc"), 40)
    order = draw.permutation(40)
    for k in (1, 3, 10):
        assert (
            knn_probe(train, labels, TEST[:, :3], k=k).tolist()
            == knn_probe(train[order], labels[order], TEST[:, :3], k=k).tolist()
        )


def test_neighbours_of_a_collapsed_encoder_are_all_rows():
    same = np.tile(np.random.default_rng(0).normal(size=384).astype(np.float32), (31, 1))
    labels = np.array(["first"] * 14 + ["second"] * 17)  # the ten rows that stand first are of the rarer class
    assert set(knn_probe(same, labels, same[:5])) == {"second"}


def test_blocks_of_test_rows_do_not_change_a_prediction(monkeypatch):
    whole = knn_probe(TRAIN, LABELS, TEST)
    monkeypatch.setattr(probes, "SCORES", 700)
    assert knn_probe(TRAIN, LABELS, TEST).tolist() == whole.tolist()


@pytest.mark.parametrize("k", [0, -3])
def test_neighbours_start_at_one(k):
    with pytest.raises(EvaluationSettingInvalid, match="k counts"):
        knn_probe(TRAIN, LABELS, TEST, k=k)


def test_tensors_of_any_dtype_are_taken():
    rows = torch.tensor(TRAIN).bfloat16().requires_grad_()
    assert (knn_probe(rows, LABELS, torch.tensor(TEST)) == TRUTH).mean() > 0.6


# ------------------------------------------------------------------------------------------------- chance, and few labels


def test_the_majority_class_is_of_the_training_rows_and_of_equals_the_first():
    assert majority_class(["b", "a", "b"], 2).tolist() == ["b", "b"]
    assert majority_class(["b", "a"], 1).tolist() == ["a"]


def test_few_shot_draws_as_many_rows_of_each_class(monkeypatch):
    seen = []
    real = probes._predicted
    monkeypatch.setattr(
        probes,
        "_predicted",
        lambda strength, rows, labels, test: seen.append(labels) or real(strength, rows, labels, test),
    )
    figures = few_shot(TRAIN, LABELS, TEST, TRUTH, shots=4, draws=3)
    assert [np.unique(each, return_counts=True)[1].tolist() for each in seen] == [[4, 4, 4]] * 3
    assert {name: values.shape for name, values in figures.items()} == {"accuracy": (3,), "macro-F1": (3,)}


def test_few_shot_draws_anew_each_time_and_the_same_for_the_same_seed():
    first, again, other = (few_shot(TRAIN, LABELS, TEST, TRUTH, shots=1, seed=seed)["accuracy"] for seed in (0, 0, 1))
    assert len(set(first.tolist())) > 1
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_more_labels_tell_more():
    one, twenty = (few_shot(TRAIN, LABELS, TEST, TRUTH, shots=shots)["accuracy"].mean() for shots in (1, 20))
    assert twenty > one + 0.1


def test_few_shot_of_a_draw_is_the_probe_on_the_drawn_rows():
    """With as many shots as a class has rows, every draw is the whole training split."""
    whole = few_shot(TRAIN, LABELS, TEST, TRUTH, shots=30, draws=2)["accuracy"]
    expected = (linear_probe(TRAIN, LABELS, TEST, strength=probes.FEW_SHOT_STRENGTH) == TRUTH).mean()
    assert whole == pytest.approx([expected, expected])


def test_a_class_with_fewer_rows_than_shots_is_named():
    with pytest.raises(TooFewValues, match="'b' has 2 training rows, fewer than the 3"):
        few_shot(np.eye(6), list("aaaabb"), np.eye(6), list("aaaabb"), shots=3)


@pytest.mark.parametrize("settings", [{"shots": 0}, {"draws": 0}])
def test_shots_and_draws_start_at_one(settings):
    with pytest.raises(EvaluationSettingInvalid):
        few_shot(TRAIN, LABELS, TEST, TRUTH, **settings)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
class TestBadInput:
    def test_a_single_class_tells_nothing_apart(self, probe):
        with pytest.raises(TooFewValues, match="two classes"):
            probe(TRAIN, ["a"] * 90, TEST)

    def test_a_class_that_training_lacks_is_never_predicted(self, probe):
        predicted = probe(TRAIN[LABELS != "c"], LABELS[LABELS != "c"], TEST)
        assert "c" not in set(predicted)

    @pytest.mark.parametrize("side", [0, 1])
    def test_nan_is_refused_by_side(self, probe, side):
        rows = [TRAIN.copy(), TEST.copy()]
        rows[side][3, 2] = math.nan
        with pytest.raises(ValuesNotFinite, match=("training", "test")[side]):
            probe(rows[0], LABELS, rows[1])

    @pytest.mark.parametrize(
        ("train", "labels", "test"),
        [(TRAIN, LABELS[:5], TEST), (TRAIN, LABELS, TEST[:, :2]), (TRAIN[0], LABELS, TEST), (TRAIN, LABELS, TEST[:0])],
    )
    def test_shapes_must_fit(self, probe, train, labels, test):
        with pytest.raises(EvaluationShapesDiffer):
            probe(train, labels, test)
