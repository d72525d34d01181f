"""Protocols for nodes of a graph: the classes of labelled nodes, and whether they fall into clusters; beside raw features and the untrained encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.errors import ProtocolDataInvalid, ProtocolUnknown, nearest
from contrapose.evaluation.classification import classification, one_against_rest
from contrapose.evaluation.clustering import clustering
from contrapose.evaluation.flat_map import flat_map
from contrapose.evaluation.intervals import bootstrap_figures
from contrapose.evaluation.probes import STRENGTHS, linear_probe_probabilities, majority_class, strength_by_development
from contrapose.evaluation.result import Result, Score, scores
from contrapose.graph.data import Nodes

LABELLED = (
    Column("node", "node", "A node of the target type, by its number."),
    Column("label", "label", "Its class."),
    Column("split", "label", "'train', 'dev' or 'test'.", required=False),
)
SIDES = ("train", "dev", "test")
RAW, MAJORITY = "raw features", "majority class"


class Encodes(Protocol):
    def encode(self, values: Sequence[Any]) -> np.ndarray: ...


@dataclass(frozen=True)
class LabelledNodes:
    """nodes (n,) int64, labels (n,) text, split (n,) text or None; raw: the target type's features, or None where they are not known."""

    source: str
    nodes: np.ndarray
    labels: np.ndarray
    split: np.ndarray | None
    raw: csr_matrix | None

    @classmethod
    def read(cls, source: Any, columns: Mapping[str, str] | None, training: Nodes | None) -> LabelledNodes:
        """Whatever `read` takes, with the columns of LABELLED.

        Raises what `read` raises, and ProtocolDataInvalid for a node that the graph does not have, a node twice, or another word in `split`.
        """
        table = read(source, needs=LABELLED, strict=False)
        known = {column.name for column in LABELLED}
        renamed = {name: yours for name, yours in (columns or {}).items() if name in known and yours in table}
        table = read(table.renamed(renamed), needs=LABELLED)
        count = None if training is None else len(training)
        nodes, seen = np.empty(len(table), np.int64), {}
        for row, value in enumerate(table["node"]):
            said = str(value).strip()
            if not said.isdigit() or (count is not None and int(said) >= count):
                range_said = "" if count is None else f", 0 to {count - 1}"
                raise ProtocolDataInvalid(
                    f"{table.where(row)}: column 'node' is {value!r}, no number of a node{range_said}."
                )
            if said in seen:
                raise ProtocolDataInvalid(
                    f"{table.where(row)}: node {said} stands on {table.where(seen[said])} already; label it once."
                )
            nodes[row], seen[said] = int(said), row
        split = None
        if "split" in table:
            split = np.array([str(value).strip() for value in table["split"]])
            wrong = np.flatnonzero(~np.isin(split, SIDES))
            if len(wrong):
                raise ProtocolDataInvalid(
                    f"{table.where(int(wrong[0]))}: column 'split' is '{split[wrong[0]]}', and is 'train', 'dev' or 'test'."
                )
        raw = None if training is None else training.graph.features.get(training.graph.target)
        return cls(table.source, nodes, np.array([str(value) for value in table["label"]]), split, raw)


