"""DirectPred as a method: its loss, when its predictor is set or trained, its slow copy, and its controls."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from contrapose.data.batches import Batch, Data, Facts, seeded
from contrapose.geometry import effective_rank
from contrapose.image.data import open_data, read_data
from contrapose.image.directpred import DirectPred, byol_loss, deviation, predictor_weights
from contrapose.image.encoder import ImageEncoder
from tests.image.tiny import images
from tests.training.children import started
from tests.training.toys import Toy

NAMES = ("first", "second", "first_target", "second_target")
SMALL = {"projection": 4, "hidden": 8}


def network() -> ImageEncoder:
    return ImageEncoder.open("mlp", size=8, channels=3, width=16)


def built(**settings) -> DirectPred:
    method = DirectPred(DirectPred.Settings(**{**SMALL, **settings}), network())
    method.build(Facts(12))
    return method.double().train()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embeddings(dim: int = 8) -> dict[str, Tensor]:
    return {name: drawn(6, dim, seed=seed) for seed, name in enumerate(NAMES)}


def batch(step: int = 0) -> Batch:
    return Batch(Data({}, 6), torch.arange(6), step, seeded(step))


def test_the_loss_is_of_predictions_and_the_copys_vectors_of_the_other_view() -> None:
    method, given = built(), embeddings()
    (loss,) = method.objective(given, batch()).values()
    first, second = method.head(given["first"]), method.head(given["second"])
    targets = method.target_head(given["first_target"]), method.target_head(given["second_target"])
    weights = method.predictor.weight
    torch.testing.assert_close(loss, byol_loss((first @ weights.T, second @ weights.T), targets))


def test_the_predictor_is_that_of_the_correlation_with_this_steps_features() -> None:
    method, given = built(eps=0.2), embeddings()
    method.objective(given, batch())
    with torch.no_grad():
        method.after_step({}, batch())
    features = torch.cat([method.head(given[name]) for name in ("first", "second")]).detach()
    expected = predictor_weights(features.T @ features / 12, eps=0.2)
    torch.testing.assert_close(method.predictor.weight.detach(), expected)


def test_between_two_settings_the_predictor_is_left_to_its_optimiser() -> None:
    method, given, seen = built(freq=3), embeddings(), []
    with torch.no_grad():
        for step in range(4):
            method.objective(given, batch(step))
            method.predictor.weight.fill_(step)
            method.after_step({}, batch(step))
            seen.append(bool((method.predictor.weight == step).all()))
    assert seen == [False, True, True, False]


UPDATES = {
    "direct": ({}, ["main"]),
    "direct, every fifth step": ({"freq": 5}, ["main", "predictor"]),
    "sgd": ({"predictor": "sgd"}, ["main", "predictor"]),
    "identity": ({"predictor": "identity"}, ["main"]),
}


@pytest.mark.parametrize(("settings", "optimisers"), UPDATES.values(), ids=UPDATES)
def test_a_predictor_that_is_trained_has_an_optimiser_of_its_own(settings: dict, optimisers: list[str]) -> None:
    method = built(**settings, predictor_learning_rate=0.5)
    updates = method.updates()
    assert [update.optimiser for update in updates] == optimisers
    own = {id(parameter) for parameter in method.predictor.parameters()}
    assert not own & {id(parameter) for parameter in updates[0].parameters}
    if len(updates) == 2:
        assert {id(parameter) for parameter in updates[1].parameters} == own
        assert updates[1].lr == 0.5


def test_the_predictors_gradient_is_that_of_the_one_forward_pass() -> None:
    method, given = built(predictor="sgd"), embeddings()
    (whole,) = method.objective(given, batch()).values()
    (own,) = method.predictor_step(batch()).values()
    expected, found = (torch.autograd.grad(loss, method.predictor.weight)[0] for loss in (whole, own))
    torch.testing.assert_close(found, expected)


def test_a_symmetric_predictor_is_made_so_after_the_step() -> None:
    method = built(predictor="symmetric")
    method.objective(embeddings(), batch())
    with torch.no_grad():
        method.after_step({}, batch())
    assert torch.equal(method.predictor.weight, method.predictor.weight.T)


def test_the_copy_starts_as_the_network_and_follows_after_the_step() -> None:
    method = built(target_momentum=0.75)
    layer = method.encoder.backbone[1]
    copied = method.target_encoder.module.backbone[1]
    before = layer.weight.detach().clone()
    assert torch.equal(copied.weight, before)
    method.objective(embeddings(), batch())
    with torch.no_grad():
        layer.weight.add_(1.0)
        method.after_step({}, batch())
    torch.testing.assert_close(copied.weight, before + 0.25)


def test_without_stop_gradient_it_flows_through_the_targets() -> None:
    one, other = built(predictor="identity"), built(predictor="identity", stop_gradient=False)
    other.head.load_state_dict(one.head.state_dict())
    given = embeddings()
    alike = {**given, "first_target": given["first"], "second_target": given["second"]}
    slopes = []
    for method in (one, other):
        (loss,) = method.objective(alike, batch()).values()
        slopes.append(torch.autograd.grad(loss, method.head[0].weight)[0])
    torch.testing.assert_close(slopes[1], 2 * slopes[0])  # the two sides of a cosine are alike here
    assert not hasattr(other, "target_encoder")


def test_its_meters_are_watched() -> None:
    method, given = built(log_every=1), embeddings()
    method.objective(given, batch())
    with torch.no_grad():
        method.after_step({}, batch())
    features = method.head(given["first"]).detach()
    assert method.watched["deviation"] == pytest.approx(deviation(features))
    assert method.watched["projection_rank"] == pytest.approx(effective_rank(features))
    assert method.watched["eigenspaces"] == pytest.approx(1)


@pytest.mark.parametrize("settings", [{"rho": 1.0}, {"eps": -0.1}, {"freq": 0}, {"form": "boost_scale"}])
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DirectPred.Settings(**settings)


def test_a_linear_head_has_no_hidden_layer() -> None:
    assert isinstance(built(hidden=None).head, nn.Linear)


OPTIONS = {
    "defaults": {},
    "the best row": {"freq": 5, "predictor_learning_rate": 0.01},
    "copy": {"form": "directcopy_norm", "centred": True, "rho": None},
    "BYOL's": {"predictor": "mlp"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_brings_views_together_and_keeps_images_apart(options: dict, tmp_path: Path) -> None:
    data = open_data(read_data({"image": images(24)}), DirectPred.card, network())
    settings = {"batch_size": 24, "steps": 40, "log_every": 1, "precision": "fp32", "projection": 8, "hidden": 32}
    folder = started(tmp_path / "run")
    Toy("directpred", DirectPred, lambda: data, network, settings | options).fit(folder)
    lines = folder.metrics()
    losses = [line["terms"]["byol"] for line in lines]
    assert sum(losses[-5:]) < sum(losses[:5]) - 5
    assert lines[-1]["watched"]["deviation"] > 0.1
