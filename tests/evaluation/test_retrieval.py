from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, RelevantInvalid, ValuesNotFinite
from contrapose.evaluation import retrieval, retrieval_by_score


def by_hand(scores: np.ndarray, relevant: list[list[int]], ks: tuple[int, ...]) -> dict[str, list[float]]:
    """Sort each query's candidates, the irrelevant first among equals, and read the metrics off the sorted list."""
    figures: dict[str, list[float]] = {}
    for row, right in zip(scores, relevant, strict=True):
        order = sorted(range(len(row)), key=lambda candidate: (-row[candidate], candidate in right))
        hits = [candidate in right for candidate in order]
        figures.setdefault("mrr", []).append(1 / (1 + hits.index(True)))
        for k in ks:
            gain = sum(1 / math.log2(place + 2) for place, hit in enumerate(hits[:k]) if hit)
            best = sum(1 / math.log2(place + 2) for place in range(min(k, len(right))))
            figures.setdefault(f"accuracy@{k}", []).append(float(any(hits[:k])))
            figures.setdefault(f"recall@{k}", []).append(sum(hits[:k]) / len(right))
            figures.setdefault(f"ndcg@{k}", []).append(gain / best)
    return figures


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 12),
    chunk=st.integers(1, 10),
    levels=st.integers(1, 6),
    seed=st.integers(0, 999),
)
def test_metrics_equal_a_sorted_list(n, m, chunk, levels, seed):
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, levels, (n, m)).astype(float)  # few levels: many ties
    relevant = [draw.choice(m, size=draw.integers(1, m + 1), replace=False).tolist() for _ in range(n)]
    measured = retrieval_by_score(lambda rows: scores[rows], n, m, relevant, ks=(1, 3, 20), chunk=chunk)
    expected = by_hand(scores, relevant, (1, 3, 20))
    assert set(measured.values) == set(expected)
    for metric, values in expected.items():
        np.testing.assert_allclose(measured[metric], values, atol=1e-12, err_msg=metric)


def test_a_small_case_worked_by_hand():
    queries = np.array([[1.0, 0.0], [0.0, 1.0]])
    candidates = np.array(
        [[1.0, 0.1], [1.0, 0.5], [0.1, 1.0], [1.0, 2.0]]
    )  # query 0 ranks 0 1 3 2, query 1 ranks 2 3 1 0
    measured = retrieval(queries, candidates, [[1], [2, 1]], ks=(1, 2))
    assert measured["accuracy@1"].tolist() == [0, 1]
    assert measured["accuracy@2"].tolist() == [1, 1]
    assert measured["recall@2"].tolist() == [1, 0.5]
    assert measured["mrr"].tolist() == [0.5, 1]
    assert measured["ndcg@2"] == pytest.approx([1 / math.log2(3), 1 / (1 + 1 / math.log2(3))])
    assert measured.means["accuracy@1"] == 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_collapsed_encoder_scores_zero(dtype):
    row = np.random.default_rng(0).normal(size=384).astype(dtype)
    collapsed = np.tile(row, (301, 1))  # an odd number: the edge tiles of a matrix product add in another order
    measured = retrieval(collapsed, collapsed, ks=(1, 10))
    assert measured.means["accuracy@1"] == 0
    assert measured.means["accuracy@10"] == 0
    assert measured["mrr"] == pytest.approx(1 / 301)


def test_zero_vectors_are_similar_to_nothing():
    measured = retrieval(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), ks=(1,))
    assert measured["accuracy@1"].tolist() == [0, 1]


def test_a_duplicate_of_the_right_candidate_counts_against_unless_it_is_relevant_too():
    queries, candidates = np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    assert retrieval(queries, candidates, [[0], [1]], ks=(1,))["accuracy@1"].tolist() == [0, 1]
    assert retrieval(queries, candidates, [[0, 2], [1]], ks=(1,))["accuracy@1"].tolist() == [1, 1]


def test_lengths_do_not_matter():
    draw = np.random.default_rng(0)
    queries, candidates = draw.normal(size=(20, 5)), draw.normal(size=(20, 5))
    longer = retrieval(queries * draw.uniform(0.1, 9, (20, 1)), candidates * draw.uniform(0.1, 9, (20, 1)))
    for metric, values in retrieval(queries, candidates).values.items():
        np.testing.assert_array_equal(longer[metric], values)


def test_the_other_direction_is_the_same_call_turned_about():
    queries, candidates = np.array([[1.0, 0.0], [1.0, 0.2]]), np.array([[1.0, 0.3], [0.0, 1.0]])
    assert retrieval(queries, candidates, ks=(1,))["accuracy@1"].tolist() == [1, 0]
    assert retrieval(candidates, queries, ks=(1,))["accuracy@1"].tolist() == [0, 1]


def test_tensors_of_any_dtype_are_taken():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    assert retrieval(x, x, ks=(1,)).means["accuracy@1"] == 1


def test_scores_are_asked_for_in_chunks():
    asked = []

    def score(rows: slice) -> np.ndarray:
        asked.append((rows.start, rows.stop))
        return np.eye(7)[rows]

    assert retrieval_by_score(score, 7, 7, ks=(1,), chunk=3).means["accuracy@1"] == 1
    assert asked == [(0, 3), (3, 6), (6, 7)]


@pytest.mark.parametrize("relevant", [[[0], []], [[0], [3]], [[0], [-1]], [[0], [0.5]]])
def test_relevant_candidates_that_are_none_are_refused(relevant):
    with pytest.raises(RelevantInvalid, match="query 1"):
        retrieval(np.eye(3)[:2], np.eye(3), relevant)


@pytest.mark.parametrize(
    ("queries", "candidates", "relevant"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), None),
        (np.ones((2, 3)), np.ones((3, 3)), None),
        (np.ones((2, 3)), np.ones((2, 3)), [[0]]),
        (np.ones(3), np.ones((1, 3)), None),
        (np.ones((0, 3)), np.ones((0, 3)), None),
    ],
)
def test_shapes_must_fit(queries, candidates, relevant):
    with pytest.raises(EvaluationShapesDiffer):
        retrieval(queries, candidates, relevant)


def test_scores_of_another_shape_are_refused():
    with pytest.raises(EvaluationShapesDiffer, match=r"\(2, 4\)"):
        retrieval_by_score(lambda rows: np.ones((2, 3)), 2, 4, [[0], [1]])


@pytest.mark.parametrize("name", ["queries", "candidates"])
def test_nan_in_embeddings_is_named(name):
    arrays = {"queries": np.ones((3, 2)), "candidates": np.ones((3, 2))}
    arrays[name][1, 0] = math.nan
    with pytest.raises(ValuesNotFinite, match=rf"{name}.*row 1"):
        retrieval(**arrays)


def test_nan_in_scores_is_named():
    scores = np.ones((5, 5))
    scores[3, 2] = math.nan
    with pytest.raises(ValuesNotFinite, match=r"scores.*row 3"):
        retrieval_by_score(lambda rows: scores[rows], 5, 5, chunk=2)


@pytest.mark.parametrize("settings", [{"ks": ()}, {"ks": (0, 5)}, {"chunk": 0}])
def test_cut_offs_and_chunks_start_at_one(settings):
    with pytest.raises(EvaluationSettingInvalid):
        retrieval(np.eye(3), np.eye(3), **settings)
