"""The task of the claim on temperatures: what it measures, and of which vectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contrapose.claims._digits import digits
from contrapose.claims.contrastive_loss_behaviour import SpreadTask, claim
from contrapose.geometry import uniformity
from contrapose.image.contrastive_loss_behaviour import ContrastiveLossBehaviour


@pytest.fixture(scope="module")
def task() -> SpreadTask:
    return SpreadTask(Path(), digits)


@pytest.fixture(scope="module")
def model(task: SpreadTask) -> ContrastiveLossBehaviour:
    experiment = claim.experiments[0]
    settings = ContrastiveLossBehaviour.Settings(**experiment.settings, **claim.arms[0].settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = task.create(ContrastiveLossBehaviour, settings)
        model.build(task.data(ContrastiveLossBehaviour).facts)
    return model.eval()


def test_model_and_controls_have_every_measure(task: SpreadTask, model: ContrastiveLossBehaviour) -> None:
    names = {measure.name for measure in claim.measures}
    assert set(task.measure(model, "test")) == names
    assert all(set(figures) == names for figures in task.controls("test").values())


def test_the_heads_vectors_are_measured_and_only_those_of_the_split(task: SpreadTask, model) -> None:
    images = torch.from_numpy(task.images[task.rows["dev"]])[:, None]
    with torch.no_grad():
        projected = model.project(model.encoder(model.encoder.pixels(images)))
    assert projected.shape == (297, 32)
    assert task.measure(model, "dev")["uniformity"] == pytest.approx(uniformity(projected), rel=1e-6)


def test_the_hard_losses_keep_25_of_254_negatives(task: SpreadTask, model: ContrastiveLossBehaviour) -> None:
    data = task.data(ContrastiveLossBehaviour)
    assert model.negatives(model.settings.batch_size, data.facts) == 254
    assert {arm.settings["hardest"] for arm in claim.arms} == {25}
