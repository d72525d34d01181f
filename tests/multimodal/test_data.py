"""Tables of several modalities: arrays and lists as vectors, what is missing, and what is refused, by its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from contrapose.errors import (
    ColumnMissing,
    ContraposeError,
    DataDamaged,
    DataRagged,
    ModalitiesTooFew,
    ValueMissing,
    VectorsInvalid,
)
from contrapose.multimodal._arrays import vectors_of
from contrapose.multimodal.data import check_data, open_data, read_data, values_of
from contrapose.multimodal.encoder import open_encoder
from contrapose.multimodal.symile import Symile

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)


def test_arrays_of_an_npz_file_are_columns(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "rows.npz",
        image=IMAGES,
        flag=np.array([True, False, True, True]),
        name=np.array(["a", "b", "c", "d"]),
        rate=8000,
    )
    table = read_data(str(tmp_path / "rows.npz"), rename={"picture": "image"})
    assert sorted(table.columns) == ["flag", "name", "picture"]
    assert np.array_equal(vectors_of(table, "picture"), IMAGES.reshape(4, 6))
    assert vectors_of(table, "flag").tolist() == [[1.0], [0.0], [1.0], [1.0]]
    assert list(table["name"]) == ["a", "b", "c", "d"]
    np.savez(tmp_path / "rows.npz", image=IMAGES + 1)
    assert read_data(tmp_path / "rows.npz").fingerprint != table.fingerprint


@pytest.mark.parametrize("form", ["npz", "dict", "tensors", "parquet", "jsonl", "list"])
def test_the_same_vectors_whatever_they_come_as(form: str, tmp_path: Path) -> None:
    vectors = np.array([[1.5, -2.0], [np.nan, np.nan], [0.25, 3.0]], dtype=np.float32)
    lists = [[1.5, -2.0], None, [0.25, 3.0]]
    sources: dict[str, Any] = {
        "dict": {"v": vectors, "n": [1, 2, 3]},
        "tensors": {"v": torch.from_numpy(vectors), "n": torch.tensor([1, 2, 3])},
        "list": [{"v": each, "n": number} for number, each in enumerate(lists)],
    }
    if form == "npz":
        np.savez(tmp_path / "v.npz", v=vectors)
        sources[form] = tmp_path / "v.npz"
    if form == "parquet":
        parquet.write_table(pa.table({"v": lists}), tmp_path / "v.parquet")
        sources[form] = tmp_path / "v.parquet"
    if form == "jsonl":
        (tmp_path / "v.jsonl").write_text("\n".join(json.dumps({"v": each}) for each in lists), encoding="utf-8")
        sources[form] = tmp_path / "v.jsonl"
    assert np.array_equal(vectors_of(read_data(sources[form]), "v"), vectors, equal_nan=True)


def test_numbers_of_a_csv_are_vectors_of_one(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("age,weight\n3,0.5\n,7\n", encoding="utf-8")
    table = read_data(tmp_path / "rows.csv")
    assert np.array_equal(vectors_of(table, "age"), [[3.0], [np.nan]], equal_nan=True)


def test_rows_of_some_of_the_table(tmp_path: Path) -> None:
    table = read_data({"v": np.arange(12.0).reshape(4, 3), "w": np.eye(4)}).take([3, 0])
    assert vectors_of(table, "v").tolist() == [[9, 10, 11], [0, 1, 2]]


@pytest.mark.parametrize(
    ("columns", "encoder", "error", "said"),
    [
        ({"v": np.eye(3)}, None, ModalitiesTooFew, "one modality, 'v'; at least two"),
        ({"v": np.eye(3), "w": np.eye(3)}, "v=vectors,x=vectors", ColumnMissing, "no column 'x'"),
        ({"v": np.eye(3), "w": [[1, 2], [1, 2, 3], [1, 2]]}, None, VectorsInvalid, "row 1 of the dict: column 'w' holds 3 numbers where 2"),
        ({"v": np.eye(3), "w": ["1", "two", "3"]}, None, VectorsInvalid, "row 1 of the dict: column 'w' is 'two', not numbers.*text:minilm"),
        ({"v": np.eye(3), "w": np.array([[1.0], [np.inf], [2.0]])}, None, VectorsInvalid, "row 1 of the dict: column 'w' holds infinity"),
        ({"v": np.eye(3), "w": [1.0, None, 2.0]}, None, ValueMissing, "row 1 of the dict: column 'w' is empty .*missing=learned"),
        ({"v": np.eye(3), "w": np.array([[1, 2], [3, 4], [5, np.nan]])}, None, ValueMissing, "row 2 .* lacks a number"),
    ],
)  # fmt: skip
def test_what_no_method_can_learn_from_is_refused_by_its_place(
    columns: dict[str, Any], encoder: str | None, error: type[ContraposeError], said: str
) -> None:
    table = read_data(columns)
    with pytest.raises(error, match=said):
        open_data(table, Symile.card, open_encoder(encoder, {}, table))


def test_check_says_so_of_a_whole_table() -> None:
    table = read_data({"v": np.eye(3), "w": [1.0, None, 2.0]}, strict=False)
    report = check_data(table, Symile.card, open_encoder(None, {}, table), 2)
    assert any("column 'w' is empty" in problem.message and problem.stops for problem in report.problems)
    assert "column 'w' is empty" in report.to_text()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"v": np.eye(3), "w": np.zeros((3, 0))}, r"column 'w' has shape \(3, 0\)"),
        ({"v": np.eye(3), "w": np.eye(3) * 1j}, "column 'w' is complex128"),
    ],
)
def test_arrays_that_hold_no_real_numbers_are_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(VectorsInvalid, match=said):
        read_data(columns)


@pytest.mark.parametrize("missing", ["refuse", "learned"])
def test_a_modality_that_no_row_has_is_refused(missing: str) -> None:
    table = read_data({"v": np.eye(3), "w": np.full((3, 2), np.nan)})
    with pytest.raises(VectorsInvalid, match="column 'w' is empty in each of the 3 rows"):
        open_encoder(None, {"missing": missing}, table)


def test_check_says_that_one_row_is_too_few() -> None:
    table = read_data({"v": np.eye(2)[:1], "w": np.eye(2)[:1]}, strict=False)
    [problem] = check_data(table, Symile.card, open_encoder(None, {}, table), 2).problems
    assert problem.stops
    assert "single row" in problem.message


def test_vectors_that_a_made_encoder_does_not_read_are_refused() -> None:
    encoders = open_encoder(None, {}, read_data({"v": np.eye(3), "w": np.eye(3)}))
    with pytest.raises(VectorsInvalid, match="holds 4 numbers a row, and its encoder reads 3"):
        values_of(read_data({"v": np.ones((2, 4)), "w": np.ones((2, 3))}), "v", encoders["v"])


def test_columns_of_several_lengths_and_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRagged, match="'v' 3, 'w' 2"):
        read_data({"v": np.eye(3), "w": np.eye(2)})
    (tmp_path / "no.npz").write_bytes(b"PK nothing")
    np.savez(tmp_path / "pickled.npz", v=np.array([{"a": 1}, None], dtype=object))
    for name in ("no.npz", "pickled.npz"):
        with pytest.raises(DataDamaged, match=name):
            read_data(tmp_path / name)


def test_rows_that_lack_a_modality_can_be_left_out() -> None:
    vectors = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]])
    table = read_data({"v": vectors, "words": ["a", "b", " "], "group_id": [None, 1, 2]}, drop_empty=True)
    assert (len(table), table.dropped) == (1, 2)
    assert vectors_of(table, "v").tolist() == [[1.0, 2.0]]
