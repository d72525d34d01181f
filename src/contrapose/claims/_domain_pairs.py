"""What claims about several domains stand on: pairs of texts with their domain, and two small encoders with MLPs."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import LongTensor, Tensor, nn

from contrapose.claims._sentences import Words
from contrapose.claims.claim import Figures, Measure, Source, Split
from contrapose.data.batches import Data
from contrapose.data.cache import file_digest
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.evaluation.pair_labels import pair_labels
from contrapose.evaluation.similarity import pair_cosines
from contrapose.text._tfidf import tfidf_vectors
from contrapose.text.data import open_data
from contrapose.text.encoder import TextEncoder
from contrapose.text.evaluation import open_protocol
from contrapose.training.encoder import Encoder
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

WORDNET_SISTERS = Source(
    "wordnet_sisters",
    ("train.jsonl.gz", "dev.jsonl.gz", "test.jsonl.gz"),
    "Definitions of sister synsets of Open English WordNet in four lexicographer files, which are the domains: 3,609 / 1,110 / 2,316 pairs.",
    "CC BY 4.0, Open English WordNet; WordNet licence, Princeton University",
    "https://github.com/globalwordnet/english-wordnet",
)
AREA = Measure("roc auc", "Area under the ROC curve of the cosine, mean over domains.")
BEST_F1 = Measure("f1max", "Best F1 over all thresholds, chosen on the very pairs, mean over domains.")
MISROUTED = Measure(
    "roc auc, next domain's expert",
    "The same with every text sent to the next domain's expert: lower where experts have specialised.",
)


class DomainPairsTask:
    """Learn from pairs with a domain; measure whether pairs that belong together are above others, in each domain apart."""

    table: Table
    held_out: dict[Split, Table]
    encoder: Callable[[Sequence[str]], TextEncoder]

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """See `Task`."""

    @cached_property
    def texts(self) -> list[str]:
        """The training texts, each once."""
        return list(dict.fromkeys([*self.table["anchor"], *self.table["positive"]]))

    @cached_property
    def pairs(self) -> dict[Split, Any]:
        return {split: open_protocol("pair_labels", table, None, None) for split, table in self.held_out.items()}

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.encoder(self.texts))

    def measure(self, model: Method, split: Split) -> Figures:
        encoder = next(iter(model.encoders().values()))
        figures = self._figures(self.pairs[split].cosines(encoder), split)
        elsewhere = self._figures(self.misrouted(encoder, split), split)
        return {**figures, MISROUTED.name: elsewhere[AREA.name]}

    def misrouted(self, encoder: Encoder, split: Split) -> np.ndarray:
        """Cosines with every text sent to the next domain's expert."""
        domains, table = sorted(set(self.held_out[split]["domain"])), self.held_out[split]
        following = dict(zip(domains, domains[1:] + domains[:1], strict=True))
        sides = (
            encoder.encode(
                [
                    {"text": text, "domain": following[domain]}
                    for text, domain in zip(table[side], table["domain"], strict=True)
                ]
            )
            for side in ("anchor", "positive")
        )
        return pair_cosines(*sides)

    def controls(self, split: Split) -> dict[str, Figures]:
        """TF-IDF whose weights come from the training texts; it knows no domain."""
        table, found = self.held_out[split], {}
        for unit in ("word", "character"):
            first, second = tfidf_vectors(self.texts, [list(table["anchor"]), list(table["positive"])], unit)
            figures = self._figures(np.asarray(first.multiply(second).sum(axis=1)).ravel(), split)
            found[f"TF-IDF, {unit}s"] = {**figures, MISROUTED.name: figures[AREA.name]}
        return found

    @cached_property
    def _sample(self) -> TextEncoder:
        """An encoder to ask for tokens and facts; never trained. The caller's random state is left alone."""
        with torch.random.fork_rng():
            return self.encoder(self.texts)

    def _figures(self, cosines: np.ndarray, split: Split) -> Figures:
        pairs = self.pairs[split]
        parts = [rows for domain, rows in pairs.parts().items() if domain]
        figures = [pair_labels(cosines[rows], pairs.labels[rows]) for rows in parts]
        return {measure.name: float(np.mean([each[measure.name] for each in figures])) for measure in (AREA, BEST_F1)}


