"""Protocols for text encoders, always beside the controls: the untrained encoder, and TF-IDF of words and of characters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import ProtocolDataInvalid, ProtocolUnknown, nearest
from contrapose.evaluation.flat_map import flat_map
from contrapose.evaluation.probing import LINEAR, NEAREST, LabelledProtocol
from contrapose.evaluation.result import Result, scores
from contrapose.evaluation.retrieval import Retrieval, retrieval, retrieval_by_score
from contrapose.text._columns import open_table
from contrapose.text._pair_labels import LABELLED_PAIRS, TextPairLabels
from contrapose.text._pair_probes import LABELLED_SENTENCES, RATED_SENTENCES, TextPairProbe, TextPairRegression
from contrapose.text._probes import LABELLED_TEXTS, open_folds, open_probe
from contrapose.text._similarity import RATED_PAIRS, TextSimilarity
from contrapose.text._tfidf import UNITS, Unit, fitted_on, tfidf_vectors, training_texts
from contrapose.training.encoder import Encoder

EXAMPLES = 12  # queries shown with their nearest neighbours
NEIGHBOURS = 3
MAPPED = 200  # pairs drawn on the map
SHOWN = ("accuracy@1", "accuracy@10", "mrr", "ndcg@10", "recall@10")

SIDES = (Column("anchor", "text", "One side of the pair."), Column("positive", "text", "The text that belongs to it."))


def open_protocol(name: str, source: Any, columns: Mapping[str, str] | None, training: Table | None) -> Protocol:
    """A protocol on its data, read and checked. `training`: what the method learns from; TF-IDF takes its weights from it where it can.

    Raises ProtocolUnknown, ProtocolDataInvalid, or what `read` raises.
    """
    if name not in PROTOCOLS:
        raise ProtocolUnknown(f"There is no protocol '{name}' for text; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name].open(source, columns, training)


def protocol_columns(names: Iterable[str]) -> set[str]:
    """The columns that the data of these protocols have; of an unknown protocol none."""
    return {column.name for name in names if name in PROTOCOLS for column in PROTOCOLS[name].columns}


@dataclass(frozen=True)
class Direction:
    """Queries, candidates, and for each query the candidates that are right."""

    name: str
    queries: list[str]
    candidates: list[str]
    right: list[list[int]]


class TextRetrieval:
    """For each query, are the right texts nearest among all candidates? Both ways for pairs, queries to documents for a BEIR folder.

    `source`: whatever `read` takes, with the columns `anchor` and `positive` (optional `group_id`), or a folder as BEIR has them
    (corpus.jsonl, queries.jsonl, qrels/test.tsv). Right for a query are its partner, the partners of rows with its `group_id`, and
    candidates with the same text as one of these.
    """

    name = "retrieval"
    scored = "accuracy@1"  # what `score` is the mean of

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            self.source, self.directions = str(source), [beir_direction(Path(source))]
        else:
            table = read(open_table(source, columns, SIDES), needs=SIDES)
            self.source, self.directions = table.source, pair_directions(table)
        self.training = training

    def score(self, encoder: Encoder) -> float:
        """Accuracy@1, the mean over the directions: what `select` goes by."""
        return float(np.mean([ranked["accuracy@1"].mean() for ranked, _ in self.rank(encoder)]))

    def evaluate(self, systems: Mapping[str, Encoder]) -> dict[str, Any]:
        """The result of each system beside TF-IDF, examples to read and a map to look at, as JSON values.

        `systems`: the encoder before and after, in this order.
        """
        ranked = {name: self.rank(encoder) for name, encoder in systems.items()}
        before, after = (ranked[name] for name in systems)
        rows = {"untrained": [figures for figures, _ in before]} if "untrained" in systems else {}
        rows |= {f"TF-IDF, {unit}s": self.rank_by_tfidf(unit) for unit in UNITS}
        rows |= {name: [figures for figures, _ in ranked[name]] for name in systems if name not in rows}
        result = Result(
            self.name,
            self.source,
            len(self.directions[0].queries),
            self.description,
            {name: scores(self.named(figures)) for name, figures in rows.items()},
        )
        return {
            "protocol": self.name,
            "data": self.source,
            "result": result.record(),
            "examples": self.examples(before[0][1], after[0][1]),
            "map": self.map(before[0][1], after[0][1]),
        }

    @property
    def description(self) -> str:
        ways = " and ".join(way.name for way in self.directions)
        sizes = ", ".join(
            f"{len(way.queries):,} queries among {len(way.candidates):,} candidates" for way in self.directions[:1]
        )
        return (
            f"Retrieval {ways}: {sizes}, exact, by cosine; ties count against; candidates of the same text are equally right. "
            f"{fitted_on(self.training, 'the candidates')} "
            f"Intervals: 95 % bootstrap over queries, 2,000 resamples."
        )

    def named(self, ranked: Sequence[Retrieval]) -> dict[str, np.ndarray]:
        """Metrics by query, named with their direction where there are two."""
        ways = [f" {way.name}" if len(self.directions) > 1 else "" for way in self.directions]
        return {metric + way: figures[metric] for metric in SHOWN for way, figures in zip(ways, ranked, strict=True)}

    def rank(self, encoder: Encoder) -> list[tuple[Retrieval, tuple[np.ndarray, np.ndarray]]]:
        """Each direction's metrics, and the vectors of its queries and candidates; a text is encoded once."""
        texts = list(dict.fromkeys(text for way in self.directions for text in (*way.queries, *way.candidates)))
        place = {text: row for row, text in enumerate(texts)}
        vectors = encoder.encode(texts)
        ranked = []
        for way in self.directions:
            queries, candidates = (vectors[[place[text] for text in side]] for side in (way.queries, way.candidates))
            ranked.append((retrieval(queries, candidates, way.right), (queries, candidates)))
        return ranked

    def rank_by_tfidf(self, unit: Unit) -> list[Retrieval]:
        """The control: no meaning, shared words or letters alone."""
        ranked = []
        for way in self.directions:
            fitted = training_texts(self.training) or way.candidates
            queries, candidates = tfidf_vectors(fitted, [way.queries, way.candidates], unit)
            columns = candidates.T.tocsc()

            def score(rows: slice, queries: Any = queries, columns: Any = columns) -> np.ndarray:
                return (queries[rows] @ columns).toarray()

            ranked.append(retrieval_by_score(score, len(way.queries), len(way.candidates), way.right))
        return ranked

    def examples(
        self, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]
    ) -> list[dict[str, Any]]:
        """Evenly chosen queries with their nearest candidates before and after."""
        way = self.directions[0]
        chosen = np.linspace(0, len(way.queries) - 1, min(EXAMPLES, len(way.queries))).astype(int)
        nearest_before, nearest_after = (nearest_candidates(way, vectors, chosen) for vectors in (before, after))
        return [
            {"query": way.queries[row], "answer": way.candidates[way.right[row][0]], "before": first, "after": second}
            for row, first, second in zip(chosen, nearest_before, nearest_after, strict=True)
        ]

    def map(self, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        """Evenly chosen queries and their right candidates in two dimensions, before and after."""
        way = self.directions[0]
        chosen = np.linspace(0, len(way.queries) - 1, min(MAPPED, len(way.queries))).astype(int)
        partners = [way.right[row][0] for row in chosen]
        drawn = {"method": "t-SNE on cosine distance"}
        for name, (queries, candidates) in {"before": before, "after": after}.items():
            flat = flat_map(np.concatenate([queries[chosen], candidates[partners]]))
            drawn[name] = {"queries": flat[: len(chosen)].tolist(), "candidates": flat[len(chosen) :].tolist()}
        drawn["queries"] = [way.queries[row] for row in chosen]
        drawn["candidates"] = [way.candidates[row] for row in partners]
        return drawn


def nearest_candidates(
    way: Direction, vectors: tuple[np.ndarray, np.ndarray], rows: np.ndarray
) -> list[list[dict[str, Any]]]:
    """The nearest candidates of some queries, nearest first."""
    queries, candidates = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in vectors)
    found = []
    for row in rows:
        cosine = candidates @ queries[row]
        best = np.argsort(-cosine, kind="stable")[:NEIGHBOURS]
        right = set(way.right[row])
        found.append(
            [{"text": way.candidates[c], "score": round(float(cosine[c]), 3), "right": int(c) in right} for c in best]
        )
    return found