class NodeClasses:
    """Can a logistic regression read the class of a node off its vector, from a few labelled nodes of each class?

    Fitted on the nodes of 'train'; its penalty is the one with the best macro-F1 on 'dev'; measured on 'test'. `score` is macro-F1 on 'dev'.
    """

    name = "classes"
    scored = "macro-F1"

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Nodes | None = None) -> None:
        self.labelled = LabelledNodes.read(source, columns, training)
        self.source, split, labels = self.labelled.source, self.labelled.split, self.labelled.labels
        if split is None:
            raise ProtocolDataInvalid(
                f"{self.source} has no column 'split', which says of each node whether it is 'train', 'dev' or 'test'."
            )
        self.sides = {side: np.flatnonzero(split == side) for side in SIDES}
        for side, rows in self.sides.items():
            if len(rows) < 2:
                raise ProtocolDataInvalid(f"{self.source}: {len(rows)} nodes are for '{side}'; give at least two.")
        known = np.unique(labels[self.sides["train"]])
        strange = np.setdiff1d(np.concatenate([labels[self.sides[side]] for side in SIDES[1:]]), known)
        if len(strange) or len(known) < 2:
            what = (
                f"no training node has the label '{strange[0]}'"
                if len(strange)
                else "all training nodes have one label"
            )
            raise ProtocolDataInvalid(f"{self.source}: {what}; put some of every label into 'train'.")

    def score(self, encoder: Encodes) -> float:
        """Macro-F1 on the nodes of 'dev': what `select` goes by. No test node has a part in it."""
        return self.chosen(encoder.encode(self.labelled.nodes))[1]

    def evaluate(self, systems: Mapping[str, Encodes]) -> dict[str, Any]:
        """macro-F1, micro-F1 and AUC of each system beside raw features and the most frequent class, and a map, as JSON values."""
        vectors = {name: encoder.encode(self.labelled.nodes) for name, encoder in systems.items()}
        rows: dict[str, Any] = {name: each for name, each in vectors.items() if name == "untrained"}
        if self.labelled.raw is not None:
            rows[RAW] = self.labelled.raw[self.labelled.nodes]
        found = {name: self.measured(each) for name, each in rows.items()}
        truth = self.labelled.labels[self.sides["test"]]
        found[MAJORITY] = _f1(majority_class(self.labelled.labels[self.sides["train"]], len(truth)), truth)
        found |= {name: self.measured(each) for name, each in vectors.items() if name not in found}
        result = Result(self.name, self.source, len(truth), self.description, found)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    @property
    def description(self) -> str:
        train, dev, test = (f"{len(self.sides[side]):,}" for side in SIDES)
        raw = (
            "" if self.labelled.raw is None else " Raw features: those of the nodes themselves, through the same probe."
        )
        return (
            f"Logistic regression on frozen vectors, columns standardised by the {train} training nodes; the L2 penalty is the best of "
            f"{len(STRENGTHS)} by macro-F1 on {dev} development nodes; {test} test nodes, {len(np.unique(self.labelled.labels))} classes. micro-F1 is accuracy; AUC is "
            f"each class against the rest, plainly averaged.{raw} The graph is seen whole in training, without labels. "
            "Intervals: 95 % bootstrap over test nodes."
        )

    def chosen(self, rows: Any) -> tuple[float, float]:
        """The penalty that is best on the development nodes, and its macro-F1 there."""
        train, dev = (self.sides[side] for side in SIDES[:2])
        labels = self.labelled.labels
        return strength_by_development(rows[train], labels[train], rows[dev], labels[dev])

    def probabilities(self, rows: Any, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the probe says of the nodes of a side, (m, c), their labels (m,), and the classes (c,); `rows` of all labelled nodes."""
        strength, _ = self.chosen(rows)
        train, asked, labels = self.sides["train"], self.sides[side], self.labelled.labels
        given = linear_probe_probabilities(rows[train], labels[train], rows[asked], strength=strength)
        return given, labels[asked], np.unique(labels[train])

    def measured(self, rows: Any) -> dict[str, Score]:
        """Every measure on the test nodes, with its interval."""
        given, truth, classes = self.probabilities(rows, "test")
        area = bootstrap_figures(
            lambda drawn: {"AUC": one_against_rest(given[drawn], truth[drawn], classes)}, len(truth)
        )
        return _f1(classes[given.argmax(axis=1)], truth) | {"AUC": Score("AUC", *area["AUC"], n=len(truth))}


class NodeClusters:
    """Do the vectors of labelled nodes fall into clusters that are the classes? k-means, ten starts, as many clusters as labels."""

    name = "clusters"
    scored = "NMI"

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Nodes | None = None) -> None:
        self.labelled = LabelledNodes.read(source, columns, training)
        self.source, rows, kinds = self.labelled.source, len(self.labelled.nodes), len(np.unique(self.labelled.labels))
        if not 2 <= kinds < rows:
            raise ProtocolDataInvalid(
                f"{self.source}: {rows} nodes with {kinds} different labels; clusters are held against two labels at least, and fewer than nodes."
            )

    def score(self, encoder: Encodes) -> float:
        """NMI, the mean over ten starts."""
        return float(clustering(encoder.encode(self.labelled.nodes), self.labelled.labels)["NMI"].mean())

    def evaluate(self, systems: Mapping[str, Encodes]) -> dict[str, Any]:
        """NMI and ARI of each system beside raw features, as JSON values, and a map before and after."""
        vectors = {name: encoder.encode(self.labelled.nodes) for name, encoder in systems.items()}
        rows: dict[str, Any] = {name: each for name, each in vectors.items() if name == "untrained"}
        if self.labelled.raw is not None:
            rows[RAW] = self.labelled.raw[self.labelled.nodes]
        rows |= {name: each for name, each in vectors.items() if name not in rows}
        found = {name: scores(clustering(each, self.labelled.labels)) for name, each in rows.items()}
        labels = len(np.unique(self.labelled.labels))
        result = Result(
            self.name,
            self.source,
            len(self.labelled.nodes),
            f"k-means on unit vectors of {len(self.labelled.nodes):,} labelled nodes into {labels} clusters, as many as there are labels, from ten starts. NMI: mutual "
            "information over the mean entropy. ARI: 0 at chance. Intervals: 95 % bootstrap over starts.",
            found,
        )
        return {"protocol": self.name, "data": self.source, "result": result.record()}


def flat_maps(systems: Mapping[str, Encodes], nodes: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Nodes in two dimensions by t-SNE for each system, (n, 2): what to colour by class and look at."""
    return {name: flat_map(encoder.encode(nodes), seed) for name, encoder in systems.items()}


def _f1(predicted: np.ndarray, truth: np.ndarray) -> dict[str, Score]:
    found = classification(predicted, truth)
    micro = found["accuracy"]  # the same, where each node has one label
    return {"macro-F1": found["macro-F1"], "micro-F1": Score("micro-F1", micro.value, micro.low, micro.high, micro.n)}


PROTOCOLS = {"classes": NodeClasses, "clusters": NodeClusters}


def open_protocol(
    name: str, source: Any, columns: Mapping[str, str] | None, training: Nodes | None
) -> NodeClasses | NodeClusters:
    """A protocol on its data, read and checked. `training`: the graph that the method learns from, whose features are a control.

    Raises ProtocolUnknown, ProtocolDataInvalid, or what `read` raises.
    """
    if name not in PROTOCOLS:
        raise ProtocolUnknown(f"There is no protocol '{name}' for graphs; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name](source, columns, training)


def protocol_columns(names: Iterable[str]) -> set[str]:
    """The columns that the data of these protocols have; of an unknown protocol none."""
    return {column.name for name in names if name in PROTOCOLS for column in LABELLED}
