"""What a comparison leaves behind: every seed of every method, the controls, and what can be said of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contrapose.claims.result import cell
from contrapose.claims.verdict import over_seeds

if TYPE_CHECKING:
    from rich.console import Group


class Comparison:
    """`record`: everything as JSON values. `rich.print(result)` and a notebook show the table; `lines()` says it in words."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    def to_json(self) -> str:
        return json.dumps(self.record, indent=2, ensure_ascii=False, allow_nan=False)

    @property
    def measures(self) -> list[str]:
        return list(next(iter(self.record["arms"].values()))["test"][0])

    def cells(self) -> list[list[str]]:
        """The table as text: a heading, the controls, then the methods, the best mean of the first measure first."""
        heading = ["", *self.measures, "time a training", "memory of a step"]
        controls = [
            [name, *(f"{seeds[0][measure]:.3f}" if measure in seeds[0] else "–" for measure in self.measures), "–", "–"]
            for name, seeds in self.record["controls"].items()
        ]
        return [heading, *controls, *([name, *self._row(arm)] for name, arm in self._ranked())]

    def lines(self) -> list[str]:
        """Each pair that counts in a sentence, then how the methods stand to the best control."""
        said = []
        for each in self.record["differences"]:
            gain = each["gain"]
            figures = f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
            if each["more_than_noise"]:
                said.append(f"{each['measure']}: {each['first']} is better than {each['second']}, by {figures}.")
            else:
                said.append(
                    f"{each['measure']}: no difference beyond seed noise between {each['first']} and {each['second']}, {figures}."
                )
        return [*said, *(self._beside_controls(measure) for measure in self.measures)]

    def page(self) -> dict[str, Any]:
        """What the HTML page shows."""
        systems = {
            measure: {
                **{
                    name: {"value": seeds[0][measure], "low": seeds[0][measure], "high": seeds[0][measure]}
                    for name, seeds in self.record["controls"].items()
                    if measure in seeds[0]
                },
                **{name: _interval(arm, measure) for name, arm in self._ranked()},
            }
            for measure in self.measures
        }
        return {
            "record": self.record,
            "cells": self.cells(),
            "lines": self.lines(),
            "systems": systems,
            "methods": list(self.record["arms"]),
        }

    def __rich__(self) -> Group:
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        heading, *systems = self.cells()
        table = Table(*heading, box=SIMPLE_HEAD)
        for name, *values in systems:
            table.add_row(Text(name), *(Text(value.replace(" [", "\n[")) for value in values))
        head = f"mean [95 % interval over {len(self.record['seeds'])} seeds]"
        return Group(table, Text(head, style="dim"), Text("\n".join(["", *self.lines()])))

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.record['arms'])}: {' '.join(self.lines())})"

    def _ranked(self) -> list[tuple[str, Any]]:
        first = self.measures[0]
        return sorted(self.record["arms"].items(), key=lambda named: -_interval(named[1], first)["value"])

    def _row(self, arm: Mapping[str, Any]) -> list[str]:
        trainings = len(arm["test"]) + sum(
            len(point["dev"]) for point in arm["tuning"] if point["settings"] != arm["chosen"]
        )
        seconds = 60 * arm["minutes"] / trainings
        time = f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
        memory = f"{arm['bytes'] / 2**30:.2f} GB" if arm["bytes"] else "–"
        return [*(cell([figures[measure] for figures in arm["test"]]) for measure in self.measures), time, memory]

    def _beside_controls(self, measure: str) -> str:
        known = {name: seeds[0][measure] for name, seeds in self.record["controls"].items() if measure in seeds[0]}
        control = max(known, key=known.get)
        behind = [name for name, arm in self.record["arms"].items() if _interval(arm, measure)["low"] <= known[control]]
        ahead = "every method is ahead" if not behind else f"not ahead of it: {', '.join(behind)}"
        return f"{measure}: the best control is {control}, {known[control]:.3f}; {ahead}."


def _interval(arm: Mapping[str, Any], measure: str) -> dict[str, float]:
    mean, low, high = over_seeds([figures[measure] for figures in arm["test"]])
    return {"value": mean, "low": low, "high": high}