def pair_directions(table: Table) -> list[Direction]:
    """Both ways between the two sides of a table of pairs."""
    anchors, positives = list(table["anchor"]), list(table["positive"])
    group = range(len(table)) if table.group is None else table.group.tolist()
    return [
        Direction("anchor→positive", anchors, positives, right_candidates(positives, list(group))),
        Direction("positive→anchor", positives, anchors, right_candidates(anchors, list(group))),
    ]


def right_candidates(candidates: Sequence[str], group: Sequence[int]) -> list[list[int]]:
    """For each row: itself first, then the rows of its group, then the candidates with the text of one of these."""
    by_group, by_text = defaultdict(list), defaultdict(list)
    for row, (number, text) in enumerate(zip(group, candidates, strict=True)):
        by_group[number].append(row)
        by_text[text].append(row)
    right = []
    for row, number in enumerate(group):
        alike = [row, *by_group[number]]
        right.append(list(dict.fromkeys(alike + [same for each in alike for same in by_text[candidates[each]]])))
    return right


def beir_direction(folder: Path) -> Direction:
    """Queries with at least one relevant document, from a folder as BEIR has them. Raises ProtocolDataInvalid when files are missing."""
    files = {name: folder / name for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")}
    for name, file in files.items():
        if not file.is_file():
            raise ProtocolDataInvalid(
                f"{folder} has no {name}; a BEIR folder holds corpus.jsonl, queries.jsonl and qrels/test.tsv."
            )
    corpus, queries = (beir_texts(files[name]) for name in ("corpus.jsonl", "queries.jsonl"))
    place = {name: row for row, name in enumerate(corpus)}
    right: dict[str, list[int]] = defaultdict(list)
    with open(files["qrels/test.tsv"], encoding="utf-8") as lines:
        for number, line in enumerate(list(lines)[1:], 2):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != 3 or fields[0] not in queries or fields[1] not in place:
                raise ProtocolDataInvalid(
                    f"{files['qrels/test.tsv']}, line {number}: expected query id, document id and score, both ids known."
                )
            if float(fields[2]) > 0:
                right[fields[0]].append(place[fields[1]])
    return Direction("query→document", [queries[name] for name in right], list(corpus.values()), list(right.values()))


def beir_texts(file: Path) -> dict[str, str]:
    """Id to text, the title before it where there is one."""
    table = read(file, needs=(Column("_id", "label", "The text's name."), Column("text", "text", "The text.")))
    titles = table["title"] if "title" in table else [None] * len(table)
    rows = zip(table["_id"], titles, table["text"], strict=True)
    return {str(name): " ".join(part for part in (title, text) if part) for name, title, text in rows}


Protocol = TextRetrieval | TextSimilarity | TextPairLabels | LabelledProtocol | TextPairRegression


class Kind(NamedTuple):
    """How a protocol is opened, and the columns of its data."""

    open: Callable[[Any, Mapping[str, str] | None, Table | None], Protocol]
    columns: Sequence[Column]


PROTOCOLS = {
    "retrieval": Kind(TextRetrieval, SIDES),
    "sts": Kind(TextSimilarity, RATED_PAIRS),
    "probe": Kind(partial(open_probe, LINEAR), LABELLED_TEXTS),
    "pair_labels": Kind(TextPairLabels, LABELLED_PAIRS),
    "probe_folds": Kind(partial(open_folds, LINEAR), LABELLED_TEXTS[:2]),
    "knn": Kind(partial(open_probe, NEAREST), LABELLED_TEXTS),
    "pair_probe": Kind(TextPairProbe, LABELLED_SENTENCES),
    "pair_regression": Kind(TextPairRegression, RATED_SENTENCES),
}
