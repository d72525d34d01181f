"""Candidates: near in meaning, near in form; found once and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from contrapose.errors import NoNegatives, NonFinite, ShapesDiffer
from contrapose.text import _candidates
from contrapose.text._candidates import NONE, distinct, find_candidates, prepared_candidates
from contrapose.text._surface import levenshtein_similarity
from contrapose.text.encoder import TextEncoder
from tests.text.samples import random_tokens

N = 30
VECTORS = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
SPOKEN = random_tokens([1 + row % 7 for row in range(N)])


@pytest.mark.parametrize("products", [2**24, 40])
def test_the_first_half_is_nearest_in_meaning_and_none_stands_twice(
    products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_candidates, "PRODUCTS", products)
    found = find_candidates(VECTORS, SPOKEN, count=10)
    unit = torch.nn.functional.normalize(VECTORS, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    assert found.rows[:, :5].tolist() == cosines.topk(5).indices.tolist()
    for row, (candidates, there) in enumerate(zip(found.rows, found.there, strict=True)):
        distinct_ones = candidates[there].tolist()
        assert len(set(distinct_ones)) == len(distinct_ones) >= 5
        assert row not in distinct_ones
        torch.testing.assert_close(found.semantic[row, there], (1 + cosines[row, distinct_ones]) / 2)


def test_surface_similarities_are_those_of_the_pairs() -> None:
    found = find_candidates(VECTORS, SPOKEN, count=10)
    anchors, slots = found.there.nonzero(as_tuple=True)
    others = found.rows[anchors, slots].long()
    np.testing.assert_allclose(
        found.surface[anchors, slots], levenshtein_similarity(SPOKEN[anchors], SPOKEN[others]), rtol=1e-6
    )
    assert (found.surface[~found.there] == 0).all()


@pytest.mark.parametrize(("n", "slots"), [(2, 2), (5, 4), (11, 10)])
def test_a_small_corpus_has_fewer_candidates(n: int, slots: int) -> None:
    found = find_candidates(VECTORS[:n], SPOKEN[:n], count=64)
    assert found.rows.shape == (n, slots)
    assert int(found.rows.max()) < n


def test_vectors_of_another_corpus() -> None:
    with pytest.raises(ShapesDiffer, match=r"corpus of 30 sentences; got \(29, 8\)"):
        find_candidates(VECTORS[1:], SPOKEN, count=4)


def test_vectors_that_are_not_finite() -> None:
    with pytest.raises(NonFinite, match="sentence 3"):
        find_candidates(VECTORS.index_fill(0, torch.tensor([3]), torch.nan), SPOKEN, count=4)


def test_of_equal_sentences_the_first_is_kept() -> None:
    assert distinct(["a cat", "A cat!", "the dog", "cat a", "the  dog"]).tolist() == [0, 2, 3]


def test_a_corpus_of_one_sentence() -> None:
    with pytest.raises(NoNegatives, match="All 2 sentences"):
        distinct(["a cat", "A cat."])


class Counted(TextEncoder):
    """Counts how often it was asked."""

    encoded = 0

    def encode(self, values, **options):
        type(self).encoded += 1
        return super().encode(values, **options)


def test_candidates_are_kept_until_texts_weights_or_options_change(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path))
    texts = ["the cat sat", "a dog", "A dog", "the cat sat on it", "a red tree"]
    counted = Counted(encoder.transformer, encoder.tokenizer, max_tokens=16)

    def found(texts: list[str] = texts, **options) -> _candidates.Candidates:
        return prepared_candidates(texts, counted, **{"count": 4, "surface": "levenshtein", **options})

    first, again = found(), found()
    assert Counted.encoded == 1
    assert again.kept.tolist() == first.kept.tolist() == [0, 1, 3, 4]
    for name in ("rows", "semantic", "surface"):
        assert torch.equal(getattr(again, name), getattr(first, name))
    assert found(keep_vectors=True).vectors.shape == (4, 32)
    found(count=2)
    found(surface="jaccard")
    found(texts[:4])
    next(counted.parameters()).data.add_(0.01)
    found()
    assert Counted.encoded == 6
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    assert (found().rows != NONE).any()
    assert Counted.encoded == 7
