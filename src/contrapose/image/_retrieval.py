"""Retrieval of images: by label, or between the two sides of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrapose.data.columns import Column
from contrapose.data.table import Table
from contrapose.evaluation.labelled import divide
from contrapose.evaluation.result import Result, scores
from contrapose.evaluation.retrieval import Retrieval, retrieval
from contrapose.image._pixels import PIXELS_NOTE, raw_pixels
from contrapose.image.data import ImageValues, read_data, refuse_broken
from contrapose.training.encoder import Encoder

RETRIEVED = (
    Column("image", "image", "An image; of the training rows a candidate, of the test rows a query.", required=False),
    Column("label", "label", "What it is: candidates with the query's label are right.", required=False),
    Column("split", "label", "'train' or 'test'.", required=False),
    Column("anchor", "image", "One side of a pair.", required=False),
    Column("positive", "image", "The image that belongs to it.", required=False),
)
LABELLED = tuple(Column(each.name, each.kind, each.help, each.name != "split") for each in RETRIEVED[:3])
PAIRED = tuple(Column(each.name, each.kind, each.help) for each in RETRIEVED[3:])
SHOWN = ("accuracy@1", "accuracy@5", "mrr", "ndcg@10")


class ImageRetrieval:
    """For each query, are the right images nearest among all candidates?

    `source`: whatever `read_data` takes, with the columns `image` and `label` (optional `split`): test rows are queries, training rows
    candidates, those of its label right; or with `anchor` and `positive` (optional `group_id`): both ways, a query's partner and the partners
    of its group right.
    """

    name = "retrieval"
    scored = "accuracy@1"  # what `score` is the mean of

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        rename = {name: old for name, old in (columns or {}).items() if name in {column.name for column in RETRIEVED}}
        loose = read_data(source, strict=False)
        paired = {"anchor", "positive"} <= {*loose.columns, *rename}
        known = {column.name for column in (PAIRED if paired else LABELLED)}
        rename = {name: old for name, old in rename.items() if name in known and old in loose}
        table = read_data(loose, rename=rename, needs=PAIRED if paired else LABELLED)
        self.source = table.source
        self.sides, self.ways, self.how = _pairs(table) if paired else _labels(table)
        for side in self.sides:
            refuse_broken(side)

    def score(self, encoder: Encoder) -> float:
        """Accuracy@1, the mean over the ways: what `select` goes by."""
        return float(
            np.mean(
                [ranked["accuracy@1"].mean() for ranked in self.rank([encoder.encode(side) for side in self.sides])]
            )
        )

    def evaluate(self, systems: Mapping[str, Encoder]) -> dict[str, Any]:
        """The result of each system beside raw pixels, as JSON values. `systems`: the encoder before and after, in this order."""
        ranked = {
            name: self.named(self.rank([encoder.encode(side) for side in self.sides]))
            for name, encoder in systems.items()
        }
        first = {name: figures for name, figures in ranked.items() if name == "untrained"}
        rows = first | {"raw pixels": self.named(self.rank(raw_pixels(self.sides)))} | ranked
        queries, candidates = (
            len(next(iter(ranked.values()))[next(iter(next(iter(ranked.values()))))]),
            len(self.sides[self.ways[0][2]]),
        )
        description = (
            f"Retrieval {self.how}: {queries:,} queries among {candidates:,} candidates, exact, by cosine; ties count against. {PIXELS_NOTE} "
            "Intervals: 95 % bootstrap over queries, 2,000 resamples."
        )
        result = Result(
            self.name, self.source, queries, description, {name: scores(figures) for name, figures in rows.items()}
        )
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def rank(self, vectors: Sequence[np.ndarray]) -> list[Retrieval]:
        """The metrics of each way, from the vectors of each side."""
        return [
            retrieval(vectors[queries], vectors[candidates], right, ks=(1, 5, 10))
            for _, queries, candidates, right in self.ways
        ]

    def named(self, ranked: Sequence[Retrieval]) -> dict[str, np.ndarray]:
        """Metrics by query, named with their way where there are two."""
        ways = [f" {way[0]}" if len(self.ways) > 1 else "" for way in self.ways]
        return {metric + way: figures[metric] for metric in SHOWN for way, figures in zip(ways, ranked, strict=True)}


Way = tuple[
    str, int, int, list[list[int]]
]  # its name, the sides of queries and of candidates, the right candidates of each query


def _labels(table: Table) -> tuple[list[ImageValues], list[Way], str]:
    labelled = divide(
        list(table["label"]),
        list(table["split"]) if "split" in table else None,
        source=table.source,
        where=table.where,
        groups=[] if table.group is None else [table.group.tolist()],
    )
    images = ImageValues(table, "image")
    members = {label: np.flatnonzero(labelled.known == label).tolist() for label in np.unique(labelled.known)}
    right = [members[label] for label in labelled.truth]
    return (
        [images[labelled.test], images[labelled.train]],
        [("by label", 0, 1, right)],
        f"by label, divided {labelled.how}",
    )


def _pairs(table: Table) -> tuple[list[ImageValues], list[Way], str]:
    group = np.arange(len(table)) if table.group is None else table.group.numpy()
    members = {number: np.flatnonzero(group == number).tolist() for number in np.unique(group)}
    right = [[row, *(other for other in members[number] if other != row)] for row, number in enumerate(group.tolist())]
    ways = [("anchor→positive", 0, 1, right), ("positive→anchor", 1, 0, right)]
    return [ImageValues(table, side) for side in ("anchor", "positive")], ways, "anchor→positive and back"
