"""What claims about sentence embeddings stand on: sentences to learn from, rated pairs to measure on, and two small encoders."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import LongTensor, Tensor, nn

from contrapose.claims.claim import Figures, Measure, Source, Split
from contrapose.data.batches import Data
from contrapose.data.cache import file_digest
from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.evaluation.similarity import length_bias, spearman
from contrapose.text._tfidf import tfidf_vectors
from contrapose.text.data import open_data
from contrapose.text.encoder import TextEncoder
from contrapose.text.evaluation import open_protocol
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

STSB_EN = Source(
    "stsb_en",
    ("train.jsonl.gz", "dev.jsonl.gz", "test.jsonl.gz"),
    "English STS benchmark, its picture captions and headlines: 2,999 / 625 / 625 pairs, rated from 0 to 5. Part of the benchmark alone, so "
    "numbers are not comparable with published ones.",
    "scores CC BY-SA 4.0; captions CC BY-SA (PASCAL, SNLI); headlines collected by the Europe Media Monitor, acknowledged",
    "https://github.com/PhilipMay/stsb-multi-mt",
)

SPEARMAN = Measure(
    "spearman", "Spearman correlation of cosines with the ratings, over all pairs together, ties by average rank."
)
LENGTH_BIAS = Measure(
    "length bias",
    "Partial rank correlation of the cosine with minus the difference in length (in words), given the rating; 0: length is not read as meaning.",
    "nearer 0",
)
LENGTH_GAP = Measure(
    "length gap",
    "Mean cosine of pairs whose lengths differ by at most 3 words, less that of the others, minus the same difference of the ratings / 5. "
    "It grows with the spread of the cosines.",
    "nearer 0",
)


class SentenceTask:
    """Learn from the sentences of the training pairs without their ratings; measure on rated pairs.

    `encoder(sentences)` makes a fresh encoder; it may take its vocabulary from the training sentences. Sentences that also stand
    in the development or test pairs are left out of training.
    """

    def __init__(self, folder: Path, encoder: Callable[[Sequence[str]], TextEncoder]) -> None:
        self.files = [folder / name for name in STSB_EN.files]
        train, dev, test = self.files
        self.pairs = {"dev": open_protocol("sts", dev, None, None), "test": open_protocol("sts", test, None, None)}
        held_out = {text for pairs in self.pairs.values() for text in (*pairs.first, *pairs.second)}
        sides = [Column(name, "text", "A sentence.") for name in ("sentence1", "sentence2")]
        table = read(train, needs=sides)
        texts = dict.fromkeys(" ".join(text.split()) for side in sides for text in table[side.name])
        self.sentences = [text for text in texts if text not in held_out]
        self.table = read(self.sentences)
        self.encoder = encoder

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.encoder(self.sentences))

    def measure(self, model: Method, split: Split) -> Figures:
        return self._figures(self.pairs[split].cosines(next(iter(model.encoders().values()))), split)

    def controls(self, split: Split) -> dict[str, Figures]:
        """TF-IDF whose weights come from the training sentences."""
        pairs, found = self.pairs[split], {}
        for unit in ("word", "character"):
            first, second = tfidf_vectors(self.sentences, [pairs.first, pairs.second], unit)
            cosines = np.asarray(first.multiply(second).sum(axis=1)).ravel()
            found[f"TF-IDF, {unit}s"] = self._figures(cosines, split)
        return found

    def facts(self) -> dict[str, Any]:
        return {
            "files": {file.name: file_digest(file) for file in self.files},
            "sentences": len(self.sentences),
            "pairs": {split: len(pairs.gold) for split, pairs in self.pairs.items()},
            "encoder": self._sample.record(),
        }

    @cached_property
    def _sample(self) -> TextEncoder:
        """An encoder to ask for tokens and facts; never trained. The caller's random state is left alone."""
        with torch.random.fork_rng():
            return self.encoder(self.sentences)

    def _figures(self, cosines: np.ndarray, split: Split) -> Figures:
        pairs = self.pairs[split]
        lengths = [(len(a.split()), len(b.split())) for a, b in zip(pairs.first, pairs.second, strict=True)]
        bias = length_bias(cosines, pairs.gold, lengths)
        return {
            SPEARMAN.name: spearman(cosines, pairs.gold),
            LENGTH_BIAS.name: bias["partial"],
            LENGTH_GAP.name: bias["gap"],
        }


def four_layers(sentences: Sequence[str]) -> TextEncoder:
    """The first four of MiniLM's six layers: as untuned and anisotropic as a transformer that was never trained for similarity."""
    return TextEncoder.open("minilm", layers=4, pooling="avg", max_tokens=32)


def words_and_length(sentences: Sequence[str], dim: int = 96) -> TextEncoder:
    """The plainest encoder that can read length; see `WordsAndLength`. Its words are those of the sentences."""
    tokeniser = Words(sentences)
    return TextEncoder(WordsAndLength(len(tokeniser.vocabulary) + 2, dim), tokeniser, pooling="avg", max_tokens=32)


class Words:
    """A tokeniser: lower-case words and signs, numbered from 2 in alphabetical order; 1 stands for every other one, 0 for padding."""

    pad_token_id = 0

    def __init__(self, sentences: Sequence[str]) -> None:
        words = sorted({word for sentence in sentences for word in self.split(sentence)})
        self.vocabulary = {word: number for number, word in enumerate(words, 2)}

    def __call__(self, texts: Sequence[str], truncation: bool = True, max_length: int | None = None) -> dict[str, Any]:
        most = max_length if truncation else None
        return {"input_ids": [[self.vocabulary.get(word, 1) for word in self.split(text)][:most] for text in texts]}

    @staticmethod
    def split(text: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", text.lower())

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary


class WordsAndLength(nn.Module):
    """The mean of word vectors, N(0, 1), plus a learned vector of the number of words, N(0, 0.2²); dropout 0.1, then a linear layer.

    `forward` gives each of the t places the vector of the whole text: (b, t, dim), as the pooling "avg" expects. Texts longer than
    `longest` share its vector of length; repetition may lengthen a text beyond the token limit.
    """

    def __init__(self, words: int, dim: int, longest: int = 64) -> None:
        super().__init__()
        self.words = nn.Embedding(words, dim)
        self.length = nn.Embedding(longest + 1, dim)
        nn.init.normal_(self.length.weight, std=0.2)
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(dim, dim)

    def forward(self, input_ids: LongTensor, attention_mask: LongTensor) -> Tensor:
        count = attention_mask.sum(dim=1)
        words = (self.words(input_ids) * attention_mask.unsqueeze(-1)).sum(dim=1) / count.unsqueeze(-1)
        length = self.length(count.clamp(max=self.length.num_embeddings - 1))
        state = self.linear(self.dropout(words + length))
        return state.unsqueeze(1).expand(-1, input_ids.shape[1], -1)
