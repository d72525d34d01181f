"""What an evaluation leaves behind: scores with intervals, systems side by side, the protocol in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from contrapose.errors import ResultInvalid
from contrapose.evaluation.intervals import bootstrap

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Score:
    """A metric over n rows (a mean, or a figure of all of them such as a correlation) and its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, name: str, values: ArrayLike, *, seed: int = 0) -> Score:
        """The score of (n,) values, one a row; raises as `intervals.bootstrap` does."""
        return cls(name, *bootstrap(values, seed=seed), n=len(values))

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def scores(per_row: Mapping[str, ArrayLike], *, seed: int = 0) -> dict[str, Score]:
    """The scores of one system: `scores(retrieval(...).values)`. Each metric draws the same rows."""
    return {name: Score.of(name, values, seed=seed) for name, values in per_row.items()}


@dataclass(frozen=True)
class Result:
    """One protocol on one data set, for several systems: the encoder before and after, beside its controls.

    protocol: its name ("retrieval"). data: what it was measured on. rows: how many. description: the protocol in words,
    enough to repeat it. systems: name ("untrained", "TF-IDF words", "trained") → metric → Score, in the order to show.
    """

    protocol: str
    data: str
    rows: int
    description: str
    systems: dict[str, dict[str, Score]]

    def record(self) -> dict[str, Any]:
        """The result as JSON values; `from_record` reads it back."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Result:
        """Raises ResultInvalid when something is missing or unknown."""
        try:
            systems = {
                system: {name: Score(**score) for name, score in metrics.items()}
                for system, metrics in record["systems"].items()
            }
            return cls(**{**record, "systems": systems})
        except (KeyError, TypeError, AttributeError) as error:
            raise ResultInvalid(f"this is not a saved result: {error}. Evaluate again to write it anew.") from None

    def to_json(self) -> str:
        return json.dumps(self.record(), indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Raises ResultInvalid when the text is not JSON or not a result."""
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise ResultInvalid(f"the result is not JSON: {error}. Evaluate again to write it anew.") from None
        return cls.from_record(record)

    @property
    def metrics(self) -> list[str]:
        """The metrics that any system has, in the order of their first mention."""
        return list(dict.fromkeys(name for metrics in self.systems.values() for name in metrics))

    @property
    def title(self) -> str:
        return f"{self.protocol} on {self.data}, {self.rows:,} rows"

    def cells(self) -> list[list[str]]:
        """The table as text: a heading, then a row a system; "–" where a system lacks a metric."""
        heading = ["system", *self.metrics]
        rows = [
            [system, *(str(metrics[name]) if name in metrics else "–" for name in self.metrics)]
            for system, metrics in self.systems.items()
        ]
        return [heading, *rows]

    def to_text(self) -> str:
        """The table in plain text, columns aligned: `0.684 [0.641, 0.726]` is a score and its 95 % interval."""
        cells = self.cells()
        widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([self.title, *lines])

    def table(self) -> Table:
        """The table for a terminal, turned so that it fits one: a metric a row. `rich.print(result)` shows it."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text  # names of data and systems are the user's: never read as markup

        (_, *metrics), *systems = self.cells()
        table = Table(title=Text(self.title), caption="score [95 % interval]", box=SIMPLE_HEAD, leading=1)
        table.add_column("", no_wrap=True)
        for name, *_ in systems:
            table.add_column(Text(name))
        for number, metric in enumerate(metrics, 1):
            table.add_row(
                Text(metric.replace(" ", "\n", 1)), *(Text(cells[number].replace(" [", "\n[")) for cells in systems)
            )
        return table

    def __rich__(self) -> Table:
        return self.table()
