"""MEOW's terms against sums over all pairs, clusters that are right, and what its fine view learns that a coarse one cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import contrapose
from contrapose.data.batches import Facts
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    NoNegatives,
    NonFinite,
    ProcessesTooMany,
    SettingInvalid,
    ShapesDiffer,
    TemperatureInvalid,
)
from contrapose.evaluation import linear_probe
from contrapose.graph import _contrast
from contrapose.graph.data import Nodes, open_data
from contrapose.graph.encoder import open_encoder
from contrapose.graph.meow import MEOW, Clusters, clusters, density, prototype_nce, times_apart, weighed_info_nce
from contrapose.objectives import info_nce
from tests.graph.tiny import planted


def unit(n: int, d: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


OWN = [torch.tensor([0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 1, 0, 0, 2])]


def test_times_apart_counts_clusterings() -> None:
    expected = [[sum(int(own[i] != own[j]) for own in OWN) for j in range(7)] for i in range(7)]
    assert times_apart(OWN).tolist() == expected
    assert times_apart(OWN, slice(1, 3), slice(2, 7)).tolist() == [row[2:7] for row in expected[1:3]]


def test_the_weighed_term_and_its_gradient_are_the_formula() -> None:
    coarse, fine = unit(7, 4).requires_grad_(), unit(7, 4, 1).requires_grad_()
    found = weighed_info_nce(coarse, fine, OWN, temperature=0.4)
    similar = (coarse @ fine.T / 0.4).exp()
    expected = -(similar.diagonal() / (times_apart(OWN) * similar).sum(1)).log().mean()
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, [coarse, fine]), torch.autograd.grad(expected, [coarse, fine]), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_vectors_that_say_nothing_have_the_value_at_chance() -> None:
    same = normalize(torch.ones(7, 4, dtype=torch.float64), dim=1)
    method = MEOW(MEOW.Settings(clusters=(3, 3)), None)
    method.clusters = (3, 3)
    found = [Clusters(own, same[:3], torch.full((3,), 0.4).double()) for own in OWN]
    chance = method.chances(7, found)
    assert weighed_info_nce(same, same, OWN, temperature=0.4).item() == pytest.approx(chance["info_nce"])
    assert prototype_nce(same, found[0]).item() == pytest.approx(chance["prototypes"]) == pytest.approx(math.log(3))
    assert prototype_nce(same, found[0], denominator="official").item() == pytest.approx(math.log(7))


def test_one_cluster_in_every_clustering_leaves_no_negatives() -> None:
    one = torch.zeros(5, dtype=torch.long)
    with pytest.raises(NoNegatives, match="one cluster of every clustering"):
        weighed_info_nce(unit(5, 3), unit(5, 3, 1), [one, one], temperature=0.4)
    with pytest.raises(ShapesDiffer, match="each clustering"):
        weighed_info_nce(unit(5, 3), unit(5, 3, 1), [one[:4]], temperature=0.4)


def test_density_is_the_formula() -> None:
    own, values = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0.9, 0.8, 0.7, 0.5, 0.4, 1.0]).double()
    first = np.sqrt([0.9, 0.8, 0.7]).mean() / np.log(8)
    second = np.sqrt([0.5, 0.4]).mean() / np.log(7)
    raw = np.array([first, second, max(first, second), max(first, second)])  # a single row, and none
    cut = raw.clip(np.percentile(raw, 10), np.percentile(raw, 90))
    assert density(values, own, 4, temperature=0.4).numpy() == pytest.approx(0.4 * cut / cut.mean())


def test_density_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapesDiffer):
        density(torch.ones(3), torch.zeros(2, dtype=torch.long), 2, temperature=0.4)
    with pytest.raises(ArgumentInvalid, match="0 to 1"):
        density(torch.ones(2), torch.tensor([0, 2]), 2, temperature=0.4)


def test_clusters_of_one_row_each_have_the_temperature_for_concentration() -> None:
    assert density(torch.rand(3), torch.arange(3), 3, temperature=0.4).tolist() == pytest.approx([0.4] * 3)


TWO = Clusters(torch.tensor([0, 1, 1]), unit(2, 4), torch.full((2,), 0.4).double())
MISFITS = {
    "no clustering": (lambda: times_apart([]), ArgumentInvalid, "no clustering"),
    "rows with NaN": (lambda: clusters(unit(9, 4) * math.nan, 3, temperature=0.4), NonFinite, "NaN"),
    "a word": (lambda: clusters(unit(9, 4), 3, temperature=0.4, concentration="far"), ArgumentInvalid, "'far'"),
    "a temperature": (lambda: clusters(unit(9, 4), 3, temperature=-1.0), TemperatureInvalid, "positive"),
    "a denominator": (lambda: prototype_nce(unit(3, 4), TWO, denominator="mean"), ArgumentInvalid, "'mean'"),
    "clusters of other rows": (lambda: prototype_nce(unit(4, 4), TWO), ShapesDiffer, "4 rows"),
    "rows of length 2": (
        lambda: weighed_info_nce(unit(7, 4), 2 * unit(7, 4), OWN, temperature=0.4, strict=True),
        ArgumentInvalid,
        "fine must have rows of length 1; row 0 has 2",
    ),
}


@pytest.mark.parametrize(("call", "kind", "says"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_said(call: Callable[[], object], kind: type[ContraposeError], says: str) -> None:
    with pytest.raises(kind, match=says):
        call()


@pytest.mark.parametrize("assignment", ["product", "nearest"])
@pytest.mark.parametrize("concentration", ["similarity", "distance"])
def test_clusters_that_stand_apart_are_found(assignment: str, concentration: str) -> None:
    centres = torch.eye(3, 8)
    rows = normalize(
        centres.repeat(10, 1) + 0.05 * torch.randn(30, 8, generator=torch.Generator().manual_seed(0)), dim=1
    )
    found = min(
        (
            clusters(rows, 3, temperature=0.4, seed=seed, assignment=assignment, concentration=concentration)
            for seed in range(5)
        ),
        key=lambda each: each.own.unique(return_counts=True)[1].max(),
    )
    assert found.own.reshape(10, 3).unique(dim=0).shape == (1, 3)
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(3))
    assert found.density.mean().item() == pytest.approx(0.4)
    again = clusters(rows, 3, temperature=0.4, seed=0)
    assert (again.own == clusters(rows, 3, temperature=0.4, seed=0).own).all()


@pytest.mark.parametrize("k", [1, 30])
def test_a_number_of_clusters_that_is_none(k: int) -> None:
    with pytest.raises(ArgumentInvalid, match=f"got {k}"):
        clusters(unit(30, 4), k, temperature=0.4)


def built(nodes: Nodes, **settings) -> MEOW:
    method = MEOW(MEOW.Settings(**settings), open_encoder(None, {"dim": 8, "top_k": 6, "dropout": 0.0}, nodes))
    method.build(Facts(len(nodes), ("node",)))
    return method


def test_clusters_follow_from_the_nodes_or_are_refused(nodes: Nodes) -> None:
    assert built(nodes).clusters == (2, 4)
    assert built(nodes, clusters="5,7").clusters == (5, 7)
    for said in ("1", "60"):
        with pytest.raises(SettingInvalid, match="at least 2 clusters and fewer than nodes"):
            built(nodes, clusters=said)


def step(method: MEOW, nodes: Nodes) -> dict[str, Tensor]:
    from contrapose.data.batches import Batch, seeded

    data = open_data(nodes, MEOW.card, method.encoder)
    return method.training_step(Batch(data, torch.arange(len(nodes)), 0, seeded(0)))


def test_without_weights_and_prototypes_it_is_info_nce(nodes: Nodes) -> None:
    method = built(nodes, weighting="none", prototype_weight=0)
    terms = step(method, nodes)
    expected = info_nce(method.embeddings["coarse"], method.embeddings["fine"], temperature=0.4)
    assert list(terms) == ["info_nce"]
    assert terms["info_nce"].item() == pytest.approx(expected.item())


def test_a_step_is_the_sum_of_both_terms(nodes: Nodes) -> None:
    method = built(nodes, prototype_weight=0.5)
    terms = step(method, nodes)
    fine, coarse = method.embeddings["fine"], method.embeddings["coarse"]
    found = [clusters(fine, k, temperature=0.4, seed=seed) for seed, k in enumerate((2, 4))]
    weighed = weighed_info_nce(coarse, fine, [each.own for each in found], temperature=0.4)
    prototypes = sum(prototype_nce(coarse, each) for each in found) / 2
    assert terms["info_nce"].item() == pytest.approx(weighed.item(), rel=1e-5)
    assert terms["prototypes"].item() == pytest.approx(0.5 * prototypes.item(), rel=1e-5)


def test_batches_hold_every_node_or_random_ones(nodes: Nodes) -> None:
    data = open_data(nodes, MEOW.card, built(nodes).encoder)
    assert [rows.tolist() for rows in built(nodes).batches(data, 0, torch.Generator())] == [list(range(60))]
    assert [len(rows) for rows in built(nodes, batch_size=25).batches(data, 0, torch.Generator())] == [25, 25, 10]


def test_several_processes_are_refused(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_contrast, "world_size", lambda: 3)
    with pytest.raises(ProcessesTooMany, match="3 processes"):
        built(nodes).refuse(None)


def test_the_fine_view_learns_what_stands_along_meta_paths_and_the_coarse_one_cannot(tmp_path: Path) -> None:
    graph, classes = planted()
    options = {"encoder.dim": 32, "encoder.top_k": 20, "clusters": "8,20", "learning_rate": 1e-3, "epochs": 15}
    sides = ("train", "dev", "test", "test")
    rows = [{"node": node, "label": str(label), "split": sides[node // 4 % 4]} for node, label in enumerate(classes)]
    on = {"classes": rows, "clusters": rows}
    run = contrapose.train("meow", graph, on=on, out=tmp_path / "run", progress=False, settings=options)
    assert {entry["protocol"] for entry in run.folder.results()} == {"classes", "clusters"}
    encoder, train = run.model.encoder(), np.arange(300) // 4 % 2 == 0
    with torch.no_grad():
        views = dict(zip(("coarse", "fine"), encoder.coarse_and_fine(), strict=True))
    right = {
        name: (linear_probe(view[train], classes[train], view[~train]) == classes[~train]).mean()
        for name, view in views.items()
    }
    assert right["fine"] > right["coarse"] + 0.1
    losses = [sum(line["terms"].values()) for line in run.folder.metrics()]
    assert losses[-1] < losses[0]
