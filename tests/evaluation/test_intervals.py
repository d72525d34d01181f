from __future__ import annotations

import numpy as np
import pytest

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, TooFewValues, ValuesNotFinite
from contrapose.evaluation import bootstrap, bootstrap_difference, bootstrap_figures, intervals


def drawn(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_the_width_is_that_of_a_mean():
    values = drawn(400)
    mean, low, high = bootstrap(values)
    standard_error = values.std() / np.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(mean - 1.96 * standard_error, abs=0.15 * standard_error)
    assert high == pytest.approx(mean + 1.96 * standard_error, abs=0.15 * standard_error)


def test_the_mean_lies_in_95_of_100_intervals():
    held = [low <= 0 <= high for _, low, high in (bootstrap(drawn(60, seed), resamples=400) for seed in range(200))]
    assert 0.9 <= np.mean(held) <= 0.98


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = drawn(50)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_blocks_do_not_change_the_interval(monkeypatch):
    values = drawn(50)
    whole = bootstrap(values)
    monkeypatch.setattr(intervals, "DRAWN", 333)
    assert bootstrap(values) == whole


def test_equal_values_have_an_interval_without_width():
    assert bootstrap([0.5] * 20) == (0.5, 0.5, 0.5)


def test_truth_values_are_counted():
    assert bootstrap(np.array([True, False] * 50)).mean == 0.5


def test_a_higher_confidence_is_wider():
    narrow, wide = bootstrap(drawn(50), confidence=0.5), bootstrap(drawn(50), confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_paired_difference_ignores_how_hard_the_rows_are():
    before = 100 * drawn(200)
    after = before + 1 + drawn(200, seed=1)
    mean, low, high = bootstrap_difference(after, before)
    assert mean == pytest.approx((after - before).mean())
    assert 0 < low < 1 < high < 2


def test_a_difference_turned_about_is_its_negative():
    after, before = drawn(50), drawn(50, seed=1)
    mean, low, high = bootstrap_difference(after, before)
    assert bootstrap_difference(before, after) == pytest.approx((-mean, -high, -low))


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_are_refused(values):
    with pytest.raises(TooFewValues):
        bootstrap(values)


def test_nan_is_refused_with_its_row():
    with pytest.raises(ValuesNotFinite, match="row 2"):
        bootstrap([0.0, 1.0, np.nan])


@pytest.mark.parametrize("settings", [{"resamples": 0}, {"confidence": 95}, {"confidence": 0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(EvaluationSettingInvalid):
        bootstrap([0.0, 1.0], **settings)


def test_a_table_of_values_is_refused():
    with pytest.raises(EvaluationShapesDiffer):
        bootstrap(np.ones((3, 2)))


def test_a_difference_needs_the_same_rows():
    with pytest.raises(EvaluationShapesDiffer, match="same rows"):
        bootstrap_difference([0.0, 1.0, 2.0], [0.0, 1.0])


def test_figures_of_means_have_the_interval_of_a_mean():
    values = drawn(300)
    both = bootstrap_figures(lambda rows: {"mean": values[rows].mean(-1), "twice": 2 * values[rows].mean(-1)}, 300)
    assert both["mean"] == pytest.approx(bootstrap(values), abs=0.02)
    assert both["twice"] == pytest.approx([2 * end for end in both["mean"]])  # of the same draws


def test_rows_are_drawn_within_their_stratum_and_stand_in_its_place():
    strata = np.array(["b"] * 3 + ["a"] * 30)
    seen = []
    bootstrap_figures(lambda rows: seen.append(strata[rows]) or {"x": np.zeros(rows.shape[:-1])}, 33, strata=strata)
    assert all((each == ["a"] * 30 + ["b"] * 3).all() for each in seen)
    assert len(np.unique(seen[0], axis=0)) == 1


def test_blocks_of_draws_are_as_many_draws(monkeypatch):
    drawn = []
    monkeypatch.setattr(intervals, "BLOCK", 50)
    bootstrap_figures(lambda rows: drawn.append(rows.shape) or {"x": np.zeros(rows.shape[:-1])}, 20, resamples=5)
    assert drawn == [(2, 20), (2, 20), (1, 20), (20,)]


def test_draws_without_the_figure_are_left_out():
    values = np.array([1.0, 2.0])

    def mean_of_both(rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": np.where(np.ptp(rows, axis=-1) > 0, values[rows].mean(axis=-1), np.nan)}

    assert bootstrap_figures(mean_of_both, 2)["x"] == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("rows", "settings", "refused"),
    [
        (1, {}, TooFewValues),
        (3, {"strata": [0, 0]}, EvaluationShapesDiffer),
        (3, {"resamples": 0}, EvaluationSettingInvalid),
        (3, {"confidence": 95}, EvaluationSettingInvalid),
    ],
)
def test_impossible_figures_are_refused(rows, settings, refused):
    with pytest.raises(refused):
        bootstrap_figures(lambda rows: {"x": 0.0}, rows, **settings)
