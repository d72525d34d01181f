"""Pairs of texts that belong together or not, as a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import ProtocolDataInvalid, TooFewValues
from contrapose.evaluation.pair_labels import pair_label_scores, pair_labels
from contrapose.evaluation.result import Result
from contrapose.evaluation.similarity import pair_cosines
from contrapose.text._columns import open_table
from contrapose.text._tfidf import UNITS, fitted_on, tfidf_vectors, training_texts
from contrapose.text.data import values_of
from contrapose.training.encoder import Encoder

LABELLED_PAIRS = (
    Column("anchor", "text", "One side of the pair."),
    Column("positive", "text", "The other."),
    Column("label", "number", "1: they belong together; 0: they do not."),
    Column("domain", "domain", "The domain of both.", required=False),
)


class TextPairLabels:
    """Are pairs that belong together above pairs that do not? The best F1 over all thresholds, and the area under the ROC curve.

    `source`: whatever `read` takes, with the columns `anchor`, `positive`, `label` (1 or 0) and perhaps `domain`, which encoders that
    route by domain are told, and for which F1 and area are given apart as well.
    """

    name = "pair_labels"
    scored = "roc auc"  # what `score` is

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        self.table = read(open_table(source, columns, LABELLED_PAIRS), needs=LABELLED_PAIRS)
        self.source, self.training = self.table.source, training
        self.labels = np.asarray(list(self.table["label"]), dtype=np.float64)
        named = [str(domain) for domain in self.table["domain"]] if "domain" in self.table else None
        self.domains = None if named is None else np.array(named)
        try:
            for rows in self.parts().values():
                pair_labels(np.zeros(len(rows)), self.labels[rows])
        except TooFewValues as error:
            raise ProtocolDataInvalid(f"{self.source}, column 'label': {error.args[0]}") from None

    def parts(self) -> dict[str, np.ndarray]:
        """The rows of all pairs under "", and of each domain under its name."""
        parts = {"": np.arange(len(self.labels))}
        for domain in () if self.domains is None else np.unique(self.domains).tolist():
            parts[domain] = np.flatnonzero(self.domains == domain)
        return parts

    def score(self, encoder: Encoder) -> float:
        """The area under the ROC curve over all pairs: what `select` goes by."""
        return pair_labels(self.cosines(encoder), self.labels)["roc auc"]

    def cosines(self, encoder: Encoder) -> np.ndarray:
        sides = (encoder.encode(values_of(self.table, side, encoder)[:]) for side in ("anchor", "positive"))
        return pair_cosines(*sides)

    def evaluate(self, systems: Mapping[str, Encoder]) -> dict[str, Any]:
        """The result of each system beside TF-IDF, as JSON values."""
        cosines = {name: self.cosines(encoder) for name, encoder in systems.items()}
        rows = {name: cosines.pop(name) for name in ("untrained",) if name in cosines}
        anchors, positives = list(self.table["anchor"]), list(self.table["positive"])
        fitted = training_texts(self.training) or anchors + positives
        for unit in UNITS:
            first, second = tfidf_vectors(fitted, [anchors, positives], unit)
            rows[f"TF-IDF, {unit}s"] = np.asarray(first.multiply(second).sum(axis=1)).ravel()
        scores = {name: self.figures(values) for name, values in (rows | cosines).items()}
        description = (
            f"{len(self.labels):,} pairs, {int(self.labels.sum()):,} of which belong together, told apart by their cosine. f1max: the best F1 over "
            f"all thresholds, chosen on these very pairs. {fitted_on(self.training)} Intervals: 95 % bootstrap over pairs, 1,000 resamples."
        )
        result = Result(self.name, self.source, len(self.labels), description, scores)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def figures(self, cosines: np.ndarray) -> dict[str, Any]:
        found = {}
        for domain, rows in self.parts().items():
            figures = pair_label_scores(cosines[rows], self.labels[rows])
            kept = figures if not domain else {name: figures[name] for name in ("f1max", "roc auc")}
            found |= {f"{name} {domain}".strip(): score for name, score in kept.items()}
        return found
