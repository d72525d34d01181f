"""Figures of a report as plotly.js reads them: plain `{"data": [...], "layout": {...}}`.

The colours here must do on paper and on black; what surrounds the data (text, axes, grid, hover) is coloured by the page's style sheet.
Plotly reads its texts as HTML of a kind, so every text of the user's goes through `literal`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

Figure = dict[str, Any]
Scores = Mapping[str, Mapping[str, float]]  # metric → value, low, high

ACCENT, QUIET, FAINT = "#d9541e", "#8a8780", "rgba(138, 135, 128, 0.4)"
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", "size": 12}
HOVER_WIDTH, HOVER_LENGTH = 48, 400  # characters a line and in all
FEW_POINTS = 40  # with more of them, a line needs no markers


def literal(text: str) -> str:
    """A text that Plotly shows as it stands, cut when it is very long."""
    cut = text if len(text) <= HOVER_LENGTH else text[: HOVER_LENGTH - 1] + "…"
    return "<br>".join(escape(line, quote=False) for line in textwrap.wrap(cut, HOVER_WIDTH))


def layout(height: int, **more: Any) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 44, "r": 12, "t": 12, "b": 36},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": FONT,
        "hoverlabel": {"align": "left", "font": FONT},
        "showlegend": False,
        "dragmode": False,  # a finger on a figure scrolls the page
        **more,
    }


def comparison(systems: Mapping[str, Scores], metrics: Sequence[str]) -> Figure:
    """A row a metric: every system a dot with its 95 % interval, and a line from the untrained encoder to the trained one."""
    data = [movement(systems, metrics)] if {"untrained", "trained"} <= systems.keys() else []
    symbols = cycle(["square-open", "diamond-open", "triangle-up-open", "x-open"])
    controls = 0
    for name, scores in systems.items():
        if name == "trained":
            look = {"color": ACCENT, "size": 11, "symbol": "circle", "line": {"width": 0}}
        elif name == "untrained":
            look = {"color": QUIET, "size": 9, "symbol": "circle-open", "line": {"width": 1.8}}
        else:  # below the line, so that no control hides another
            controls += 1
            look = {"color": QUIET, "size": 9, "symbol": next(symbols), "line": {"width": 1.8}}
        lowered = 0.24 * controls if name not in ("untrained", "trained") else 0.0
        data.append(dots(name, scores, metrics, lowered, look))
    rows = {
        "tickvals": [row + 0.12 * controls for row in range(len(metrics))],
        "ticktext": [literal(metric).replace(" ", "<br>", 1) for metric in metrics],
        "range": [len(metrics) - 0.3 + 0.12 * controls, -0.5],
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    }
    legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemclick": False, "itemdoubleclick": False}
    return {
        "data": data,
        "layout": layout(
            90 + (30 + 16 * controls) * len(metrics),
            xaxis={"rangemode": "tozero", "zeroline": False, "fixedrange": True},
            yaxis=rows,
            showlegend=True,
            legend=legend,
            margin={"l": 44, "r": 12, "t": 36, "b": 30},
        ),
    }


def ranking(systems: Scores, methods: Collection[str]) -> Figure:
    """A row a system, in the order given from top to bottom: a dot with its interval; methods filled, controls open."""
    names = list(systems)
    data = []
    for name, look in (
        (False, {"color": QUIET, "size": 9, "symbol": "circle-open", "line": {"width": 1.8}}),
        (True, {"color": ACCENT, "size": 11, "symbol": "circle", "line": {"width": 0}}),
    ):
        rows = {row: systems[each] for row, each in enumerate(names) if (each in methods) == name}
        data.append(dots_in_rows(rows, [literal(each) for each in names], look))
    rows = {"tickvals": list(range(len(names))), "ticktext": [literal(name) for name in names], "zeroline": False}
    rows |= {"range": [len(names) - 0.5, -0.5], "showgrid": False, "automargin": True, "fixedrange": True}
    return {
        "data": data,
        "layout": layout(70 + 30 * len(names), xaxis={"zeroline": False, "fixedrange": True}, yaxis=rows),
    }


def dots_in_rows(
    rows: Mapping[int, Mapping[str, float]], names: Sequence[str], look: Mapping[str, Any]
) -> dict[str, Any]:
    """Scores with their intervals, each in its row."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [score["value"] for score in rows.values()],
        "y": list(rows),
        "error_x": intervals(list(rows.values()), look["color"]),
        "marker": look,
        "hoverinfo": "text",
        "hovertext": [f"{names[row]}<br>{said(score)}" for row, score in rows.items()],
    }


def intervals(scores: Sequence[Mapping[str, float]], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [score["high"] - score["value"] for score in scores],
        "arrayminus": [score["value"] - score["low"] for score in scores],
        "color": colour,
        "thickness": 1.5,
        "width": 3,
    }


def said(score: Mapping[str, float]) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def dots(name: str, scores: Scores, metrics: Sequence[str], lowered: float, look: Mapping[str, Any]) -> dict[str, Any]:
    """One system's scores with their intervals, each in its metric's row."""
    known = [(row, metric, scores[metric]) for row, metric in enumerate(metrics) if metric in scores]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": literal(name),
        "x": [score["value"] for _, _, score in known],
        "y": [row + lowered for row, _, _ in known],
        "error_x": intervals([score for _, _, score in known], look["color"]),
        "marker": look,
        "hoverinfo": "text",
        "hovertext": [f"{literal(name)}<br>{literal(metric)}<br>{said(score)}" for _, metric, score in known],
    }


