"""Crop, mask and reorder: what each keeps, and which two a sequence gets."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid, SequenceInvalid, ShapesDiffer
from contrapose.sequence.views import Sequences, crop, mask, numbers_for_two, reorder, two_views

T = 7


def rows(lengths: list[int], t: int = T) -> Sequences:
    """Item k of row i is 100 i + k."""
    items = 100 * torch.arange(1, len(lengths) + 1)[:, None] + torch.arange(1, t + 1)
    known = torch.tensor(lengths)
    return Sequences(items.masked_fill(torch.arange(t) >= known[:, None], 0), known)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def content(sequences: Sequences) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(*sequences, strict=True)]


LENGTHS = st.lists(st.integers(1, T), min_size=1, max_size=5)
RATIOS = st.sampled_from([0.0, 0.2, 0.5, 0.8, 0.99])


@settings(max_examples=40, deadline=None)
@given(LENGTHS, RATIOS, st.integers(0, 99))
def test_a_crop_is_neighbours_moved_to_the_front(lengths: list[int], ratio: float, seed: int) -> None:
    whole = rows(lengths)
    found = crop(whole, uniform(len(lengths), seed=seed), ratio=ratio)
    for before, after, length in zip(content(whole), content(found), lengths, strict=True):
        assert len(after) == max(1, int(length * (1 - ratio) + 1e-6))
        start = before.index(after[0])
        assert after == before[start : start + len(after)]
    assert (found.items[torch.arange(T) >= found.lengths[:, None]] == 0).all()


@settings(max_examples=40, deadline=None)
@given(LENGTHS, RATIOS, st.integers(0, 99))
def test_masked_places_are_0_and_as_many_as_the_ratio_says(lengths: list[int], ratio: float, seed: int) -> None:
    whole = rows(lengths)
    found = mask(whole, uniform(len(lengths), T, seed=seed), ratio=ratio)
    assert torch.equal(found.lengths, whole.lengths)
    changed = found.items != whole.items
    assert (found.items[changed] == 0).all()
    assert changed.sum(dim=1).tolist() == [int(length * ratio + 1e-6) for length in lengths]


@settings(max_examples=40, deadline=None)
@given(LENGTHS, RATIOS, st.integers(0, 99))
def test_reordering_stays_within_a_window(lengths: list[int], ratio: float, seed: int) -> None:
    whole = rows(lengths)
    found = reorder(whole, uniform(len(lengths), 1 + T, seed=seed), ratio=ratio)
    for before, after, length in zip(content(whole), content(found), lengths, strict=True):
        assert sorted(after) == sorted(before)
        moved = [place for place in range(length) if before[place] != after[place]]
        assert not moved or moved[-1] - moved[0] < int(length * ratio + 1e-6)
    assert torch.equal(found.lengths, whole.lengths)


def test_every_start_and_every_order_is_as_likely() -> None:
    many = Sequences(rows([6]).items.expand(6000, -1), torch.full((6000,), 6))
    starts = Counter(crop(many, uniform(6000), ratio=0.5).items[:, 0].tolist())
    assert len(starts) == 4
    assert min(starts.values()) > 1300
    orders = Counter(map(tuple, reorder(many, uniform(6000, 1 + T), ratio=0.5).items.tolist()))
    assert (
        len(orders) == 1 + 5 + 4 * 3
    )  # no change, five swaps of neighbours, and the three other orders in each of four windows
    places = (mask(many, uniform(6000, T), ratio=0.5).items[:, :6] == 0).double().mean(dim=0)
    torch.testing.assert_close(places, torch.full((6,), 0.5).double(), rtol=0, atol=0.03)


def test_two_different_operators_each_pair_as_likely() -> None:
    many = Sequences(rows([6]).items.expand(6000, -1), torch.full((6000,), 6))
    views = two_views(many, uniform(6000, numbers_for_two(T)))

    def kind(items: LongTensor, lengths: LongTensor) -> Tensor:
        cropped, masked = lengths < 6, (items[:, :6] == 0).any(dim=1)
        return torch.where(cropped, 0, torch.where(masked, 1, 2))

    pairs = Counter(zip(*(kind(*view).tolist() for view in views), strict=True))
    assert set(pairs) == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert min(pairs.values()) > 850


def test_a_single_item_stays_in_both_views() -> None:
    whole = rows([1, 1, 1, 1])
    for view in two_views(whole, uniform(4, numbers_for_two(T))):
        assert torch.equal(view.items, whole.items)
        assert torch.equal(view.lengths, whole.lengths)


def test_a_row_has_the_same_views_whatever_stands_beside_it() -> None:
    whole, drawn = rows([3, 5, 7, 2]), uniform(4, numbers_for_two(T))
    together = two_views(whole, drawn)
    alone = two_views(Sequences(*(part[2:] for part in whole)), drawn[2:])
    for both, one in zip(together, alone, strict=True):
        assert torch.equal(both.items[2:], one.items)


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2.0])
@pytest.mark.parametrize(("operator", "numbers"), [(crop, ()), (mask, (T,)), (reorder, (1 + T,))])
def test_a_ratio_outside_0_and_1(operator: object, numbers: tuple, ratio: float) -> None:
    with pytest.raises(ArgumentInvalid, match="below 1"):
        operator(rows([3]), uniform(1, *numbers), ratio=ratio)


def test_numbers_of_another_shape() -> None:
    with pytest.raises(ShapesDiffer, match=r"\(1, 18\)"):
        two_views(rows([3]), uniform(1, 4))
    with pytest.raises(ShapesDiffer, match=r"\(2,\)"):
        crop(rows([3, 2]), uniform(3))


@pytest.mark.parametrize("lengths", [[3, 0], [3, T + 1]])
def test_a_length_that_there_is_not(lengths: list[int]) -> None:
    with pytest.raises(SequenceInvalid, match=rf"from {min(lengths)} to {max(lengths)}"):
        crop(rows([3, 2])._replace(lengths=torch.tensor(lengths)), uniform(2))


def test_the_padding_inside_a_sequence() -> None:
    sequences = rows([3, 2])
    sequences.items[1, 0] = 0
    with pytest.raises(SequenceInvalid, match="Sequence 1 holds 0 at place 0"):
        two_views(sequences, uniform(2, numbers_for_two(T)))
