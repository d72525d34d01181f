"""What the claims about images stand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contrapose.claims import cacr, directpred
from contrapose.claims._digits import DIGITS, DigitsTask
from contrapose.claims.claim import Claim, Experiment
from contrapose.claims.progress import TrialBar
from contrapose.claims.trials import Trials
from contrapose.image.simclr import SimCLR


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> DigitsTask:
    return DigitsTask(tmp_path_factory.mktemp("unread"))


def test_every_image_stands_in_one_split_with_its_share_of_each_digit(task: DigitsTask) -> None:
    rows = np.concatenate(list(task.rows.values()))
    assert {split: len(each) for split, each in task.rows.items()} == {"train": 1200, "dev": 297, "test": 300}
    assert sorted(rows) == list(range(1797))
    for split in ("dev", "test"):
        assert np.bincount(task.labels[task.rows[split]]).min() >= 28


def test_the_split_is_always_the_same(task: DigitsTask, tmp_path: Path) -> None:
    other = DigitsTask(tmp_path)
    assert all((task.rows[split] == other.rows[split]).all() for split in task.rows)


def test_rare_digits_are_rare_for_the_method_alone(tmp_path: Path) -> None:
    rare = DigitsTask(tmp_path, keep=cacr.IMBALANCED)
    assert rare.facts()["learned from"] == cacr.IMBALANCED
    assert set(rare.learned) < set(rare.rows["train"])
    assert len(rare.data(SimCLR)) == sum(cacr.IMBALANCED)


def test_nothing_is_read_from_a_folder(tmp_path: Path) -> None:
    assert DIGITS.find(tmp_path / "nowhere") == tmp_path / "nowhere"
    assert DIGITS.find() is not None


def test_networks_of_equal_seeds_are_equal(task: DigitsTask) -> None:
    one, same, other = (task.create(SimCLR, SimCLR.Settings(seed=seed)).encoder for seed in (3, 3, 4))
    vectors = [encoder.encode(task.images[:4]) for encoder in (one, same, other)]
    assert (vectors[0] == vectors[1]).all()
    assert not (vectors[0] == vectors[2]).all()


@pytest.mark.parametrize("claim", [directpred.claim, cacr.claim], ids=lambda claim: claim.method)
def test_every_arm_trains_and_has_every_measure(claim: Claim, tmp_path: Path) -> None:
    names = {measure.name for measure in claim.measures}
    first = claim.experiments[0]
    task = first.task(tmp_path)
    settings = {**first.settings, "steps": 2, "batch_size": 16}
    experiment = Experiment("toy", "", lambda folder: task, settings, first.grid, 0.1, 1)
    with TrialBar(len(claim.arms), 1.0, shown=False) as bar:
        trials = Trials(experiment, task, tmp_path, bar)
        for arm in claim.arms:
            assert set(trials.figures(arm, experiment.points[0], 0, "test")) == names
    assert all(set(figures) == names for figures in task.controls("test").values())