def movement(systems: Mapping[str, Scores], metrics: Sequence[str]) -> dict[str, Any]:
    """Faint lines from before to after."""
    x: list[float | None] = []
    y: list[float | None] = []
    for row, metric in enumerate(metrics):
        ends = [systems[name].get(metric, {}).get("value") for name in ("untrained", "trained")]
        x, y = [*x, *ends, None], [*y, row, row, None]
    line = {"color": FAINT, "width": 1.5}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip", "showlegend": False}


def curve(
    steps: Sequence[int],
    values: Sequence[float],
    level: Sequence[float | None] | None = None,
    boundaries: Sequence[float] = (),
) -> Figure:
    """A figure over the steps, with the level to compare it with dashed (chance, the most possible) and a dotted line between stages."""
    data = []
    if level is not None:
        line = {"color": QUIET, "width": 1.5, "dash": "dash"}
        data.append(
            {"type": "scatter", "mode": "lines", "x": list(steps), "y": list(level), "line": line, "hoverinfo": "skip"}
        )
    data.append(
        {
            "type": "scatter",
            "mode": "lines+markers" if len(steps) < FEW_POINTS else "lines",
            "x": list(steps),
            "y": list(values),
            "line": {"color": ACCENT, "width": 2},
            "marker": {"color": ACCENT, "size": 4},
            "hovertemplate": "step %{x:,}: %{y:.4~g}<extra></extra>",
        }
    )
    between = [
        {
            "type": "line",
            "x0": x,
            "x1": x,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": QUIET, "width": 1, "dash": "dot"},
        }
        for x in boundaries
    ]
    axis = {"zeroline": False, "fixedrange": True}
    across = {**axis, "showgrid": False, "title": {"text": "step", "standoff": 4}, "nticks": 6, "rangemode": "tozero"}
    return {
        "data": data,
        "layout": layout(
            190, xaxis=across, yaxis={**axis, "rangemode": "tozero", "nticks": 5, "exponentformat": "e"}, shapes=between
        ),
    }


def over_temperatures(
    points: Mapping[float, Mapping[str, float]], own: float | None, most: float | None = None
) -> Figure:
    """A value with its interval at each temperature, on an axis of its logarithm; the run's own filled, the rest open; `most` dashed."""
    temperatures = sorted(points)
    scores = [points[each] for each in temperatures]
    said_of = [f"temperature {each:g}<br>{said(score)}" for each, score in zip(temperatures, scores, strict=True)]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": temperatures,
            "y": [score["value"] for score in scores],
            "error_y": intervals(scores, ACCENT),
            "line": {"color": ACCENT, "width": 2},
            "marker": {
                "color": ACCENT,
                "size": 9,
                "symbol": ["circle" if each == own else "circle-open" for each in temperatures],
            },
            "hoverinfo": "text",
            "hovertext": said_of,
        }
    ]
    if most is not None:
        ends = [temperatures[0], temperatures[-1]]
        line = {"color": QUIET, "width": 1.5, "dash": "dash"}
        data.append(
            {"type": "scatter", "mode": "lines", "x": ends, "y": [most, most], "line": line, "hoverinfo": "skip"}
        )
    axis = {"zeroline": False, "fixedrange": True}
    across = {**axis, "type": "log", "title": {"text": "temperature", "standoff": 4}, "tickvals": temperatures}
    return {"data": data, "layout": layout(220, xaxis=across, yaxis={**axis, "nticks": 5})}


def pair_map(
    queries: Sequence[Sequence[float]], candidates: Sequence[Sequence[float]], texts: Sequence[tuple[str, str]]
) -> Figure:
    """Queries and candidates in the plane, each pair joined by a faint line; the last trace is empty, for the pair under the pointer."""
    x: list[float | None] = []
    y: list[float | None] = []
    for query, candidate in zip(queries, candidates, strict=True):
        x, y = [*x, query[0], candidate[0], None], [*y, query[1], candidate[1], None]
    hover = [f"{literal(query)}<br>— belongs to —<br>{literal(candidate)}" for query, candidate in texts]
    points = {"type": "scatter", "mode": "markers", "hoverinfo": "text", "hovertext": hover}
    small = {"size": 6, "line": {"width": 1.2}}
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": y,
            "line": {"color": FAINT, "width": 0.8},
            "hoverinfo": "skip",
        },
        {**points, **plane(candidates), "marker": {**small, "color": QUIET, "symbol": "circle-open"}},
        {**points, **plane(queries), "marker": {**small, "color": ACCENT, "line": {"width": 0}}},
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [],
            "y": [],
            "line": {"color": ACCENT, "width": 2.5},
            "marker": {"color": ACCENT, "size": 12, "symbol": "circle-open", "line": {"width": 2.5}},
            "hoverinfo": "skip",
        },
    ]
    bare = {"visible": False, "fixedrange": True}
    across = {**bare, "scaleanchor": "y"}
    return {
        "data": data,
        "layout": layout(440, xaxis=across, yaxis=bare, hovermode="closest", margin={"l": 8, "r": 8, "t": 8, "b": 8}),
    }


def plane(points: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    return {"x": [point[0] for point in points], "y": [point[1] for point in points]}
