"""The tasks that the claim about several modalities stands on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contrapose.claims._triples import ACCURACY, ACCURACY_AT_10, EmojiTask, SumTask, XorTask, codes, pictures
from contrapose.claims.claim import Experiment
from contrapose.claims.progress import TrialBar
from contrapose.claims.symile import claim
from contrapose.claims.trials import Trials
from contrapose.multimodal.symile import Symile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Spectrograms of thirty sounds, which say their digit by one bright place."""
    digit = np.tile(np.arange(10), 3)
    sound = np.zeros((30, 16, 16), np.uint8)
    sound[np.arange(30), digit, 0] = 255
    np.savez(tmp_path / "digits.npz", sound=sound, digit=digit, split=np.repeat(["train", "dev", "test"], 10))
    return tmp_path


@pytest.fixture
def emoji(tmp_path: Path) -> Path:
    """Sixty pictures of a red line across and a green one down: the drawing has the first, and the words tell the second."""
    row, column = np.divmod(np.arange(60), 6)
    picture, drawing = np.zeros((60, 16, 16, 3), np.uint8), np.zeros((60, 16, 16), np.uint8)
    picture[np.arange(60), row, :, 0] = 255
    picture[np.arange(60), :, column, 1] = 255
    drawing[np.arange(60), row] = 255
    np.savez(tmp_path / "pictures.npz", picture=picture, drawing=drawing)
    lines = [
        f"1f{number:03x},column {'abcdef'[place] * 2},{'seldom' if number == 0 else 'thing'}; often,train"
        if number % 5 < 3
        else f"1f{number:03x},column {'abcdef'[place] * 2},unseen,{'dev' if number % 5 == 3 else 'test'}"
        for number, place in enumerate(column)
    ]
    (tmp_path / "words.csv").write_text("\n".join(["codepoints,name,keywords,split", *lines]) + "\n")
    return tmp_path


def test_c_is_the_exclusive_or_in_the_share_of_rows_and_a_in_the_others() -> None:
    for share, equal in ((1.0, 0.5), (0.0, 1.0), (0.5, 0.75)):
        rows = XorTask(Path("unread"), share, train=4000, held_out=20).rows["train"]
        a, b, c = (rows[name][:, 0].astype(int) for name in "abc")
        assert (c == (a ^ b)).mean() == pytest.approx((1 + share) / 2, abs=0.03)
        assert (c == a).mean() == pytest.approx(equal, abs=0.03)


def test_values_are_left_out_of_the_training_rows_alone() -> None:
    task = XorTask(Path("unread"), 1.0, missing=0.3, train=2000, held_out=50)
    assert np.isnan(task.rows["train"]["b"]).mean() == pytest.approx(0.3, abs=0.04)
    assert not np.isnan(task.rows["test"]["b"]).any()
    assert task.create(Symile, Symile.Settings()).encoder["b"].takes_missing


@pytest.mark.parametrize("first", ["picture", "sound"])
def test_the_third_modality_is_the_last_digit_of_the_sum(first: str, folder: Path) -> None:
    task = SumTask(folder, first, train=50, held_out=20, hidden=4)
    known = {image.tobytes(): digit for split in pictures().values() for image, digit in zip(*split, strict=True)}
    for split in ("train", "dev", "test"):
        rows = task.rows[split]
        left = (
            rows["sound"].reshape(len(rows["sound"]), 16, 16)[:, :, 0].argmax(axis=1)
            if first == "sound"
            else [known[image.tobytes()] for image in rows["picture"]]
        )
        right = [known[image.tobytes()] for image in rows["other picture"]]
        assert codes(rows["sum"]).tolist() == [(int(x) + int(y)) % 10 for x, y in zip(left, right, strict=True)]


def test_no_picture_stands_in_two_splits() -> None:
    seen = [{image.tobytes() for image in images} for images, _ in pictures().values()]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_a_trial_measures_what_the_claim_decides_beside_the_controls(folder: Path, tmp_path: Path) -> None:
    task = SumTask(folder, "sound", train=60, held_out=30, hidden=4)
    experiment = Experiment("toy", "", lambda _: task, {"batch_size": 20, "steps": 2}, {"learning_rate": (0.01,)}, 0.1)
    with TrialBar(2, 1.0, shown=False) as bar:
        trials = Trials(experiment, task, tmp_path, bar)
        for arm in claim.arms:
            assert 0 <= trials.figures(arm, {"learning_rate": 0.01}, 0, "test")[ACCURACY.name] <= 1
        assert 0 <= trials.untrained(claim.arms[0], 0, "test")[ACCURACY.name] <= 1
    assert set(task.controls("test")) == {"commonest value", "logistic regression"}
    assert XorTask(folder, 0.5, train=40, held_out=20).controls("test")["best possible"] == {"accuracy": 0.75}


def test_words_are_those_of_two_training_rows_or_more(emoji: Path) -> None:
    rows = EmojiTask(emoji, hidden=4).rows
    # aa to ff, column, often, thing; not "seldom", of one row, nor "unseen", of none
    assert rows["train"]["words"].shape == (36, 9)
    np.testing.assert_allclose(np.linalg.norm(rows["test"]["words"], axis=1), 1, rtol=1e-6)


def test_emoji_stand_in_their_split_with_picture_drawing_and_words_in_one_row(emoji: Path) -> None:
    rows = EmojiTask(emoji, hidden=4).rows
    assert {split: len(columns["picture"]) for split, columns in rows.items()} == {"train": 36, "dev": 12, "test": 12}
    for number, columns in ((3, rows["dev"]), (4, rows["test"])):
        row, column = divmod(number, 6)
        assert columns["picture"][0, row, :, 0].tolist() == columns["picture"][0, :, column, 1].tolist() == [1] * 16
        assert columns["drawing"][0, row].tolist() == [1] * 16
    assert (rows["dev"]["words"][0] > 0).sum() == 2  # its column, and the word "column"


def test_an_emoji_trial_finds_pictures_among_those_of_the_split(emoji: Path, tmp_path: Path) -> None:
    task = EmojiTask(emoji, hidden=16)
    experiment = Experiment("toy", "", lambda _: task, {"batch_size": 36, "steps": 60, "precision": "fp32"}, {}, 0.1)
    with TrialBar(2, 1.0, shown=False) as bar:
        trials = Trials(experiment, task, tmp_path / "trials", bar)
        for arm in claim.arms:
            found = trials.figures(arm, {"learning_rate": 0.01}, 0, "test")
            assert found[ACCURACY.name] > 1 / 12
            assert found[ACCURACY.name] <= found[ACCURACY_AT_10.name] <= 1
    controls = task.controls("test")
    assert controls["chance"] == {ACCURACY.name: 1 / 12, ACCURACY_AT_10.name: 10 / 12}
    assert controls["ridge regression"][ACCURACY.name] > 3 / 12


def test_each_measure_of_an_experiment_is_a_measure_of_the_claim(emoji: Path) -> None:
    assert set(EmojiTask(emoji, hidden=4).controls("dev")["chance"]) == {measure.name for measure in claim.measures}
