"""Labelled rows are divided without a row on both sides, and what cannot be probed is refused with its place."""

from __future__ import annotations

import numpy as np
import pytest

from contrapose.errors import ProtocolDataInvalid
from contrapose.evaluation.labelled import Labelled, divide, in_folds, together


def divided(labels: list, split: list | None = None, **more: object) -> Labelled:
    return divide(labels, split, source="labelled.csv", where=lambda row: f"labelled.csv, line {row + 2}", **more)


LABELS = ["a"] * 40 + ["b"] * 20 + ["c"] * 8


def test_a_column_says_who_is_tested():
    rows = divided(["a", "b", "a", "b"], ["train", "train", " test", "test"])
    assert (rows.train.tolist(), rows.test.tolist()) == ([0, 1], [2, 3])
    assert (rows.known.tolist(), rows.truth.tolist()) == (["a", "b"], ["a", "b"])
    assert rows.how == "by the column `split`"


def test_test_rows_that_stand_in_training_are_counted():
    texts = ["x", "y", "x", "z"]
    assert "(1 test rows equal" in divided(["a", "b"] * 2, ["train"] * 2 + ["test"] * 2, groups=[texts]).how


def test_a_quarter_of_each_label_is_drawn():
    rows = divided(LABELS)
    assert {label: rows.truth.tolist().count(label) for label in "abc"} == {"a": 10, "b": 5, "c": 2}
    assert sorted([*rows.train, *rows.test]) == list(range(68))
    assert "seed 0" in rows.how


def test_the_draw_is_the_seeds():
    assert divided(LABELS).test.tolist() == divided(LABELS).test.tolist()
    assert divided(LABELS).test.tolist() != divided(LABELS, seed=1).test.tolist()


def test_a_label_with_fewer_than_four_rows_is_for_training_alone():
    assert "rare" not in divided([*LABELS, *["rare"] * 3]).truth


def test_equal_rows_stand_on_one_side():
    keys = [row // 4 for row in range(68)]
    rows = divided(LABELS, groups=[keys])
    assert not {keys[row] for row in rows.train} & {keys[row] for row in rows.test}
    assert len(rows.test)


def test_rows_joined_by_a_chain_are_together():
    texts, groups = ["x", "x", "y", "z", None, None], [1, 2, 2, 3, 4, 5]
    numbers = together([texts, groups], 6)
    assert numbers[0] == numbers[1] == numbers[2]
    assert len(set(numbers.tolist())) == 4
    assert len(set(together([], 3).tolist())) == 3


def test_labels_of_any_kind_are_compared_as_text():
    assert divided([1, 2, 1, 2], ["train", "train", "test", "test"]).truth.tolist() == ["1", "2"]


REFUSED = {
    "another word": (
        ["a", "b"] * 3,
        ["train", "train", "test", "dev", "test", "test"],
        ["line 5", "'dev'", "'train' or 'test'"],
    ),
    "no test rows": (["a", "b"] * 3, ["train"] * 6, ["labelled.csv", "0 of 6", "'test'"]),
    "one test row": (["a", "b"] * 3, ["train"] * 5 + ["test"], ["1 of 6", "'test'"]),
    "no training rows": (["a", "b"] * 3, ["test"] * 6, ["0 of 6", "'train'"]),
    "one label": (["a"] * 30, None, ["all 23 training rows", "'a'"]),
    "one label in training": (["a", "a", "a", "b"], ["train"] * 2 + ["test"] * 2, ["all 2 training rows", "'a'"]),
    "a label in the test alone": (["a", "b", "c", "c"], ["train"] * 2 + ["test"] * 2, ["line 4", "'c'", "2 such"]),
    "too few rows to divide": (["a", "b"] * 3, None, ["0 of 6", "'test'"]),
}


@pytest.mark.parametrize(("labels", "split", "named"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_probed_is_refused(labels, split, named):
    with pytest.raises(ProtocolDataInvalid) as refused:
        divided(labels, split)
    for word in named:
        assert word in str(refused.value)


def test_a_label_with_fewer_training_rows_than_the_probe_needs_is_refused_with_its_place():
    labels, split = ["a", "a", "b", "a", "a"], ["train"] * 3 + ["test"] * 2
    assert divided(labels, split).known.tolist() == ["a", "a", "b"]
    with pytest.raises(ProtocolDataInvalid, match=r"line 4: label 'b' has 1 training row, .*needs 2"):
        divided(labels, split, least=2)


def test_the_sides_are_arrays_of_row_numbers():
    rows = divided(LABELS)
    assert rows.train.dtype.kind == rows.test.dtype.kind == "i"
    assert isinstance(rows.labels, np.ndarray)


# --------------------------------------------------------------------------------------------------------------- folds


def folded(labels: list, **more: object) -> list[Labelled]:
    return in_folds(labels, source="labelled.csv", where=lambda row: f"labelled.csv, line {row + 2}", **more)


def test_every_row_is_tested_once_and_never_learnt_from_then():
    parts = folded(LABELS)
    assert sorted(np.concatenate([part.test for part in parts]).tolist()) == list(range(68))
    assert all(sorted([*part.train, *part.test]) == list(range(68)) for part in parts)
    assert parts[0].how == "into 10 folds, each label alike (seed 0), equal rows in one fold"


def test_every_fold_has_as_much_of_each_label_as_can_be():
    for part in folded(LABELS, folds=4):
        assert {label: part.truth.tolist().count(label) for label in "abc"} == {"a": 10, "b": 5, "c": 2}
    assert {len(part.test) for part in folded(LABELS)} == {6, 7}


def test_equal_rows_stand_in_one_fold():
    keys = [row // 3 for row in range(68)]
    for part in folded(LABELS, groups=[keys]):
        assert not {keys[row] for row in part.train} & {keys[row] for row in part.test}


def test_the_folds_are_the_seeds():
    first, again, other = (folded(LABELS, seed=seed)[0].test.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_a_label_too_rare_for_folds_is_refused_with_its_row():
    with pytest.raises(ProtocolDataInvalid, match=r"line 70: no training row has the label 'rare'"):
        folded([*LABELS, "rare"])
    with pytest.raises(ProtocolDataInvalid, match="label 'rare' has 1 training row"):
        folded([*LABELS, "rare", "rare"], least=2)
