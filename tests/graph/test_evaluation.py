"""Classes and clusters of nodes, beside raw features; nothing of the test nodes has a part in what is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from contrapose.errors import ProtocolDataInvalid, ProtocolUnknown
from contrapose.graph.data import Graph, read_data
from contrapose.graph.evaluation import open_protocol

CLASSES = np.arange(40) % 2
ROWS = [
    {"node": node, "label": "ab"[CLASSES[node]], "split": ["train", "dev", "test", "test"][node // 2 % 4]}
    for node in range(40)
]


class Telling:
    """An encoder of which each vector tells the class, or of some nodes the other one."""

    def __init__(self, wrong: tuple[int, ...] = ()) -> None:
        self.said = np.where(np.isin(np.arange(40), wrong), 1 - CLASSES, CLASSES)

    def encode(self, nodes: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).normal(scale=0.05, size=(40, 3))
        return (np.eye(2, 3)[self.said] + noise)[nodes]


@pytest.fixture
def graph() -> Graph:
    features = csr_matrix(np.random.default_rng(1).uniform(size=(40, 3)))
    return Graph({"page": 40}, {"page": features}, {("page", "page"): np.array([[0], [1]])}, "page")


def test_classes_are_read_off_vectors_beside_raw_features(graph: Graph) -> None:
    protocol = open_protocol("classes", ROWS, None, read_data(graph))
    wrong = tuple(np.flatnonzero([row["split"] == "test" for row in ROWS])[:5].tolist())
    found = protocol.evaluate({"untrained": Telling(wrong), "trained": Telling()})["result"]
    assert list(found["systems"]) == ["untrained", "raw features", "majority class", "trained"]
    assert {name: score["value"] for name, score in found["systems"]["trained"].items()} == {
        "macro-F1": 1,
        "micro-F1": 1,
        "AUC": 1,
    }
    assert found["systems"]["untrained"]["micro-F1"]["value"] == 15 / 20
    assert found["systems"]["majority class"]["micro-F1"]["value"] == 0.5
    assert found["rows"] == 20


def test_what_is_chosen_by_looks_at_development_nodes_alone(graph: Graph) -> None:
    protocol = open_protocol("classes", ROWS, None, read_data(graph))
    tests, devs = ([node for node, row in enumerate(ROWS) if row["split"] == side] for side in ("test", "dev"))
    assert protocol.score(Telling(tuple(tests))) == 1
    assert protocol.score(Telling(tuple(devs))) == 0


def test_clusters_agree_with_classes(graph: Graph) -> None:
    protocol = open_protocol(
        "clusters", [{"node": row["node"], "label": row["label"]} for row in ROWS], None, read_data(graph)
    )
    found = protocol.evaluate({"untrained": Telling(), "trained": Telling()})["result"]["systems"]
    assert found["trained"]["NMI"]["value"] == found["trained"]["ARI"]["value"] == 1
    assert found["raw features"]["NMI"]["value"] < 0.5
    assert protocol.score(Telling()) == 1


def test_columns_may_be_mapped(graph: Graph) -> None:
    rows = [{"page": row["node"], "kind": row["label"], "split": row["split"]} for row in ROWS]
    protocol = open_protocol("classes", rows, {"node": "page", "label": "kind"}, read_data(graph))
    assert protocol.score(Telling()) == 1


BAD = {
    "no such node": ([{**ROWS[0], "node": 40}, *ROWS[1:]], "is 40, no number of a node, 0 to 39"),
    "no number": (
        [{**ROWS[0], "node": "x"}, *({**row, "node": str(row["node"])} for row in ROWS[1:])],
        "'x', no number",
    ),
    "twice": ([ROWS[0], *ROWS], "node 0 stands on"),
    "another side": ([{**ROWS[0], "split": "valid"}, *ROWS[1:]], "'valid', and is 'train', 'dev' or 'test'"),
    "no development nodes": ([row for row in ROWS if row["split"] != "dev"], "0 nodes are for 'dev'"),
    "a label to test alone": (
        [*ROWS[:-1], {**ROWS[-1], "label": "c", "split": "test"}],
        "no training node has the label 'c'",
    ),
    "one label": ([{**row, "label": "a"} for row in ROWS], "one label"),
    "no split": ([{"node": row["node"], "label": row["label"]} for row in ROWS], "has no column 'split'"),
}


@pytest.mark.parametrize(("rows", "says"), BAD.values(), ids=BAD)
def test_labels_that_cannot_be_measured_on(rows: list, says: str, graph: Graph) -> None:
    with pytest.raises(ProtocolDataInvalid, match=says):
        open_protocol("classes", rows, None, read_data(graph))


@pytest.mark.parametrize("labels", [["a"] * 4, list("abcd")])
def test_clusters_need_two_labels_and_fewer_than_nodes(labels: list[str], graph: Graph) -> None:
    rows = [{"node": node, "label": label} for node, label in enumerate(labels)]
    with pytest.raises(ProtocolDataInvalid, match="4 nodes with"):
        open_protocol("clusters", rows, None, read_data(graph))


def test_an_unknown_protocol(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(ProtocolUnknown, match="classes"):
        open_protocol("class", tmp_path, None, read_data(graph))
