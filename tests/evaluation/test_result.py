from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from contrapose.errors import ResultInvalid
from contrapose.evaluation import Result, Score, bootstrap, scores


@pytest.fixture
def result() -> Result:
    return Result(
        protocol="retrieval",
        data="pairs [red].csv",
        rows=1464,
        description="Each sentence ranks all translations by cosine; ties count against.",
        systems={
            "untrained": {"accuracy@1": Score("accuracy@1", 0.072, 0.051, 0.0956, 1464)},
            "trained": {
                "accuracy@1": Score("accuracy@1", 0.684, 0.641, 0.726, 1464),
                "mrr": Score("mrr", 0.75, 0.7, 0.8, 1464),
            },
        },
    )


def test_json_round_trip(result):
    assert Result.from_json(result.to_json()) == result


def test_the_record_is_plain_json(result):
    assert json.loads(json.dumps(result.record())) == result.record()


def test_the_text_is_an_aligned_table(result):
    assert result.to_text().splitlines() == [
        "retrieval on pairs [red].csv, 1,464 rows",
        "system     accuracy@1            mrr",
        "untrained  0.072 [0.051, 0.096]  –",
        "trained    0.684 [0.641, 0.726]  0.750 [0.700, 0.800]",
    ]


def test_a_terminal_shows_every_cell_and_reads_no_markup(result):
    console = Console(file=io.StringIO(), width=120)
    console.print(result)
    shown = console.file.getvalue()
    assert "pairs [red].csv" in shown
    for cell in ("untrained", "0.072", "[0.051, 0.096]", "trained", "0.684", "[0.641, 0.726]", "[0.700, 0.800]"):
        assert cell in shown


def test_scores_hold_the_mean_its_interval_and_the_rows():
    values = np.random.default_rng(0).uniform(size=30)
    score = scores({"mrr": values}, seed=5)["mrr"]
    assert (score.value, score.low, score.high) == bootstrap(values, seed=5)
    assert (score.name, score.n) == ("mrr", 30)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"systems": {"a": {"mrr": {"value": 1}}}}', '{"systems": []}'])
def test_text_that_is_no_result_is_refused(text):
    with pytest.raises(ResultInvalid):
        Result.from_json(text)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Result)])
def test_a_record_without_a_part_is_refused(result, name):
    record = result.record()
    del record[name]
    with pytest.raises(ResultInvalid, match=name):
        Result.from_record(record)
