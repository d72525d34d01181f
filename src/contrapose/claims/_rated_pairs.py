"""What claims about scoring pairs stand on: rated pairs to learn from, more pairs that nobody rated, and rated pairs to measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrapose.claims._sentences import SPEARMAN, STSB_EN
from contrapose.claims.claim import Figures, Measure, Split
from contrapose.data.batches import Data
from contrapose.data.cache import file_digest
from contrapose.data.readers import read
from contrapose.evaluation.similarity import spearman
from contrapose.text._tfidf import tfidf_vectors
from contrapose.text.data import open_data
from contrapose.text.encoder import TextEncoder
from contrapose.text.evaluation import open_protocol
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

PEARSON = Measure("pearson", "Pearson correlation of the predicted value with the ratings.")


class RatedPairsTask:
    """Learn from rated pairs of the training split, and from as many unrated ones made of their sentences; measure on rated pairs.

    The unrated pairs, `labelled` 0: half are two sentences drawn at random, half a sentence and the one nearest to it by TF-IDF. Pairs with a
    sentence of the development or test split are left out of training. `encoder(sentences)` makes a fresh encoder.
    """

    def __init__(self, folder: Path, encoder: Callable[[Sequence[str]], TextEncoder]) -> None:
        self.files = [folder / name for name in STSB_EN.files]
        train, dev, test = (open_protocol("sts", file, None, None) for file in self.files)
        self.pairs = {"dev": dev, "test": test}
        held_out = {text for pairs in self.pairs.values() for text in (*pairs.first, *pairs.second)}
        rated = [
            {"sentence1": first, "sentence2": second, "score": float(score), "labelled": 1}
            for first, second, score in zip(train.first, train.second, train.gold, strict=True)
            if not {first, second} & held_out
        ]
        self.sentences = list(dict.fromkeys(row[side] for row in rated for side in ("sentence1", "sentence2")))
        self.rated = len(rated)
        self.table = read([*rated, *self.unrated({(row["sentence1"], row["sentence2"]) for row in rated})])
        self.encoder = encoder

    def unrated(self, rated: set[tuple[str, str]]) -> list[dict[str, Any]]:
        """As many pairs as are rated, none of them among these; always the same ones."""
        drawn = np.random.default_rng(0)
        first = drawn.permutation(len(self.sentences))
        by_chance = zip(first, drawn.permutation(len(self.sentences)), strict=True)
        nearest = zip(first, self.nearest()[first], strict=True)
        rows = []
        for source in (by_chance, nearest):
            pairs = ((self.sentences[a], self.sentences[b]) for a, b in source if a != b)
            fresh = [pair for pair in pairs if pair not in rated and pair[::-1] not in rated]
            rows += [{"sentence1": a, "sentence2": b, "score": 0.0, "labelled": 0} for a, b in fresh[: self.rated // 2]]
        return rows

    def nearest(self) -> np.ndarray:
        """(n,): for each sentence the other one with the largest cosine of words."""
        (vectors,) = tfidf_vectors(self.sentences, [self.sentences], "word")
        cosines = (vectors @ vectors.T).tolil()
        cosines.setdiag(-1.0)
        return np.asarray(cosines.tocsr().argmax(axis=1)).ravel()

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.encoder(self.sentences))

    def measure(self, model: Method, split: Split) -> Figures:
        pairs, scorer = self.pairs[split], next(iter(model.encoders().values()))
        return self._figures(scorer.score_pairs(pairs.first, pairs.second), split)

    def controls(self, split: Split) -> dict[str, Figures]:
        """TF-IDF whose weights come from the training sentences."""
        pairs, found = self.pairs[split], {}
        for unit in ("word", "character"):
            first, second = tfidf_vectors(self.sentences, [pairs.first, pairs.second], unit)
            found[f"TF-IDF, {unit}s"] = self._figures(np.asarray(first.multiply(second).sum(axis=1)).ravel(), split)
        return found

    def facts(self) -> dict[str, Any]:
        return {
            "files": {file.name: file_digest(file) for file in self.files},
            "rated": self.rated,
            "unrated": len(self.table) - self.rated,
            "pairs": {split: len(pairs.gold) for split, pairs in self.pairs.items()},
            "encoder": self._sample.record(),
        }

    @cached_property
    def _sample(self) -> TextEncoder:
        """An encoder to ask for tokens and facts; never trained. The caller's random state is left alone."""
        with torch.random.fork_rng():
            return self.encoder(self.sentences)

    def _figures(self, scores: np.ndarray, split: Split) -> Figures:
        gold = self.pairs[split].gold
        pearson = float(np.corrcoef(scores, gold)[0, 1]) if np.ptp(scores) else 0.0
        return {SPEARMAN.name: spearman(scores, gold), PEARSON.name: pearson}
