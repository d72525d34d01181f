"""What claims about learning from a dictionary stand on: words with their definitions, and rated pairs of sentences to measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from contrapose.claims._sentences import SPEARMAN, STSB_EN
from contrapose.claims.claim import Figures, Measure, Source, Split
from contrapose.data.batches import Data
from contrapose.data.cache import file_digest
from contrapose.data.readers import read
from contrapose.evaluation.similarity import spearman
from contrapose.geometry import mean_cosine
from contrapose.text._entries import kept_entry_vectors
from contrapose.text._prompt import pooled
from contrapose.text._tfidf import tfidf_vectors
from contrapose.text.data import open_data
from contrapose.text.defsent_plus import DefSentPlus
from contrapose.text.encoder import TextEncoder
from contrapose.text.evaluation import open_protocol
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

WORDNET = Source(
    "wordnet_definitions",
    ("definitions.jsonl.gz",),
    "6,000 nouns and verbs of Open English WordNet, single words, with all their 10,896 definitions; measured on the rated pairs of "
    "benchmarks/data/stsb_en, or on dev.jsonl.gz and test.jsonl.gz of that folder where they lie beside the definitions.",
    "CC BY 4.0 (Open English WordNet) and the WordNet licence (Princeton University); the pairs: see stsb_en",
    "https://github.com/globalwordnet/english-wordnet",
)

ENTRY_COSINE = Measure(
    "entry cosine",
    "Mean cosine of all pairs of the entry vectors that were predicted, 0 where they lie evenly; of the untrained encoder and of TF-IDF, of "
    "the entries that these make.",
    "nearer 0",
)


class DefinitionsTask:
    """Learn from definitions of words; measure on rated pairs of sentences. `encoder(definitions)` makes a fresh encoder."""

    def __init__(self, folder: Path, encoder: Callable[[Sequence[str]], TextEncoder]) -> None:
        beside = (folder / "dev.jsonl.gz").is_file() and (folder / "test.jsonl.gz").is_file()
        pairs = folder if beside else STSB_EN.find()
        self.files = [folder / WORDNET.files[0], pairs / "dev.jsonl.gz", pairs / "test.jsonl.gz"]
        definitions, dev, test = self.files
        self.pairs = {"dev": open_protocol("sts", dev, None, None), "test": open_protocol("sts", test, None, None)}
        self.table = read(definitions, needs=DefSentPlus.card.columns)
        self.sentences = list(self.table["definition"])
        self.encoder = encoder

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.encoder(self.sentences))

    def measure(self, model: DefSentPlus, split: Split) -> Figures:
        cosine = float(model.entry_cosine)
        if not cosine:  # never prepared, so untrained
            data = self.data(DefSentPlus)
            entry = data.columns["entry"][torch.arange(len(data))]
            encoder = pooled(model.encoder, model.settings.entry_pooling)
            cosine = mean_cosine(kept_entry_vectors(encoder, data.columns["definition"], entry, len(model.names)))
        return self._figures(self.pairs[split].cosines(next(iter(model.encoders().values()))), cosine, split)

    def controls(self, split: Split) -> dict[str, Figures]:
        """TF-IDF whose weights come from the definitions; an entry is the mean of its definitions' vectors."""
        pairs, found = self.pairs[split], {}
        _, entry = np.unique(list(self.table["entry"]), return_inverse=True)
        owner = csr_matrix((np.ones(len(entry)), (entry, np.arange(len(entry)))))
        for unit in ("word", "character"):
            first, second, own = tfidf_vectors(self.sentences, [pairs.first, pairs.second, self.sentences], unit)
            entries = owner @ own
            lengths = np.sqrt(np.asarray(entries.multiply(entries).sum(axis=1)).ravel())
            total = np.asarray(entries.multiply(1 / lengths[:, None]).sum(axis=0)).ravel()
            n = len(lengths)
            cosines = np.asarray(first.multiply(second).sum(axis=1)).ravel()
            found[f"TF-IDF, {unit}s"] = self._figures(cosines, float(total @ total - n) / (n * (n - 1)), split)
        return found

    def facts(self) -> dict[str, Any]:
        return {
            "files": {file.name: file_digest(file) for file in self.files},
            "entries": len(set(self.table["entry"])),
            "definitions": len(self.sentences),
            "pairs": {split: len(pairs.gold) for split, pairs in self.pairs.items()},
            "encoder": self._sample.record(),
        }

    @cached_property
    def _sample(self) -> TextEncoder:
        """An encoder to ask for tokens and facts; never trained. The caller's random state is left alone."""
        with torch.random.fork_rng():
            return self.encoder(self.sentences)

    def _figures(self, cosines: np.ndarray, entry_cosine: float, split: Split) -> Figures:
        return {SPEARMAN.name: spearman(cosines, self.pairs[split].gold), ENTRY_COSINE.name: entry_cosine}
