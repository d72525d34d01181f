"""Probes and forecasts on series: the protocols beside their controls, and the arithmetic of the forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import contrapose
from contrapose.errors import ContraposeError, ForecastImpossible, ProtocolUnknown, SeriesInvalid
from contrapose.series._forecast import PENALTIES, Forecast, parts_of, ridge_errors
from contrapose.series._probes import nearest_series, svm_probe
from contrapose.series.data import read_data
from contrapose.series.encoder import SeriesEncoder
from contrapose.series.evaluation import open_protocol, protocol_columns


def encoder() -> SeriesEncoder:
    return SeriesEncoder(1, hidden=6, dim=5, depth=1, kernels=(1, 2, 4))


def labelled(rows: int = 24) -> dict[str, Any]:
    """Slow and fast waves in a little noise."""
    drawn, time = np.random.default_rng(0), np.arange(30)
    period = np.where(np.arange(rows) % 2, 5.0, 11.0)
    series = np.sin(2 * np.pi * time / period[:, None]) + 0.1 * drawn.normal(size=(rows, 30))
    return {
        "series": series,
        "label": ["fast" if each == 5 else "slow" for each in period],
        "split": ["train"] * (rows // 2) + ["test"] * (rows - rows // 2),
    }


@pytest.mark.parametrize("name", ["svm", "probe", "knn"])
def test_a_probe_stands_beside_raw_values(name: str) -> None:
    protocol = open_protocol(name, labelled(), None, None)
    entry = protocol.evaluate({"untrained": encoder(), "trained": encoder()})
    systems = entry["result"]["systems"]
    assert list(systems) == ["untrained", "1-NN, raw values", "raw values", "majority class", "trained"]
    assert systems["1-NN, raw values"]["accuracy"]["value"] == 1.0
    assert systems["majority class"]["accuracy"]["value"] == 0.5
    assert protocol.score(encoder()) == pytest.approx(systems["trained"]["accuracy"]["value"])


def test_series_of_other_lengths_are_compared_by_their_moments() -> None:
    data = labelled()
    series = [each[: 20 + row % 5, None] for row, each in enumerate(data["series"])]
    entry = open_protocol("knn", {**data, "series": series}, None, None).evaluate({"trained": encoder()})
    assert "raw values" in entry["result"]["systems"]


def test_the_nearest_series_and_the_machine() -> None:
    drawn = np.random.default_rng(0)
    train, labels = drawn.normal(size=(60, 3)), np.array(["a", "b"] * 30)
    train[::2] += 4
    test = np.array([[4.0, 4, 4], [0, 0, 0]])
    for rule in (
        nearest_series(train, test, labels),
        svm_probe(train, labels, test),
        svm_probe(train[:9], labels[:9], test),
    ):
        assert rule.tolist() == ["a", "b"]


def test_ridge_is_that_of_the_textbook_with_the_penalty_that_the_second_part_chooses() -> None:
    drawn = np.random.default_rng(0)
    x, y = [drawn.normal(size=(n, 4)) for n in (50, 20, 15)], [drawn.normal(size=(n, 3, 2)) for n in (50, 20, 15)]

    def predicted(penalty: float, rows: np.ndarray) -> np.ndarray:
        mean, level = x[0].mean(axis=0), y[0].reshape(50, 6).mean(axis=0)
        centred = x[0] - mean
        weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(4), centred.T @ (y[0].reshape(50, 6) - level))
        return ((rows - mean) @ weights + level).reshape(len(rows), 3, 2)

    def cost(penalty: float) -> float:
        missed = predicted(penalty, x[1]) - y[1]
        return float(np.sqrt(np.square(missed).mean()) + np.abs(missed).mean())

    missed = predicted(min(PENALTIES, key=cost), x[2]) - y[2]
    square, size = ridge_errors((x[0], x[1], x[2]), *y)
    np.testing.assert_allclose(square, np.square(missed).mean(axis=(1, 2)))
    np.testing.assert_allclose(size, np.abs(missed).mean(axis=(1, 2)))


def wave(steps: int = 400) -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(steps) / 24) + 0.05 * np.random.default_rng(0).normal(size=steps)


def test_targets_follow_their_step_within_their_part() -> None:
    forecast = Forecast(wave()[None], horizons=(3,), context=10)
    values, part = forecast.values[0], forecast.parts[0].test
    found = forecast.targets(0, "test", 3)
    assert len(found) == part.stop - part.start - 3
    np.testing.assert_array_equal(found[0], values[part.start + 1 : part.start + 4])
    np.testing.assert_array_equal(found[-1], values[part.stop - 3 : part.stop])
    steps = [np.arange(400.0)[:, None]]
    assert forecast.features(steps, "train", 3)[0, 0] == 10
    assert forecast.features(steps, "test", 3)[-1, 0] == 396


def test_a_forecast_stands_beside_the_last_value_and_raw_ridge() -> None:
    forecast = Forecast(wave()[None], horizons=(3, 12), context=24)
    assert forecast.horizons == [3, 12]
    systems = forecast.evaluate({"untrained": encoder(), "trained": encoder()})["result"]["systems"]
    assert list(systems) == ["untrained", "last value repeated", "ridge on raw values", "trained"]
    values, part = forecast.values[0][:, 0], forecast.parts[0].test
    still = np.mean([(values[t + h] - values[t]) ** 2 for t in range(part.start, part.stop - 3) for h in (1, 2, 3)])
    assert systems["last value repeated"]["MSE@3"]["value"] == pytest.approx(still)
    assert systems["ridge on raw values"]["MSE@12"]["value"] < 0.1 * systems["last value repeated"]["MSE@12"]["value"]
    assert 0 < forecast.score(encoder()) < 1


def test_training_on_the_test_part_is_said() -> None:
    series = wave()
    for steps, said in ((400, True), (240, False)):
        forecast = Forecast(series[None], None, read_data(series[None, :steps]), horizons=(3,), context=10)
        assert ("hold the test part" in forecast.description) == said


def test_parts_by_shares_and_by_sizes() -> None:
    assert [part.stop for part in parts_of(100, None)] == [60, 80, 100]
    assert [part.stop for part in parts_of(17420, (8640, 2880, 2880))] == [8640, 11520, 14400]


@pytest.mark.parametrize(
    ("steps", "horizons", "said"),
    [
        (400, (200,), "parts have 240, 80 and 80 steps"),
        (400, (3, 100), "a forecast of 100 steps needs 302 in the first"),
        (400, (0,), "starts at 1"),
        (400, (), "starts at 1"),
    ],
)
def test_a_series_too_short_to_forecast(steps: int, horizons: tuple[int, ...], said: str) -> None:
    with pytest.raises(ForecastImpossible, match=said):
        Forecast(wave(steps)[None], horizons=horizons)


def test_of_the_usual_horizons_those_that_fit_are_kept() -> None:
    assert list(Forecast(wave(400)[None]).horizons) == [24]
    with pytest.raises(ForecastImpossible, match="400, 0 and 0 steps"):
        open_protocol("forecast_ett", wave(400)[None], None, None)


@pytest.mark.parametrize(("protocol", "wrong"), [("forecast", "other"), ("knn", "gap")])
@pytest.mark.parametrize("method", ["autotcl", "series_info_nce"])
def test_series_that_the_encoder_does_not_take_are_refused_before_training(
    method: str, protocol: str, wrong: str, tmp_path: Path
) -> None:
    data = labelled()
    other = {
        "series": np.stack([data["series"], data["series"]], axis=-1),
        "label": data["label"],
        "split": data["split"],
    }
    if wrong == "gap":
        other["series"] = data["series"].copy()
        other["series"][5, 3] = np.nan
    else:
        other = {"series": np.tile(other["series"][:1], (1, 14, 1))}
    said = {"gap": r"series 5 of the dict: channel '0' has no value at step 3", "other": r"steps, 1\)"}[wrong]
    with pytest.raises(SeriesInvalid, match=said):
        contrapose.train(
            method, {"series": data["series"]}, on={protocol: other}, out=tmp_path / "run", progress=False,
            encoder={"hidden": 4, "dim": 4, "depth": 1, "kernels": "1,2"},
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_unknown_protocols_and_wrong_data() -> None:
    with pytest.raises(ProtocolUnknown, match="did you mean 'forecast'"):
        open_protocol("forcast", wave()[None], None, None)
    with pytest.raises(ContraposeError, match="label"):
        open_protocol("knn", wave()[None], None, None)
    assert protocol_columns(["svm", "forecast", "none"]) == {"series", "label", "split"}
