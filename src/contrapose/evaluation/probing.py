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
    of each by name, `note` says what they are. The majority class stands beside them everywhere. `labelled`: one division, or several
    whose test rows are predicted each from its own training rows, and scored together. `bar("Probing", 5)` opens a progress bar
    of five fits, of which each is told to it by `advance(1)`. `name`: None is the probe's.
    """

    scored = "accuracy"  # what `score` is
    over = "test rows"  # what intervals are over

    def __init__(
        self,
        probe: Probe,
        source: str,
        values: Sequence[Any],
        labelled: Labelled | Sequence[Labelled],
        controls: Callable[[Sequence[Any], Sequence[Any]], Mapping[str, tuple[Rows, Rows]]],
        note: str,
        bar: Callable[[str, int], AbstractContextManager[Any]],
        name: str | None = None,
    ) -> None:
        self.name, self.probe, self.source, self.note = name or probe.name, probe, source, note
        self.values, self.controls, self.bar = values, controls, bar
        self.parts = [labelled] if isinstance(labelled, Labelled) else list(labelled)

    @property
    def labelled(self) -> Labelled:
        """The division, or the first of several."""
        return self.parts[0]

    @property
    def truth(self) -> np.ndarray:
        """The labels of all test rows, those of one division after those of another."""
        return np.concatenate([part.truth for part in self.parts])

    def score(self, encoder: Encodes) -> float:
        """Accuracy on the test rows: what `select` goes by."""
        return float((self.predicted(self.rows(encoder)) == self.truth).mean())

    def evaluate(self, systems: Mapping[str, Encodes]) -> dict[str, Any]:
        """The result of each system beside the controls, as JSON values. `systems`: the encoder before and after, in this order."""
        vectors = {name: self.rows(encoder) for name, encoder in systems.items()}
        controls = [dict(self.controls(*self.sides(part))) for part in self.parts]
        first = [name for name in vectors if name == "untrained"]
        order = [*first, *controls[0], MAJORITY, *(name for name in vectors if name not in first)]
        scores = {}
        with self.bar("Probing", len(order)) as bar:
            for name in order:
                if name == MAJORITY:
                    rows = None
                elif name in vectors:
                    rows = [(vectors[name][part.train], vectors[name][part.test]) for part in self.parts]
                else:
                    rows = [each[name] for each in controls]
                scores[name] = self.figures(rows)
                bar.advance(1)
        result = Result(self.name, self.source, len(self.truth), self.description, scores)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def figures(self, rows: Sequence[tuple[Rows, Rows]] | None) -> dict[str, Score]:
        """The scores of a system's training and test rows, of each division; None: of the majority class."""
        if rows is None:
            predicted = [majority_class(part.known, len(part.test)) for part in self.parts]
        else:
            pairs = zip(self.parts, rows, strict=True)
            predicted = [self.probe.predict(train, part.known, test) for part, (train, test) in pairs]
        return classification(np.concatenate(predicted), self.truth)

    @property
    def description(self) -> str:
        train, test = (f"{len(rows):,}" for rows in (self.labelled.train, self.labelled.test))
        divided = f"{train} training and {test} test rows" if len(self.parts) == 1 else f"{len(self.truth):,} rows"
        each = "" if len(self.parts) == 1 else ", each predicted from the others"
        return (
            f"{self.probe.words} {divided}, divided {self.labelled.how}{each}; "
            f"{len(np.unique(self.labelled.known))} labels. Nothing is fitted on test rows. macro-F1 is the plain mean over the labels. "
            f"{self.note} Majority class: the most frequent training label, whatever the row; it is chance. "
            f"Intervals: 95 % bootstrap over {self.over}, 2,000 resamples."
        )

    def rows(self, encoder: Encodes) -> Rows:
        """What the probe reads of all values, (n, d): the vectors, unless a modality makes something of them."""
        return encoder.encode(self.values)

    def sides(self, part: Labelled) -> tuple[list[Any], list[Any]]:
        """The values of the training rows, and of the test rows."""
        return [self.values[row] for row in part.train], [self.values[row] for row in part.test]

    def predicted(self, rows: Rows) -> np.ndarray:
        """The label of each test row, in the order of `truth`."""
        return np.concatenate(
            [self.probe.predict(rows[part.train], part.known, rows[part.test]) for part in self.parts]
        )