class SisterTask(DomainPairsTask):
    """Definitions of sister synsets, from the files of WORDNET_SISTERS."""

    def __init__(self, folder: Path, encoder: Callable[[Sequence[str]], TextEncoder]) -> None:
        self.files = [folder / name for name in WORDNET_SISTERS.files]
        self.table, dev, test = (read(file) for file in self.files)
        self.held_out = {"dev": dev, "test": test}
        self.encoder = encoder

    def facts(self) -> dict[str, Any]:
        return {
            "files": {file.name: file_digest(file) for file in self.files},
            "pairs": {"train": len(self.table), **{split: len(table) for split, table in self.held_out.items()}},
            "encoder": self._sample.record(),
        }


class ConflictTask(DomainPairsTask):
    """Bags of words of two hidden attributes, topic and style. Pairs of one domain agree on the topic and are random in style, those of the
    other the reverse: an encoder that does not know the domain can satisfy neither whole. Generated, always the same; the folder is not read.

    Each text has `words` words of its topic and as many of its style, of 30 each; there are 20 topics and 20 styles.
    """

    def __init__(
        self, folder: Path, encoder: Callable[[Sequence[str]], TextEncoder], pairs: int = 12_800, words: int = 6
    ) -> None:
        drawn = random.Random(0)
        self.words, self.encoder = words, encoder
        self.table = read([self.pair(drawn, together=True) for _ in range(pairs)])
        measured = max(8, pairs // 12)
        self.held_out = {
            split: read([{**self.pair(drawn, together=bool(row % 2)), "label": row % 2} for row in range(2 * measured)])
            for split in ("dev", "test")
        }

    def pair(self, drawn: random.Random, together: bool) -> dict[str, str]:
        """Two texts of a domain that agree on its attribute, or do not, and are random in the other."""
        domain = drawn.randrange(2)
        first = [drawn.randrange(20), drawn.randrange(20)]  # topic, style
        second = [drawn.randrange(20), drawn.randrange(20)]
        second[domain] = first[domain] if together else (first[domain] + drawn.randrange(1, 20)) % 20
        return {
            "anchor": self.text(drawn, first),
            "positive": self.text(drawn, second),
            "domain": ("topic", "style")[domain],
        }

    def text(self, drawn: random.Random, attributes: Sequence[int]) -> str:
        words = [
            f"{kind}{value}w{drawn.randrange(30)}"
            for kind, value in zip("ts", attributes, strict=True)
            for _ in range(self.words)
        ]
        drawn.shuffle(words)
        return " ".join(words)

    def facts(self) -> dict[str, Any]:
        return {
            "generated": "topics and styles, seed 0",
            "pairs": {"train": len(self.table), **{split: len(table) for split, table in self.held_out.items()}},
            "encoder": self._sample.record(),
        }


def words_through_blocks(texts: Sequence[str], dim: int = 48) -> TextEncoder:
    """Word vectors through two residual MLPs, then their mean, from random weights; see `WordsThroughBlocks`. Its words are those of the texts."""
    tokeniser = Words(texts)
    return TextEncoder(WordsThroughBlocks(len(tokeniser.vocabulary) + 2, dim), tokeniser, pooling="avg", max_tokens=32)


class WordsThroughBlocks(nn.Module):
    """(b, t) words to states (b, t, dim): word vectors, N(0, 1), through two blocks x + MLP(x)."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, dim)
        self.blocks = nn.ModuleList(ResidualMLP(dim) for _ in range(2))

    def forward(self, input_ids: LongTensor, attention_mask: LongTensor) -> Tensor:
        states = self.words(input_ids)
        for block in self.blocks:
            states = block(states)
        return states


class ResidualMLP(nn.Module):
    """x + W₂ gelu(W₁ x), with a hidden layer of twice the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)
