"""The encoder of a graph: its layers against plain sums, its views, what it saves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch.nn.functional import elu, normalize

import contrapose
from contrapose.errors import (
    ContraposeError,
    GraphAbsent,
    ModelFolderInvalid,
    NodeUnknown,
    SettingInvalid,
    ShapesDiffer,
    UsageInvalid,
)
from contrapose.graph._sparse import Adjacency, Sparse, equal_rows
from contrapose.graph._structure import scaled_rows
from contrapose.graph.data import Graph, Nodes, read_data
from contrapose.graph.encoder import GraphEncoder, SemanticAttention, load_encoder, open_encoder, usage
from contrapose.graph.views import normalised
from tests.graph.tiny import planted

SMALL = {"dim": 8, "top_k": 6, "dropout": 0.0}


def test_a_sparse_product_has_its_gradient_and_copies_share_its_parts() -> None:
    dense = np.random.default_rng(0).integers(0, 3, size=(5, 4)).astype(float)
    matrix = Sparse.of(csr_matrix(dense)).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(matrix(x), torch.from_numpy(dense) @ x)
    assert torch.autograd.gradcheck(matrix, x)
    assert Sparse.of(csr_matrix(dense.T @ dense)).symmetric
    assert not matrix.symmetric
    assert matrix.__deepcopy__({}).values is matrix.values
    assert list(matrix.state_dict()) == []
    torch.testing.assert_close(matrix.T(torch.eye(5).double()), torch.from_numpy(dense.T))


def of_subjects(n: int = 60, subjects: int = 3) -> np.ndarray:
    """Everybody of a subject chose the same ten, and itself."""
    subject = np.arange(n) % subjects
    chosen = (subject[:, None] == subject) & (np.arange(n) >= n - 10 * subjects)
    return chosen * 2.0 + np.diag(np.where(np.arange(n) < n - 10 * subjects, 3.0, 0.0))


def test_equal_rows_are_kept_once_whether_or_not_they_hold_themselves() -> None:
    counts = of_subjects()
    unique, which, own = equal_rows(csr_matrix(counts))
    assert unique.shape == (3, 60)
    assert unique.nnz == 30
    assert (unique.toarray()[which] + np.diag(own)).tolist() == counts.tolist()


@pytest.mark.parametrize("orientation", ["straight", "transposed"])
@pytest.mark.parametrize("kind", ["equal rows", "equal but for some entries", "different rows"])
def test_an_adjacency_is_the_normalised_matrix_with_its_gradient(orientation: str, kind: str) -> None:
    draw, counts, like = np.random.default_rng(0), of_subjects(), None
    if kind == "different rows":
        counts = (draw.uniform(size=(60, 60)) < 0.2) + np.eye(60)
    if kind == "equal but for some entries":
        like = csr_matrix(counts)
        counts = counts * (draw.uniform(size=(60, 60)) < 0.9) + np.eye(60)
    matrix = Adjacency.of(csr_matrix(counts), orientation, like).double()
    assert (matrix.shared is None) == (kind == "different rows")
    expected = torch.from_numpy(normalised(counts, orientation).toarray())
    x = torch.randn(60, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(matrix(x), expected @ x, rtol=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(matrix, x)


@pytest.mark.parametrize("orientation", ["straight", "transposed"])
def test_rows_that_are_kept_once_are_saved_and_loaded(tmp_path: Path, orientation: str) -> None:
    papers = np.arange(60)
    edges = {("paper", "subject"): np.stack([papers, papers % 3])}
    graph = read_data(Graph({"paper": 60, "subject": 3}, {}, edges, "paper"))
    encoder = open_encoder(None, {**SMALL, "orientation": orientation}, graph)
    assert all(each.shared is not None for each in (*encoder.structure.neighbours, *encoder.structure.masked))
    encoder.save(tmp_path)
    loaded = load_encoder(tmp_path, encoder.record())
    assert loaded.encode(papers).tolist() == encoder.encode(papers).tolist()


def test_the_fine_view_is_the_formula(nodes: Nodes) -> None:
    encoder = open_encoder(None, {**SMALL, "masked": False}, nodes).double()
    graph, (maker, tag) = nodes.graph, encoder.paths
    assert [str(maker), str(tag)] == ["item-maker-item", "item-tag-item"]

    def state(name: str) -> torch.Tensor:
        linear = encoder.own[name]
        x = (
            torch.from_numpy(scaled_rows(graph.features[name]).toarray())
            if name in graph.features
            else torch.eye(graph.counts[name]).double()
        )
        return elu(x @ linear.weight.T + linear.bias)

    views = []
    for number, name in enumerate(("maker", "tag")):
        joined = torch.from_numpy(graph.incidence("item", name).toarray())
        mean = joined @ state(name) / joined.sum(1, keepdim=True)
        gathered = elu(state("item") + encoder.along[number](mean))
        adjacency = dense(encoder.structure.neighbours[number])
        views.append(normalize(encoder.convolutions(gathered, adjacency), dim=1))
    expected = encoder.attention(views)
    coarse, fine = encoder.coarse_and_fine()
    torch.testing.assert_close(fine, expected, rtol=1e-5, atol=1e-5)
    together = sum(map(dense, encoder.structure.neighbours)) / 2
    torch.testing.assert_close(coarse, encoder.convolutions(state("item"), together), rtol=1e-5, atol=1e-5)


def dense(matrix: Adjacency) -> torch.Tensor:
    return matrix(torch.eye(len(matrix.scale)).double())


def test_contexts_of_a_longer_path_are_means_over_all_ways_to_walk_it() -> None:
    nodes = read_data(planted(targets=40)[0])
    encoder = open_encoder(None, {**SMALL, "metapaths": "item-tag-item-tag-item"}, nodes).double()
    (path,) = encoder.paths
    joined = torch.from_numpy(nodes.graph.incidence("item", "tag").toarray())
    states = {"item": torch.randn(40, 8).double(), "tag": torch.randn(20, 8).double()}
    ways = [joined, joined @ joined.T, joined @ joined.T @ joined]
    assert [len(walk) for walk in path.contexts] == [2, 3, 4]
    for walk, counted in zip(path.contexts, ways, strict=True):
        expected = counted @ states[walk[-1]] / counted.sum(1, keepdim=True)
        torch.testing.assert_close(encoder._context(walk, states), expected)


def test_attention_weighs_views_by_what_their_nodes_say_on_the_mean() -> None:
    attention = SemanticAttention(3).double()
    views = [torch.randn(7, 3).double() for _ in range(3)]
    said = torch.stack(
        [
            (attention.query[0] * (view @ attention.linear.weight.T + attention.linear.bias).tanh().mean(0)).sum()
            for view in views
        ]
    )
    torch.testing.assert_close(attention(views), (said.softmax(0)[:, None, None] * torch.stack(views)).sum(0))
    with pytest.raises(ShapesDiffer, match="one shape"):
        attention([views[0], views[1][:3]])


def test_whole_matrix_is_standardised_and_no_row(nodes: Nodes) -> None:
    coarse, _ = open_encoder(None, SMALL, nodes).coarse_and_fine()
    assert coarse.mean().item() == pytest.approx(0, abs=1e-5)
    assert coarse.var(correction=0).item() == pytest.approx(1, abs=0.02)
    assert coarse.var(1, correction=0).std() > 0.01


def test_a_record_rebuilds_the_same_untrained_encoder(nodes: Nodes, folder: Path) -> None:
    encoder = open_encoder(None, {**SMALL, "edge_mask": "0.3,0.1", "seed": 5}, nodes)
    again = open_encoder(json.loads(json.dumps(encoder.record())), {}, nodes)
    assert again.record() == encoder.record()
    assert (again.encode(range(9)) == encoder.encode(range(9))).all()
    on_disk = open_encoder(None, {"dim": 4, "top_k": 3}, read_data(folder))
    assert (open_encoder(on_disk.record(), {}).encode([0]) == on_disk.encode([0])).all()


def test_another_seed_is_another_encoder_and_the_callers_random_state_is_left_alone(nodes: Nodes) -> None:
    state = torch.get_rng_state()
    one, other = (open_encoder(None, {**SMALL, "seed": seed}, nodes).encode([0, 1]) for seed in (0, 1))
    assert (one != other).all()
    assert (torch.get_rng_state() == state).all()


def test_what_is_saved_is_read_back_without_the_graph(nodes: Nodes, tmp_path: Path) -> None:
    encoder = open_encoder(None, SMALL, nodes)
    encoder.save(tmp_path / "model")
    again = load_encoder(tmp_path / "model", encoder.record())
    assert (again.encode(nodes["node"]) == encoder.encode(nodes["node"])).all()
    assert again.fingerprint == nodes.fingerprint
    assert "numbers of nodes of type item" in usage(again)
    (tmp_path / "model" / "graph.safetensors").write_bytes(b"")
    with pytest.raises(ModelFolderInvalid, match="no graph"):
        load_encoder(tmp_path / "model", encoder.record())


def test_encode_takes_numbers_of_nodes_in_any_order(nodes: Nodes) -> None:
    encoder = open_encoder(None, SMALL, nodes).train()
    every = encoder.encode(range(len(nodes)))
    assert (encoder.encode([7, 3, 7]) == every[[7, 3, 7]]).all()
    assert (encoder.encode(np.array([59])) == every[59]).all()
    assert encoder.encode([]).shape == (0, 8)
    assert encoder.training


@pytest.mark.parametrize("values", [[60], [-1], ["a"], 3, [0.5]])
def test_what_is_no_node(nodes: Nodes, values: object) -> None:
    with pytest.raises(NodeUnknown, match="0 to 59"):
        open_encoder(None, SMALL, nodes).encode(values)


UNFIT = {
    "values for other paths": ({"top_k": "1,2,3"}, SettingInvalid, "3 values for 2 meta-paths"),
    "more than there are": ({"top_k": 61}, SettingInvalid, "more than the 60 nodes"),
    "a rate of all": ({"edge_mask": 1.0}, SettingInvalid, "edge_mask"),
    "an unknown orientation": ({"orientation": "up"}, SettingInvalid, "orientation"),
}


@pytest.mark.parametrize(("options", "error", "says"), UNFIT.values(), ids=UNFIT)
def test_options_that_do_not_fit(nodes: Nodes, options: dict, error: type[ContraposeError], says: str) -> None:
    with pytest.raises(error, match=says):
        open_encoder(None, options, nodes)


def test_an_encoder_needs_a_graph(nodes: Nodes) -> None:
    with pytest.raises(GraphAbsent, match="needs the graph"):
        open_encoder()
    with pytest.raises(GraphAbsent):
        open_encoder(open_encoder(None, SMALL, nodes).record())
    with pytest.raises(UsageInvalid, match="known by name is 'metapaths'"):
        open_encoder("minilm", {}, nodes)
    with pytest.raises(UsageInvalid, match="is a int"):
        open_encoder(3, {}, nodes)


def test_a_run_says_its_command_and_is_an_encoder_to_go_on_from(folder: Path, tmp_path: Path) -> None:
    options = {"encoder.dim": 4, "encoder.top_k": "3,2", "clusters": "2,3", "epochs": 2}
    run = contrapose.train(
        "meow", str(folder), out=tmp_path / "run", progress=False, settings=options, columns={"node": "paper"}
    )
    assert "encoder.top_k=3,2" in run.folder.config["command"]
    assert isinstance(run.model.encoder(), GraphEncoder)
    start = run.model.encoder().encode([0, 1])
    more = contrapose.train(
        "adameow",
        str(folder),
        encoder=str(run.path),
        out=tmp_path / "more",
        progress=False,
        epochs=1,
        learning_rate=1e-12,
    )
    assert more.model.encoder().encode([0, 1]) == pytest.approx(start, abs=1e-6)
    assert "transductive" in (run.path / "model" / "README.md").read_text()
