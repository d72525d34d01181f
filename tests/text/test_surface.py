"""Likeness in form: words, edits of words, shared words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contrapose.errors import ShapesDiffer
from contrapose.text import _surface
from contrapose.text._surface import (
    jaccard_similarity,
    levenshtein,
    levenshtein_similarity,
    nearest_by_words,
    numbered_words,
    words,
)
from contrapose.text.data import Tokens

TEXTS = st.lists(st.lists(st.integers(0, 4), max_size=7), min_size=1, max_size=12)

SAID = {
    "case and signs": ("The cat, sat!", ["the", "cat", "sat"]),
    "what stands within words": ("Don’t re-use it", ["don't", "re-use", "it"]),
    "numbers": ("1,000 men and 2.5 m", ["1000", "men", "and", "2.5", "m"]),
    "other letters": ("Ｃafé ЖУК 東京", ["café", "жук", "東京"]),
    "signs alone": ("?! :-)", ["?!", ":-)"]),
    "nothing": ("  ", []),
}


@pytest.mark.parametrize(("text", "expected"), SAID.values(), ids=SAID)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_equal_words_have_equal_numbers_and_only_the_first_count() -> None:
    one, other = numbered_words(["The cat sat", "the cat, the dog"], most=3).split()
    assert one.tolist()[:2] == other.tolist()[:2]
    assert other.tolist() == [one[0], one[1], one[0]]


def plain_levenshtein(one: list[int], other: list[int]) -> int:
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    table[:, 0], table[0] = range(len(one) + 1), range(len(other) + 1)
    for i, mine in enumerate(one, 1):
        for j, theirs in enumerate(other, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (mine != theirs))
    return table[-1, -1]


@given(TEXTS, TEXTS, st.sampled_from([1, 30, 2**20]))
def test_levenshtein_is_the_least_number_of_edits(one: list[list[int]], other: list[list[int]], cells: int) -> None:
    pairs = [(mine, theirs) for mine in one for theirs in other]
    first, second = (Tokens.from_lists(side) for side in zip(*pairs, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_surface, "CELLS", cells)  # in parts, as a large corpus goes
        assert levenshtein(first, second).tolist() == [plain_levenshtein(*pair) for pair in pairs]


def test_similarities_by_hand() -> None:
    second = Tokens.from_lists([[0, 1, 5, 2, 3, 4], [], [0, 1], [0, 6]])
    first = Tokens.from_lists([[0, 1, 2, 3, 4], [], [7], [0, 0, 6]])
    np.testing.assert_allclose(levenshtein_similarity(first, second), [5 / 6, 1, 0, 2 / 3])
    np.testing.assert_allclose(jaccard_similarity(first, second), [5 / 6, 1, 0, 1])


def test_sides_of_different_length() -> None:
    one, two = Tokens.from_lists([[1]]), Tokens.from_lists([[1], [2]])
    with pytest.raises(ShapesDiffer, match="1 and 2"):
        levenshtein(one, two)


@given(st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=3, max_size=12), st.integers(1, 2))
def test_the_nearest_by_words_are_those_of_largest_jaccard(texts: list[list[int]], k: int) -> None:
    spoken = Tokens.from_lists(texts)
    before = spoken.ids.clone()
    sets = [set(text) for text in texts]

    def likeness(i: int, j: int) -> float:
        return len(sets[i] & sets[j]) / max(1, len(sets[i] | sets[j]))

    for start, rows in nearest_by_words(spoken, k):
        for i, found in enumerate(rows.tolist(), start):
            assert i not in found
            best = sorted((likeness(i, j) for j in range(len(texts)) if j != i), reverse=True)[:k]
            assert [likeness(i, j) for j in found] == pytest.approx(best)
    assert torch.equal(spoken.ids, before)
