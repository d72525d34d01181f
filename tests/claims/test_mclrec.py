"""The task of MCLRec's claim: what each split holds out, and that all arms learn from the same rows."""

from __future__ import annotations

import gzip
import json
import random

import pytest
import torch

from contrapose.claims.mclrec import PurchaseTask, claim
from contrapose.sequence.mclrec import MCLRec
from contrapose.sequence.sasrec import SASRec


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> PurchaseTask:
    drawn, folder = random.Random(0), tmp_path_factory.mktemp("purchases")
    rows = [{"user": user, "items": drawn.choices(range(1, 30), k=5 + user % 9)} for user in range(20)]
    text = "\n".join(map(json.dumps, rows))
    (folder / claim.source.files[0]).write_bytes(gzip.compress(text.encode()))
    return PurchaseTask(folder)


def test_models_and_controls_have_every_measure(task: PurchaseTask) -> None:
    names = {measure.name for measure in claim.measures}
    with torch.random.fork_rng():
        model = task.create(SASRec, SASRec.Settings())
    assert set(task.measure(model, "test")) == names
    assert all(set(figures) == names for figures in task.controls("dev").values())


def test_the_splits_hold_out_the_last_two_and_every_arm_learns_from_the_rest(task: PurchaseTask) -> None:
    assert {split: protocol.held_out for split, protocol in task.protocols.items()} == {"dev": 2, "test": 1}
    for method in (SASRec, MCLRec):
        data = task.data(method)
        rows = method(method.Settings(**claim.experiments[0].settings)).next_stage([]).rows(data)
        assert int(data.columns["left"][rows].min()) == 2
    assert torch.equal(task.data(SASRec).columns["next"], task.data(MCLRec).columns["next"])


def test_random_weights_follow_the_seed_of_the_run(task: PurchaseTask) -> None:
    weights = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            weights.append(task.create(SASRec, SASRec.Settings()).encoder.transformer.items.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
