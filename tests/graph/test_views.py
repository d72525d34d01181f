"""PathSim, the strongest neighbours, normalised adjacencies and masked copies, against sums over all pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from contrapose.errors import AdjacencyInvalid, ArgumentInvalid
from contrapose.graph import views
from contrapose.graph._structure import cached_neighbours
from contrapose.graph.data import Graph, MetaPath, read_data
from contrapose.graph.views import neighbours, normalised, pathsim, strongest, without_edges, without_features
from tests.graph.tiny import planted


def drawn(seed: int, n: int = 9) -> np.ndarray:
    half = np.random.default_rng(seed).integers(0, 3, size=(n, 5))
    half[:, 0] = 1
    return half @ half.T


@given(st.integers(0, 1000))
def test_pathsim_is_the_formula(seed: int) -> None:
    counts = drawn(seed)
    own = np.diag(counts)
    assert pathsim(counts).toarray() == pytest.approx(2 * counts / (own[:, None] + own))


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_strongest_are_kept_itself_first_and_of_equals_the_larger_number(seed: int, k: int) -> None:
    counts = drawn(seed)
    kept = strongest(counts, k).toarray()
    similarity = pathsim(counts).toarray() + 10 * np.eye(9)
    for row in range(9):
        order = sorted(range(9), key=lambda column: (-similarity[row, column], -column))[:k]
        expected = np.where(np.isin(np.arange(9), order), counts[row], 0)
        assert kept[row].tolist() == expected.tolist()


def test_normalised_is_transposed_unless_it_is_straight() -> None:
    counts = strongest(drawn(3), 4).toarray()
    scale = np.diag(counts.sum(1) ** -0.5)
    assert normalised(counts).toarray() == pytest.approx(scale @ counts.T @ scale)
    assert normalised(counts, "straight").toarray() == pytest.approx(scale @ counts @ scale)


BAD = {
    "not square": (lambda: pathsim(np.ones((2, 3))), AdjacencyInvalid, r"\(2, 3\)"),
    "no diagonal": (lambda: pathsim(np.array([[1, 1], [1, 0]])), AdjacencyInvalid, "node 1 has 0"),
    "an empty row": (lambda: normalised(np.array([[1, 0], [0, 0]])), AdjacencyInvalid, "row 1 sums to 0"),
    "below 0": (lambda: pathsim(-np.eye(2)), AdjacencyInvalid, "negative"),
    "too many": (lambda: strongest(np.eye(2), 3), ArgumentInvalid, "got 3"),
    "none": (lambda: strongest(np.eye(2), 0), ArgumentInvalid, "got 0"),
    "an unknown orientation": (lambda: normalised(np.eye(2), "sideways"), ArgumentInvalid, "sideways"),
}


@pytest.mark.parametrize(("call", "error", "says"), BAD.values(), ids=BAD)
def test_what_is_no_adjacency(call: object, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("block", [1, 40, 2**24])
def test_neighbours_are_the_same_in_any_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "BLOCK", block)
    graph = planted(targets=40)[0]
    path = MetaPath.parse("item-tag-item")
    half = graph.half(path)
    assert (neighbours(graph, path, 7) != strongest(half @ half.T, 7)).nnz == 0


def test_a_node_that_a_path_does_not_reach_stands_alone(small: Graph) -> None:
    found = neighbours(small, MetaPath.parse("paper-author-paper"), 5).toarray()
    assert found[4].tolist() == [0, 0, 0, 0, 1]
    assert found[0].tolist() == [2, 1, 1, 0, 0]


def test_a_graph_of_one_type_has_paths_of_one_and_two_edges() -> None:
    graph = Graph({"page": 4}, {}, {("page", "page"): np.array([[0, 1, 2], [1, 2, 3]])}, "page")
    one, two = (neighbours(graph, MetaPath.parse(said), 4).toarray() for said in ("page-page", "page-page-page"))
    assert one.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]
    assert two.tolist() == [[1, 0, 1, 0], [0, 2, 0, 1], [1, 0, 2, 0], [0, 1, 0, 1]]


def test_neighbours_are_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, path = planted(targets=40)[0], MetaPath.parse("item-tag-item")
    first = cached_neighbours(graph, path, 5)
    monkeypatch.setattr("contrapose.graph._structure.neighbours", None)
    assert (cached_neighbours(graph, path, 5) != first).nnz == 0


def test_a_masked_copy_lacks_its_share_of_edges_and_keeps_every_node() -> None:
    adjacency = csr_matrix(drawn(0))
    masked = without_edges(adjacency, 0.4, np.random.default_rng(0))
    others = (adjacency.toarray() > 0).sum() - 9
    assert masked.diagonal().tolist() == [1] * 9
    assert masked.nnz - 9 == others - int(0.4 * others)
    assert set(masked.data) == {1.0}


def test_masked_features_leave_the_clean_ones_alone() -> None:
    features = csr_matrix(np.arange(1.0, 21).reshape(4, 5))
    masked = without_features(features, 0.3, np.random.default_rng(0))
    assert (masked.data == 0).sum() == 6
    assert (features.data == np.arange(1.0, 21)).all()
    assert set(masked.data[masked.data > 0]) <= set(features.data)


def test_paths_of_a_folder_are_those_it_names(folder: Path) -> None:
    (folder / "graph.yaml").write_text("target: paper\nmetapaths: [paper-venue-paper]\n")
    assert [str(path) for path in read_data(folder).graph.metapaths()] == ["paper-venue-paper"]
