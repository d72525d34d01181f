"""What is said of a diagnosis, by its rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from contrapose.claims.advice import advice, ranked, trend


def record(
    effective: float = 20.0, same_label: float | None = 0.2, after: float = -2.0, sweep: Any = None
) -> dict[str, Any]:
    at = {"temperature": 0.1, "entropy": 3.0, "effective": effective, "hardest": 0.4, "same_label": same_label}
    labelled = None if same_label is None else 0.6
    trained = {
        "rows": 100, "zero_rows": 0, "anchors": 100, "negatives": 63, "share": 0.01, "hardest": 1, "uniformity": after, "alignment": None,
        "tolerance": labelled, "same_label_cosine": labelled, "hardest_same_label": labelled, "all_same_label": labelled,
        "by_temperature": [at],
    }  # fmt: skip
    return {
        "temperature": 0.1,
        "looked_at": {"source": "pairs.csv", "total": 100, "columns": ["anchor"]},
        "behaviour": {"untrained": {"uniformity": -1.0}, "trained": trained},
        "sweep": sweep,
    }


def said(**given: Any) -> str:
    return " ".join(advice(record(**given)))


def test_neither_extreme_is_left_without_a_remark() -> None:
    assert "hears little" not in said()
    assert "nearly alike" not in said()
    assert "20.0 of its 63 negatives" in said()


def test_a_loss_that_hears_one_negative_or_all_is_told() -> None:
    assert "hears little but the hardest" in said(effective=1.4)
    assert "all negatives nearly alike" in said(effective=60.0)


def test_force_on_the_anchors_own_label_is_told() -> None:
    assert "apart what has one label" in said(same_label=0.7)
    assert "apart what has one label" not in said(same_label=0.3)


def test_without_labels_tolerance_is_left_out_and_that_is_said() -> None:
    assert "pairs.csv has no column 'label'" in said(same_label=None)


def test_rows_that_are_one_are_told() -> None:
    assert "nearly one way" in said(after=-0.01)
    assert "nearly one way" not in said()


def test_what_no_seed_noise_tells_apart_is_no_difference() -> None:
    level = {0.1: np.array([0.8, 0.9, 0.7]), 0.2: np.array([0.9, 0.7, 0.8])}
    assert ranked("knn", level, 0.1) == [
        "knn: no difference beyond seed noise between any of the temperatures 0.1, 0.2."
    ]


def test_the_best_the_tied_and_the_worse_are_named() -> None:
    by = {
        0.05: np.array([0.50, 0.51, 0.50]),
        0.1: np.array([0.80, 0.80, 0.81]),
        0.2: np.array([0.79, 0.81, 0.80]),
        1.0: np.array([0.60, 0.61, 0.60]),
    }
    best, own = ranked("knn", by, 1.0)
    assert "0.803, at temperature 0.1; no difference beyond seed noise to 0.2; worse beyond it: 0.05, 1." in best
    assert "0.1 in place of this run's 1 gains +0.200" in own
    (alone,) = ranked("knn", by, 0.1)
    assert "end of what was tried" not in alone


def test_a_best_at_the_end_asks_to_go_on() -> None:
    by = {0.1: np.array([0.5, 0.51, 0.5]), 0.2: np.array([0.8, 0.8, 0.81])}
    assert "end of what was tried" in ranked("knn", by, None)[0]


def test_the_trend_needs_every_seed() -> None:
    rising = {0.1: np.array([-3.0, -3.1]), 0.2: np.array([-2.0, -2.2]), 1.0: np.array([-1.0, -1.0])}
    assert "the more even" in trend(rising)
    assert "does not rise" in trend({**rising, 1.0: np.array([-1.0, -4.0])})


def test_a_sweep_without_a_score_says_so() -> None:
    figures = [{"uniformity": -1.0}, {"uniformity": -1.1}, {"uniformity": -1.2}]
    sweep = {"arms": {"0.1": {"test": figures}, "1": {"test": figures}}}
    assert "Nothing here scores the trainings" in said(sweep=sweep)
