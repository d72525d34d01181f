"""Mistakes with time series, through the real command: one line, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_bad_input import Command, nothing_written, refused

ROWS = [f"{name},{step},{step * 0.5}" for name in ("a", "b") for step in range(1, 7)]
CASES = {
    "a missing value": ({4: "a,4,"}, [], ["series 'a'", "'load' has no value at step 3", "encoder.missing=mask", "CL-DATA-090"]),
    "times that go back": ({4: "a,2,1"}, [], ["sensors.csv, line 5", "'time' is 2 after 3", "CL-DATA-091"]),
    "no negatives": ({}, ["--set", "batch_size=1"], ["batch_size is 1", "CL-TRAIN-002"]),
    "a bias at its end": ({}, ["--set", "gumbel_bias=0.5"], ["'gumbel_bias'", "less than 0.5", "CL-SET-003"]),
    "forecasts of a short series": ({}, ["--on", "forecast=sensors.csv"], ["series 'a'", "3, 1 and 2 steps", "CL-EVAL-090"]),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "words", "named"), CASES.values(), ids=CASES)
def test_a_mistake(
    contrapose: Command, tmp_path: Path, changed: dict[int, str], words: list[str], named: list[str]
) -> None:
    lines = ["series_id,time,load", *ROWS]
    for number, line in changed.items():
        lines[number] = line
    (tmp_path / "sensors.csv").write_text("\n".join(lines), encoding="utf-8")
    small = [f"--set=encoder.{name}" for name in ("hidden=4", "dim=4", "depth=1", "kernels=1,2")]
    with nothing_written(tmp_path):
        done = contrapose(
            "train", "autotcl", "--data", "sensors.csv", *small, *words, "--out", tmp_path / "run", cwd=tmp_path
        )
        refused(done, *named)
