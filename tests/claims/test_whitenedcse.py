"""The task of WhitenedCSE's claim: what it measures beside Spearman."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from contrapose.claims._sentences import words_and_length
from contrapose.claims.whitenedcse import SpreadTask, claim
from contrapose.geometry import alignment, uniformity
from contrapose.text.simcse import SimCSE


@pytest.fixture(scope="module")
def task(pairs_folder: Path) -> SpreadTask:
    return SpreadTask(pairs_folder, partial(words_and_length, dim=8))


def test_model_and_controls_have_every_measure(task: SpreadTask) -> None:
    names = {measure.name for measure in claim.measures}
    assert names <= set(task.measure(task.create(SimCSE, SimCSE.Settings()), "test"))
    assert all(names <= set(figures) for figures in task.controls("test").values())


def test_alignment_is_of_pairs_rated_alike_and_uniformity_of_every_sentence_once(task: SpreadTask) -> None:
    model = task.create(SimCSE, SimCSE.Settings())
    found, pairs = task.measure(model, "dev"), task.pairs["dev"]
    alike = pairs.gold >= 4
    first, second = (torch.from_numpy(model.encoder.encode(side)) for side in (pairs.first, pairs.second))
    assert found["alignment"] == pytest.approx(alignment(first[alike], second[alike]), rel=1e-5)
    every = torch.from_numpy(model.encoder.encode(sorted({*pairs.first, *pairs.second})))
    assert found["uniformity"] == pytest.approx(uniformity(every), rel=1e-5)
