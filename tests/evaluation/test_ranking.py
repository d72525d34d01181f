"""Full ranking against lists sorted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrapose.errors import EvaluationShapesDiffer, RelevantInvalid, ValuesNotFinite
from contrapose.evaluation import full_ranking


def rank(row: np.ndarray, target: int, gone: list[int]) -> int:
    """The target's place, from 1, behind all that score the same; items that are gone stand nowhere."""
    left = [item for item in range(len(row)) if item == target or item not in gone]
    return 1 + sum(row[item] >= row[target] for item in left if item != target)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 8),
    items=st.integers(1, 15),
    chunk=st.integers(1, 9),
    levels=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_figures_equal_a_sorted_list(n, items, chunk, levels, seed):
    draw = np.random.default_rng(seed)
    scores, targets = draw.integers(-levels, levels, (n, items)).astype(float), draw.integers(0, items, n)
    seen = [draw.integers(0, items, draw.integers(0, items + 1)).tolist() for _ in range(n)]
    for gone in (None, seen):
        found = full_ranking(lambda users: scores[users], targets, items, seen=gone, ks=(1, 4), chunk=chunk)
        ranks = [rank(scores[user], targets[user], gone[user] if gone else []) for user in range(n)]
        assert found["MRR"] == pytest.approx([1 / r for r in ranks])
        for k in (1, 4):
            assert found[f"HR@{k}"].tolist() == [r <= k for r in ranks]
            assert found[f"NDCG@{k}"] == pytest.approx([(r <= k) / math.log2(1 + r) for r in ranks])


def test_the_target_stays_though_it_was_seen():
    scores = np.array([[3.0, 2.0, 1.0]])
    assert full_ranking(lambda users: scores[users], [1], 3, seen=[[0, 1]], ks=(1,))["HR@1"].tolist() == [1]


def test_scores_handed_over_are_left_as_they_are():
    scores = np.array([[3.0, 2.0, 1.0]])
    full_ranking(lambda users: scores[users], [1], 3, seen=[[0]])
    assert scores.tolist() == [[3, 2, 1]]


def test_users_are_scored_in_chunks():
    asked = []

    def score(users: slice) -> np.ndarray:
        asked.append((users.start, users.stop))
        return np.eye(5)[users]

    assert full_ranking(score, np.arange(5), 5, seen=[[]] * 5, chunk=2)["MRR"].tolist() == [1] * 5
    assert asked == [(0, 2), (2, 4), (4, 5)]


@pytest.mark.parametrize("targets", [[3], [-1], [0.5], [[0]]])
def test_targets_are_numbers_of_items(targets):
    with pytest.raises(RelevantInvalid):
        full_ranking(lambda users: np.eye(3)[users], targets, 3)


@pytest.mark.parametrize("seen", [[[0], [3]], [[0], [-1]]])
def test_seen_items_are_numbers_of_items(seen):
    with pytest.raises(RelevantInvalid, match="user 1"):
        full_ranking(lambda users: np.eye(3)[users], [0, 1], 3, seen=seen)


def test_seen_items_are_given_for_each_user():
    with pytest.raises(EvaluationShapesDiffer, match="2 targets"):
        full_ranking(lambda users: np.eye(3)[users], [0, 1], 3, seen=[[0]])


def test_scores_of_another_shape_are_refused():
    with pytest.raises(EvaluationShapesDiffer):
        full_ranking(lambda users: np.ones((1, 2)), [0], 3, seen=[[]])


def test_nan_is_refused_also_where_items_are_gone():
    scores = np.array([[1.0, math.nan, 0.0]])
    with pytest.raises(ValuesNotFinite):
        full_ranking(lambda users: scores[users], [0], 3, seen=[[2]])
