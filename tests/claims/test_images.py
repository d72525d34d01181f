"""What the claims about images stand on beside digits: drawings split by who drew them, photos of flowers, and every experiment's measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contrapose.claims import cacr, contrastive_loss_behaviour, directpred
from contrapose.claims._images import ImageTask
from contrapose.claims._omniglot import OMNIGLOT, omniglot, split_people
from contrapose.claims._photos import FLOWERS, flowers
from contrapose.claims.claim import Claim, Experiment
from contrapose.claims.progress import TrialBar
from contrapose.claims.trials import Trials
from contrapose.image.simclr import SimCLR

CASES = [
    pytest.param(each.claim, experiment, id=f"{each.claim.method}: {experiment.name}")
    for each in (cacr, directpred, contrastive_loss_behaviour)
    for experiment in each.claim.experiments
    if not experiment.name.startswith("rare")  # as the ones before them, with fewer to learn from
]


@pytest.fixture(scope="module")
def drawings() -> ImageTask:
    return ImageTask(OMNIGLOT.find(), omniglot)


@pytest.fixture(scope="module")
def photos() -> ImageTask:
    return ImageTask(FLOWERS.find(), flowers)


def test_every_character_has_14_drawings_to_learn_from_and_3_of_each_held_out_split(drawings: ImageTask) -> None:
    assert sorted(np.concatenate(list(drawings.rows.values()))) == list(range(2720))
    for split, drawn in {"train": 14, "dev": 3, "test": 3}.items():
        assert (np.bincount(drawings.labels[drawings.rows[split]], minlength=136) == drawn).all()


def test_nobody_who_drew_an_alphabet_stands_in_two_splits() -> None:
    alphabet, drawer = np.repeat([0, 1], 60), np.tile(np.arange(1, 21), 6)  # two alphabets of three characters
    rows = split_people(alphabet, drawer)
    for each in (0, 1):
        people = {split: set(drawer[found[alphabet[found] == each]].tolist()) for split, found in rows.items()}
        assert {split: len(some) for split, some in people.items()} == {"train": 14, "dev": 3, "test": 3}
        assert len(set.union(*people.values())) == 20


def test_ink_is_bright_on_black(drawings: ImageTask) -> None:
    assert np.median(drawings.images) == 0
    assert drawings.images.max() == 255


def test_rare_alphabets_have_so_many_people(drawings: ImageTask) -> None:
    rare = ImageTask(OMNIGLOT.find(), omniglot, keep=cacr.RARE)
    with np.load(OMNIGLOT.find() / OMNIGLOT.files[0], allow_pickle=False) as file:
        alphabet, drawer = file["alphabet"][rare.learned], file["drawer"][rare.learned]
    assert [len(np.unique(drawer[alphabet == each])) for each in range(5)] == cacr.PEOPLE
    assert set(rare.learned) < set(drawings.rows["train"])
    assert len(rare.data(SimCLR)) == sum(cacr.RARE)


def test_a_fifth_of_the_training_photos_of_each_flower_is_for_development(photos: ImageTask) -> None:
    counts = {split: np.bincount(photos.labels[rows]).tolist() for split, rows in photos.rows.items()}
    assert counts == {"train": [309, 262], "dev": [77, 65], "test": [98, 80]}
    assert len(np.unique(photos.images, axis=0)) == len(photos.images)


def test_every_photo_has_its_photographer() -> None:
    lines = (FLOWERS.find() / "ATTRIBUTION.tsv").read_text(encoding="utf-8").splitlines()
    with np.load(FLOWERS.find() / FLOWERS.files[0], allow_pickle=False) as file:
        assert {line.split("\t")[0] for line in lines if " by " in line} >= set(file["filename"].tolist())


@pytest.mark.parametrize(("claim", "first"), CASES)
def test_every_kind_of_arm_trains_and_has_every_measure(claim: Claim, first: Experiment, tmp_path: Path) -> None:
    names = {measure.name for measure in claim.measures}
    task = first.task((first.source or claim.source).find())
    experiment = replace(first, settings={**first.settings, "steps": 2, "batch_size": 16})
    arms = claim.arms if first is claim.experiments[0] else claim.arms[-1:]
    with TrialBar(len(arms), 1.0, shown=False) as bar:
        trials = Trials(experiment, task, tmp_path, bar)
        for arm in arms:
            assert set(trials.figures(arm, experiment.points[0], 0, "test")) == names
    assert all(set(figures) == names for figures in task.controls("test").values())
