"""GrowCLIP: increments, candidates, choice, and going on in the middle of growth."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

import contrapose
from contrapose.data.batches import Data
from contrapose.errors import ArchitectureInvalid, SettingInvalid, UsageInvalid
from contrapose.image_text.growclip import GrowCLIP, held_out, increments, rows_of
from contrapose.training.interrupts import Stopped
from contrapose.training.method import StageRecord
from contrapose.training.settings import parse_settings
from tests.image_text.tiny import pictures
from tests.tiny import tiny
from tests.torchrun import opened
from tests.training.children import figures, started, weights
from tests.training.toys import Toy, signals

ARCHITECTURE = {"image": 2, "text": 2, "shared": 0, "width": 64, "hidden": 128, "heads": 2, "head": 32}


def record(name: str, steps: int = 100, **more: float) -> StageRecord:
    return StageRecord(name, steps, {**ARCHITECTURE, **more})


def test_increments_follow_each_other_and_held_out_rows_are_never_trained_on() -> None:
    settings = GrowCLIP.Settings(increments=(1, 2, 4), held_out=0.1)
    trained, held = increments(70, settings), held_out(70, settings)
    assert [len(a) + len(b) for a, b in zip(trained, held, strict=True)] == [10, 20, 40]
    assert torch.cat([*trained, *held]).sort().values.tolist() == list(range(70))
    last = settings.model_copy(update={"increment": 2})
    handed = rows_of(70, last)
    assert handed[-len(held[2]) :].tolist() == held[2].tolist()
    assert not set(handed.tolist()) & set(torch.cat(held[:2]).tolist())


def test_without_replay_a_stage_sees_its_own_increment_alone() -> None:
    settings = GrowCLIP.Settings(increments=(1, 1), replay=False, increment=1)
    assert rows_of(20, settings).min() >= 10


def test_each_candidate_is_tried_and_the_best_is_trained() -> None:
    settings = GrowCLIP.Settings(increments=(1, 1), grows=("image", "hidden"), budget=2.0, stage_steps=100)
    method = GrowCLIP(settings)
    finished = [record("increment-1")]
    names = []
    losses = {"none": 3.0, "image": 1.0, "hidden": 2.0}
    for loss in losses.values():
        stage = method.next_stage(finished)
        names.append(stage.name)
        assert stage.steps == 10
        assert stage.previous == "increment-1"
        finished.append(record(stage.name, 10, held_out_loss=loss))
    assert names == [f"increment-2-{name}" for name in losses]
    chosen = method.next_stage(finished)
    assert (chosen.name, chosen.steps, chosen.previous) == ("increment-2", 100, "increment-1")
    assert chosen.settings.architecture == {**ARCHITECTURE, "image": 4}
    assert method.next_stage([*finished, record("increment-2", image=4)]) is None


def test_every_candidate_of_an_increment_sees_the_same_batches() -> None:
    """Their losses after a few steps are compared: other batches would be other tasks."""

    def order(stage: int, increment: int) -> list[list[int]]:
        method = GrowCLIP(GrowCLIP.Settings(batch_size=4, increment=increment))
        method.held = 2
        batches = method.batches(Data({}, 30), 0, torch.Generator().manual_seed(stage))
        return [rows.tolist() for rows in batches]

    assert order(1, increment=1) == order(2, increment=1)
    assert order(1, increment=1) != order(1, increment=2)
    assert {row for rows in order(1, increment=1) for row in rows} == set(range(28))


@pytest.mark.parametrize("after", [6, 8, 11])
def test_stopped_while_growing_it_goes_on_to_the_same_bits(after: int, tmp_path: Path) -> None:
    """Steps 5 to 7 are trials of candidates, 8 to 11 the training of the best."""
    sample = tiny("growclip", tmp_path / "sample")
    method, encoder, data = opened("growclip", sample)
    settings = {"batch_size": 4, "log_every": 1, "precision": "fp32", **sample.settings}
    toy = Toy("growclip", method, lambda: data, lambda: encoder, settings)
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    with pytest.raises(Stopped):
        toy.fit(broken, reporter=signals(signal.SIGTERM, after=after))
    toy.fit(broken)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)


def test_a_grown_model_is_read_back_with_its_architecture(tmp_path: Path) -> None:
    sample = tiny("growclip", tmp_path)
    settings = {**sample.settings, "grows": "image", "budget": 4.0}
    run = contrapose.train(
        "growclip", sample.data, encoder="growing", out=tmp_path / "run", progress=False, settings=settings
    )
    kept = contrapose.load(run.path)
    texts = [row["text"] for row in sample.data]
    assert kept.encode(texts, encoder="text", progress=False).shape == (len(texts), 128)
    assert kept.encoder("image").record() == run.model.encoder("image").record()
    assert len(kept.encoder("image").tower.blocks) == kept.encoder("image").record()["image"]


def test_a_pair_that_cannot_grow_is_refused(tmp_path: Path) -> None:
    sample = tiny("clip", tmp_path)
    with pytest.raises(UsageInvalid, match="give --encoder growing"):
        contrapose.train("growclip", sample.data, encoder=sample.encoder, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"grows": "image", "budget": 1.2, "increments": "1,1"},
        # the first step takes 1.123 times the parameters, the second 1.137
        {"grows": "hidden", "budget": 1.13, "increments": "1,1,1"},
    ],
)
def test_a_budget_that_leaves_nothing_to_grow_is_refused_before_training(settings: dict, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureInvalid, match="leaves nothing to grow"):
        contrapose.train(
            "growclip", pictures(40), encoder="growing", out=tmp_path / "run", progress=False, settings=settings
        )
    assert not (tmp_path / "run").exists()


def test_an_increment_that_there_is_not_is_refused() -> None:
    with pytest.raises(SettingInvalid, match="increment is 2 of 2, counted from 0"):
        parse_settings(GrowCLIP.Settings, {"increments": "1,1", "increment": "2"}, owner="growclip")


def test_an_increment_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="increment 1 trains on 0"):
        contrapose.train(
            "growclip",
            pictures(12),
            encoder="growing",
            out=tmp_path / "run",
            progress=False,
            settings={"increments": "1,20"},
        )
    assert not (tmp_path / "run").exists()
