"""Handwritten digits, and what every task of images has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contrapose.claims import cacr
from contrapose.claims._digits import DIGITS, digits
from contrapose.claims._images import ImageTask
from contrapose.image.simclr import SimCLR


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ImageTask:
    return ImageTask(tmp_path_factory.mktemp("unread"), digits)


def test_every_image_stands_in_one_split_with_its_share_of_each_digit(task: ImageTask) -> None:
    rows = np.concatenate(list(task.rows.values()))
    assert {split: len(each) for split, each in task.rows.items()} == {"train": 1200, "dev": 297, "test": 300}
    assert sorted(rows) == list(range(1797))
    for split in ("dev", "test"):
        assert np.bincount(task.labels[task.rows[split]]).min() >= 28


def test_the_split_is_always_the_same(task: ImageTask, tmp_path: Path) -> None:
    other = ImageTask(tmp_path, digits)
    assert all((task.rows[split] == other.rows[split]).all() for split in task.rows)


def test_rare_digits_are_rare_for_the_method_alone(tmp_path: Path) -> None:
    rare = ImageTask(tmp_path, digits, keep=cacr.IMBALANCED)
    assert rare.facts()["learned from"] == cacr.IMBALANCED
    assert set(rare.learned) < set(rare.rows["train"])
    assert len(rare.data(SimCLR)) == sum(cacr.IMBALANCED)


def test_nothing_is_read_from_a_folder(tmp_path: Path) -> None:
    assert DIGITS.find(tmp_path / "nowhere") == tmp_path / "nowhere"
    assert DIGITS.find() is not None


def test_networks_of_equal_seeds_are_equal(task: ImageTask) -> None:
    one, same, other = (task.create(SimCLR, SimCLR.Settings(seed=seed)).encoder for seed in (3, 3, 4))
    vectors = [encoder.encode(task.images[:4]) for encoder in (one, same, other)]
    assert (vectors[0] == vectors[1]).all()
    assert not (vectors[0] == vectors[2]).all()
