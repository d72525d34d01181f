"""Measures, grids and where data are found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from contrapose.claims.claim import Claim, Measure, Source
from contrapose.errors import ClaimDataMissing


@pytest.mark.parametrize(
    ("better", "gains"),
    [("larger", [0.25, -0.75, 0.5]), ("smaller", [-0.25, 0.75, -0.5]), ("nearer 0", [-0.25, 0.25, -0.5])],
)
def test_a_gain_is_above_0_where_the_arm_is_better(better: str, gains: list[float]) -> None:
    measure = Measure("figure", "", better)
    assert measure.gain([0.75, -0.25, 0.5], [0.5, 0.5, 0.0]).tolist() == gains


def test_a_grid_is_every_combination(toy: Claim) -> None:
    experiment = replace(toy.experiments[0], grid={"learning_rate": (1, 2), "epochs": (3, 4)})
    assert experiment.points == [
        {"learning_rate": 1, "epochs": 3},
        {"learning_rate": 1, "epochs": 4},
        {"learning_rate": 2, "epochs": 3},
        {"learning_rate": 2, "epochs": 4},
    ]


SOURCE = Source("things", ("a.csv", "b.csv"), "Things.", "CC0", "https://example.org/things")


def test_a_folder_that_was_given_is_taken(tmp_path: Path) -> None:
    for name in SOURCE.files:
        (tmp_path / name).touch()
    assert SOURCE.find(tmp_path) == tmp_path
    assert replace(SOURCE, in_repository=False).find(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("source", "given", "named"),
    [
        (SOURCE, True, ["has no b.csv", "--data"]),
        (SOURCE, False, ["benchmarks/data/things", "https://example.org/things", "--data"]),
        (
            replace(SOURCE, in_repository=False),
            False,
            ["not in the repository", "https://example.org/things", "--data"],
        ),
    ],
)
def test_missing_data_say_where_they_are_to_be_had(
    source: Source, given: bool, named: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(ClaimDataMissing) as refused:
        source.find(tmp_path if given else None)
    assert [word for word in named if word not in str(refused.value)] == []
