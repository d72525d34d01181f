"""The STS protocol for text encoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from contrapose.data.columns import Column
from contrapose.data.faults import faults
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import ProtocolDataInvalid, TooFewValues, ValueMissing
from contrapose.evaluation.result import Result, Score
from contrapose.evaluation.similarity import (
    NEAR,
    TOP,
    length_bias,
    length_bias_scores,
    pair_cosines,
    spearman,
    sts,
    sts_scores,
)
from contrapose.text._columns import open_table
from contrapose.text._loading import most_tokens
from contrapose.text._tfidf import UNITS, fitted_on, tfidf_vectors, training_texts
from contrapose.text.encoder import TextEncoder
from contrapose.training.bar import Bar
from contrapose.training.encoder import Encoder

LONGEST = 2**16  # tokens, where neither positions nor tokeniser have an end: tokenisers count in machine integers
SCORE = Column("score", "score", "How alike people find them; larger is closer.")
RATED_PAIRS = (
    Column("sentence1", "text", "One sentence."),
    Column("sentence2", "text", "The other."),
    SCORE,
    Column("subset", "label", "The part of the task that the pair belongs to.", required=False),
)


class TextSimilarity:
    """Do cosines rank pairs of sentences as people do? Spearman over all pairs together ("all"), as SimCSE's tables have it.

    `source`: whatever `read` takes, with the columns `sentence1`, `sentence2`, `score` and perhaps `subset`, with which the older
    aggregations stand beside "all". Pairs without a gold score are left out, and texts are split at white space and joined by single
    spaces, as SentEval does. Beside Spearman stands the length bias of ESimCSE (0: none).
    """

    name = "sts"
    scored = "spearman"  # what `score` is

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        table, self.unrated = rated(open_table(source, columns, RATED_PAIRS))
        table = read(table, needs=RATED_PAIRS)
        self.source, self.training = table.source, training
        self.first, self.second = (
            [" ".join(text.split()) for text in table[name]] for name in ("sentence1", "sentence2")
        )
        self.gold = np.asarray(list(table["score"]), dtype=np.float64)
        self.subset = np.array([str(label) for label in table["subset"]]) if "subset" in table else None
        if len(self.gold) < 2 or np.ptp(self.gold) == 0:
            raise ProtocolDataInvalid(
                f"{table.source}: all {len(self.gold)} scores are {self.gold[0]:g}, so nothing can be ranked by them."
            )
        try:
            sts(np.zeros(len(self.gold)), self.gold, self.subset)
        except TooFewValues as error:
            raise ProtocolDataInvalid(f"{table.source}: {error.args[0]} Join it to another, or leave it out.") from None

    def score(self, encoder: Encoder) -> float:
        """Spearman over all pairs: what `select` goes by."""
        return spearman(self.cosines(encoder), self.gold)

    def evaluate(self, systems: Mapping[str, Encoder]) -> dict[str, Any]:
        """The result of each system beside TF-IDF, as JSON values. `systems`: the encoder before and after, in this order."""
        cosines = {name: self.cosines(encoder) for name, encoder in systems.items()}
        rows = {name: cosines[name] for name in systems if name == "untrained"}
        fitted = training_texts(self.training) or self.first + self.second
        for unit in UNITS:
            first, second = tfidf_vectors(fitted, [self.first, self.second], unit)
            rows[f"TF-IDF, {unit}s"] = np.asarray(first.multiply(second).sum(axis=1)).ravel()
        rows |= cosines
        scores = {}
        with Bar("Scoring", len(rows)) as bar:
            for name, values in rows.items():
                scores[name] = self.figures(values)
                bar.advance(1)
        result = Result(self.name, self.source, len(self.gold), self.description, scores)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    @property
    def description(self) -> str:
        unrated = f" ({self.unrated:,} without one are left out)" if self.unrated else ""
        parts = [
            f"Spearman correlation of cosines with {len(self.gold):,} gold scores{unrated}; no regressor, no text cut. Where the encoder scores pairs itself, its score stands in the place of the cosine."
        ]
        if self.subset is None:
            parts.append("All pairs are ranked together, ties by average rank.")
        else:
            parts.append(
                f"spearman all ranks all pairs together, ties by average rank, and is the one to compare; spearman mean and wmean are "
                f"the mean over {len(np.unique(self.subset))} sub-sets ranked apart, plain and weighted by their pairs."
            )
        if self.reads_lengths:
            parts.append(
                "length bias: partial rank correlation of cosine with minus the difference in words, given the gold score; 0 is none, and "
                "above 0 pairs of equal length are taken for similar."
            )
            if self.rated_to_five:
                parts.append(
                    f"length gap: mean cosine of pairs that differ by at most {NEAR} words, less that of the others, minus the same "
                    f"difference of score / {TOP:g}; 0 is none."
                )
        parts += [fitted_on(self.training), "Intervals: 95 % bootstrap over pairs, 1,000 resamples."]
        return " ".join(parts)

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Of both sides of each pair, in words."""
        return [(len(a.split()), len(b.split())) for a, b in zip(self.first, self.second, strict=True)]

    @property
    def reads_lengths(self) -> bool:
        """Whether there are both near and far pairs, without which there is no length bias to speak of."""
        near = [abs(a - b) <= NEAR for a, b in self.lengths]
        return any(near) and not all(near)

    @property
    def rated_to_five(self) -> bool:
        """Whether the scores lie as STS has them, from 0 to 5: the gap compares cosines with score / 5."""
        return self.gold.min() >= 0 and 1 < self.gold.max() <= TOP

    def figures(self, cosines: np.ndarray) -> dict[str, Score]:
        scores = sts_scores(cosines, self.gold, self.subset)
        if self.reads_lengths:
            scores |= length_bias_scores(cosines, self.gold, self.lengths)
        if not self.rated_to_five:
            scores.pop("length gap", None)
        return scores

    def length_bias(self, encoder: Encoder) -> dict[str, float]:
        """ESimCSE's figure, see `evaluation.similarity.length_bias`; lengths in words."""
        return length_bias(self.cosines(encoder), self.gold, self.lengths)

    def cosines(self, encoder: Encoder) -> np.ndarray:
        """(n,) cosines of the pairs, a text encoded once; of an encoder that scores pairs itself, its scores."""
        if getattr(encoder, "ranks_pairs", False):
            return encoder.score_pairs(self.first, self.second)
        texts = list(dict.fromkeys(self.first + self.second))
        place = {text: row for row, text in enumerate(texts)}
        with uncut(encoder):
            vectors = encoder.encode(texts)
        return pair_cosines(*(vectors[[place[text] for text in side]] for side in (self.first, self.second)))


@contextmanager
def uncut(encoder: Encoder) -> Iterator[None]:
    """For a while, texts are cut only where the transformer's positions end."""
    if not isinstance(encoder, TextEncoder):
        yield
        return
    limit = encoder.max_tokens
    encoder.max_tokens = min(most_tokens(encoder.transformer, encoder.tokenizer), LONGEST)
    try:
        yield
    finally:
        encoder.max_tokens = limit


def rated(table: Table) -> tuple[Table, int]:
    """The rows that have a score, and how many have none. Raises ProtocolDataInvalid when no row has one."""
    if SCORE.name not in table:
        return table, 0
    missing = [fault.rows for fault in faults(table, SCORE) if fault.error is ValueMissing]
    if not missing:
        return table, 0
    kept = np.setdiff1d(np.arange(len(table)), missing[0])
    if not len(kept):
        raise ProtocolDataInvalid(f"{table.source}: no pair has a score, so nothing can be ranked by them.")
    return table.take(kept), len(missing[0])
