"""Forecasts read off frozen representations by ridge regression: TS2Vec's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contrapose.data.columns import Column
from contrapose.errors import ForecastImpossible
from contrapose.evaluation.result import Result, Score
from contrapose.series._columns import open_table
from contrapose.series._table import SERIES, SeriesTable
from contrapose.series.data import refuse_unfit
from contrapose.series.encoder import CONTEXT, SeriesEncoder, statistics
from contrapose.training.bar import Bar

FORECAST_SERIES = (Column(SERIES, "series", "A time series."),)
HORIZONS = (24, 48, 168, 336, 720)
PENALTIES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHARES = (0.6, 0.2, 0.2)
ETT = (8640, 2880, 2880)  # 12, 4 and 4 months of hours
DAY = 24  # forecasts from neighbouring steps are nearly one; intervals draw runs of so many
LAST, RAW = "last value repeated", "ridge on raw values"


class Parts(NamedTuple):
    """Where a series is cut: training steps, those that choose the penalty, test steps."""

    train: slice
    dev: slice
    test: slice


class Forecast:
    """How well the next steps of a series are told from the representation of the last one.

    `source`: whatever `read_data` takes. Each series is cut in time, into 60, 20 and 20 % or as `sizes` says. Values are z-scored by the
    training part. The representation of a step sees the 200 steps before it and nothing after. For each horizon H a ridge regression maps it
    to the next H values of all channels, its penalty the one of 13 with the least RMSE + MAE on the second part; the first 200 training steps
    are left out. Raises ForecastImpossible where not even the shortest horizon fits every part.
    """

    name = "forecast"
    scored = "skill"  # what `score` is: 1 - MSE / that of the training mean, mean over horizons

    def __init__(
        self,
        source: Any,
        columns: Mapping[str, str] | None = None,
        training: SeriesTable | None = None,
        *,
        sizes: Sequence[int] | None = None,
        horizons: Sequence[int] | None = None,
        context: int = CONTEXT,
    ) -> None:
        """`horizons`: None: those of 24, 48, 168, 336 and 720 steps that every part has room for. Those that are named must all fit."""
        table = open_table(source, columns, FORECAST_SERIES)
        self.source, self.context, self.where = table.source, context, table.where
        self.series = table.series
        self.parts = [parts_of(len(series), sizes) for series in self.series]
        self.horizons = fitting(horizons, self.parts, context, table)
        mean, deviation = statistics([series[part.train] for series, part in zip(self.series, self.parts, strict=True)])
        spread = np.where(np.array(deviation) > 0, deviation, 1.0)
        self.values = [np.nan_to_num((series - mean) / spread) for series in self.series]
        self.seen = seen_in_training(self.series, self.parts, training)

    def refuse(self, encoder: SeriesEncoder) -> None:
        """Raises SeriesInvalid, before anything is trained or written, for a series that the encoder does not take."""
        refuse_unfit(encoder, self.series, self.where)

    def score(self, encoder: SeriesEncoder) -> float:
        """1 - MSE / MSE of always saying the training mean, over all horizons: what `select` goes by; larger is better."""
        errors = self.errors(self.steps(encoder))
        said = [
            np.square(self.targets(row, "test", each)).mean()
            for each in self.horizons
            for row in range(len(self.values))
        ]
        return float(1 - np.mean([square.mean() for square, _ in errors.values()]) / np.mean(said))

    def evaluate(self, systems: Mapping[str, SeriesEncoder]) -> dict[str, Any]:
        """The result of each system beside the controls, as JSON values. `systems`: the encoder before and after, in this order."""
        names = (
            [name for name in systems if name == "untrained"]
            + [LAST, RAW]
            + [name for name in systems if name != "untrained"]
        )
        scores = {}
        with Bar("Forecasting", len(names)) as bar:
            for name in names:
                if name == LAST:
                    found = {horizon: self.last_value(horizon) for horizon in self.horizons}
                else:
                    found = self.errors(self.raw() if name == RAW else self.steps(systems[name]))
                scores[name] = named(found)
                bar.advance(1)
        rows = sum(len(self.targets(row, "test", self.horizons[0])) for row in range(len(self.values)))
        result = Result(self.name, self.source, rows, self.description, scores)
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    @property
    def description(self) -> str:
        train, dev, test = (sum(part[place].stop - part[place].start for part in self.parts) for place in range(3))
        warned = " The training data hold the test part too, so that what is trained has seen it." if self.seen else ""
        return (
            f"Forecasts of the next {', '.join(map(str, self.horizons))} steps by ridge regression from the representation of the last step, which sees "
            f"{self.context} steps before it; its penalty is the best of {len(PENALTIES)} by RMSE + MAE on the {dev:,} steps after the {train:,} training "
            f"steps. Mean squared and absolute error on the {test:,} steps after those, z-scored by the training part; smaller is better. {LAST}: "
            f"nothing learned. {RAW}: the same regression on the {self.context} values themselves. Intervals: 95 % bootstrap over runs of {DAY} "
            f"forecasts, 2,000 resamples; longer forecasts overlap more than that, so their intervals are too narrow.{warned}"
        )

    def steps(self, encoder: SeriesEncoder) -> list[np.ndarray]:
        """(t, d) of each series."""
        return [encoder.encode_steps(series, context=self.context) for series in self.series]

    def raw(self) -> list[np.ndarray]:
        """(t, context c) of each series: the values up to a step, 0 before the first."""
        found = []
        for values in self.values:
            before = np.concatenate([np.zeros((self.context - 1, values.shape[1])), values])
            windows = np.lib.stride_tricks.sliding_window_view(before, self.context, axis=0)
            found.append(windows.reshape(len(values), -1).astype(np.float32))
        return found

    def targets(self, row: int, part: str, horizon: int) -> np.ndarray:
        """(n, horizon, c): what follows each step of a part that has so many steps after it there."""
        inside = self.values[row][getattr(self.parts[row], part)]
        return np.lib.stride_tricks.sliding_window_view(inside[1:], horizon, axis=0).transpose(0, 2, 1)

    def features(self, steps: Sequence[np.ndarray], part: str, horizon: int) -> np.ndarray:
        drop = self.context if part == "train" else 0
        return np.concatenate(
            [each[getattr(parts, part)][:-horizon][drop:] for each, parts in zip(steps, self.parts, strict=True)]
        )

    def errors(self, steps: Sequence[np.ndarray]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """By horizon: the mean squared and absolute error of each forecast of the test part, (n,) each."""
        found = {}
        for horizon in self.horizons:
            train, dev, test = (self.features(steps, part, horizon) for part in ("train", "dev", "test"))
            targets = {
                part: np.concatenate([self.targets(row, part, horizon)[drop:] for row in range(len(self.values))])
                for part, drop in (("train", self.context), ("dev", 0), ("test", 0))
            }
            found[horizon] = ridge_errors((train, dev, test), *targets.values())
        return found

    def last_value(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """The errors of saying that nothing changes."""
        said = [self.values[row][part.test][:-horizon, None] for row, part in enumerate(self.parts)]
        missed = np.concatenate([self.targets(row, "test", horizon) - each for row, each in enumerate(said)])
        return np.square(missed).mean(axis=(1, 2)), np.abs(missed).mean(axis=(1, 2))


def parts_of(steps: int, sizes: Sequence[int] | None) -> Parts:
    if sizes is None:
        first, second = int(SHARES[0] * steps), int((SHARES[0] + SHARES[1]) * steps)
        return Parts(slice(0, first), slice(first, second), slice(second, steps))
    first, second, third = np.cumsum(sizes).tolist()
    ends = [min(end, steps) for end in (first, second, third)]
    return Parts(slice(0, ends[0]), slice(ends[0], ends[1]), slice(ends[1], ends[2]))


def fitting(asked: Sequence[int] | None, parts: Sequence[Parts], context: int, table: SeriesTable) -> list[int]:
    """The horizons that are asked for; None: of the usual ones those that every part has room for. Raises ForecastImpossible for one that does
    not fit, or where none does."""
    horizons = HORIZONS if asked is None else asked
    if not horizons or min(horizons) < 1:
        raise ForecastImpossible(f"A horizon counts the steps ahead and starts at 1; got {list(horizons)}.")
    room = [
        min(each.train.stop - context - 2, each.dev.stop - each.dev.start - 2, each.test.stop - each.test.start - 2)
        for each in parts
    ]
    kept = [horizon for horizon in horizons if horizon <= min(room)]
    if not kept or (asked is not None and len(kept) < len(asked)):
        row = int(np.argmin(room))
        train, dev, test = (part.stop - part.start for part in parts[row])
        wanted = min(horizons) if asked is None else min(set(asked) - set(kept))
        raise ForecastImpossible(
            f"{table.where(row)}: its parts have {train:,}, {dev:,} and {test:,} steps; a forecast of {wanted} steps needs "
            f"{context + wanted + 2:,} in the first, of which {context} are context, and {wanted + 2} in each other. Give a longer series."
        )
    return kept


def seen_in_training(series: Sequence[np.ndarray], parts: Sequence[Parts], training: SeriesTable | None) -> bool:
    """Whether the training data hold a series beyond its training part."""
    for each in training.series if training is not None else ():
        for mine, part in zip(series, parts, strict=True):
            most = min(len(each), len(mine))
            if (
                most > part.train.stop
                and each.shape[1] == mine.shape[1]
                and np.array_equal(each[:most], mine[:most], equal_nan=True)
            ):
                return True
    return False


def ridge_errors(
    features: tuple[np.ndarray, np.ndarray, np.ndarray], train: np.ndarray, dev: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared and absolute error of each test row, (m,), of a ridge regression with an intercept whose penalty `dev` chooses.

    features: (n, d), (k, d), (m, d); train, dev, test: targets (…, h, c). One decomposition of the features serves all penalties; channels go
    through one after the other.
    """
    mean = features[0].mean(axis=0, dtype=np.float64)
    x, x_dev, x_test = (each.astype(np.float64) - mean for each in features)
    values, axes = np.linalg.eigh(x.T @ x)
    values = np.maximum(values, 0)
    x_dev, x_test = x_dev @ axes, x_test @ axes
    squares, sizes = np.zeros(len(PENALTIES)), np.zeros(len(PENALTIES))
    weights = []
    for channel in range(train.shape[2]):
        y = train[:, :, channel]
        level = y.mean(axis=0)
        weights.append((axes.T @ (x.T @ (y - level)), level))
        for number, penalty in enumerate(PENALTIES):
            missed = (x_dev / (values + penalty)) @ weights[-1][0] + level - dev[:, :, channel]
            squares[number] += np.square(missed).mean()
            sizes[number] += np.abs(missed).mean()
    c = train.shape[2]
    best = PENALTIES[int(np.argmin(np.sqrt(squares / c) + sizes / c))]
    found = np.zeros((2, len(test)))
    for channel, (weight, level) in enumerate(weights):
        missed = (x_test / (values + best)) @ weight + level - test[:, :, channel]
        found += np.square(missed).mean(axis=1) / c, np.abs(missed).mean(axis=1) / c
    return found[0], found[1]


def named(errors: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> dict[str, Score]:
    """ "MSE@24", "MAE@24", …: means over all forecasts, intervals over runs of a day."""
    scores = {}
    for horizon, both in errors.items():
        for name, values in zip(("MSE", "MAE"), both, strict=True):
            runs = max(2, len(values) // DAY)
            means = np.array([run.mean() for run in np.array_split(values, runs)])
            interval = Score.of(name, means)
            scores[f"{name}@{horizon}"] = Score(
                f"{name}@{horizon}", float(values.mean()), interval.low, interval.high, n=len(values)
            )
    return scores
