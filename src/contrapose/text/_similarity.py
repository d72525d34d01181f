"""The STS protocol for text encoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import ProtocolDataInvalid
from contrapose.evaluation.result import Result, Score
from contrapose.evaluation.similarity import length_bias, pair_cosines, spearman, spearman_score
from contrapose.text._tfidf import tfidf_vectors, training_texts
from contrapose.training.encoder import Encoder

COLUMNS = (
    Column("sentence1", "text", "One sentence."),
    Column("sentence2", "text", "The other."),
    Column("score", "score", "How alike people find them; larger is closer."),
)


class TextSimilarity:
    """Do cosines rank pairs of sentences as people do? Spearman over all pairs together ("all"), as SimCSE's tables have it.

    `source`: whatever `read` takes, with the columns `sentence1`, `sentence2`, `score`. Texts are split at white space and joined by
    single spaces, as SentEval does. Beside Spearman stands the length bias of ESimCSE (0: none), for scores from 0 to 5.
    """

    name = "sts"

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        known = {column.name for column in COLUMNS}
        table = read(
            source, rename={name: theirs for name, theirs in (columns or {}).items() if name in known}, needs=COLUMNS
        )
        self.source, self.training = table.source, training
        self.first, self.second = (
            [" ".join(text.split()) for text in table[name]] for name in ("sentence1", "sentence2")
        )
        self.gold = np.asarray(list(table["score"]), dtype=np.float64)
        if len(self.gold) < 2 or np.ptp(self.gold) == 0:
            raise ProtocolDataInvalid(
                f"{table.source}: all {len(self.gold)} scores are {self.gold[0]:g}, so nothing can be ranked by them."
            )

    def score(self, encoder: Encoder) -> float:
        """Spearman: what `select` goes by."""
        return spearman(self.cosines(encoder), self.gold)

    def evaluate(self, systems: Mapping[str, Encoder]) -> dict[str, Any]:
        """The result of each system beside TF-IDF, as JSON values. `systems`: the encoder before and after, in this order."""
        cosines = {name: self.cosines(encoder) for name, encoder in systems.items()}
        rows = {name: cosines[name] for name in systems if name == "untrained"}
        fitted = training_texts(self.training) or self.first + self.second
        for unit in ("word", "character"):
            vectors = tfidf_vectors(fitted, [self.first, self.second], unit)
            rows[f"TF-IDF, {unit}s"] = np.asarray(vectors[0].multiply(vectors[1]).sum(axis=1)).ravel()
        rows |= cosines
        scores = {name: self.figures(values) for name, values in rows.items()}
        result = Result(self.name, self.source, len(self.gold), self.description, scores)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    @property
    def description(self) -> str:
        fitted = "the training texts" if training_texts(self.training) else "the evaluated texts"
        return (
            f"Spearman correlation of cosines with {len(self.gold):,} gold scores, over all pairs together, ties by average rank; no regressor. "
            f"TF-IDF (words; characters 2 to 4 within words; sublinear) is fitted on {fitted}. "
            "Intervals: 95 % bootstrap over pairs, 1,000 resamples."
        )

    def figures(self, cosines: np.ndarray) -> dict[str, Score]:
        return {"spearman": spearman_score(cosines, self.gold)}

    def length_bias(self, encoder: Encoder) -> dict[str, float]:
        """ESimCSE's figure, see `evaluation.similarity.length_bias`; lengths in words."""
        lengths = [(len(a.split()), len(b.split())) for a, b in zip(self.first, self.second, strict=True)]
        return length_bias(self.cosines(encoder), self.gold, lengths)

    def cosines(self, encoder: Encoder) -> np.ndarray:
        """(n,) cosines of the pairs; a text is encoded once."""
        texts = list(dict.fromkeys(self.first + self.second))
        place = {text: row for row, text in enumerate(texts)}
        vectors = encoder.encode(texts)
        return pair_cosines(*(vectors[[place[text] for text in side]] for side in (self.first, self.second)))
