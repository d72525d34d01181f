from __future__ import annotations

import copy
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

import contrapose.training.bar as progress
from contrapose.errors import (
    EncoderNotRebuildable,
    PoolingUnavailable,
    TextInvalid,
    UsageInvalid,
)
from contrapose.text._loading import load_transformer
from contrapose.text._pooling import POOLINGS, pool
from contrapose.text.data import Tokens
from contrapose.text.encoder import TextEncoder, load_encoder
from contrapose.training.precision import has_bf16
from tests.text.samples import FAMILIES, TEXTS, random_tokens, random_transformer


@pytest.fixture(scope="module")
def exact(tiny_bert) -> TextEncoder:
    return TextEncoder.open(str(tiny_bert), max_tokens=16).double()


def one_padded_batch(encoder: TextEncoder, tokens: Tokens) -> torch.Tensor:
    """What forward is to give, the plain way."""
    ids, mask = tokens.padded(0)
    output = encoder.transformer(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
    return pool(output.hidden_states, mask, encoder.pooling)


def without_dropout(encoder: TextEncoder) -> TextEncoder:
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_forward_equals_one_padded_batch(pooling, training, exact):
    encoder = without_dropout(copy.deepcopy(exact)).train(training)
    encoder.pooling = pooling
    tokens = random_tokens([3, 16, 5, 5, 9, 1, 2, 7] * 5)  # more rows than go through together
    torch.testing.assert_close(encoder(tokens), one_padded_batch(encoder, tokens), rtol=0, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=40), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(exact, lengths, training, random):
    encoder = without_dropout(copy.deepcopy(exact)).train(training)
    tokens, order = random_tokens(lengths), list(range(len(lengths)))
    random.shuffle(order)
    torch.testing.assert_close(encoder(tokens[order]), encoder(tokens)[order], rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_as_in_one_padded_batch(family, encoder, tmp_path):
    """Vectors and gradients, in float64: packed where the family can be."""
    transformer = load_transformer(random_transformer(family, tmp_path)).double()
    mine = TextEncoder(transformer, encoder.tokenizer, pooling="avg_first_last", max_tokens=16).train()
    tokens = random_tokens([3, 16, 5, 5, 9, 1, 2, 7] * 3)
    target = torch.randn(24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for vectors in (mine(tokens), one_padded_batch(mine, tokens)):
        vectors.mul(target).sum().backward()
        gradients.append(
            {name: weight.grad.clone() for name, weight in mine.named_parameters() if weight.grad is not None}
        )
        mine.zero_grad()
    torch.testing.assert_close(mine(tokens), one_padded_batch(mine, tokens), rtol=0, atol=1e-9)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradient, gradients[1][name], rtol=1e-8, atol=1e-8, msg=lambda said, name=name: f"{name}: {said}"
        )


@pytest.mark.parametrize("gradient", [True, False])
def test_dropout_repeats_with_the_random_state_whether_or_not_a_gradient_is_asked_for(gradient, encoder):
    tokens = random_tokens([3, 9, 5])
    torch.manual_seed(0)
    first = encoder.train()(tokens)
    torch.manual_seed(0)
    with torch.set_grad_enabled(gradient):
        assert torch.equal(encoder(tokens), first)
    assert not torch.equal(encoder(tokens), first)


def test_bf16_autocast_is_close_and_keeps_float32_vectors(encoder):
    tokens = random_tokens([3, 9, 5, 16])
    exactly = without_dropout(encoder).train()(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        roughly = encoder(tokens)
    assert roughly.dtype == torch.float32
    assert torch.cosine_similarity(exactly, roughly).min() > 0.999


def test_a_batch_of_no_rows_has_no_vectors(encoder):
    assert encoder(Tokens.from_lists([])).shape == (0, 32)


def test_a_row_without_tokens_is_refused(encoder):
    with pytest.raises(TextInvalid, match="Row 1 of the batch has no tokens"):
        encoder(Tokens.from_lists([[5], [], [6]]))


def test_encode_gives_unit_vectors_row_by_row(encoder):
    vectors = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_batch_size_of_encode_changes_nothing(batch_size, encoder):
    np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=batch_size), encoder.encode(TEXTS), atol=1e-6)


def test_encode_leaves_lengths_alone_where_it_should(encoder):
    encoder.normalise = False
    raw = encoder.encode(TEXTS)
    encoder.normalise = True
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), encoder.encode(TEXTS), atol=1e-6)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.01


def test_encode_of_nothing(encoder):
    vectors = encoder.encode([])
    assert vectors.shape == (0, 32)
    assert vectors.dtype == np.float32


