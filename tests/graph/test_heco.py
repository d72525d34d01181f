"""HeCo's loss, its positives and its schema view against sums over all pairs and neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import elu, leaky_relu, normalize

from contrapose.errors import ArgumentInvalid, GraphAbsent, ShapesDiffer
from contrapose.graph.data import Graph, MetaPath, Nodes, read_data
from contrapose.graph.encoder import open_encoder
from contrapose.graph.heco import HeCo, SchemaView, among, heco_loss, positive_pairs


def test_the_loss_is_the_formula_for_pairs_and_for_a_matrix() -> None:
    x, y = (torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1))
    positives = torch.eye(8).bool() | (torch.rand(8, 8, generator=torch.Generator().manual_seed(2)) < 0.3)

    def one_way(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        similar = (normalize(a, dim=1) @ normalize(b, dim=1).T / 0.5).exp()
        return -((similar * positives).sum(1) / similar.sum(1)).log().mean()

    expected = 0.3 * one_way(x, y) + 0.7 * one_way(y, x)
    for given in (positives, positives.nonzero().T):
        torch.testing.assert_close(heco_loss(x, y, given, temperature=0.5, balance=0.3), expected)
    with pytest.raises(ArgumentInvalid, match="every anchor"):
        heco_loss(x, y, torch.zeros(8, 8).bool(), temperature=0.5)


def test_positives_share_most_meta_paths(small: Graph) -> None:
    pairs = positive_pairs(small, small.metapaths(), [5, 5], 2)
    shares = np.zeros((5, 5))
    for path in small.metapaths():
        half = small.half(path).toarray()
        counts = half @ half.T
        counts[4, 4] = max(counts[4, 4], 1)
        shares += counts / counts.sum(1, keepdims=True)
    for node in range(5):
        others = [
            other for other in np.lexsort((-np.arange(5), -shares[node])) if other != node and shares[node, other] > 0
        ]
        assert sorted(pairs[1, pairs[0] == node].tolist()) == sorted([node, *others[:1]])


def test_only_pairs_within_a_batch_count() -> None:
    pairs = torch.tensor([[0, 0, 3, 4], [0, 3, 3, 2]])
    assert among(pairs, torch.tensor([3, 0]), 5).tolist() == [[1, 1, 0], [1, 0, 0]]


def test_attention_over_neighbours_is_the_formula(small: Graph) -> None:
    encoder = open_encoder(None, {"dim": 4, "top_k": 3, "contexts": False, "masked": False}, read_data(small))
    view = SchemaView(encoder, 0.5).eval()
    assert view.types == ["author", "venue"]
    states, joined = encoder.states(), small.incidence("paper", "author").toarray()
    query, found = view.queries[0], view.over_neighbours(encoder, encoder.states(), "author", view.queries[0])
    for paper in range(5):
        mine = np.flatnonzero(joined[paper])
        said = torch.stack(
            [leaky_relu(query[0] @ states["paper"][paper] + query[1] @ states["author"][each], 0.01) for each in mine]
            or [torch.zeros(())]
        )
        expected = (
            elu((said.softmax(0)[: len(mine), None] * states["author"][mine]).sum(0)) if len(mine) else torch.zeros(4)
        )
        torch.testing.assert_close(found[paper], expected)


def test_an_encoder_without_its_graph_is_refused(nodes: Nodes) -> None:
    encoder = open_encoder(None, {"dim": 4}, nodes)
    encoder.graph = None
    method = HeCo(HeCo.Settings(), encoder)
    with pytest.raises(GraphAbsent, match="to find positives"):
        method.refuse(None)


def test_paths_know_their_first_step() -> None:
    assert MetaPath.parse("a-b-c-b-a").half == ("a", "b", "c")


@pytest.mark.parametrize(
    ("x", "y", "pairs", "balance", "error", "says"),
    [
        (3, 4, [[0, 1, 2], [0, 1, 2]], 0.5, ShapesDiffer, "one shape"),
        (0, 0, [[], []], 0.5, ShapesDiffer, "n above 0"),
        (3, 3, [[0, 1, 2], [0, 1, 3]], 0.5, ArgumentInvalid, "rows 0 to 2; got 0 to 3"),
        (3, 3, [[0, 1, 2], [0, 1, 2]], 1.5, ArgumentInvalid, "balance"),
    ],
)
def test_what_the_loss_refuses(x: int, y: int, pairs: list, balance: float, error: type, says: str) -> None:
    chosen = torch.tensor(pairs, dtype=torch.long)
    with pytest.raises(error, match=says):
        heco_loss(torch.ones(x, 2), torch.ones(y, 2), chosen, temperature=0.5, balance=balance)
