"""What a diagnosis of temperature leaves behind: meters, what each temperature hears, trainings with each, and what follows in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contrapose.claims.advice import RULES, advice
from contrapose.claims.result import cell
from contrapose.claims.verdict import over_seeds

if TYPE_CHECKING:
    from rich.console import Group

METERS = {
    "uniformity": "log of the mean of exp(-2 × squared distance) over pairs; lower is more even, 0 where all rows are one",
    "alignment": "mean squared distance of a row to its positive",
    "tolerance": "mean cosine over all pairs, 0 for a pair of different labels",
    "same_label_cosine": "mean cosine over the pairs of one label: tolerance without the share of such pairs",
    "hardest_same_label": "part of the hardest negatives that has the anchor's label",
    "all_same_label": "part of all negatives that has the anchor's label: chance for the line above",
}
COLUMNS = ("temperature", "entropy", "effective negatives", "force on the hardest {}", "force on the anchor's label")


class Diagnosis:
    """`record`: everything as JSON values. `rich.print(result)` shows the tables; `lines()` says what follows from them."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    def to_json(self) -> str:
        return json.dumps(self.record, indent=2, ensure_ascii=False, allow_nan=False)

    def lines(self) -> list[str]:
        """What follows, sentence by sentence; `RULES` says from what."""
        return advice(self.record)

    def meters(self) -> list[list[str]]:
        """The meters of the untrained and the trained encoder as text; those that need labels or positives only where there are any."""
        systems = self.record["behaviour"]
        kept = [name for name in METERS if systems["trained"][name] is not None]
        rows = [[name.replace("_", " "), *(f"{each[name]:.3f}" for each in systems.values())] for name in kept]
        return [["", *systems], *rows]

    def by_temperature(self) -> list[list[str]]:
        """What the loss would do to the trained embeddings at each temperature; the run's own is marked."""
        trained, own = self.record["behaviour"]["trained"], self.record["temperature"]
        labelled = trained["hardest_same_label"] is not None
        rows = []
        for at in trained["by_temperature"]:
            mark = " (this run)" if at["temperature"] == own else ""
            row = [
                f"{at['temperature']:g}{mark}",
                f"{at['entropy']:.2f}",
                f"{at['effective']:.1f}",
                f"{at['hardest']:.1%}",
            ]
            rows.append(row + ([f"{at['same_label']:.1%}"] if labelled else []))
        return [[name.format(trained["hardest"]) for name in COLUMNS[: len(rows[0])]], *rows]

    def swept(self) -> list[list[str]] | None:
        """Each measure of the trainings with each temperature, mean and interval over seeds; None without a sweep."""
        sweep = self.record["sweep"]
        if sweep is None:
            return None
        arms, own = sweep["arms"], self.record["temperature"]
        measures = list(next(iter(arms.values()))["test"][0])
        rows = [["untrained", *(f"{sweep['untrained'][measure]:.3f}" for measure in measures)]]
        for name, arm in arms.items():
            mark = " (this run's)" if own is not None and f"{own:g}" == name else ""
            rows.append([name + mark, *(cell([figures[measure] for figures in arm["test"]]) for measure in measures)])
        return [["temperature", *measures], *rows]

    def page(self) -> dict[str, Any]:
        """What the HTML page shows."""
        sweep = self.record["sweep"]
        curves = {}
        if sweep is not None:
            for measure in next(iter(sweep["arms"].values()))["test"][0]:
                curves[measure] = {
                    float(name): dict(
                        zip(("value", "low", "high"), over_seeds([each[measure] for each in arm["test"]]), strict=True)
                    )
                    for name, arm in sweep["arms"].items()
                }
        return {
            "record": self.record,
            "lines": self.lines(),
            "rules": RULES,
            "meanings": METERS,
            "meters": self.meters(),
            "by_temperature": self.by_temperature(),
            "swept": self.swept(),
            "curves": curves,
        }

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        record, trained = self.record, self.record["behaviour"]["trained"]
        tables = [
            (
                f"{trained['rows']:,} of {record['looked_at']['total']:,} rows of {record['looked_at']['source']}",
                self.meters(),
            ),
            (f"What InfoNCE would hear of {trained['negatives']:,} negatives", self.by_temperature()),
        ]
        if (swept := self.swept()) is not None:
            tables.append(
                (
                    f"Trained with each temperature: mean [95 % interval over {len(record['sweep']['seeds'])} seeds]",
                    swept,
                )
            )
        return Group(*(as_table(title, cells) for title, cells in tables), Text("\n".join(["", *self.lines()])))

    def __repr__(self) -> str:
        return f"Diagnosis({self.record['method']}: {' '.join(self.lines())})"


def as_table(title: str, cells: Sequence[Sequence[str]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    heading, *rows = cells
    table = Table(*heading, title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for name, *values in rows:
        table.add_row(Text(name), *(Text(value.replace(" [", "\n[")) for value in values))
    return table
