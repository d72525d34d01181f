"""Agreement of clusters and labels, against counts worked out by hand."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation import clustering


def clouds(n: int = 60, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 3
    return apart * np.eye(4)[labels] + np.random.default_rng(0).normal(size=(n, 4)), labels


def nmi(one: np.ndarray, other: np.ndarray) -> float:
    """Mutual information over the mean of the two entropies, by counting."""

    def entropy(*columns: np.ndarray) -> float:
        rows = list(zip(*columns, strict=True))
        return -sum(share * math.log(share) for share in (rows.count(each) / len(rows) for each in set(rows)))

    return 2 * (entropy(one) + entropy(other) - entropy(one, other)) / (entropy(one) + entropy(other))


def ari(one: np.ndarray, other: np.ndarray) -> float:
    """Over all pairs of rows: how many are together in both, less what chance would give, over the most there could be."""
    pairs = list(combinations(range(len(one)), 2))
    first, second = ([labels[a] == labels[b] for a, b in pairs] for labels in (one, other))
    both, expected = sum(a and b for a, b in zip(first, second, strict=True)), sum(first) * sum(second) / len(pairs)
    return (both - expected) / ((sum(first) + sum(second)) / 2 - expected)


def test_figures_are_those_of_counting():
    rows, labels = clouds(apart=1.5)
    found = KMeans(3, n_init=1, random_state=7).fit_predict(rows)
    figures = clustering(rows, labels, draws=1, seed=7, cosine=False)
    assert figures["NMI"] == pytest.approx([nmi(labels, found)])
    assert figures["ARI"] == pytest.approx([ari(labels, found)])
    assert 0 < figures["ARI"][0] < 1


def test_clouds_far_apart_are_found_whatever_the_labels_are_called():
    rows, labels = clouds(apart=50)
    named = np.array(["x", "y", "z"])[(labels + 1) % 3]
    assert clustering(rows, named)["NMI"].max() == pytest.approx(1)
    assert clustering(rows, named)["ARI"].max() == pytest.approx(1)


def test_labels_at_random_agree_by_chance():
    labels = np.random.default_rng(1).integers(0, 3, 600)
    assert clustering(clouds(600)[0], labels)["ARI"] == pytest.approx(np.zeros(10), abs=0.02)


def test_lengths_count_only_without_cosine():
    rows, labels = clouds(apart=6)
    longer = rows * np.random.default_rng(0).uniform(0.1, 10, (60, 1))
    same = clustering(rows, labels)["ARI"].tolist()
    assert clustering(longer, labels)["ARI"].tolist() == pytest.approx(same)
    assert clustering(longer, labels, cosine=False)["ARI"].mean() < np.mean(same) - 0.1


def test_each_draw_has_a_start_of_its_own():
    rows, labels = clouds(apart=1.0)
    assert len(set(clustering(rows, labels, draws=8)["NMI"].tolist())) > 1
    assert clustering(rows, labels)["NMI"].tolist() == clustering(rows, labels)["NMI"].tolist()


def test_sparse_rows_have_the_figures_of_dense_ones():
    rows, labels = clouds(apart=1.5)
    sparse = clustering(csr_matrix(rows), labels, draws=3)
    assert {name: each.tolist() for name, each in sparse.items()} == {
        name: each.tolist() for name, each in clustering(rows, labels, draws=3).items()
    }


@pytest.mark.parametrize("labels", [np.zeros(60), np.arange(60)])
def test_one_label_or_a_label_a_row_is_refused(labels):
    with pytest.raises(TooFewValues):
        clustering(clouds()[0], labels)


def test_bad_shapes_values_and_settings_are_refused():
    rows, labels = clouds()
    with pytest.raises(EvaluationShapesDiffer):
        clustering(rows, labels[:5])
    with pytest.raises(ValuesNotFinite):
        clustering(np.where(rows == rows[0, 0], np.nan, rows), labels)
    with pytest.raises(EvaluationSettingInvalid):
        clustering(rows, labels, draws=0)
