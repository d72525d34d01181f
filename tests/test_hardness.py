from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from contrapose import hardness
from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer, TemperatureInvalid

EXACT = {"rtol": 1e-12, "atol": 1e-14}


def cosines(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def by_hand(row: list[float], temperature: float) -> list[float]:
    """r of one anchor, one exponential at a time; a negative of -inf is none."""
    exponentials = [math.exp(similarity / temperature) for similarity in row]
    return [each / sum(exponentials) for each in exponentials]


def entropy_by_hand(row: list[float], temperature: float) -> float:
    return -sum(share * math.log(share) for share in by_hand(row, temperature) if share > 0)


FIGURES = {
    "relative_penalties": hardness.relative_penalties,
    "penalty_entropy": hardness.penalty_entropy,
    "effective_negatives": hardness.effective_negatives,
    "hardest_penalty": hardness.hardest_penalty,
    "hardest_same_label": lambda s, temperature: hardness.hardest_same_label(s, torch.ones_like(s, dtype=torch.bool)),
    "temperature_for_entropy": lambda s, temperature: hardness.temperature_for_entropy(s, 1.0),
}
every_figure = pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
with_temperature = pytest.mark.parametrize("name", list(FIGURES)[:4])


# -- definitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.03, 0.3, 10.0])
def test_figures_follow_their_definitions(temperature):
    negatives = cosines(4, 21)
    rows = negatives.tolist()
    r = [by_hand(row, temperature) for row in rows]
    entropy = torch.tensor([entropy_by_hand(row, temperature) for row in rows], dtype=torch.float64)
    hardest = [sum(sorted(each, reverse=True)[:3]) for each in r]  # 10 % of 21, rounded up
    torch.testing.assert_close(
        hardness.relative_penalties(negatives, temperature=temperature), torch.tensor(r, dtype=torch.float64), **EXACT
    )
    torch.testing.assert_close(hardness.penalty_entropy(negatives, temperature=temperature), entropy, **EXACT)
    torch.testing.assert_close(hardness.effective_negatives(negatives, temperature=temperature), entropy.exp(), **EXACT)
    torch.testing.assert_close(
        hardness.hardest_penalty(negatives, temperature=temperature, share=0.1),
        torch.tensor(hardest, dtype=torch.float64),
        **EXACT,
    )


@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_relative_penalties_are_gradients_of_info_nce_relative_to_the_positive(temperature):
    positive, negatives = cosines(5, 1, seed=1).requires_grad_(), cosines(5, 9).requires_grad_()
    logits = torch.cat([positive, negatives], dim=1) / temperature
    functional.cross_entropy(logits, torch.zeros(5, dtype=torch.long), reduction="sum").backward()
    torch.testing.assert_close(
        hardness.relative_penalties(negatives, temperature=temperature), negatives.grad / -positive.grad, **EXACT
    )


def test_same_labels_among_the_hardest_are_counted():
    negatives = torch.tensor([[0.9, 0.1, 0.8, -0.5], [0.0, 0.3, 0.2, 0.1]])
    same = torch.tensor([[True, False, False, True], [True, True, True, False]])
    assert hardness.hardest_same_label(negatives, same, share=0.5).tolist() == [0.5, 1.0]
    assert hardness.hardest_same_label(negatives, same, share=0.01).tolist() == [1.0, 1.0]
    assert hardness.hardest_same_label(negatives, same, share=1.0).tolist() == [0.5, 0.75]


@pytest.mark.parametrize(("share", "kept"), [(0.07, 7), (0.071, 8), (0.001, 1), (1.0, 100)])
def test_the_hardest_are_a_share_rounded_up(share, kept):
    assert hardness.hardest_penalty(torch.zeros(100).double(), temperature=1.0, share=share) == pytest.approx(
        kept / 100
    )


def official_search(row: list[float], entropy: float) -> float:
    """The note's rule: from 5, thirteen steps of 2.5, then half as long each; up while the entropy is too low."""
    temperature, step = 5.0, 2.5
    for _ in range(13):
        temperature += step if entropy_by_hand(row, temperature) < entropy else -step
        step /= 2
    return temperature


def test_thirteen_halvings_are_the_official_search():
    negatives = cosines(6, 30)
    found = hardness.temperature_for_entropy(negatives, 2.0, halvings=13)
    assert found.tolist() == [official_search(row, 2.0) for row in negatives.tolist()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("entropy", [0.01, 1.0, 3.3])
def test_the_search_finds_the_temperature_of_an_entropy(entropy, dtype):
    negatives = cosines(6, 30).to(dtype)
    temperature = hardness.temperature_for_entropy(negatives, entropy)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        hardness.penalty_entropy(negatives, temperature=temperature),
        torch.full((6,), entropy, dtype=dtype),
        rtol=0,
        atol=tolerance,
    )


# -- limits and chance ----------------------------------------------------------------------------------------------


def test_equal_negatives_share_alike():
    negatives = torch.full((3, 8), 0.4, dtype=torch.float64)
    assert hardness.relative_penalties(negatives, temperature=0.1).tolist() == [[1 / 8] * 8] * 3
    torch.testing.assert_close(
        hardness.effective_negatives(negatives, temperature=0.1), torch.full((3,), 8.0, dtype=torch.float64)
    )


def test_a_small_temperature_leaves_the_hardest_and_a_large_one_all():
    negatives = cosines(4, 12)
    one = functional.one_hot(negatives.argmax(dim=1), 12).double()
    torch.testing.assert_close(hardness.relative_penalties(negatives, temperature=1e-5), one)
    assert hardness.hardest_penalty(negatives, temperature=1e-5).tolist() == [1.0] * 4
    all_alike = torch.full((4, 12), 1 / 12, dtype=torch.float64)
    torch.testing.assert_close(hardness.relative_penalties(negatives, temperature=1e9), all_alike, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("temperature", [1e-3, 1e4])
def test_large_dot_products_do_not_overflow(dtype, temperature):
    negatives = torch.tensor([3e4, -3e4, 2.9e4]).to(dtype)
    assert float(hardness.relative_penalties(negatives, temperature=temperature).sum()) == pytest.approx(1)
    largest = torch.tensor([3e38, -3e38, 0])
    assert hardness.relative_penalties(largest, temperature=0.001).tolist() == [1, 0, 0]


# -- properties -----------------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(0, 99))
temperatures = st.floats(0.005, 10)
properties = settings(deadline=None, max_examples=40)


@properties
@given(size=sizes, temperature=temperatures, other=temperatures)
def test_shares_sum_to_one_and_their_entropy_never_falls_as_temperature_rises(size, temperature, other):
    *shape, seed = size
    negatives = cosines(*shape, seed=seed)
    r = hardness.relative_penalties(negatives, temperature=temperature)
    torch.testing.assert_close(r.sum(dim=-1), torch.ones(shape[0], dtype=torch.float64), **EXACT)
    low, high = sorted([temperature, other])
    gain = hardness.penalty_entropy(negatives, temperature=high) - hardness.penalty_entropy(negatives, temperature=low)
    assert float(gain.min()) >= -1e-12
    effective = hardness.effective_negatives(negatives, temperature=temperature)
    assert float(effective.min()) >= 1 - 1e-12
    assert float(effective.max()) <= shape[1] * (1 + 1e-12)


@with_temperature
@properties
@given(size=sizes, temperature=temperatures)
def test_order_and_a_constant_do_not_matter(name, size, temperature):
    *shape, seed = size
    negatives = cosines(*shape, seed=seed)
    order = torch.randperm(shape[1], generator=torch.Generator().manual_seed(seed))
    plain = FIGURES[name](negatives, temperature=temperature)
    shuffled = FIGURES[name](negatives[:, order] + 5, temperature=temperature)
    torch.testing.assert_close(plain[:, order] if plain.ndim == 2 else plain, shuffled, rtol=1e-9, atol=1e-12)


@every_figure
def test_a_negative_left_out_is_as_if_it_were_not_there(figure):
    negatives = cosines(3, 12)
    kept = torch.cat([negatives, torch.full((3, 400), -math.inf)], dim=1)
    found, expected = figure(kept, temperature=0.2), figure(negatives, temperature=0.2)
    if found.ndim == 2:
        assert not found[:, 12:].any()
        found = found[:, :12]
    torch.testing.assert_close(found, expected, **EXACT)


@with_temperature
def test_each_anchor_may_have_its_own_temperature_and_any_leading_shape(name):
    negatives, temperature = cosines(2, 3, 7), torch.tensor([[0.1, 0.2, 0.3], [0.5, 1.0, 2.0]], dtype=torch.float64)
    found = FIGURES[name](negatives, temperature=temperature)
    for i, j in np.ndindex(2, 3):
        torch.testing.assert_close(
            found[i, j], FIGURES[name](negatives[i, j], temperature=float(temperature[i, j])), **EXACT
        )


@every_figure
def test_half_precision_is_computed_in_float32(figure):
    negatives = cosines(3, 12).half()
    found = figure(negatives, temperature=0.2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, figure(negatives.float(), temperature=0.2), rtol=0, atol=0)


@every_figure
def test_no_graph_is_built(figure):
    assert not figure(cosines(3, 12).requires_grad_(), temperature=0.2).requires_grad


# -- bad input ------------------------------------------------------------------------------------------------------


@every_figure
@pytest.mark.parametrize(("value", "name"), [(math.nan, "NaN"), (math.inf, "infinity")])
def test_similarities_must_be_finite(figure, value, name):
    negatives = cosines(3, 12)
    negatives[1, 2] = value
    with pytest.raises(NonFinite, match=f"negatives hold {name} in 1 of 36 similarities"):
        figure(negatives, temperature=0.2)


@every_figure
def test_an_anchor_without_negatives_is_refused(figure):
    negatives = cosines(3, 12)
    negatives[1] = -math.inf
    with pytest.raises(NoNegatives, match="1 of 3 anchors have no negative"):
        figure(negatives, temperature=0.2)
    with pytest.raises(NoNegatives, match=r"got shape \(3, 0\)"):
        figure(torch.ones(3, 0), temperature=0.2)


@with_temperature
@pytest.mark.parametrize("temperature", [0.0, -0.5, math.nan, math.inf, torch.tensor([0.1, -1.0, 0.1])])
def test_temperature_must_be_positive(name, temperature):
    with pytest.raises(TemperatureInvalid, match="temperature must be positive and finite"):
        FIGURES[name](cosines(3, 12), temperature=temperature)


@with_temperature
def test_temperatures_must_fit_the_anchors(name):
    with pytest.raises(ShapesDiffer, match=r"one for each anchor, \(3,\); got shape \(12,\)"):
        FIGURES[name](cosines(3, 12), temperature=torch.ones(12))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan])
