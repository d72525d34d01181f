"""What a claim leaves behind: every seed of every arm, the controls, the verdicts; as a file, a table, words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrapose.claims.verdict import over_seeds
from contrapose.errors import ResultInvalid

if TYPE_CHECKING:
    from rich.console import Group


class ClaimResult:
    """`record`: everything as JSON values; `verdicts`: the statements with their verdicts. `rich.print(result)` shows the tables."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    @classmethod
    def open(cls, path: Path | str) -> ClaimResult:
        """A result.json. Raises ResultInvalid when it is not one."""
        try:
            result = cls(json.loads(Path(path).read_text(encoding="utf-8")))
            for experiment in result.experiments:
                result.cells(experiment)
            result.lines()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultInvalid(
                f"{path} is not the result of a claim ({type(error).__name__}: {error}). Make it anew by `contrapose reproduce`."
            ) from None
        return result

    def to_json(self) -> str:
        return json.dumps(self.record, indent=2, ensure_ascii=False, allow_nan=False)

    @property
    def experiments(self) -> list[dict[str, Any]]:
        return self.record["experiments"]

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """Statement, measure, arm, baseline, gains by seed, their interval and the verdict, with the experiment's name."""
        return [
            {"experiment": experiment["name"], **verdict}
            for experiment in self.experiments
            for verdict in experiment["verdicts"]
        ]

    def cells(self, experiment: Mapping[str, Any]) -> list[list[str]]:
        """The table of an experiment as text: a heading, then controls and arms with their means and intervals over seeds.

        A measure that the experiment does not take has no column.
        """
        systems = {**experiment["controls"], **{name: arm["test"] for name, arm in experiment["arms"].items()}}
        measures = [
            name
            for name in self.record["measures"]
            if any(name in figures for seeds in systems.values() for figures in seeds)
        ]
        rows = [
            [name, *(cell([figures[measure] for figures in seeds]) for measure in measures)]
            for name, seeds in systems.items()
        ]
        return [["test split", *measures], *rows]

    def lines(self) -> list[str]:
        """Each verdict in a line of words."""
        return [
            f"{verdict['verdict']}: {verdict['says']} {verdict['experiment']}, {verdict['measure']}: {gain_of(verdict)}"
            for verdict in self.verdicts
        ]

    def to_text(self) -> str:
        """Tables and verdicts in plain text."""
        parts = []
        for experiment in self.experiments:
            cells = self.cells(experiment)
            widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
            rows = [
                "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
            ]
            parts.append("\n".join([experiment["name"], *rows]))
        return "\n\n".join([*parts, "\n".join(self.lines())])

    def __rich__(self) -> Group:
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        parts = []
        for experiment in self.experiments:
            (_, *measures), *systems = self.cells(experiment)
            table = Table("", *measures, title=Text(experiment["name"]), box=SIMPLE_HEAD)
            for name, *values in systems:
                table.add_row(Text(name), *(Text(value.replace(" [", "\n[")) for value in values))
            parts.append(table)
        head = f"mean [95 % interval over {len(self.record['seeds'])} seeds]"
        return Group(*parts, Text(head, style="dim"), Text("\n".join(["", *self.lines()])))

    def __repr__(self) -> str:
        return f"ClaimResult({self.record['claim']!r}: {', '.join(verdict['verdict'] for verdict in self.verdicts)})"


def cell(values: Sequence[float]) -> str:
    """The mean and interval of one value a seed; a control without seeds has a value alone, and so has one that no seed changes."""
    if len(set(values)) == 1:
        return f"{values[0]:.3f}"
    mean, low, high = over_seeds(values)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def gain_of(verdict: Mapping[str, Any]) -> str:
    gain = verdict["gain"]
    return f"gain {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]; counts from {verdict['least']:g}."
