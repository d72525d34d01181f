"""A batch in chunks, embedded twice, against the same chunks with everything in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from contrapose.data.batches import take
from contrapose.objectives import info_nce
from contrapose.training.cache import cached, chunks_of, row_sizes


class Ragged:
    """Rows of different lengths, as texts are."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = torch.tensor(lengths)

    def __len__(self) -> int:
        return len(self.lengths)


def encoder(dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Dropout(0.3), nn.Linear(32, 4)).to(dtype)


def rows(dtype: torch.dtype) -> Tensor:
    return torch.randn(11, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def gradients(through_cache: bool, dtype: torch.dtype) -> list[Tensor]:
    """Of InfoNCE between a batch embedded twice with dropout on, in chunks of 4 rows."""
    model, inputs = encoder(dtype), rows(dtype)
    chunks = chunks_of(inputs, 4)
    torch.manual_seed(5)
    if through_cache:
        first, second = cached(model, inputs, chunks), cached(model, inputs, chunks)
    else:
        first, second = (torch.cat([model(take(inputs, chunk)) for chunk in chunks]) for _ in range(2))
    info_nce(first, second, temperature=0.1).backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_gradient_is_that_without_the_cache_with_dropout_on(dtype, tolerance):
    for ours, plain in zip(gradients(True, dtype), gradients(False, dtype), strict=True):
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("autocast", [False, True])
def test_the_second_pass_gives_the_vectors_of_the_first_bit_for_bit(autocast):
    model, inputs, seen = encoder(torch.float32), rows(torch.float32), []

    def embed(part: Tensor) -> Tensor:
        seen.append(model(part))
        return seen[-1]

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        vectors = cached(embed, inputs, chunks_of(inputs, 4))
    vectors.float().sum().backward()  # outside autocast, as the loop does
    assert len(seen) == 6
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert first.dtype == (torch.bfloat16 if autocast else torch.float32)
        assert torch.equal(first, second)


def test_the_random_state_is_left_where_the_first_pass_left_it():
    model, inputs = encoder(torch.float32), rows(torch.float32)
    torch.manual_seed(5)
    loss = cached(model, inputs, chunks_of(inputs, 4)).sum()
    before = torch.get_rng_state()
    loss.backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_encoder_needs_no_second_pass():
    model, inputs = encoder(torch.float32).requires_grad_(False), rows(torch.float32)
    scale = torch.ones((), requires_grad=True)
    (cached(model, inputs, chunks_of(inputs, 4)) * scale).sum().backward()
    assert scale.grad is not None


def test_without_gradient_no_graph_is_made():
    with torch.no_grad():
        assert not cached(encoder(torch.float32), rows(torch.float32), [slice(0, 6), slice(6, 11)]).requires_grad


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([3, 3, 3, 3], 6, [(0, 2), (2, 4)]),
        ([9, 1, 1, 9], 4, [(0, 1), (1, 3), (3, 4)]),  # a text beyond the budget stands alone
        ([3, 3], None, [(0, 2)]),
        ([], 4, []),
    ],
)
def test_chunks_hold_a_budget_of_tokens(lengths, budget, expected):
    assert [(chunk.start, chunk.stop) for chunk in chunks_of(Ragged(lengths), budget)] == expected


def test_rows_without_lengths_count_one_and_columns_add_up():
    assert row_sizes(torch.zeros(3, 7)) == [1, 1, 1]
    assert row_sizes({"text": Ragged([4, 2]), "image": torch.zeros(2, 3)}) == [5, 3]
