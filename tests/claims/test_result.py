"""A result as a table and as words."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from contrapose.claims.result import ClaimResult, cell
from contrapose.errors import ResultInvalid

RECORD = {
    "claim": "esimcse",
    "measures": {"spearman": {}},
    "seeds": [0, 1, 2],
    "experiments": [
        {
            "name": "words",
            "controls": {"untrained": [{"spearman": 0.25}] * 3, "TF-IDF": [{"spearman": 0.5}]},
            "arms": {"[bold]ours": {"test": [{"spearman": value} for value in (0.6, 0.7, 0.8)]}},
            "verdicts": [
                {
                    "says": "Ours is better.",
                    "measure": "spearman",
                    "least": 0.01,
                    "gain": {"mean": 0.1, "low": 0.05, "high": 0.15},
                    "verdict": "seen",
                }
            ],
        }
    ],
}
CELLS = [
    ["test split", "spearman"],
    ["untrained", "0.250"],
    ["TF-IDF", "0.500"],
    ["[bold]ours", "0.700 [0.452, 0.948]"],
]


def test_cells_are_means_with_intervals_over_seeds() -> None:
    result = ClaimResult(RECORD)
    assert result.cells(RECORD["experiments"][0]) == CELLS
    assert cell([0.1]) == cell([0.1, 0.1, 0.1]) == "0.100"


def test_a_verdict_in_words() -> None:
    (line,) = ClaimResult(RECORD).lines()
    assert line == "seen: Ours is better. words, spearman: gain +0.100 [+0.050, +0.150]; counts from 0.01."


def test_the_terminal_shows_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(ClaimResult(RECORD))
    shown = console.file.getvalue()
    assert "[bold]ours" in shown
    assert "[0.452, 0.948]" in shown
    assert "seen: Ours is better." in shown


def test_plain_text_holds_tables_and_verdicts() -> None:
    text = ClaimResult(RECORD).to_text()
    assert "[bold]ours  0.700 [0.452, 0.948]" in text
    assert text.endswith("counts from 0.01.")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**RECORD, "experiments": [{"name": "words"}]})])
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ResultInvalid, match=r"result\.json"):
        ClaimResult.open(tmp_path / "result.json")


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(ClaimResult(RECORD).to_json())
    assert ClaimResult.open(tmp_path / "result.json").record == RECORD


def test_a_measure_that_an_experiment_does_not_take_has_no_column() -> None:
    result = ClaimResult({**RECORD, "measures": {"spearman": {}, "hits": {}}})
    assert result.cells(RECORD["experiments"][0]) == CELLS
