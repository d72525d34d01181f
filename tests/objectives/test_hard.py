from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer
from contrapose.objectives import hard, hard_contrastive, nearest_negative, released, simple_contrastive
from tests.objectives.numbers import EXACT, normal


@pytest.fixture
def case():
    a, bank, index = normal(5, 4), normal(9, 4, seed=1), torch.tensor([7, 0, 3, 2, 8])
    cosines = functional.normalize(a, dim=1) @ functional.normalize(bank, dim=1).T
    own = cosines.gather(1, index[:, None])[:, 0]
    others = cosines.scatter(1, index[:, None], -math.inf).sort(1, descending=True).values[:, :-1]
    return a, bank, index, cosines, own, others


@pytest.mark.parametrize("chunk", [2**22, 20])
@pytest.mark.parametrize(("hardest", "count"), [(3, 3), (8, 8), (0.5, 4), (0.01, 1), (1.0, 8)])
def test_only_the_hardest_negatives_stand_in_the_denominator(case, chunk, hardest, count, monkeypatch):
    monkeypatch.setattr(hard, "CHUNK", chunk)
    a, bank, index, _, own, others = case
    logits = torch.cat([own[:, None], others[:, :count]], 1) / 0.3
    found = hard_contrastive(a, bank, temperature=0.3, hardest=hardest, index=index, reduction="none")
    torch.testing.assert_close(found, -logits.log_softmax(1)[:, 0], **EXACT)


def test_in_the_released_code_the_positive_competes_for_a_place(case):
    a, bank, index, cosines, own, _ = case
    expected = cosines.topk(4).values.div(0.3).logsumexp(1) - own / 0.3
    found = hard_contrastive(a, bank, temperature=0.3, hardest=4, index=index, positive_kept=False, reduction="none")
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("weight", [None, 1.0, 0.2])
@pytest.mark.parametrize("hardest", [None, 3])
def test_simple_pushes_all_alike(case, weight, hardest):
    a, bank, index, _, own, others = case
    kept = others[:, :hardest]
    expected = (1 / kept.shape[1] if weight is None else weight) * kept.sum(1) - own
    found = simple_contrastive(a, bank, weight=weight, hardest=hardest, index=index, reduction="none")
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("hardest", [None, 4])
def test_simple_with_the_positive_in_its_sum(case, hardest):
    a, bank, index, cosines, own, _ = case
    kept = cosines.topk(hardest or 9).values
    found = simple_contrastive(a, bank, hardest=hardest, index=index, positive_in_sum=True, reduction="none")
    torch.testing.assert_close(found, kept.mean(1) - own, **EXACT)


def test_the_nearest_negative_is_a_triplet_without_margin(case):
    a, bank, index, _, own, others = case
    found = nearest_negative(a, bank, index=index, reduction="none")
    torch.testing.assert_close(found, (others[:, 0] - own).clamp_min(0), **EXACT)


@pytest.fixture
def apart(case):
    """Booleans under which anchors have 8, 5, 2, 1 and 0 negatives."""
    _, _, index, *_ = case
    kept = torch.zeros(5, 9, dtype=torch.bool)
    for row, many in enumerate([8, 5, 2, 1, 0]):
        kept[row, [column for column in range(9) if column != index[row]][:many]] = True
    return kept


def left(cosines, index, apart, row):
    """An anchor's negatives, hardest first."""
    return sorted((float(cosines[row, c]) for c in range(9) if apart[row, c] and c != index[row]), reverse=True)