def test_share_must_be_a_part(share):
    with pytest.raises(ArgumentInvalid, match="share is the part of the negatives"):
        hardness.hardest_penalty(cosines(3, 12), temperature=0.1, share=share)


def test_same_label_must_be_booleans_of_the_negatives():
    with pytest.raises(ShapesDiffer, match=r"\(3, 12\).*got shape \(12,\)"):
        hardness.hardest_same_label(cosines(3, 12), torch.ones(12, dtype=torch.bool))
    with pytest.raises(ArgumentInvalid, match=r"booleans.*int64"):
        hardness.hardest_same_label(cosines(3, 12), torch.ones(3, 12, dtype=torch.long))


@pytest.mark.parametrize("entropy", [math.log(12), 5.0, 0.0, -1.0, math.nan])
def test_an_entropy_out_of_reach_is_refused(entropy):
    with pytest.raises(ArgumentInvalid, match=r"not reached by every anchor.*log\(12\) = 2.485"):
        hardness.temperature_for_entropy(cosines(3, 12), entropy)


def test_an_entropy_above_the_highest_temperature_or_below_the_equal_hardest_is_refused():
    with pytest.raises(ArgumentInvalid, match=r"between temperatures 0 and 0\.1"):
        hardness.temperature_for_entropy(cosines(3, 12), 2.0, highest=0.1)
    with pytest.raises(ArgumentInvalid, match=r"entropies above 0\.6931"):  # two equal hardest: log 2 at the least
        hardness.temperature_for_entropy(torch.tensor([[0.5, 0.5, 0.1]]), 0.5)


def test_the_search_needs_a_bound_and_a_halving():
    with pytest.raises(TemperatureInvalid, match="highest must be a positive number"):
        hardness.temperature_for_entropy(cosines(3, 12), 1.0, highest=0.0)
    with pytest.raises(ArgumentInvalid, match="halvings must be at least 1"):
        hardness.temperature_for_entropy(cosines(3, 12), 1.0, halvings=0)
