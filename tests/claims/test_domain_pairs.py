"""The tasks that the claim about domains stands on."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from contrapose.claims._domain_pairs import (
    MISROUTED,
    WORDNET_SISTERS,
    ConflictTask,
    words_through_blocks,
)
from contrapose.claims.claim import Experiment
from contrapose.claims.moe_embeddings import claim
from contrapose.claims.progress import TrialBar
from contrapose.claims.trials import Trials


@pytest.fixture(scope="module")
def task() -> ConflictTask:
    return ConflictTask(Path("unread"), partial(words_through_blocks, dim=8), pairs=96, words=3)


def attribute(text: str, kind: str) -> int:
    """The topic ("t") or the style ("s") that a text's words spell."""
    (value,) = {word[1:].partition("w")[0] for word in text.split() if word.startswith(kind)}
    return int(value)


def test_pairs_agree_on_the_attribute_of_their_domain_and_on_no_other(task: ConflictTask) -> None:
    agree = {"topic": [], "style": []}
    for anchor, positive, domain in zip(*(task.table[name] for name in ("anchor", "positive", "domain")), strict=True):
        kind, other = ("t", "s") if domain == "topic" else ("s", "t")
        assert attribute(anchor, kind) == attribute(positive, kind)
        agree[domain].append(attribute(anchor, other) == attribute(positive, other))
    assert max(np.mean(each) for each in agree.values()) < 0.3


def test_pairs_that_do_not_belong_together_differ_in_it(task: ConflictTask) -> None:
    table = task.held_out["test"]
    for anchor, positive, domain, label in zip(
        *(table[name] for name in ("anchor", "positive", "domain", "label")), strict=True
    ):
        kind = "t" if domain == "topic" else "s"
        assert (attribute(anchor, kind) == attribute(positive, kind)) == bool(label)


def test_every_arm_of_the_claim_trains_and_is_measured(task: ConflictTask, tmp_path: Path) -> None:
    settings = {**claim.experiments[0].settings, "steps": 3, "batch_size": 16}
    experiment = Experiment("toy", "", lambda folder: task, settings, {"learning_rate": (0.01,)}, 0.1, 1)
    found = {}
    with TrialBar(3, 3.0, shown=False) as bar:
        trials = Trials(experiment, task, tmp_path, bar)
        for arm in claim.arms:
            found[arm.name] = trials.figures(arm, {"learning_rate": 0.01}, 0, "test")
    assert all(set(figures) >= {measure.name for measure in claim.measures} for figures in found.values())
    shared = found["one shared encoder"]
    assert shared[MISROUTED.name] == pytest.approx(shared["roc auc"])  # nothing is routed
    assert found["experts in all blocks"][MISROUTED.name] != found["experts in all blocks"]["roc auc"]
    assert all(set(figures) == set(shared) - {"seconds"} for figures in task.controls("test").values())


def test_the_repositorys_definitions_stand_in_one_split_alone() -> None:
    texts = {}
    for name in WORDNET_SISTERS.files:
        with gzip.open(WORDNET_SISTERS.find() / name, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        texts[name] = {row[side] for row in rows for side in ("anchor", "positive")}
        labels = [row["label"] for row in rows]
        assert set(labels) == {1} if name.startswith("train") else labels.count(0) == labels.count(1)
    train, dev, test = texts.values()
    shared = [len(train & dev), len(train & test), len(dev & test)]
    assert max(shared) <= 5  # synsets of two files that are defined by the same words
