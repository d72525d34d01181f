"""The control that knows no meaning: shared words, or shared letters within words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from contrapose.data.table import Table

TEXTS = ("text", "anchor", "positive")  # what methods of texts call their columns


def training_texts(training: Table | None) -> list[str]:
    """All texts that a method was trained on, for the weights of TF-IDF; empty without a table."""
    return [] if training is None else [text for name in TEXTS if name in training for text in training[name]]


def tfidf_vectors(
    fitted: Sequence[str], sides: Sequence[Sequence[str]], unit: Literal["word", "character"]
) -> list[csr_matrix]:
    """Sparse unit vectors (n, terms) of each side's texts, by sublinear TF-IDF whose weights come from the `fitted` texts.

    unit: "word" (every run of letters and digits), or "character" (2 to 4 in a row within words).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    kind = {"token_pattern": r"(?u)\b\w+\b"} if unit == "word" else {"analyzer": "char_wb", "ngram_range": (2, 4)}
    tfidf = TfidfVectorizer(sublinear_tf=True, **kind).fit(fitted)
    return [tfidf.transform(texts) for texts in sides]
