"""STS and the length bias against references written out pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from contrapose.errors import EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation.similarity import (
    length_bias,
    length_bias_scores,
    pair_cosines,
    spearman,
    sts,
    sts_scores,
)

FEW_LEVELS = {"n": st.integers(3, 30), "levels": st.integers(2, 6), "seed": st.integers(0, 10_000)}  # many ties


def drawn(n: int, levels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Similarities and gold scores with many ties; the gold scores are not all equal."""
    draw = np.random.default_rng(seed)
    gold = draw.integers(0, levels, n).astype(float)
    gold[:2] = 0, 1
    return draw.integers(0, levels, n) / 7, gold


def ranks(values: np.ndarray) -> list[float]:
    """The mean of the places that a value's equals take, from 1."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def pearson(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    below = math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))
    return top / below if below else 0.0


def residual(x: list[float], given: list[float]) -> list[float]:
    """What of x a straight line over `given` leaves over."""
    slope = pearson(x, given) * np.std(x) / np.std(given)
    return [a - np.mean(x) - slope * (b - np.mean(given)) for a, b in zip(x, given, strict=True)]


# ------------------------------------------------------------------------------------------------------------- cosines


def test_cosines_are_those_of_the_rows():
    first, second = np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 2.0], [2.0, 0.0]])
    assert pair_cosines(first, second) == pytest.approx([0, math.sqrt(0.5)])


def test_a_zero_vector_has_cosine_zero():
    assert pair_cosines(np.zeros((2, 3)), np.ones((2, 3))).tolist() == [0, 0]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_broken_embeddings_are_refused_and_not_called_zero(broken):
    second = np.ones((3, 2))
    second[2, 1] = broken
    with pytest.raises(ValuesNotFinite, match="pair 2"):
        pair_cosines(np.ones((3, 2)), second)


def test_cosines_need_pairs():
    with pytest.raises(EvaluationShapesDiffer):
        pair_cosines(np.ones((3, 2)), np.ones((2, 2)))


# ------------------------------------------------------------------------------------------------------------ spearman


@settings(max_examples=60, deadline=None)
@given(**FEW_LEVELS)
def test_spearman_is_pearson_of_average_ranks(n, levels, seed):
    similarities, gold = drawn(n, levels, seed)
    assert spearman(similarities, gold) == pytest.approx(pearson(ranks(similarities), ranks(gold)), abs=1e-12)


def test_spearman_looks_at_order_alone():
    similarities, gold = np.random.default_rng(0).normal(size=(2, 40))
    assert spearman(np.exp(3 * similarities), gold) == pytest.approx(spearman(similarities, gold))
    assert spearman(-similarities, gold) == pytest.approx(-spearman(similarities, gold))


def test_a_collapsed_encoder_ranks_nothing():
    assert spearman(np.full(9, 0.7), np.arange(9)) == 0


@pytest.mark.parametrize("gold", [[2.0, 2.0, 2.0], [1.0], []])
def test_gold_scores_that_rank_nothing_are_refused(gold):
    with pytest.raises(TooFewValues, match="all equal"):
        spearman(np.arange(len(gold)), gold)


@pytest.mark.parametrize("side", [0, 1])
def test_nan_is_refused_on_either_side(side):
    values = [[0.1, 0.2, 0.3], [1.0, 2.0, 3.0]]
    values[side][1] = math.nan
    with pytest.raises(ValuesNotFinite):
        spearman(*values)


# ------------------------------------------------------------------------------------------------------- aggregations


def test_all_pairs_together_differ_from_sub_sets_apart():
    """Each sub-set is ranked perfectly, and the cosines of one lie below those of the other, against the gold scores."""
    gold = np.array([1.0, 2, 3, 4, 5, 6])
    similarities = np.array([0.7, 0.8, 0.9, 0.1, 0.2, 0.3])
    figures = sts(similarities, gold, ["b", "b", "b", "a", "a", "a"])
    assert (figures["mean"], figures["wmean"]) == pytest.approx((1, 1))
    assert figures["all"] == pytest.approx(stats.spearmanr(similarities, gold).statistic)
    assert figures["all"] < 0


def test_wmean_weighs_by_pairs_and_mean_does_not():
    gold = np.array([1.0, 2, 3, 4, 1, 2])
    similarities = np.array([1.0, 2, 3, 4, 2, 1])  # four pairs at 1, two pairs at -1
    figures = sts(similarities, gold, [7, 7, 7, 7, 9, 9])
    assert figures["mean"] == pytest.approx(0)
    assert figures["wmean"] == pytest.approx((4 - 2) / 6)


def test_without_sub_sets_the_three_are_one():
    similarities, gold = drawn(20, 6, 0)
    assert set(sts(similarities, gold).values()) == {spearman(similarities, gold)}


def test_a_sub_set_without_different_gold_scores_is_named():
    with pytest.raises(TooFewValues, match="sub-set 'flat'"):
        sts([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 3], ["good", "good", "flat", "flat"])


def test_sub_sets_need_a_label_a_pair():
    with pytest.raises(EvaluationShapesDiffer, match="sub-set"):
        sts([0.1, 0.2, 0.3], [1, 2, 3], ["a", "a"])


def test_scores_hold_the_figures_under_their_names():
    similarities, gold = drawn(40, 6, 1)
    subset = np.arange(40) % 3
    scores = sts_scores(similarities, gold, subset)
    assert {name: score.value for name, score in scores.items()} == pytest.approx(
        {f"spearman {name}": value for name, value in sts(similarities, gold, subset).items()}
    )
    assert list(sts_scores(similarities, gold)) == ["spearman"]


def test_the_interval_is_that_of_scipys_bootstrap():
    draw = np.random.default_rng(0)
    gold = draw.normal(size=200)
    similarities = gold + draw.normal(size=200)
    score = sts_scores(similarities, gold)["spearman"]
    theirs = stats.bootstrap(
        (similarities, gold),
        lambda s, g: stats.spearmanr(s, g).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (score.low, score.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_a_small_sub_set_keeps_its_pairs_in_every_draw():
    """Sub-set b is ranked the wrong way round; were its two pairs drawn with the others, many draws would be without it."""
    gold = np.concatenate([np.arange(30.0), [0, 1]])
    similarities = np.concatenate([np.arange(30.0), [1, 0]])
    score = sts_scores(similarities, gold, ["a"] * 30 + ["b"] * 2)["spearman mean"]
    assert (score.value, score.low, score.high) == pytest.approx((0, 0, 0), abs=1e-12)


# --------------------------------------------------------------------------------------------------------- length bias


@settings(max_examples=60, deadline=None)
@given(n=st.integers(6, 30), levels=st.integers(2, 6), seed=st.integers(0, 10_000), near=st.integers(0, 4))
def test_length_bias_is_that_of_the_definition(n, levels, seed, near):
    similarities, gold = drawn(n, levels, seed)
    lengths = np.random.default_rng(seed + 1).integers(1, 12, (n, 2))
    lengths[:2] = [[5, 5], [1, 9]]  # a near pair and a far one
    figures = length_bias(similarities, gold, lengths, near=near)
    close = [row for row in range(n) if abs(lengths[row][0] - lengths[row][1]) <= near]
    far = [row for row in range(n) if row not in close]
    gap = np.mean([similarities[row] for row in close]) - np.mean([similarities[row] for row in far])
    due = np.mean([gold[row] / 5 for row in close]) - np.mean([gold[row] / 5 for row in far])
    assert figures["gap"] == pytest.approx(gap - due, abs=1e-12)
    closeness, given_gold = ranks(-np.abs(lengths[:, 0] - lengths[:, 1])), ranks(gold)
    expected = pearson(residual(ranks(similarities), given_gold), residual(closeness, given_gold))
    if 1 - pearson(ranks(similarities), given_gold) ** 2 > 1e-9 and 1 - pearson(closeness, given_gold) ** 2 > 1e-9:
        assert figures["partial"] == pytest.approx(expected, abs=1e-9)
    else:
        assert figures["partial"] == 0


def test_an_encoder_that_reads_length_alone_is_found_out():
    draw = np.random.default_rng(0)
    lengths, gold = draw.integers(3, 20, (300, 2)), draw.uniform(0, 5, 300)
    read = -np.abs(lengths[:, 0] - lengths[:, 1])
    assert length_bias(read, gold, lengths)["partial"] > 0.99
    assert length_bias(-read, gold, lengths)["partial"] < -0.99


def test_an_encoder_that_ranks_as_people_do_has_no_bias_even_where_people_link_length_and_meaning():
    lengths = np.array([[3, 4], [5, 5], [9, 2], [14, 3], [6, 7], [12, 1]])
    gold = np.array([4.0, 5, 2, 1, 4.5, 0])
    assert length_bias(gold / 5, gold, lengths) == pytest.approx({"gap": 0, "partial": 0})


def test_a_collapsed_encoder_reads_no_length():
    figures = length_bias(np.full(4, 0.9), [0.0, 1, 2, 3], [[1, 1], [1, 9], [2, 2], [9, 1]])
    assert figures["partial"] == 0
    assert figures["gap"] == pytest.approx(-((0 + 2) / 2 - (1 + 3) / 2) / 5)


def test_the_gap_divides_by_the_top_of_the_scale():
    similarities, lengths = [0.9, 0.1, 0.8, 0.2], [[1, 1], [1, 9], [2, 2], [9, 1]]
    assert length_bias(similarities, [1.0, 0, 0.9, 0.1], lengths, top=1.0)["gap"] == pytest.approx(
        length_bias(similarities, [5.0, 0, 4.5, 0.5], lengths)["gap"]
    )


@pytest.mark.parametrize(("lengths", "said"), [([[5, 5]] * 4, "at most 3"), ([[1, 9]] * 4, "more than 3")])
def test_pairs_on_one_side_of_the_line_are_refused(lengths, said):
    with pytest.raises(TooFewValues, match=said):
        length_bias([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4], lengths)


@pytest.mark.parametrize("lengths", [[[1, 2]], [1, 2, 3], [[1], [2], [3]]])
def test_lengths_are_two_a_pair(lengths):
    with pytest.raises(EvaluationShapesDiffer, match="lengths"):
        length_bias([0.1, 0.2, 0.3], [1, 2, 3], lengths)


def test_the_scores_of_the_bias_are_its_figures_within_their_intervals():
    draw = np.random.default_rng(0)
    lengths, gold = draw.integers(1, 20, (150, 2)), draw.uniform(0, 5, 150)
    similarities = gold / 5 - 0.02 * np.abs(lengths[:, 0] - lengths[:, 1])
    scores, figures = length_bias_scores(similarities, gold, lengths), length_bias(similarities, gold, lengths)
    assert scores["length bias"].value == figures["partial"]
    assert scores["length gap"].value == figures["gap"]
    for score in scores.values():
        assert 0 < score.low < score.value < score.high
