"""MEOW: meta-path contexts beat raw features by far, and weighted negatives with prototypes cluster better than plain InfoNCE."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack

from contrapose.claims.claim import Arm, Claim, Experiment, Figures, Measure, Source, Split, Statement
from contrapose.data.batches import Data
from contrapose.data.cache import file_digest
from contrapose.evaluation.classification import confusions, macro_f1, one_against_rest
from contrapose.evaluation.clustering import clustering
from contrapose.graph.data import open_data, read_data
from contrapose.graph.encoder import GraphEncoder, open_encoder
from contrapose.graph.evaluation import RAW, NodeClasses, NodeClusters
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

SHOTS = (20, 40, 60)  # training papers a class
# of the encoder, as the official code has them
ACM_OPTIONS = {"top_k": (110, 700), "edge_mask": (0.3, 0.2)}
AMINER_OPTIONS = {"top_k": (5, 21), "edge_mask": (0.7, 0.4), "feature_mask": 0.2}
PLAIN = {"contexts": False, "masked": False}  # HeCo's meta-path view has neither

LABELS = ("labels.csv", *(f"labels_{shots}.csv" for shots in SHOTS))
ACM = Source(
    "hetero_acm",
    ("graph.yaml", "nodes/paper.npz", "nodes/author.npz", "edges/paper-author.csv", "edges/paper-subject.csv", *LABELS),
    "ACM: 4,019 papers of three classes, 7,167 authors, 60 subjects; 20, 40 or 60 labelled papers a class to train a probe on, 1,000 for development and "
    "1,000 to test, as the official code has them.",
    "MIT, Jianxiang Yu and Xiang Li",
    "https://github.com/jianxiangyu/MEOW",
)
AMINER = Source(
    "hetero_aminer",
    ("graph.yaml", "edges/paper-author.csv", "edges/paper-reference.csv", *LABELS),
    "AMiner: 6,564 papers of four classes, 13,329 authors, 35,890 references, none with features; labelled papers as of ACM.",
    "MIT, Jianxiang Yu and Xiang Li",
    "https://github.com/jianxiangyu/MEOW",
)

MACRO_F1 = {
    shots: Measure(
        f"macro-F1, {shots} labels", f"Of a logistic regression on frozen vectors, {shots} training papers a class."
    )
    for shots in SHOTS
}
AUC = Measure("AUC, 20 labels", "Each class against the rest, plainly averaged; 20 training papers a class.")
NMI = Measure(
    "NMI",
    "Of k-means with as many clusters as classes, the mean over ten starts, on all papers that are not for development.",
)


class GraphTask:
    """Learn from a graph without labels; probe and cluster its papers.

    `create` draws weights and masks from the run's seed. HeCo's encoder has neither contexts nor masked copies, as in its paper.
    """

    def __init__(self, folder: Path, source: Source, options: Mapping[str, Any]) -> None:
        self.files = {name: folder / name for name in source.files}
        self.options = options
        self.nodes = read_data(folder)
        self.classes = {shots: NodeClasses(folder / f"labels_{shots}.csv", None, self.nodes) for shots in SHOTS}
        self.every = NodeClusters(folder / "labels.csv", None, self.nodes).labelled

    def data(self, method: type[Method]) -> Data:
        return open_data(self.nodes, method.card, self.sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.encoder(settings.seed, plain=method.card.title.startswith("HeCo")))

    def encoder(self, seed: int, plain: bool = False) -> GraphEncoder:
        return open_encoder(None, {**self.options, **(PLAIN if plain else {}), "seed": seed}, self.nodes)

    @cached_property
    def sample(self) -> GraphEncoder:
        return self.encoder(0)

    def measure(self, model: Method, split: Split) -> Figures:
        return self.figures(model.encoders()["encoder"].encode(self.nodes["node"]), split)

    def controls(self, split: Split) -> dict[str, Figures]:
        """Raw features: those of the papers, or, where these have none, which nodes each of them is joined to."""
        graph = self.nodes.graph
        beside = [graph.incidence(*path.types[:2]) for path in self.sample.paths]
        return {RAW: self.figures(graph.features.get(graph.target, csr_matrix(hstack(beside))), split)}

    def figures(self, rows: np.ndarray | csr_matrix, split: Split) -> Figures:
        """`rows` of all papers, in their order."""
        found = {}
        for shots, protocol in self.classes.items():
            given, truth, classes = protocol.probabilities(rows[protocol.labelled.nodes], split)
            found[MACRO_F1[shots].name] = float(macro_f1(confusions(classes[given.argmax(axis=1)], truth)))
            if shots == SHOTS[0]:
                found[AUC.name] = float(one_against_rest(given, truth, classes))
        few = self.classes[SHOTS[0]]
        for_development = np.isin(self.every.nodes, few.labelled.nodes[few.sides["dev"]])
        asked = for_development if split == "dev" else ~for_development
        found[NMI.name] = float(clustering(rows[self.every.nodes[asked]], self.every.labels[asked])["NMI"].mean())
        return found

    def facts(self) -> dict[str, Any]:
        return {
            "files": {name: file_digest(file) for name, file in self.files.items()},
            "nodes": dict(self.nodes.graph.counts),
            "encoder": {name: value for name, value in self.sample.record().items() if name != "graph"},
        }


claim = Claim(
    method="meow",
    says="A fine view of each meta-path with the nodes along it, held against a coarse one, gives node vectors that a few labels suffice for; weighing "
    "negatives by clusters, so that nodes of one cluster are not pushed apart, and prototypes make them fall into the classes by themselves.",
    source=ACM,
    measures=(*MACRO_F1.values(), AUC, NMI),
    tuned_by=MACRO_F1[20].name,
    arms=(
        Arm("InfoNCE", "meow", {"weighting": "none", "prototype_weight": 0.0}),
        Arm("HeCo", "heco"),
        Arm("MEOW", "meow"),
    ),
    statements=(
        Statement("With 20 labels a class MEOW beats raw features by far.", MACRO_F1[20].name, "MEOW", RAW, least=0.1),
        Statement("Weights and prototypes cluster better than plain InfoNCE.", NMI.name, "MEOW", "InfoNCE", least=0.02),
        Statement("MEOW beats HeCo with 20 labels a class.", MACRO_F1[20].name, "MEOW", "HeCo", least=0.01),
        Statement(
            "Weights and prototypes beat plain InfoNCE with 20 labels a class.",
            MACRO_F1[20].name,
            "MEOW",
            "InfoNCE",
            least=0.005,
        ),
    ),
    experiments=(
        Experiment(
            "ACM",
            "The encoder of the paper, 64 dimensions, as many epochs for all; each with the settings of its official code for ACM, untuned.",
            partial(GraphTask, source=ACM, options=ACM_OPTIONS),
            {"precision": "fp32", "epochs": 60},
            {},
            minutes=6,
        ),
        Experiment(
            "AMiner",
            "The same with the official code's encoder and temperature for AMiner, but one-hot features where it has vectors by metapath2vec, which it does not "
            "come with. Raw features are then which authors and references a paper has.",
            partial(GraphTask, source=AMINER, options=AMINER_OPTIONS),
            {"precision": "fp32", "epochs": 60, "temperature": 0.9},
            {},
            minutes=8,
            source=AMINER,
        ),
    ),
    controls=(RAW,),
)
