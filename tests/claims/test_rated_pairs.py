"""The task that claims about scoring pairs share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from contrapose.claims._rated_pairs import RatedPairsTask
from contrapose.claims._sentences import words_and_length
from contrapose.claims.claim import Arm, Experiment
from contrapose.claims.dse import claim
from contrapose.claims.progress import TrialBar
from contrapose.claims.trials import Trials
from contrapose.evaluation.similarity import spearman
from contrapose.text.dse import DSE

SETTINGS = {"batch_size": 8, "steps": 2, "pooling": None, "hidden": 4, "precision": "fp32"}


@pytest.fixture(scope="module")
def task(pairs_folder: Path) -> RatedPairsTask:
    return RatedPairsTask(pairs_folder, partial(words_and_length, dim=8))


def test_unrated_pairs_are_as_many_new_and_made_of_training_sentences(task: RatedPairsTask) -> None:
    rows = list(zip(task.table["sentence1"], task.table["sentence2"], strict=True))
    rated, unrated = set(rows[: task.rated]), rows[task.rated :]
    assert list(task.table["labelled"]) == [1] * task.rated + [0] * len(unrated)
    assert task.rated - 2 <= len(unrated) <= task.rated
    for first, second in unrated:
        assert first != second
        assert not {(first, second), (second, first)} & rated
        assert {first, second} <= set(task.sentences)


def test_no_sentence_of_the_held_out_pairs_is_learned(task: RatedPairsTask) -> None:
    held_out = {text for pairs in task.pairs.values() for text in (*pairs.first, *pairs.second)}
    assert not held_out & set(task.sentences)


def test_the_nearest_sentence_is_another_one(task: RatedPairsTask) -> None:
    nearest = task.nearest()
    assert (nearest != range(len(task.sentences))).all()


def test_every_arm_of_the_claim_trains_and_is_measured(task: RatedPairsTask, tmp_path: Path) -> None:
    experiment = Experiment("toy", "", lambda folder: task, SETTINGS, {"learning_rate": (0.01,)}, 0.1, 1)
    with TrialBar(3, 3.0, shown=False) as bar:
        trials = Trials(experiment, task, tmp_path, bar)
        for arm in claim.arms:
            figures = trials.figures(arm, {"learning_rate": 0.01}, 0, "test")
            assert figures.keys() >= {measure.name for measure in claim.measures}
    assert set(trials.untrained(Arm("labels alone", "dse"), 0, "test")) == {measure.name for measure in claim.measures}


def test_figures_are_of_the_heads_scores(task: RatedPairsTask) -> None:
    torch.manual_seed(0)
    model = task.create(DSE, DSE.Settings(pooling=None, hidden=4))
    model.build(task.data(DSE).facts)
    pairs = task.pairs["dev"]
    scores = model.encoders()["encoder"].score_pairs(pairs.first, pairs.second)
    assert task.measure(model, "dev")["spearman"] == pytest.approx(spearman(scores, pairs.gold))
