"""The tasks of AutoTCL's claim: splits, figures and controls; and which experiments are run with which data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contrapose.claims._series import ERROR, ETTH1, UCR, ForecastTask, LabelsTask
from contrapose.claims.autotcl import claim
from contrapose.errors import ClaimDataMissing
from contrapose.series.autotcl import AutoTCL
from contrapose.series.series_info_nce import SeriesInfoNCE


@pytest.fixture(scope="module")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as ETTh1's, with as many rows and fewer columns."""
    import gzip

    folder = tmp_path_factory.mktemp("ett")
    values = np.sin(np.arange(14_400) * 2 * np.pi / 24) + np.random.default_rng(0).normal(size=14_400)
    lines = "\n".join(["date,HUFL,OT", *(f"{hour},0,{value:.3f}" for hour, value in enumerate(values))])
    (folder / ETTH1.files[0]).write_bytes(gzip.compress(lines.encode()))
    return folder


def test_labels_are_told_from_test_series_that_nothing_learned_from() -> None:
    task = LabelsTask(UCR.find(), "GunPoint")
    assert (len(task.table), len(task.test)) == (50, 150)
    model = task.create(AutoTCL, AutoTCL.Settings(average=False))
    figures = [task.measure(model, split)[ERROR.name] for split in ("dev", "test")]
    assert all(0 <= figure <= 0.6 for figure in figures)
    nearest = task.controls("test")["1-NN, raw values"][ERROR.name]
    assert nearest == pytest.approx(1 - 0.913, abs=0.001)  # as everyone finds it
    assert len(task.data(SeriesInfoNCE)) == 50


def test_forecasts_learn_from_the_first_twelve_months(hourly: Path) -> None:
    task = ForecastTask(hourly)
    assert len(task.table.series[0]) == 8640
    assert [part.stop for part in task.forecasts["dev"].parts[0]] == [6912, 8640, 11520]
    assert [part.stop for part in task.forecasts["test"].parts[0]] == [8640, 11520, 14400]
    assert task.data(AutoTCL).columns["series"].longest <= 257
    assert len(task.data(AutoTCL)) == 34


def test_the_forecasts_are_left_out_where_their_data_are_not_given(hourly: Path, tmp_path: Path) -> None:
    names = [experiment.name for experiment in claim.experiments]
    assert [experiment.name for experiment, _ in claim.find(None)] == names[:-1]
    placed = claim.find(hourly)
    assert [experiment.name for experiment, _ in placed] == names
    assert placed[-1][1] == hourly
    assert placed[0][1] == UCR.find()
    with pytest.raises(ClaimDataMissing, match=r"GunPoint\.npz"):
        claim.find(tmp_path)
