"""Interactions become sequences: order, ties, names, forms, the core, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from contrapose.errors import ColumnMissing, ContraposeError, SequenceInvalid, ValueKind, ValueMissing
from contrapose.sequence.data import check_data, core, open_data, read_data, refuse_values, values_of
from contrapose.sequence.encoder import EncoderOptions, SequenceEncoder, open_encoder
from contrapose.sequence.sasrec import SASRec

ROWS = [("b", "x", 3), ("a", "y", 1), ("b", "z", 1), ("a", "x", 1), ("b", "x", 2), ("a", "w", 0)]
INTERACTIONS = [dict(zip(("user", "item", "time"), row, strict=True)) for row in ROWS]


def test_sorted_by_user_and_time_and_ties_stay_in_the_rows_order() -> None:
    table = read_data(INTERACTIONS)
    assert table["user"] == ("a", "b")
    assert list(table["item"]) == [["w", "y", "x"], ["z", "x", "x"]]
    assert table.items == ("w", "x", "y", "z")
    assert table.lengths.tolist() == [3, 3]
    assert table["item"][1:] == [["z", "x", "x"]]
    assert table["item"][[1, 0]][1] == ["w", "y", "x"]


def test_without_time_the_rows_order_is_the_order() -> None:
    rows = [{"user": row["user"], "item": row["item"]} for row in INTERACTIONS]
    assert list(read_data(rows)["item"]) == [["y", "x", "w"], ["x", "z", "x"]]


TIMES = {
    "dates as text": ["2011-12-09 12:50:00", "2010-12-01", "2011-01-01"],
    "text numbers": ["10", "2", "3.5"],
    "timestamps": list(pd.to_datetime(["2011-12-09", "2010-12-01", "2011-01-01"])),
    "floats": [1e9 + 0.5, 1.0, 2.0],
}


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
def test_times_are_numbers_or_dates(times: list) -> None:
    frame = pd.DataFrame({"user": ["u"] * 3, "item": ["last", "first", "middle"], "time": times})
    assert read_data(frame)["item"][0] == ["first", "middle", "last"]


def test_names_are_text_whatever_they_came_as(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user,item,time\n7,12,1\n7,3,2\n", encoding="utf-8")
    from_file = read_data(tmp_path / "rows.csv")
    ints = read_data({"user": [7, 7], "item": [12, 3], "time": [1, 2]})
    floats = read_data(pd.DataFrame({"user": [7, 7], "item": [12.0, 3.0], "time": [1, 2]}))
    assert list(from_file["item"]) == list(ints["item"]) == list(floats["item"]) == [["12", "3"]]
    assert from_file.where(0) == f"{tmp_path / 'rows.csv'}, line 2 (user '7')"


def test_rows_that_hold_whole_sequences(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"user": "b", "things": [3, 1]}\n{"user": "a", "things": [2]}\n', encoding="utf-8"
    )
    table = read_data(tmp_path / "rows.jsonl", rename={"item": "things"})
    assert (list(table["user"]), list(table["item"])) == (["a", "b"], [["2"], ["3", "1"]])
    assert table.where(0).endswith("line 2 (user 'a')")
    assert list(read_data({"item": [["a", "b"], ["c"]]})["item"]) == [["a", "b"], ["c"]]


def test_columns_are_renamed_and_empty_rows_dropped_and_counted() -> None:
    frame = pd.DataFrame({"who": ["u", "u", None], "what": ["a", "b", "c"]})
    with pytest.raises(ValueMissing, match="row 2 of the DataFrame: column 'user' is empty"):
        read_data(frame, rename={"user": "who", "item": "what"})
    table = read_data(frame, rename={"user": "who", "item": "what"}, drop_empty=True)
    assert (table.dropped, list(table["item"])) == (1, [["a", "b"]])


BAD = {
    "no item": ({"user": ["u"], "thing": ["a"]}, ColumnMissing, "no column 'item'"),
    "no user": ({"item": ["a", "b"]}, ColumnMissing, "no column 'user'"),
    "an empty sequence": ({"item": [["a"], []]}, SequenceInvalid, "row 1 of the dict: the sequence is empty"),
    "an item without a name": ({"item": [["a", " "]]}, SequenceInvalid, "row 0 .* without a name"),
    "a list for an item": ({"item": [["a"], ["b", ["c"]]]}, ValueKind, r"row 1 .* holds \['c'\] where an item"),
    "a user twice": ({"user": ["u", "v", "u"], "item": [["a"], ["b"], ["c"]]}, SequenceInvalid, "row 2 .* 'u' stands twice"),
    "a sequence without a user": ({"user": ["u", None], "item": [["a"], ["b"]]}, ContraposeError, "row 1"),
    "lists and names": ({"user": ["u", "v"], "item": [["a"], "b"]}, ValueKind, "row 1 .* 'b'"),
    "no date": ({"user": ["u"] * 2, "item": ["a", "b"], "time": ["2011-01-01", "soon"]}, ValueKind, "row 1 .* 'soon'"),
    "dates and numbers": ({"user": ["u"] * 2, "item": ["a", "b"], "time": ["2011-01-01", "17"]}, ValueKind, "row "),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "error", "says"), BAD.values(), ids=BAD)
def test_what_is_refused(rows: dict, error: type[ContraposeError], says: str) -> None:
    with pytest.raises(error, match=says):
        read_data(rows)


def test_a_group_of_users() -> None:
    rows = [{**row, "group_id": {"a": "one", "b": "two"}[row["user"]]} for row in INTERACTIONS]
    table = read_data(rows)
    assert table.group[0] != table.group[1]
    data = open_data(table, SASRec.card, open_encoder(None, {}, table))
    assert torch.unique(data.group, return_counts=True)[1].tolist() == [2, 2]


def test_the_core_drops_items_and_users_until_all_have_enough() -> None:
    sequences = {"a": "xyx", "b": "xyy", "c": "zx", "d": "zwv"}
    rows = [{"user": user, "item": item} for user, items in sequences.items() for item in items]
    left = core(read_data(rows), 3)
    assert dict(zip(left["user"], left["item"], strict=True)) == {"a": ["x", "y", "x"], "b": ["x", "y", "y"]}
    assert left.source == "the list, 3-core"
    assert left.fingerprint != read_data(rows).fingerprint
    with pytest.raises(SequenceInvalid, match="smaller number"):
        core(read_data(rows), 4)


# --------------------------------------------------------------------------------------------------- what is trained on


def test_every_beginning_with_the_item_that_follows() -> None:
    table = read_data({"item": [list("abcde"), list("ca")]})
    data = open_data(table, SASRec.card, SequenceEncoder("abcde", EncoderOptions(max_length=3)))
    rows = data.columns["sequence"][torch.arange(len(data))]
    assert rows["items"].tolist() == [[1, 0, 0], [1, 2, 0], [1, 2, 3], [2, 3, 4], [3, 0, 0]]
    assert rows["lengths"].tolist() == [1, 2, 3, 3, 1]
    assert data.columns["next"].tolist() == [2, 3, 4, 5, 1]
    assert data.columns["left"].tolist() == [3, 2, 1, 0, 0]


def test_items_that_the_encoder_does_not_know() -> None:
    table = read_data({"user": ["u", "v"], "item": [list("abc"), list("axc")]})
    with pytest.raises(
        ContraposeError, match=r"row 1 of the dict \(user 'v'\): the encoder has no item 'x' \(1 interactions"
    ):
        open_data(table, SASRec.card, SequenceEncoder("abc"))
    data = open_data(table, SASRec.card, SequenceEncoder("abc", EncoderOptions(unknown="skip")))
    assert data.columns["next"].tolist() == [2, 3, 3]


def test_nothing_follows_anything() -> None:
    table = read_data({"item": [["a"], ["b"]]})
    with pytest.raises(SequenceInvalid, match="no next item to learn from"):
        open_data(table, SASRec.card, open_encoder(None, {}, table))


def test_what_check_tells(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user,item\nu,a\nu,b\nu,c\nu,d\nv,a\n,b\nw,\n", encoding="utf-8")
    table = read_data(tmp_path / "rows.csv", strict=False)
    report = check_data(table, SASRec.card, SequenceEncoder("abcd", EncoderOptions(max_length=3)), 4)
    said = {problem.message.split(".")[0]: (problem.rows, problem.places) for problem in report.problems}
    assert said["column 'item' is empty"] == (1, "line 8")
    assert said["column 'user' is empty"] == (1, "line 7")
    assert any("fewer than 3" in message and found == (1, "line 6") for message, found in said.items())
    assert any("more than 3" in message for message in said)
    assert report.examples[0].texts["item"] == "b, c, d"


def test_only_items_have_vectors() -> None:
    table = read_data(INTERACTIONS)
    assert values_of(table, "item", None)[0] == ["w", "y", "x"]
    with pytest.raises(ValueKind, match="--column item"):
        refuse_values(table, "user")
    with pytest.raises(ColumnMissing, match="no column 'price'"):
        table["price"]
    assert np.array_equal(table.sequence(0), [0, 2, 1])
