"""Data that are in memory already."""

from __future__ import annotations

from typing import NamedTuple

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.errors import DataEmpty, DataFormatUnknown, DataRagged, ValueKind, ValueMissing

PAIR = (Column("anchor", "text", "the first text"), Column("positive", "text", "its partner"))


class Named(NamedTuple):
    positive: str
    anchor: str


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ([("a", "b"), ("c", "d")], "row 1 of the list"),
        ([Named("b", "a"), Named("d", "c")], "row 1 of the list"),
        ([{"positive": "b", "anchor": "a"}, {"anchor": "c", "positive": "d"}], "row 1 of the list"),
        ({"anchor": ["a", "c"], "positive": np.array(["b", "d"])}, "row 1 of the dict"),
        (pd.DataFrame({"positive": ["b", "d"], "anchor": ["a", "c"]}, index=[7, 7]), "row 1 of the DataFrame"),
        (pd.DataFrame({"positive": ["b", "d"], "anchor": pd.Categorical(["a", "c"])}), "row 1 of the DataFrame"),
        (pa.table({"anchor": ["a", "c"], "positive": ["b", "d"]}), "row 1 of the Table"),
        (datasets.Dataset.from_dict({"anchor": ["a", "c"], "positive": ["b", "d"]}), "row 1 of the Dataset"),
    ],
)
def test_objects_become_tables_whose_rows_are_numbered(source, where, cache):
    table = read(source, needs=PAIR)
    assert list(zip(table["anchor"], table["positive"], strict=True)) == [("a", "b"), ("c", "d")]
    assert table.where(1) == where
    assert not any(cache.iterdir())


@pytest.mark.parametrize("source", [["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Series(["a", "b"])])
def test_texts_are_the_column_text(source):
    assert list(read(source)["text"]) == ["a", "b"]


def test_a_selected_dataset_has_the_selected_rows():
    dataset = datasets.Dataset.from_dict({"text": ["a", "b", "c"]}).select([2, 0])
    assert list(read(dataset)["text"]) == ["c", "a"]


def test_a_table_passes_through_with_its_places(write):
    table = read(write("some.txt", "a\nb\nc")).take([2, 1])
    assert read(table, needs=(Column("text", "text", ""),)).line(0) == 3


def test_missing_values_of_all_sorts_are_empty():
    frame = pd.DataFrame({"text": ["a", None, float("nan"), pd.NA, "", "b"]})
    assert read(frame, needs=(Column("text", "text", ""),), drop_empty=True).dropped == 4
    records = [{"text": "a"}, {"text": float("nan")}, {}, {"text": None}]
    with pytest.raises(ValueMissing, match=r"row 1 of the list: column 'text' is empty \(3 such rows in all\)"):
        read(records, needs=(Column("text", "text", ""),))


def test_a_column_of_mixed_values_is_kept_and_refused_only_where_text_is_needed():
    frame = pd.DataFrame({"text": ["a", 1], "other": [1, "x"]})
    assert list(read(frame)["other"]) == [1, "x"]
    with pytest.raises(ValueKind, match="row 1 of the DataFrame: column 'text' is 1, not text"):
        read(frame, needs=(Column("text", "text", ""),))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([], DataEmpty, "holds no rows"),
        ({}, DataEmpty, "holds no rows"),
        (pd.DataFrame({"text": []}), DataEmpty, "holds no rows"),
        ({"anchor": ["a"], "positive": ["b", "c"]}, DataRagged, "'anchor' 1, 'positive' 2"),
        ([("a", "b"), ("c",)], DataRagged, "row 1 of the list has 1 values, row 0 has 2"),
        ([("a", "b", "c")], DataRagged, "only anchor, positive can be told"),
        ([{"anchor": "a"}, "b"], DataFormatUnknown, "row 1 of the list is a str"),
        ([{"anchor": object()}], DataFormatUnknown, "Column 'anchor' of the list .* object"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), DataFormatUnknown, "'x' twice"),
        (datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]})), DataFormatUnknown, "splits train"),
        (17, DataFormatUnknown, "type int"),
        (b"text", DataFormatUnknown, "type bytes"),
    ],
)
def test_objects_that_cannot_be_read_say_why(source, error, message):
    with pytest.raises(error, match=message):
        read(source, needs=PAIR)
