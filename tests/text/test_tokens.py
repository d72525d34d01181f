from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from contrapose.data.batches import concat, take, to_device
from contrapose.errors import TextInvalid
from contrapose.text.data import BLOCK, TokenColumn, Tokens, chunks, tokenise, tokenizer_fingerprint

lists = st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=8)


class Letters:
    """A tokeniser of one's own: a letter a token, no special ones, no description of itself."""

    calls = 0

    def __call__(self, texts: list[str], truncation: bool = False, max_length: int | None = None) -> dict:
        self.calls += 1
        return {"input_ids": [[ord(letter) for letter in text][: max_length if truncation else None] for text in texts]}


class LettersWithVocabulary(Letters):
    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.vocabulary = vocabulary

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return AutoTokenizer.from_pretrained(tiny_bert)


@given(lists, st.data())
def test_tokens_index_like_a_list_of_lists(texts, data):
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=12)) if texts else []
    taken = Tokens.from_lists(texts)[torch.tensor(rows, dtype=torch.long)]
    assert [part.tolist() for part in taken.split()] == [texts[row] for row in rows]
    assert taken.ids.dtype == taken.lengths.dtype == torch.int64


@given(lists, st.integers(0, 8), st.integers(0, 8))
def test_tokens_slice_like_a_list(texts, start, stop):
    assert [part.tolist() for part in Tokens.from_lists(texts)[start:stop].split()] == texts[start:stop]


@given(lists, lists)
def test_tokens_work_with_the_helpers_of_batches(first, second):
    both = concat([Tokens.from_lists(first), Tokens.from_lists(second)])
    back = to_device(take(both, slice(len(first), None)), torch.device("cpu"))
    assert len(both) == len(first) + len(second)
    assert [part.tolist() for part in back.split()] == second


def test_tokens_pad_on_the_right():
    ids, mask = Tokens.from_lists([[5, 6, 7], [8]]).padded(99)
    assert ids.tolist() == [[5, 6, 7], [8, 99, 99]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 8), st.integers(1, 100))
def test_chunks_cover_all_rows_once_and_keep_to_their_limits(lengths, rows, tokens):
    parts = [lengths[part] for part in chunks(lengths, rows, tokens)]
    assert [length for part in parts for length in part] == lengths
    assert all(len(part) <= rows and (len(part) == 1 or max(part) * len(part) <= tokens) for part in parts)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 8), st.integers(1, 100))
def test_a_chunk_ends_only_where_the_next_row_would_not_fit(lengths, rows, tokens):
    parts = [lengths[part] for part in chunks(lengths, rows, tokens)]
    for part, following in pairwise(parts):
        longer = [*part, following[0]]
        assert len(longer) > rows or max(longer) * len(longer) > tokens


def test_texts_are_cut_with_their_special_tokens_kept(tokenizer):
    ids, cut = tokenise(["the cat", "the cat sat on the mat", "a dog is in"], tokenizer, 6)
    assert [len(row) for row in ids] == [4, 6, 6]
    assert all(row[0] == tokenizer.cls_token_id and row[-1] == tokenizer.sep_token_id for row in ids)
    assert cut.tolist() == [False, True, False]  # the last one has six tokens and loses none


def test_a_column_gives_what_the_tokeniser_gives(tokenizer, tmp_path):
    texts = [f"the cat {number} sat" for number in range(BLOCK + 50)]  # more than one record batch
    column = TokenColumn.open(texts, tokenizer, 32, tmp_path)
    rows = torch.tensor([BLOCK + 7, 0, BLOCK - 1, BLOCK, 0])
    taken = column[rows]
    assert [part.tolist() for part in taken.split()] == tokenizer([texts[row] for row in rows])["input_ids"]
    assert column.lengths[rows].tolist() == taken.lengths.tolist()
    assert len(column) == len(texts)


def test_a_column_counts_truncated_texts(tokenizer, tmp_path):
    column = TokenColumn.open(["the cat"] * 3 + ["the cat sat on the mat"] * 2, tokenizer, 6, tmp_path)
    assert column.truncated == 2
    assert column.lengths.tolist() == [4, 4, 4, 6, 6]


def test_an_empty_column_has_no_rows(tokenizer, tmp_path):
    column = TokenColumn.open([], tokenizer, 8, tmp_path)
    assert len(column) == column.truncated == len(column[torch.tensor([], dtype=torch.long)]) == 0


def test_a_column_is_tokenised_once(tmp_path):
    tokenizer = LettersWithVocabulary({"a": 97})
    first = TokenColumn.open(["ab", "c"], tokenizer, 8, tmp_path)
    calls = tokenizer.calls
    second = TokenColumn.open(["ab", "c"], tokenizer, 8, tmp_path)
    assert tokenizer.calls == calls
    assert second[[0, 1]].ids.tolist() == first[[0, 1]].ids.tolist() == [97, 98, 99]


@pytest.mark.parametrize("change", ["texts", "max_tokens", "tokeniser"])
def test_another_column_is_another_file(change, tmp_path):
    TokenColumn.open(["ab", "c"], LettersWithVocabulary({"a": 97}), 8, tmp_path)
    texts = ["a", "bc"] if change == "texts" else ["ab", "c"]
    tokenizer = LettersWithVocabulary({"a": 97, "b": 98} if change == "tokeniser" else {"a": 97})
    TokenColumn.open(texts, tokenizer, 9 if change == "max_tokens" else 8, tmp_path)
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_a_damaged_cache_is_made_anew(tmp_path):
    tokenizer = LettersWithVocabulary({"a": 97})
    TokenColumn.open(["ab", "c"], tokenizer, 8, tmp_path)
    (file,) = (tmp_path / "tokens").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert TokenColumn.open(["ab", "c"], tokenizer, 8, tmp_path)[[1]].ids.tolist() == [99]


def test_a_tokeniser_that_cannot_be_told_from_another_is_not_cached(tmp_path):
    column = TokenColumn.open(["ab", "c"], Letters(), 1, tmp_path)
    assert column[[0, 1]].ids.tolist() == [97, 99]
    assert column.truncated == 1
    assert not list(tmp_path.iterdir())


def test_the_fingerprint_does_not_depend_on_earlier_calls(tiny_bert):
    fresh, used = AutoTokenizer.from_pretrained(tiny_bert), AutoTokenizer.from_pretrained(tiny_bert)
    used(["the cat", "a"], truncation=True, max_length=3, padding=True)
    assert tokenizer_fingerprint(fresh) == tokenizer_fingerprint(used)


def test_the_fingerprint_tells_tokenisers_apart(tiny_bert):
    plain, larger = AutoTokenizer.from_pretrained(tiny_bert), AutoTokenizer.from_pretrained(tiny_bert)
    larger.add_tokens(["zebra"])
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(larger)


@pytest.mark.parametrize("value", [None, 3.5, float("nan"), b"bytes", np.int64(3)])
def test_what_is_no_text_is_named(value, tokenizer, tmp_path):
    with pytest.raises(TextInvalid, match=r"Value 1 is .*, not text"):
        TokenColumn.open(["the cat", value], tokenizer, 8, tmp_path)
    assert not list((tmp_path / "tokens").glob("*.arrow"))


def test_the_number_of_a_bad_text_counts_from_the_first_of_all(tokenizer, tmp_path):
    with pytest.raises(TextInvalid, match=f"Value {BLOCK + 2} is None"):
        TokenColumn.open([*["a"] * (BLOCK + 2), None], tokenizer, 8, tmp_path)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(TextInvalid, match=r"no token of text 1 \(''\)"):
        tokenise(["a", ""], Letters(), 8)
