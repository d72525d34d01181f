"""Probes as protocols: an encoder before and after, and its controls, on the same labelled rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from contrapose.evaluation.classification import classification
from contrapose.evaluation.labelled import Labelled
from contrapose.evaluation.probes import (
    FOLDS,
    MANY,
    NEIGHBOURS,
    STRENGTHS,
    knn_probe,
    linear_probe,
    majority_class,
)
from contrapose.evaluation.result import Result, Score

if TYPE_CHECKING:
    from contrapose.evaluation.probes import Rows

MAJORITY = "majority class"


class Encodes(Protocol):
    def encode(self, values: Sequence[Any]) -> np.ndarray: ...


@dataclass(frozen=True)
class Probe:
    """A rule that is fitted on training rows and labels and predicts the labels of test rows.

    least: training rows that it needs of every label. words: the rule, as the result says it.
    """

    name: str
    predict: Callable[[Rows, np.ndarray, Rows], np.ndarray]
    least: int
    words: str


LINEAR = Probe(
    "probe",
    linear_probe,
    2,
    "Logistic regression on frozen vectors, columns standardised by the training rows; the L2 penalty is the best of "
    f"{len(STRENGTHS)} by accuracy + macro-F1 in {FOLDS}-fold cross-validation within the training rows (one fold from {MANY:,} rows on).",
)
NEAREST = Probe(
    "knn",
    knn_probe,
    1,
    f"The label of most of the {NEIGHBOURS} nearest training rows by cosine of frozen vectors; rows as near as the last share its vote.",
)


class LabelledProtocol:
    """A probe on labelled values of any modality.

    A modality reads the values, says how they are divided, and brings its controls: `controls(train_values, test_values)` gives the rows
    of each by name, `note` says what they are. The majority class stands beside them everywhere. `bar("Probing", 5)` opens a progress bar
    of five systems, of which each is told to it by `advance(1)`.
    """

    scored = "accuracy"  # what `score` is
    over = "test rows"  # what intervals are over

    def __init__(
        self,
        probe: Probe,
        source: str,
        values: Sequence[Any],
        labelled: Labelled,
        controls: Callable[[Sequence[Any], Sequence[Any]], Mapping[str, tuple[Rows, Rows]]],
        note: str,
        bar: Callable[[str, int], AbstractContextManager[Any]],
    ) -> None:
        self.name, self.probe, self.source, self.labelled, self.note = probe.name, probe, source, labelled, note
        self.values, self.controls, self.bar = values, controls, bar

    def score(self, encoder: Encodes) -> float:
        """Accuracy on the test rows: what `select` goes by."""
        return float((self.predicted(self.rows(encoder)) == self.labelled.truth).mean())

    def evaluate(self, systems: Mapping[str, Encodes]) -> dict[str, Any]:
        """The result of each system beside the controls, as JSON values. `systems`: the encoder before and after, in this order."""
        vectors = {name: self.rows(encoder) for name, encoder in systems.items()}
        sides = [[self.values[row] for row in rows] for rows in (self.labelled.train, self.labelled.test)]
        first = {name: rows for name, rows in vectors.items() if name == "untrained"}
        rows = first | dict(self.controls(*sides)) | {MAJORITY: None} | vectors
        scores = {}
        with self.bar("Probing", len(rows)) as bar:
            for name, each in rows.items():
                scores[name] = self.figures(each)
                bar.advance(1)
        result = Result(self.name, self.source, len(self.labelled.test), self.description, scores)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def figures(self, rows: tuple[Rows, Rows] | None) -> dict[str, Score]:
        """The scores of a system's training and test rows; None: of the majority class."""
        predicted = (
            majority_class(self.labelled.known, len(self.labelled.test)) if rows is None else self.predicted(rows)
        )
        return classification(predicted, self.labelled.truth)

    @property
    def description(self) -> str:
        train, test = (f"{len(rows):,}" for rows in (self.labelled.train, self.labelled.test))
        return (
            f"{self.probe.words} {train} training and {test} test rows, divided {self.labelled.how}; "
            f"{len(np.unique(self.labelled.known))} labels. Nothing is fitted on test rows. macro-F1 is the plain mean over the labels. "
            f"{self.note} Majority class: the most frequent training label, whatever the row; it is chance. "
            f"Intervals: 95 % bootstrap over {self.over}, 2,000 resamples."
        )

    def rows(self, encoder: Encodes) -> tuple[Rows, Rows]:
        vectors = encoder.encode(self.values)
        return vectors[self.labelled.train], vectors[self.labelled.test]

    def predicted(self, rows: tuple[Rows, Rows]) -> np.ndarray:
        return self.probe.predict(rows[0], self.labelled.known, rows[1])
