"""Graphs are read from folders and from HeteroData; what does not fit is refused with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix, save_npz
from torch_geometric.data import HeteroData

from contrapose.errors import (
    ColumnUnknown,
    ContraposeError,
    DataDamaged,
    DataFileMissing,
    DataFormatUnknown,
    GraphInvalid,
    MetaPathInvalid,
    NodeUnknown,
    UsageInvalid,
)
from contrapose.graph.data import Graph, MetaPath, check_data, open_data, read_data
from contrapose.graph.encoder import open_encoder
from contrapose.graph.meow import MEOW


def test_a_folder_is_a_graph(folder: Path) -> None:
    nodes = read_data(folder)
    graph = nodes.graph
    assert dict(graph.counts) == {"paper": 5, "author": 3, "venue": 2}
    assert graph.target == "paper"
    assert list(nodes["node"]) == list(range(len(nodes))) == [0, 1, 2, 3, 4]
    assert graph.features["paper"].toarray().tolist() == np.arange(10.0).reshape(5, 2).tolist()
    assert graph.incidence("author", "paper").toarray().tolist() == [[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert [str(path) for path in graph.metapaths()] == ["paper-author-paper", "paper-venue-paper"]
    assert nodes.where(3) == f"paper 3 of {folder}"


def test_the_target_may_be_mapped_and_other_forms_are_the_same_graph(folder: Path) -> None:
    assert read_data(folder, rename={"node": "author"}).graph.target == "author"
    before = read_data(folder).fingerprint
    (folder / "nodes" / "paper.npy").unlink()
    (folder / "nodes" / "paper.csv").write_text("a,b\n" + "".join(f"{2 * row},{2 * row + 1}\n" for row in range(5)))
    (folder / "edges" / "paper-venue.npy").unlink()
    venues = csr_matrix((np.ones(5), ([0, 1, 2, 3, 4], [0, 0, 1, 1, 1])), shape=(5, 2))
    save_npz(folder / "edges" / "paper-venue.npz", venues)
    assert read_data(folder).fingerprint == before


def test_another_edge_or_feature_is_another_fingerprint(small: Graph) -> None:
    edges = dict(small.edges) | {("paper", "author"): small.edges["paper", "author"][:, :-1]}
    other = Graph(small.counts, small.features, edges, "paper")
    features = dict(small.features) | {"author": 2 * small.features["author"]}
    third = Graph(small.counts, features, small.edges, "paper")
    assert len({small.fingerprint, other.fingerprint, third.fingerprint}) == 3


def test_hetero_data_are_a_graph(small: Graph) -> None:
    data = HeteroData()
    data["paper"].x, data["paper"].y = torch.arange(10.0).reshape(5, 2), torch.zeros(5)
    data["author"].x = torch.eye(3)
    data["venue"].num_nodes = 2
    by = torch.from_numpy(small.edges["paper", "author"])
    data["paper", "by", "author"].edge_index, data["author", "wrote", "paper"].edge_index = by, by.flip(0)
    data["paper", "in", "venue"].edge_index = torch.from_numpy(small.edges["paper", "venue"])
    graph = read_data(data).graph
    assert graph.target == "paper"  # which alone has labels
    assert dict(graph.counts) == dict(small.counts)
    for pair in (("paper", "author"), ("paper", "venue")):
        assert (graph.incidence(*pair) != small.incidence(*pair)).nnz == 0


BROKEN = {
    "a node too far": (
        "edges/paper-author.csv",
        "paper,author\n0,0\n7,1\n",
        GraphInvalid,
        "paper-author.csv, line 3: there is no paper 7",
    ),
    "a word for a number": (
        "edges/paper-author.csv",
        "paper,author\n0,0\n1,x\n",
        DataDamaged,
        "line 3: column 2 is 'x'",
    ),
    "three columns": ("edges/paper-author.csv", "a,b,c\n0,0,1\n", DataDamaged, "3 columns"),
    "a file without two types": ("edges/authors.csv", "a,b\n0,0\n", DataFormatUnknown, "authors.csv"),
    "another fact": ("graph.yaml", "goal: paper\n", DataFormatUnknown, "may say target"),
    "no YAML": ("graph.yaml", "target: [\n", DataDamaged, "graph.yaml is no YAML"),
    "an unknown target": ("graph.yaml", "target: papers\n", GraphInvalid, "did you mean 'paper'"),
    "no target": ("graph.yaml", "", GraphInvalid, "author, paper, venue and does not say"),
    "features of words": ("nodes/venue.csv", "a\n1\nx\n", DataDamaged, "venue.csv, line 3: column 'a' is 'x'"),
    "a fraction for a number": (
        "edges/paper-author.csv",
        "paper,author\n0,0\n1.5,1\n",
        DataDamaged,
        "line 3: column 1 is 1.5",
    ),
    "edges twice": (
        "edges/paper-author.npy",
        "",
        DataFormatUnknown,
        "paper-author.csv and .*paper-author.npy hold the",
    ),
    "features twice": ("nodes/paper.csv", "a\n1\n", DataFormatUnknown, "paper.csv and .*paper.npy hold the same"),
    "a path for a list": (
        "graph.yaml",
        "target: paper\nmetapaths: paper-author-paper\n",
        DataFormatUnknown,
        "is a list of names",
    ),
    "a number for a path": ("graph.yaml", "target: paper\nmetapaths: [1]\n", DataFormatUnknown, "is a list of names"),
    "a list for counts": ("graph.yaml", "target: paper\nnodes: [3]\n", DataFormatUnknown, "says how many nodes"),
    "a word for a count": ("graph.yaml", "nodes: {venue: many}\n", DataFormatUnknown, "'venue' are 'many'"),
    "a count below 0": ("graph.yaml", "nodes: {venue: -3}\n", DataFormatUnknown, "'venue' are -3"),
}


@pytest.mark.parametrize(("file", "text", "error", "says"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read(folder: Path, file: str, text: str, error: type[ContraposeError], says: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(error, match=says):
        read_data(folder)


def test_features_that_are_no_number(folder: Path) -> None:
    np.save(folder / "nodes" / "paper.npy", np.array([[0, 1], [1, 1], [2, np.nan], [1, 1], [1, 1.0]]))
    with pytest.raises(GraphInvalid, match="features of paper 2"):
        read_data(folder)


def test_features_without_a_column(folder: Path) -> None:
    np.save(folder / "nodes" / "paper.npy", np.ones((5, 0)))
    with pytest.raises(DataDamaged, match=r"paper\.npy has no column"):
        read_data(folder)


@pytest.mark.parametrize("name", ["nodes/paper.npy", "nodes/author.npz"])
def test_a_pickle_is_not_loaded_and_nobody_is_told_how(name: str, folder: Path) -> None:
    with open(folder / name, "wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataDamaged, match=r"pickled, which runs code|without running code") as refused:
        read_data(folder)
    assert "allow_pickle" not in str(refused.value)


def test_other_sources_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataFileMissing, match="is no folder"):
        read_data(tmp_path / "nowhere")
    with pytest.raises(DataFormatUnknown, match="has no edges"):
        read_data(tmp_path)
    with pytest.raises(DataFormatUnknown, match="a list"):
        read_data([1, 2])
    with pytest.raises(ColumnUnknown, match="text"):
        read_data(folder, rename={"text": "paper"})
    with pytest.raises(UsageInvalid, match="drop_empty"):
        read_data(folder, drop_empty=True)


PATHS = {
    "one way": ("paper-author", "same both ways"),
    "another start": ("author-paper-author", "must start at the target, 'paper'"),
    "no such edges": ("paper-author-venue-author-paper", "no edges between 'author' and 'venue'"),
}


@pytest.mark.parametrize(("said", "says"), PATHS.values(), ids=PATHS)
def test_meta_paths_that_do_not_fit(small: Graph, said: str, says: str) -> None:
    with pytest.raises(MetaPathInvalid, match=says):
        small.metapaths([said])


def test_halves_count_ways(small: Graph) -> None:
    assert small.half(MetaPath.parse("paper-venue-paper")).toarray().tolist() == [
        [1, 0],
        [1, 0],
        [0, 1],
        [0, 1],
        [0, 1],
    ]
    long = small.half(MetaPath.parse("paper-author-paper-author-paper"))
    joined = small.incidence("paper", "author")
    assert (long != joined @ joined.T).nnz == 0


def test_an_encoder_of_another_graph_is_refused(nodes: object, small: Graph) -> None:
    encoder = open_encoder(None, {"dim": 4}, read_data(small))
    with pytest.raises(NodeUnknown, match="another graph"):
        open_data(nodes, MEOW.card, encoder)


def test_check_names_nodes_that_a_path_leaves_alone(small: Graph) -> None:
    nodes = read_data(small)
    report = check_data(nodes, MEOW.card, open_encoder(None, {"dim": 4}, nodes), 64)
    assert [problem.message for problem in report.problems] == [
        "1 nodes have no path paper-author-paper: over it they are like themselves alone."
    ]
    assert "paper 4" in str(report)
