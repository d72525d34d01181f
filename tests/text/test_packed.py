from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertModel

from contrapose.text._blocks import has_blocks
from contrapose.text._loading import load_transformer
from contrapose.text._packed import TILE_ROWS, Tiles, _Attention
from contrapose.text.data import mask_of
from contrapose.training.dropout import draw
from tests.text.samples import FAMILIES, random_transformer

HEADS, SIZE = 2, 3
LENGTHS = [1, 2, 2, 5, 17, 17, 30]  # padded tiles, of more places than the least


@pytest.fixture(params=[1, 3, TILE_ROWS])
def tile_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("contrapose.text._packed.TILE_ROWS", request.param)
    return request.param


def random_states(total: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(total, 3 * HEADS * SIZE, generator=generator, dtype=torch.float64).to(dtype)


def text_by_text(states: Tensor, lengths: list[int]) -> Tensor:
    """The definition: softmax(q k' / √size) v of each text and head alone."""
    mixed = []
    for text in states.split(lengths):
        query, key, value = text.view(-1, 3, HEADS, SIZE).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) / SIZE**0.5).softmax(-1)
        mixed.append((weights @ value).transpose(0, 1).flatten(1))
    return torch.cat(mixed)


def attend(states: Tensor, lengths: list[int], p: float = 0.0) -> Tensor:
    return _Attention.apply(states, Tiles(torch.tensor(lengths)), HEADS, p)


def test_attention_stays_within_each_text(tile_rows: int) -> None:
    states = random_states(sum(LENGTHS))
    torch.testing.assert_close(attend(states, LENGTHS), text_by_text(states, LENGTHS), rtol=0, atol=1e-12)


def test_attention_has_the_gradient_of_the_definition(tile_rows: int) -> None:
    states = random_states(sum(LENGTHS)).requires_grad_()
    above = random_states(sum(LENGTHS))[:, : HEADS * SIZE]
    ours, theirs = (
        torch.autograd.grad(function(states, LENGTHS), states, above)[0] for function in (attend, text_by_text)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=2 * TILE_ROWS).map(sorted))
def test_attention_of_any_lengths(lengths: list[int]) -> None:
    states = random_states(sum(lengths))
    torch.testing.assert_close(attend(states, lengths), text_by_text(states, lengths), rtol=0, atol=1e-12)


def test_attention_with_dropout_has_the_gradient_of_what_it_drew() -> None:
    def drawn(states: Tensor) -> Tensor:
        torch.manual_seed(0)
        return attend(states, [2, 3], p=0.4)

    assert torch.autograd.gradcheck(drawn, random_states(5).requires_grad_())


def test_attention_with_dropout_has_the_mean_of_attention_without() -> None:
    torch.manual_seed(0)
    states = random_states(5)
    drawn = torch.stack([attend(states, [2, 3], p=0.3) for _ in range(2000)])
    standard_error = drawn.std(0) / 2000**0.5
    assert (standard_error > 0).all()
    assert ((drawn.mean(0) - attend(states, [2, 3])).abs() < 5 * standard_error).all()


def test_attention_in_bf16_is_close(tile_rows: int) -> None:
    exact, rough = (attend(random_states(sum(LENGTHS), dtype), LENGTHS) for dtype in (torch.float64, torch.bfloat16))
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.double(), exact, rtol=0, atol=0.03)


def test_a_mask_has_a_least_width() -> None:
    assert mask_of(torch.tensor([1, 2]), 4).int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert mask_of(torch.tensor([1, 5]), 4).shape == (2, 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_mask_of_dropout_keeps_its_share_in_every_dtype(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mask = draw(100_001, 0.1, dtype)
    assert mask.element_size() == dtype.itemsize
    assert set(mask.unique().tolist()) == {-1, 0}
    assert abs((mask == 0).double().mean().item() - 0.1) < 0.005  # five standard deviations


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_families_with_attention_alone_between_tokens_have_blocks(family: str, tmp_path: Path) -> None:
    packed = family not in ("mpnet", "modernbert")
    assert has_blocks(load_transformer(random_transformer(family, tmp_path))) == packed


class Changed(BertModel):
    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        return -super().forward(*inputs, **named).last_hidden_state


class Adapted(nn.Linear):
    def forward(self, states: Tensor) -> Tensor:
        return 2 * super().forward(states)


@pytest.mark.parametrize("change", ["a subclass", "a layer", "a module of one's own"])
def test_a_changed_transformer_is_called_as_it_is(change: str, encoder) -> None:
    bert = copy.deepcopy(encoder.transformer)
    assert has_blocks(bert)
    if change == "a subclass":
        bert.__class__ = Changed
    elif change == "a layer":
        bert.encoder.layer[0].output.dense.__class__ = Adapted
    else:
        bert = nn.Sequential(bert)
    assert not has_blocks(bert)
