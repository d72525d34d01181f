"""A claim from its data to its verdicts, through the real loop; stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contrapose.claims.claim import Claim
from contrapose.claims.reproduce import best, check, goodness_of
from contrapose.claims.result import ClaimResult
from contrapose.claims.verdict import decide, over_seeds
from contrapose.errors import ClaimFolderTaken, DataDamaged, UsageInvalid
from contrapose.training.interrupts import Stopped
from tests.claims.conftest import write_pairs


@pytest.fixture(scope="module")
def folder(toy: Claim, pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("claims") / "toy"
    check(toy, out=out, data=pairs_folder, progress=False)
    return out


@pytest.fixture(scope="module")
def result(folder: Path) -> ClaimResult:
    return ClaimResult.open(folder / "result.json")


def measured(result: ClaimResult) -> dict[str, Any]:
    """What must not depend on when and how often one was interrupted."""
    return {
        arm: {part: found[part] for part in ("tuning", "chosen", "settings", "test")}
        for arm, found in result.experiments[0]["arms"].items()
    }


def test_every_arm_has_every_seed_and_the_controls_stand_beside(result: ClaimResult, toy: Claim) -> None:
    (experiment,) = result.experiments
    measures = [measure.name for measure in toy.measures]
    for arm in experiment["arms"].values():
        assert [list(figures) for figures in arm["test"]] == [measures] * 3
        assert [len(point["dev"]) for point in arm["tuning"]] == [2, 2]
    assert {name: len(seeds) for name, seeds in experiment["controls"].items()} == {
        "untrained": 3,
        "TF-IDF, words": 1,
        "TF-IDF, characters": 1,
    }


def test_arms_share_all_settings_but_their_own(result: ClaimResult) -> None:
    arms = result.experiments[0]["arms"]
    simcse, esimcse = (arms[name]["settings"] for name in ("SimCSE", "ESimCSE"))
    shared = (simcse.keys() & esimcse.keys()) - {"learning_rate"}
    assert {name: simcse[name] for name in shared} == {name: esimcse[name] for name in shared}
    assert (simcse["batch_size"], simcse["steps"], esimcse["queue_size"]) == (16, 4, 8)


def test_the_grid_is_chosen_on_the_development_split(result: ClaimResult) -> None:
    for arm in result.experiments[0]["arms"].values():
        means = {
            point["settings"]["learning_rate"]: sum(figures["spearman"] for figures in point["dev"]) / 2
            for point in arm["tuning"]
        }
        assert arm["chosen"] == {"learning_rate": max(means, key=means.get)}
        assert arm["settings"]["learning_rate"] == arm["chosen"]["learning_rate"]


@pytest.mark.parametrize(("better", "chosen"), [("larger", "c"), ("smaller", "a"), ("nearer 0", "b")])
def test_the_best_point_is_best_in_the_measures_own_sense(toy: Claim, better: str, chosen: str) -> None:
    measure = replace(toy.measures[0], better=better)
    tuning = [
        {"settings": {"name": name}, "dev": [{"spearman": value - 0.1}, {"spearman": value + 0.1}]}
        for name, value in {"a": -0.9, "b": 0.05, "c": 0.8}.items()
    ]
    assert best(tuning, partial(goodness_of, measure)) == {"name": chosen}


def test_verdicts_are_of_the_paired_test_figures(result: ClaimResult) -> None:
    arms = result.experiments[0]["arms"]
    better, unbiased = result.verdicts
    for verdict, sign in ((better, 1), (unbiased, -1)):
        gains = [
            sign * (abs(ours[verdict["measure"]]) - abs(theirs[verdict["measure"]])) if sign < 0
            else ours[verdict["measure"]] - theirs[verdict["measure"]]
            for ours, theirs in zip(arms["ESimCSE"]["test"], arms["SimCSE"]["test"], strict=True)
        ]  # fmt: skip
        assert verdict["gains"] == pytest.approx(gains)
        assert tuple(verdict["gain"].values()) == pytest.approx(tuple(over_seeds(gains)))
        assert verdict["verdict"] == decide(over_seeds(gains), verdict["least"])


def test_training_moves_the_figures(result: ClaimResult) -> None:
    (experiment,) = result.experiments
    for arm in experiment["arms"].values():
        assert arm["test"] != experiment["controls"]["untrained"]


def test_no_weights_are_left_behind(folder: Path) -> None:
    assert list(folder.rglob("*.safetensors")) == []
    assert list(folder.rglob("*.writing")) == []


def test_a_second_call_trains_nothing_and_says_the_same(
    toy: Claim, pairs_folder: Path, folder: Path, result: ClaimResult
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*.json*")}
    again = check(toy, out=folder, data=pairs_folder, progress=False)
    assert measured(again) == measured(result)
    assert {path: path.stat().st_mtime_ns for path in (folder / "trials").rglob("*.json*")} == before


def test_more_seeds_keep_those_that_are_there(
    toy: Claim, pairs_folder: Path, folder: Path, result: ClaimResult, tmp_path: Path
) -> None:
    more = check(toy, seeds=4, out=folder, data=pairs_folder, progress=False)
    for arm, found in measured(more).items():
        assert found["test"][:3] == measured(result)[arm]["test"]
        assert len(found["test"]) == 4


def test_stopped_at_any_training_it_goes_on_to_the_same_result(
    toy: Claim, pairs_folder: Path, result: ClaimResult, tmp_path: Path
) -> None:
    """Signals as a training begins, as its finished model is read, twice in a row, and as the next begins: each stops, and nothing is lost."""
    (experiment,) = toy.experiments
    made = 0

    def interrupted(folder: Path) -> Any:
        task = experiment.task(folder)
        create = task.create

        def create_and_interrupt(*words: Any) -> Any:
            nonlocal made
            made += 1
            if made in (1, 3, 4, 6):
                os.kill(os.getpid(), signal.SIGINT)
            return create(*words)

        task.create = create_and_interrupt
        return task

    claim = replace(toy, experiments=(replace(experiment, task=interrupted),))
    for _ in range(4):
        with pytest.raises(Stopped):
            check(claim, out=tmp_path / "out", data=pairs_folder, progress=False)
        assert not (tmp_path / "out" / "result.json").exists()
    assert list((tmp_path / "out").rglob("*.safetensors"))
    assert measured(check(claim, out=tmp_path / "out", data=pairs_folder, progress=False)) == measured(result)


def test_another_setting_meets_no_old_trial(toy: Claim, pairs_folder: Path, folder: Path, result: ClaimResult) -> None:
    (experiment,) = toy.experiments
    longer = replace(toy, experiments=(replace(experiment, settings={**experiment.settings, "steps": 5}),))
    assert measured(check(longer, out=folder, data=pairs_folder, progress=False)) != measured(result)


def test_other_data_meet_no_old_trial(toy: Claim, folder: Path, result: ClaimResult, tmp_path: Path) -> None:
    other = check(toy, out=folder, data=write_pairs(tmp_path / "other", rows=41), progress=False)
    assert measured(other) != measured(result)


def test_bad_data_are_refused_before_anything_is_written(toy: Claim, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "data")
    (data / "test.jsonl.gz").write_bytes((data / "test.jsonl.gz").read_bytes()[:-30])
    with pytest.raises(DataDamaged, match=r"test\.jsonl\.gz"):
        check(toy, out=tmp_path / "out", data=data, progress=False)
    assert not (tmp_path / "out").exists()


def test_two_seeds_are_too_few(toy: Claim, pairs_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageInvalid, match="3 or more"):
        check(toy, seeds=2, out=tmp_path / "out", data=pairs_folder)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(toy: Claim, pairs_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ClaimFolderTaken):
        check(toy, out=tmp_path, data=pairs_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_result_repeats_the_claim_from_itself(result: ClaimResult) -> None:
    record = json.loads(result.to_json())
    assert record["seeds"] == [0, 1, 2]
    assert record["command"] == "contrapose reproduce esimcse --seeds 3"
    assert record["versions"]["torch"]
    assert record["experiments"][0]["task"]["files"].keys() == {"train.jsonl.gz", "dev.jsonl.gz", "test.jsonl.gz"}
