"""WhitenedCSE: whitening several views in shuffled groups beats SimCSE on an anisotropic encoder, and spreads embeddings more evenly."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from contrapose.claims._sentences import SPEARMAN, STSB_EN, SentenceTask, four_layers
from contrapose.claims.claim import Arm, Claim, Experiment, Figures, Measure, Split, Statement
from contrapose.geometry import alignment, uniformity
from contrapose.text._similarity import uncut
from contrapose.text._tfidf import tfidf_vectors
from contrapose.training.method import Method

ALIKE = 4.0  # the rating from which a pair counts as positive for alignment, as in SimCSE's figures
UNIFORMITY = Measure(
    "uniformity",
    "Log of the mean of exp(-2 |x - y|²) over all sentences of the split (Wang and Isola, 2020), of the encoder's unit vectors, which are not "
    "whitened; lower is more even.",
    "smaller",
)
ALIGNMENT = Measure("alignment", "Mean |x - y|² of the pairs that are rated 4 or more; lower is closer.", "smaller")


class SpreadTask(SentenceTask):
    """The sentences and pairs of the other claims, with how the vectors of a split lie on the sphere."""

    def measure(self, model: Method, split: Split) -> Figures:
        encoder = next(iter(model.encoders().values()))
        with uncut(encoder):
            vectors = encoder.encode(self.texts(split))
        return super().measure(model, split) | self.spread(torch.from_numpy(vectors), split)

    def controls(self, split: Split) -> dict[str, Figures]:
        found = super().controls(split)
        for unit in ("word", "character"):
            (vectors,) = tfidf_vectors(self.sentences, [self.texts(split)], unit)
            there = vectors[:, vectors.getnnz(axis=0) > 0]  # no other term has a part in any product
            found[f"TF-IDF, {unit}s"] |= self.spread(torch.from_numpy(there.toarray()), split)
        return found

    def texts(self, split: Split) -> list[str]:
        """The sentences of a split, each once."""
        return list(dict.fromkeys([*self.pairs[split].first, *self.pairs[split].second]))

    def spread(self, vectors: Tensor, split: Split) -> Figures:
        """Of the vectors of `texts`, (n, d)."""
        pairs, place = self.pairs[split], {text: row for row, text in enumerate(self.texts(split))}
        alike = [number for number, rating in enumerate(pairs.gold) if rating >= ALIKE]
        first, second = (vectors[[place[side[number]] for number in alike]] for side in (pairs.first, pairs.second))
        return {UNIFORMITY.name: uniformity(vectors), ALIGNMENT.name: alignment(first, second)}


claim = Claim(
    method="whitenedcse",
    says="Dropout gives positives that hardly differ, and a pretrained encoder whose vectors all point one way. Three views, each whitened in "
    "groups of channels that are shuffled anew, give more diverse positives and a more even space: embeddings that rank pairs more as people do "
    "than SimCSE's.",
    source=STSB_EN,
    measures=(SPEARMAN, UNIFORMITY, ALIGNMENT),
    tuned_by=SPEARMAN.name,
    arms=(
        Arm("SimCSE", "simcse"),
        Arm("three plain views", "whitenedcse", {"whitening": False}),
        Arm("two whitened views", "whitenedcse", {"views": 2}),
        Arm("fixed groups", "whitenedcse", {"shuffle": False}),
        Arm("WhitenedCSE", "whitenedcse"),
    ),
    statements=(
        Statement("Three whitened views beat SimCSE.", "spearman", "WhitenedCSE", "SimCSE", least=0.01),
        Statement("Embeddings lie more evenly than SimCSE's.", "uniformity", "WhitenedCSE", "SimCSE", least=0.05),
        Statement(
            "Whitened views beat as many plain ones.", "spearman", "WhitenedCSE", "three plain views", least=0.01
        ),
        Statement("Shuffled groups beat fixed ones.", "spearman", "WhitenedCSE", "fixed groups", least=0.01),
        Statement("Three whitened views beat two.", "spearman", "WhitenedCSE", "two whitened views", least=0.01),
        Statement("Three plain views beat two.", "spearman", "three plain views", "SimCSE", least=0.01),
    ),
    experiments=(
        Experiment(
            "MiniLM, four layers",
            "The first four layers of a pretrained transformer, mean pooling: untuned and anisotropic (mean cosine 0.5), as BERT is. An encoder "
            "from random weights is even already, so that this claim cannot show on one.",
            partial(SpreadTask, encoder=four_layers),
            # views 3, groups 128 and temperature 0.05 are the official code's, untuned
            {"batch_size": 128, "temperature": 0.05, "precision": "auto", "steps": 28},
            {"learning_rate": (1e-4, 3e-4)},
            minutes=13,
            tuning_seeds=1,
        ),
    ),
)
