"""Word repetition: order kept, special tokens alone never repeated, length as drawn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contrapose.errors import ArgumentInvalid
from contrapose.text.data import Tokens
from contrapose.text.views import repeat_limit, repeat_tokens

CLS, SEP = 101, 102
SPECIAL = torch.tensor([CLS, SEP])


def texts(lengths: list[int]) -> Tokens:
    return Tokens.from_lists([[CLS, *range(1000, 1000 + length), SEP] for length in lengths])


def repeated(tokens: Tokens, seed: int = 0, **options) -> Tokens:
    width = 1 + int(tokens.lengths.max())
    uniform = torch.rand(len(tokens), width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return repeat_tokens(tokens, uniform, special=SPECIAL, **{"rate": 0.32, **options})


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 10_000))
def test_each_token_stands_once_or_twice_in_the_old_order(lengths: list[int], seed: int) -> None:
    before = texts(lengths)
    for old, new in zip(before.split(), repeated(before, seed).split(), strict=True):
        kept, counts = torch.unique_consecutive(new, return_counts=True)
        assert kept.tolist() == old.tolist()
        assert set(counts.tolist()) <= {1, 2}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 10_000))
def test_special_tokens_are_never_repeated(lengths: list[int], seed: int) -> None:
    for new in repeated(texts(lengths), seed).split():
        assert torch.isin(new, SPECIAL).sum() == 2


@pytest.mark.parametrize("rule", ["paper", "official"])
def test_every_number_of_repeats_up_to_the_limit_is_drawn(rule: str) -> None:
    tokens = texts([20])
    limit = repeat_limit(20 if rule == "paper" else 22, 0.32, rule)
    grown = {int(repeated(tokens, seed, rule=rule).lengths[0]) - 22 for seed in range(200)}
    assert grown == set(range(limit + 1))


def test_positions_are_drawn_evenly() -> None:
    counts = torch.zeros(10)
    for new in repeated(texts([10] * 4000)).split():
        counts += torch.unique_consecutive(new, return_counts=True)[1][1:-1] - 1
    assert counts.min() > 0.85 * counts.mean()  # 600 expected a position, give or take 25


def test_a_text_of_special_tokens_alone_is_given_back() -> None:
    assert repeated(texts([0])).ids.tolist() == [CLS, SEP]


def test_rate_0_repeats_nothing() -> None:
    assert repeated(texts([30]), rate=0.0).lengths.tolist() == [32]


def test_a_cap_holds() -> None:
    assert max(int(repeated(texts([30]), seed, rate=1.0, most=3).lengths[0]) for seed in range(50)) == 35


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ArgumentInvalid, match="from 0 to 1"):
        repeat_limit(10, rate)