def test_encode_restores_the_mode_of_every_module(encoder):
    encoder.train()
    encoder.transformer.encoder.layer[0].eval()
    before = {name: module.training for name, module in encoder.named_modules()}
    encoder.encode(TEXTS)
    assert {name: module.training for name, module in encoder.named_modules()} == before


def test_encode_in_training_has_no_dropout(encoder):
    assert np.array_equal(encoder.train().encode(TEXTS), encoder.eval().encode(TEXTS))


def test_encode_in_bf16_is_close(encoder):
    cosines = (encoder.encode(TEXTS) * encoder.encode(TEXTS, precision="bfloat16")).sum(1)
    assert cosines.min() > 0.999
    assert cosines.min() < 1 - 1e-7  # it was bf16


def test_auto_is_bf16_where_the_processor_has_it(encoder):
    expected = encoder.encode(TEXTS, precision="bfloat16" if has_bf16("cpu") else "float32")
    assert np.array_equal(encoder.encode(TEXTS, precision="auto"), expected)


def test_encode_is_exact_unless_asked_otherwise(encoder):
    assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS, precision="float32"))


def test_encode_refuses_an_unknown_precision(encoder):
    with pytest.raises(UsageInvalid, match="no precision 'bf16'"):
        encoder.encode(TEXTS, precision="bf16")


@pytest.mark.parametrize(
    ("values", "message"),
    [("one text", r"encode\(\[text\]\)"), (["a", None], "Value 1 is None"), ([3], "Value 0 is 3")],
)
def test_encode_refuses_what_is_no_list_of_texts(values, message, encoder):
    with pytest.raises(TextInvalid, match=message):
        encoder.encode(values)


@pytest.mark.parametrize(("patience", "shown"), [(60.0, False), (-1.0, True)])
def test_a_bar_shows_only_what_takes_long(patience, shown, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", patience)
    console = Console(file=StringIO(), force_terminal=True, width=100)
    with progress.Bar("Encoding", 10, console=console) as bar:
        bar.advance(5)
    assert ("Encoding" in console.file.getvalue()) == shown


class Letters:
    """A tokeniser of one's own: a letter a token."""

    def __call__(self, texts: list[str], truncation: bool = False, max_length: int | None = None) -> dict:
        return {
            "input_ids": [[ord(letter) % 60 for letter in text][: max_length if truncation else None] for text in texts]
        }


class Bag(nn.Module):
    """A module of one's own: hidden states without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 6)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.table(input_ids)


class Layered(Bag):
    def forward(self, input_ids, attention_mask, output_hidden_states=False):
        states = (self.table(input_ids), 2 * self.table(input_ids), 5 * self.table(input_ids))
        return SimpleNamespace(last_hidden_state=states[-1], hidden_states=states if output_hidden_states else None)


def test_a_module_of_ones_own_encodes():
    bag = Bag()
    encoder = TextEncoder(bag, Letters(), max_tokens=4)
    expected = bag.table(torch.tensor([ord(letter) % 60 for letter in "abcd"])).mean(0)
    vectors = encoder.encode(["abcdefgh", "xy"])
    assert encoder.dim == 6
    np.testing.assert_allclose(vectors[0], nn.functional.normalize(expected, dim=0).detach(), atol=1e-6)


def test_a_module_of_ones_own_may_give_all_layers():
    encoder = TextEncoder(Layered(), Letters(), pooling="avg_first_last")
    tokens = encoder.tokens(["abc"])
    torch.testing.assert_close(encoder(tokens), 3.5 * encoder.transformer.table(tokens.ids).mean(0, keepdim=True))


class Careless(Bag):
    def forward(self, input_ids, attention_mask, **ignored):
        return self.table(input_ids)


def test_a_module_that_ignores_the_wish_for_all_layers_cannot_either():
    with pytest.raises(PoolingUnavailable, match="but Careless returns no hidden_states"):
        TextEncoder(Careless(), Letters(), pooling="avg_first_last_embedding")


def test_a_module_without_all_layers_cannot_have_every_pooling():
    with pytest.raises(
        PoolingUnavailable, match="'avg_top2' needs the states of all layers, but Bag cannot be called with"
    ):
        TextEncoder(Bag(), Letters(), pooling="avg_top2")


def test_a_module_of_ones_own_is_saved_and_not_guessed_at(tmp_path):
    encoder = TextEncoder(Bag(), Letters())
    encoder.save(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert not encoder.exports_to_sentence_transformers
    with pytest.raises(EncoderNotRebuildable, match=r"your own module .*Bag"):
        load_encoder(tmp_path, encoder.record())
