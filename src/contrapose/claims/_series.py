"""What claims about time series stand on: labelled series to tell apart, an hourly series to forecast, and a small encoder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrapose.claims.claim import Figures, Measure, Source, Split
from contrapose.data.batches import Data
from contrapose.data.cache import file_digest
from contrapose.series._forecast import ETT, LAST, RAW, Forecast
from contrapose.series._probes import NEAREST, features, nearest_series, svm_probe
from contrapose.series._table import SeriesTable
from contrapose.series.data import open_data, read_data
from contrapose.series.encoder import SeriesEncoder, statistics
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

UCR = Source(
    "ucr_uea",
    ("GunPoint.npz", "ItalyPowerDemand.npz", "BasicMotions.npz", "ArrowHead.npz"),
    "Four sets of the UCR and UEA archives with their own division into training and test series.",
    "BSD 3-Clause (aeon's repository); the archives ask to be cited: Dau et al. 2019, Bagnall et al. 2018",
    "https://github.com/aeon-toolkit/aeon",
)
ETTH1 = Source(
    "ett_h1",
    ("ETTh1.csv.gz",),
    "Two years of an electricity transformer by the hour, its oil temperature: 8,640 / 2,880 / 2,880 steps.",
    "CC BY-ND 4.0 (Zhou et al., 2021): not in this repository",
    "https://github.com/zhouhaoyi/ETDataset",
    in_repository=False,
)
ERROR = Measure(
    "error",
    "Classification: share of test series that a support vector machine on frozen vectors labels wrong. Forecasts: mean squared error of ridge "
    "regressions from frozen representations, z-scored values, mean of 24 and 48 hours ahead.",
    "smaller",
)
SIZES = {"hidden": 16, "dim": 32, "depth": 4, "kernels": (1, 2, 4, 8, 16, 32)}
FOLDS = 5


class SeriesTask:
    """A training table and a fresh small encoder of it."""

    table: SeriesTable
    window: int

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.encoder())

    def encoder(self) -> SeriesEncoder:
        mean, deviation = statistics(self.table.series)
        return SeriesEncoder(
            self.table.channels, **SIZES, window=self.window, mean=mean, deviation=deviation, seed=None
        )

    @cached_property
    def _sample(self) -> SeriesEncoder:
        """An encoder to ask for windows and facts; never trained. The caller's random state is left alone."""
        with torch.random.fork_rng():
            return self.encoder()


class LabelsTask(SeriesTask):
    """Learn from the training series of a set without their labels; measure with them.

    The development figure is of the training series alone: each fold of five is labelled by a machine fitted on the others.
    """

    window = 256

    def __init__(self, folder: Path, name: str) -> None:
        self.file = folder / f"{name}.npz"
        table = read_data(self.file)
        side = np.array(list(table["split"]))
        self.table, self.test = table.take(np.flatnonzero(side == "train")), table.take(np.flatnonzero(side == "test"))

    def measure(self, model: Method, split: Split) -> Figures:
        encoder = next(iter(model.encoders().values()))
        train = encoder.encode(self.table.series)
        test = encoder.encode(self.test.series) if split == "test" else train
        return self._figures(train, test, split)

    def controls(self, split: Split) -> dict[str, Figures]:
        train, test = features(self.table.series, self.test.series)
        known, truth = np.array(list(self.table["label"])), np.array(list(self.test["label"]))
        nearest = {ERROR.name: float((nearest_series(train, test, known) != truth).mean())}
        return {NEAREST: nearest, "raw values": self._figures(train, test, "test")}

    def facts(self) -> dict[str, Any]:
        return {
            "files": {self.file.name: file_digest(self.file)},
            "series": {"train": len(self.table), "test": len(self.test)},
            "steps": len(self.table.series[0]),
            "encoder": self._sample.record(),
        }

    def _figures(self, train: np.ndarray, test: np.ndarray, split: Split) -> Figures:
        known = np.array(list(self.table["label"]))
        if split == "test":
            wrong = svm_probe(train, known, test) != np.array(list(self.test["label"]))
            return {ERROR.name: float(wrong.mean())}
        from sklearn.model_selection import StratifiedKFold

        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(train, known)
        wrong = [svm_probe(train[fitted], known[fitted], train[held]) != known[held] for fitted, held in folds]
        return {ERROR.name: float(np.concatenate(wrong).mean())}


class ForecastTask(SeriesTask):
    """Learn from the first twelve months of ETTh1's oil temperature; measure forecasts of the last four."""

    window = 257

    def __init__(self, folder: Path) -> None:
        self.file = folder / ETTH1.files[0]
        whole = read_data(self.file, rename={"series": "OT"})
        (series,) = whole.series
        train, dev, _ = ETT
        self.table = SeriesTable([series[:train]], whole.channels, source=whole.source)
        cut = SeriesTable([series[: train + dev]], whole.channels, source=whole.source)
        horizons = (24, 48)
        self.forecasts = {
            "test": Forecast(whole, sizes=ETT, horizons=horizons),
            "dev": Forecast(cut, sizes=(train * 4 // 5, train // 5, dev), horizons=horizons),
        }

    def measure(self, model: Method, split: Split) -> Figures:
        forecast = self.forecasts[split]
        errors = forecast.errors(forecast.steps(next(iter(model.encoders().values()))))
        return {ERROR.name: float(np.mean([square.mean() for square, _ in errors.values()]))}

    def controls(self, split: Split) -> dict[str, Figures]:
        forecast = self.forecasts[split]
        raw = forecast.errors(forecast.raw())
        last = [forecast.last_value(horizon)[0].mean() for horizon in forecast.horizons]
        return {
            LAST: {ERROR.name: float(np.mean(last))},
            RAW: {ERROR.name: float(np.mean([square.mean() for square, _ in raw.values()]))},
        }

    def facts(self) -> dict[str, Any]:
        return {
            "files": {self.file.name: file_digest(self.file)},
            "steps": dict(zip(("train", "dev", "test"), ETT, strict=True)),
            "encoder": self._sample.record(),
        }
