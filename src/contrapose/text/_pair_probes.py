"""Probes of pairs of texts: what |u − v| and u∘v of frozen vectors tell of two sentences, a label or a score (SentEval's MRPC, SICK-E, SICK-R)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import ProtocolDataInvalid
from contrapose.evaluation.labelled import divide, for_testing
from contrapose.evaluation.probing import LINEAR, Encodes, LabelledProtocol
from contrapose.evaluation.regression import regression, ridge_probe
from contrapose.evaluation.result import Result, Score
from contrapose.evaluation.similarity import spearman
from contrapose.text._columns import open_table
from contrapose.text._tfidf import UNITS, tfidf_features
from contrapose.training.bar import Bar

if TYPE_CHECKING:
    from contrapose.evaluation.probes import Rows

Pairs = Sequence[tuple[str, str]]

SIDES = (Column("sentence1", "text", "One sentence."), Column("sentence2", "text", "The other."))
SPLIT = Column("split", "label", "'train' or 'test'.", required=False)
LABELLED_SENTENCES = (*SIDES, Column("label", "label", "What the two are to each other: the class to be told."), SPLIT)
RATED_SENTENCES = (*SIDES, Column("score", "score", "The number to be told from the two."), SPLIT)
FEATURES = (
    "A pair is read as |u − v| and u∘v of the vectors of its sentences (SentEval), so that their order does not matter."
)
MEAN = "mean of training"


class TextPairProbe(LabelledProtocol):
    """What are two sentences to each other? Logistic regression on |u − v| and u∘v of their frozen vectors.

    `source`: whatever `read` takes, with the columns `sentence1`, `sentence2`, `label` and perhaps `split`; without it a quarter of each label
    is drawn for testing, seed 0, and a pair that stands there twice, in either order, or rows with one `group_id`, stay on one side.
    Raises what `read` and `divide` raise.
    """

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        table = read(open_table(source, columns, LABELLED_SENTENCES), needs=LABELLED_SENTENCES)
        pairs = pairs_of(table)
        labelled = divide(
            list(table["label"]),
            split_of(table),
            source=table.source,
            where=table.where,
            groups=groups_of(table, pairs),
            least=LINEAR.least,
        )
        note = f"{FEATURES} So are TF-IDF vectors, with terms and weights from the training rows, which go through the same probe."
        super().__init__(LINEAR, table.source, pairs, labelled, tfidf_pairs, note, Bar, name="pair_probe")

    def rows(self, encoder: Encodes) -> Rows:
        return pair_rows(encoder, self.values)


class TextPairRegression:
    """How alike are two sentences, read off their frozen vectors? Ridge regression on |u − v| and u∘v.

    `source`: as for `TextPairProbe`, with a number `score` in the place of the label. SentEval's SICK-R, but for the regressor: SentEval fits a
    distribution over the five grades by Adam, here the squared error is solved for; the penalty is chosen by leaving each training
    row out. Unlike `sts`, which fits nothing, this asks what the vectors know, and not whether their cosine says it.
    """

    name = "pair_regression"
    scored = "spearman"  # what `score` is

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        table = read(open_table(source, columns, RATED_SENTENCES), needs=RATED_SENTENCES)
        self.source, self.pairs = table.source, pairs_of(table)
        self.scores = np.asarray(list(table["score"]), dtype=np.float64)
        alike = np.zeros(len(self.pairs), dtype=int)
        test, self.how = for_testing(alike, split_of(table), where=table.where, groups=groups_of(table, self.pairs))
        self.train, self.test = np.flatnonzero(~test), np.flatnonzero(test)
        for side, rows in (("train", self.train), ("test", self.test)):
            if len(rows) < 2 or np.ptp(self.scores[rows]) == 0:
                raise ProtocolDataInvalid(
                    f"{self.source}: {len(rows)} of {len(self.pairs):,} pairs are for '{side}' ({self.how}), and a regression needs "
                    "two there with different scores; give more of them."
                )

    @property
    def truth(self) -> np.ndarray:
        return self.scores[self.test]

    def score(self, encoder: Encodes) -> float:
        """Spearman of predicted and given scores of the test pairs: what `select` goes by."""
        return spearman(self.predicted(pair_rows(encoder, self.pairs)), self.truth)

    def predicted(self, rows: np.ndarray) -> np.ndarray:
        """The score of each test pair."""
        return ridge_probe(rows[self.train], self.scores[self.train], rows[self.test])

    def evaluate(self, systems: Mapping[str, Encodes]) -> dict[str, Any]:
        """The result of each system beside the controls, as JSON values. `systems`: the encoder before and after, in this order."""
        vectors = {name: pair_rows(encoder, self.pairs) for name, encoder in systems.items()}
        said: dict[str, Callable[[], np.ndarray]] = {
            name: lambda rows=rows: self.predicted(rows) for name, rows in vectors.items()
        }
        first = {name: said.pop(name) for name in ("untrained",) if name in said}
        controls = {f"TF-IDF, {unit}s": lambda unit=unit: self.predicted(self.tfidf_cosines(unit)) for unit in UNITS}
        mean = {MEAN: lambda: np.full(len(self.test), self.scores[self.train].mean())}
        figures: dict[str, dict[str, Score]] = {}
        with Bar("Fitting", len(first) + len(controls) + len(mean) + len(said)) as bar:
            for name, predict in (first | controls | mean | said).items():
                found = regression(predict(), self.truth)
                figures[name] = {metric: found[metric] for metric in ("spearman", "R2", "MAE")}
                bar.advance(1)
        result = Result(self.name, self.source, len(self.test), self.description, figures)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def tfidf_cosines(self, unit: str) -> np.ndarray:
        """(n, 1): the cosine of the TF-IDF vectors of each pair, terms and weights from the training pairs."""
        known = [text for row in self.train for text in self.pairs[row]]
        _, vectors = tfidf_features(known, [text for pair in self.pairs for text in pair], unit)
        return np.asarray(vectors[::2].multiply(vectors[1::2]).sum(axis=1))

    @property
    def description(self) -> str:
        return (
            f"Ridge regression on frozen vectors, columns standardised by the training pairs; the penalty is chosen by leaving each "
            f"training pair out. {FEATURES} {len(self.train):,} training and {len(self.test):,} test pairs, divided {self.how}. TF-IDF "
            f"(words; characters 2 to 4 within words) is read by its cosine. R2 is 0 for {MEAN}, which is chance. "
            "Intervals: 95 % bootstrap over test pairs, 1,000 resamples."
        )


def pairs_of(table: Table) -> list[tuple[str, str]]:
    return list(zip(table["sentence1"], table["sentence2"], strict=True))


def split_of(table: Table) -> list[Any] | None:
    return list(table["split"]) if "split" in table else None


def groups_of(table: Table, pairs: Pairs) -> list[list[Any]]:
    """Why rows stay on one side: the same two sentences, in either order; one `group_id`."""
    same: list[list[Any]] = [[frozenset(pair) for pair in pairs]]
    return same if table.group is None else [*same, table.group.tolist()]


def pair_rows(encoder: Encodes, pairs: Pairs) -> np.ndarray:
    """(n, 2d): |u − v| and u∘v of the vectors of each pair; a text is encoded once."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: row for row, text in enumerate(texts)}
    vectors = encoder.encode(texts)
    first, second = (vectors[[place[pair[side]] for pair in pairs]] for side in (0, 1))
    return np.concatenate([np.abs(first - second), first * second], axis=1)


def tfidf_pairs(train: Pairs, test: Pairs) -> dict[str, tuple[Rows, Rows]]:
    """The same features of TF-IDF vectors, sparse."""
    from scipy.sparse import hstack

    found = {}
    for unit in UNITS:
        sides = tfidf_features(*([text for pair in pairs for text in pair] for pairs in (train, test)), unit)
        found[f"TF-IDF, {unit}s"] = tuple(
            hstack([abs(side[::2] - side[1::2]), side[::2].multiply(side[1::2])]).tocsr() for side in sides
        )
    return found
