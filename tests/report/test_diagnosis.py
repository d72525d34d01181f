"""The figure of a diagnosis, as Plotly itself reads it."""

from __future__ import annotations

import plotly.graph_objects as go
import pytest

from contrapose.report.figures import over_temperatures

POINTS = {
    1.0: {"value": 0.7, "low": 0.6, "high": 0.8},
    0.05: {"value": 0.9, "low": 0.85, "high": 0.92},
    0.2: {"value": 0.8, "low": 0.8, "high": 0.8},
}


def test_temperatures_stand_in_order_on_a_logarithmic_axis_with_their_intervals() -> None:
    figure = go.Figure(over_temperatures(POINTS, own=None))
    (line,) = figure.data
    assert line.x == (0.05, 0.2, 1.0)
    assert line.y == (0.9, 0.8, 0.7)
    assert line.error_y.array == pytest.approx((0.02, 0.0, 0.1))
    assert line.error_y.arrayminus == pytest.approx((0.05, 0.0, 0.1))
    assert figure.layout.xaxis.type == "log"


def test_the_runs_own_temperature_is_filled_and_the_most_possible_dashed() -> None:
    line, level = go.Figure(over_temperatures(POINTS, own=0.2, most=63)).data
    assert line.marker.symbol == ("circle-open", "circle", "circle-open")
    assert level.y == (63, 63)
    assert level.line.dash == "dash"