@pytest.mark.parametrize("chunk", [2**22, 20])
@pytest.mark.parametrize("hardest", [3, 0.5])
def test_columns_that_are_no_negatives_are_left_out(case, apart, chunk, hardest, monkeypatch):
    monkeypatch.setattr(hard, "CHUNK", chunk)
    a, bank, index, cosines, own, _ = case
    given = {"index": index, "pair": apart, "reduction": "none"}
    found = hard_contrastive(a, bank, temperature=0.3, hardest=hardest, **given)
    simple = simple_contrastive(a, bank, hardest=hardest, **given)
    every = simple_contrastive(a, bank, **given)
    triplet = nearest_negative(a, bank, **given)
    for row in range(5):
        negatives = left(cosines, index, apart, row)
        kept = negatives[: hardest if hardest == 3 else max(1, len(negatives) // 2)]
        mine = float(own[row])
        loss = math.log1p(sum(math.exp((each - mine) / 0.3) for each in kept))
        assert float(found[row]) == pytest.approx(loss, rel=1e-9)
        assert float(simple[row]) == pytest.approx(sum(kept) / max(1, len(kept)) - mine, rel=1e-9)
        assert float(every[row]) == pytest.approx(sum(negatives) / max(1, len(negatives)) - mine, rel=1e-9)
        assert float(triplet[row]) == pytest.approx(max(0.0, negatives[0] - mine) if negatives else 0.0, abs=1e-12)


def test_with_all_kept_nothing_changes(case):
    a, bank, index, *_ = case
    every = torch.ones(5, 9, dtype=torch.bool)
    for loss in (
        lambda **given: hard_contrastive(a, bank, temperature=0.3, hardest=3, index=index, **given),
        lambda **given: hard_contrastive(
            a, bank, temperature=0.3, hardest=3, index=index, positive_kept=False, **given
        ),
        lambda **given: simple_contrastive(a, bank, index=index, positive_in_sum=True, **given),
        lambda **given: simple_contrastive(a, bank, index=index, **given),
        lambda **given: nearest_negative(a, bank, index=index, **given),
    ):
        torch.testing.assert_close(loss(pair=every), loss(), **EXACT)


def test_gradients_beside_an_anchor_without_negatives(case, apart):
    a, bank, index, *_ = case
    loss = hard_contrastive(a.requires_grad_(), bank, temperature=0.3, hardest=3, index=index, pair=apart)
    (slope,) = torch.autograd.grad(loss, a)
    assert bool(slope.isfinite().all())
    assert not slope[4].any()


def test_a_pair_of_another_kind_is_refused(case):
    a, bank, index, *_ = case
    for pair in (torch.ones(5, 8, dtype=torch.bool), torch.ones(5, 9)):
        with pytest.raises(ShapesDiffer, match="booleans of shape"):
            nearest_negative(a, bank, index=index, pair=pair)


@pytest.mark.parametrize("chunk", [2**22, 7])
def test_gradients(chunk, monkeypatch):
    monkeypatch.setattr(hard, "CHUNK", chunk)
    a, p, t = normal(5, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_(), torch.tensor(0.4).double()
    assert torch.autograd.gradcheck(
        lambda a, p, t: hard_contrastive(a, p, temperature=t, hardest=2), (a, p, t.requires_grad_())
    )
    assert torch.autograd.gradcheck(lambda a, p: simple_contrastive(a, p, hardest=2), (a, p))
    assert torch.autograd.gradcheck(lambda a, p: simple_contrastive(a, p), (a, p))


def test_released_adds_to_the_quotient():
    assert float(released(torch.tensor(30.0).double())) == pytest.approx(-math.log(math.exp(-30) + 1e-7), rel=1e-12)


@pytest.mark.parametrize("hardest", [0, 5, 0.0, 1.5, -1])
def test_hardest_out_of_range_is_refused(hardest):
    with pytest.raises(ArgumentInvalid, match="hardest must be a number of negatives from 1 to 4"):
        hard_contrastive(normal(5, 3), normal(5, 3, seed=1), temperature=0.1, hardest=hardest)


@pytest.mark.parametrize("wrong", [-1, 7])
def test_an_index_out_of_range_is_refused(wrong):
    with pytest.raises(ArgumentInvalid, match="0 to 6"):
        nearest_negative(normal(5, 3), normal(7, 3, seed=1), index=torch.tensor([0, 1, 2, 3, wrong]))


@pytest.mark.parametrize("place", [0, 1])
def test_a_row_of_zeros_has_no_cosine(place):
    given = [normal(5, 3), normal(5, 3, seed=1)]
    given[place][2] = 0
    with pytest.raises(ArgumentInvalid, match=r"zeros alone in 1 of 5 rows \(first: row 2\)"):
        simple_contrastive(*given)
    assert simple_contrastive(*given, similarity="dot").isfinite()


def test_one_column_is_refused():
    with pytest.raises(NoNegatives):
        simple_contrastive(normal(1, 3), normal(1, 3))
