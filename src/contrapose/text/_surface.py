"""How alike two texts are in form: their words, whatever they mean."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import LongTensor

from contrapose.errors import ShapesDiffer
from contrapose.text.data import Tokens

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Measure = Literal["levenshtein", "jaccard"]

WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+(?:['’-]\w+)*")  # numbers, and words with what stands within them
CELLS = 2**21  # of the table of distances, for all pairs that are compared at once
SHARED = 2**24  # counts of shared words that stand in memory at once


def words(text: str) -> list[str]:
    """The words of a text in lower case, without signs between them; 1,000 and 1000 are one number.

    A text of signs alone is cut at white space, so that it has words too.
    """
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    found = [word.replace(",", "") if word[0].isdigit() else word for word in WORD.findall(plain)]
    return found or plain.split()


def numbered_words(texts: Sequence[str], most: int | None = None) -> Tokens:
    """The words of each text as numbers, of which equal words have equal ones; of each text the first `most` alone."""
    numbers: dict[str, int] = {}
    return Tokens.from_lists(
        [[numbers.setdefault(word, len(numbers)) for word in words(text)[:most]] for text in texts]
    )


def levenshtein(first: Tokens, second: Tokens) -> LongTensor:
    """How many words must be put in, taken out or exchanged to make text i of one text i of the other, (p,) int64.

    All pairs of about one length go through the table of distances together, a row at a time: what a row takes from its left neighbour is
    the running least of what comes from above, each less its place.
    """
    refuse_unpaired(first, second)
    distances = np.zeros(len(first), dtype=np.int64)
    for pairs in alike_in_length(first.lengths, second.lengths):
        distances[pairs] = distances_of(first[torch.from_numpy(pairs)], second[torch.from_numpy(pairs)])
    return torch.from_numpy(distances)


def distances_of(first: Tokens, second: Tokens) -> np.ndarray:
    """(p,): the distances of pairs that stand in memory together."""
    mine, theirs = (
        first.padded(-1)[0].T.numpy(),
        second.padded(-2)[0].T.numpy(),
    )  # (t, p), so that pairs lie side by side
    ends, widths = first.lengths.numpy(), second.lengths.numpy()
    places, pairs = np.arange(len(theirs) + 1, dtype=np.int32)[:, None], np.arange(len(first))
    row = np.repeat(places, len(first), axis=1)
    found = np.where(ends == 0, widths, 0)
    for number, word in enumerate(mine, 1):
        above = np.empty_like(row)
        above[0] = number
        np.minimum(row[1:] + 1, row[:-1] + (theirs != word), out=above[1:])
        row = np.minimum.accumulate(above - places, axis=0) + places
        done = ends == number
        found[done] = row[widths[done], pairs[done]]
    return found


def alike_in_length(first: LongTensor, second: LongTensor) -> Iterator[np.ndarray]:
    """The numbers of all pairs, in parts of about one length that fit in memory."""
    longest = torch.maximum(first, second).numpy()
    order, start = np.argsort(longest, kind="stable")[::-1], 0
    while start < len(order):
        many = max(1, CELLS // int(longest[order[start]] + 1))
        yield order[start : start + many].copy()
        start += many


def levenshtein_similarity(first: Tokens, second: Tokens) -> np.ndarray:
    """1 - distance / words of the longer text, float64 of shape (p,): 1 for equal texts, 0 where no word can stay."""
    distance = levenshtein(first, second).numpy()
    return 1 - distance / np.maximum(1, torch.maximum(first.lengths, second.lengths).numpy())


def jaccard_similarity(first: Tokens, second: Tokens) -> np.ndarray:
    """The share of words of both texts that both have, each counted once, float64 of shape (p,); 1 for two texts without words."""
    refuse_unpaired(first, second)
    vocabulary = 1 + max((int(each.ids.max()) for each in (first, second) if len(each.ids)), default=0)
    mine, theirs = (presence(each, vocabulary) for each in (first, second))
    shared = np.asarray(mine.multiply(theirs).sum(axis=1)).ravel()
    union = mine.getnnz(axis=1) + theirs.getnnz(axis=1) - shared
    return np.where(union > 0, shared / np.maximum(1, union), 1.0)


SIMILARITIES: dict[Measure, Callable[[Tokens, Tokens], np.ndarray]] = {
    "levenshtein": levenshtein_similarity,
    "jaccard": jaccard_similarity,
}


class Nearest(NamedTuple):
    """For some texts, from row `start` on, the row numbers of those that share most words with each, (c, k) int64."""

    start: int
    rows: np.ndarray


def nearest_by_words(texts: Tokens, k: int) -> Iterator[Nearest]:
    """The k texts whose sets of words are most like a text's own (Jaccard), itself left out, in parts; k below the number of texts.

    Exact. A part costs the pairs of texts that share a word, so that frequent words cost most.
    """
    there = presence(texts, 1 + int(texts.ids.max()) if len(texts.ids) else 1)
    turned, sizes = there.T.tocsr(), there.getnnz(axis=1).astype(np.float32)
    step = max(1, SHARED // len(texts))
    for start in range(0, len(texts), step):
        shared = (there[start : start + step] @ turned).toarray()
        union = sizes[start : start + step, None] + sizes - shared
        likeness = torch.from_numpy(shared / np.maximum(1, union))
        own = torch.arange(len(likeness))
        likeness[own, own + start] = -1
        yield Nearest(start, likeness.topk(k, dim=1).indices.numpy())


def presence(texts: Tokens, vocabulary: int) -> csr_matrix:
    """(n, vocabulary) float32: 1 where a text has a word."""
    from scipy.sparse import csr_matrix

    starts = np.concatenate([[0], texts.lengths.numpy().cumsum()])
    counted = csr_matrix(
        (np.ones(len(texts.ids), np.float32), texts.ids.numpy(), starts), (len(texts), vocabulary), copy=True
    )  # sorted in place below
    counted.sum_duplicates()
    counted.data[:] = 1
    return counted


def refuse_unpaired(first: Tokens, second: Tokens) -> None:
    if len(first) != len(second):
        raise ShapesDiffer(
            f"Text i of one side is compared with text i of the other; got {len(first)} and {len(second)}."
        )
