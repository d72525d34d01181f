"""The control that knows no meaning: shared words, or shared letters within words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from contrapose.data.table import Table

Unit = Literal["word", "character"]

TEXTS = ("text", "anchor", "positive")  # what methods of texts call their columns
UNITS: tuple[Unit, ...] = ("word", "character")
ANALYSERS: dict[Unit, dict[str, Any]] = {
    "word": {"token_pattern": r"(?u)\b\w+\b"},
    "character": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}


def training_texts(training: Table | None) -> list[str]:
    """All texts that a method was trained on, for the weights of TF-IDF; empty without a table."""
    return [] if training is None else [text for name in TEXTS if name in training for text in training[name]]


def tfidf_vectors(fitted: Sequence[str], sides: Sequence[Sequence[str]], unit: Unit) -> list[csr_matrix]:
    """Sparse unit vectors (n, terms) of each side's texts, by sublinear TF-IDF whose weights come from the `fitted` texts.

    unit: "word" (every run of letters and digits), or "character" (2 to 4 in a row within words). A term that no fitted text has counts
    as the rarest there can be. Left out, as scikit-learn does, it would make texts similar that differ in just these words, and the
    control of a small training set would be weak.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

    counts = CountVectorizer(**ANALYSERS[unit]).fit_transform([text for texts in (fitted, *sides) for text in texts])
    bounds = np.cumsum([len(fitted), *map(len, sides)])
    weights = TfidfTransformer(sublinear_tf=True).fit(counts[: len(fitted)])
    return [weights.transform(counts[start:end]) for start, end in pairwise(bounds)]


def tfidf_features(train: Sequence[str], test: Sequence[str], unit: Unit) -> tuple[csr_matrix, csr_matrix]:
    """The same vectors for a classifier: terms and weights of the training texts alone, since of others nothing can be learnt."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    tfidf = TfidfVectorizer(sublinear_tf=True, **ANALYSERS[unit]).fit(train)
    return tfidf.transform(train), tfidf.transform(test)


def fitted_on(training: Table | None, otherwise: str = "the evaluated texts") -> str:
    """What the control is, as a protocol says it."""
    texts = "the training texts" if training_texts(training) else otherwise
    return (
        f"TF-IDF (words; characters 2 to 4 within words; sublinear) takes its weights from {texts}; a term unknown there "
        "counts as the rarest."
    )
