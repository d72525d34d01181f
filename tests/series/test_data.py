"""Series out of files and objects; what is refused, by its place; windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contrapose.data.columns import Column
from contrapose.errors import (
    ColumnMissing,
    DataDamaged,
    DataRagged,
    SeriesInvalid,
    SeriesUnordered,
    ValueKind,
    ValueMissing,
)
from contrapose.series.autotcl import AutoTCL
from contrapose.series.data import check_data, open_data, read_data, refuse_values, values_of, windows_of
from contrapose.series.encoder import SeriesEncoder
from tests.series.tiny import walks

LABEL = Column("label", "label", "A class.")
LONG = """series_id,time,a,b,label
x,1,0.5,1,up
x,2,0.25,2,up
x,3,1,3,up
x,4,2,4,up
y,1,-1,0,down
y,2,-2,0,down
y,3,-3,0,down
y,4,-4,0,down
y,5,-5,0,down
"""


def written(folder: Path, text: str, name: str = "sensors.csv") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_long_table(tmp_path: Path) -> None:
    table = read_data(written(tmp_path, LONG), needs=[LABEL])
    assert table.channels == ("a", "b")
    assert [series.shape for series in table.series] == [(4, 2), (5, 2)]
    assert table.series[0][1].tolist() == [0.25, 2]
    assert list(table["label"]) == ["up", "down"]
    assert table.where(1).endswith("sensors.csv, series 'y'")


def test_columns_by_other_names_and_some_channels_alone(tmp_path: Path) -> None:
    text = LONG.replace("series_id,time", "sensor,hour")
    table = read_data(written(tmp_path, text), rename={"series_id": "sensor", "time": "hour", "series": "b"})
    assert table.channels == ("b",)
    assert table.series[1].tolist() == [[0]] * 5


def test_one_series_with_dates(tmp_path: Path) -> None:
    lines = ["date,OT", *(f"2016-07-0{day} 00:00:00,{day}" for day in range(1, 7))]
    table = read_data(written(tmp_path, "\n".join(lines)))
    assert (table.channels, [series.shape for series in table.series]) == (("OT",), [(6, 1)])
    lines[3] = lines[2]
    with pytest.raises(SeriesUnordered, match="line 4: 'date' is 2016-07-02 00:00:00 after 2016-07-02 00:00:00"):
        read_data(written(tmp_path, "\n".join(lines)))


def sources() -> dict[str, Any]:
    pd = pytest.importorskip("pandas")
    x = np.arange(24.0).reshape(2, 6, 2)
    long = {"series_id": [0] * 6 + [1] * 6, "a": x[..., 0].ravel(), "b": x[..., 1].ravel()}
    return {
        "array": x,
        "tensor": torch.from_numpy(x),
        "list": [*x],
        "dict": {"series": x},
        "rows": [{"series": each.tolist()} for each in x],
        "frame": pd.DataFrame(long),
    }


@pytest.mark.parametrize("name", ["array", "tensor", "list", "dict", "rows", "frame"])
def test_objects_of_every_kind_are_one(name: str) -> None:
    table = read_data(sources()[name])
    np.testing.assert_array_equal(np.stack(table.series), np.arange(24.0).reshape(2, 6, 2))


def test_files_of_arrays_and_rows_of_lists(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(2, 6)
    np.savez(tmp_path / "a.npz", series=x, label=np.array(["p", "q"]))
    np.save(tmp_path / "a.npy", x)
    written(tmp_path, "".join(f'{{"series": {each.tolist()}, "label": "p"}}\n' for each in x), "a.jsonl")
    for name in ("a.npz", "a.npy", "a.jsonl"):
        np.testing.assert_array_equal(np.stack(read_data(tmp_path / name).series)[..., 0], x)
    assert list(read_data(tmp_path / "a.npz")["label"]) == ["p", "q"]


def test_a_pickle_within_is_never_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", series=np.array([{"any": "code"}], dtype=object))
    with pytest.raises(DataDamaged, match=r"a\.npz is no whole file of plain NumPy arrays"):
        read_data(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("x,3,1,3,up", "x,2,1,3,up", SeriesUnordered, "line 4: 'time' is 2 after 2"),
        ("y,5,-5,0,down", "x,5,-5,0,down", SeriesUnordered, "line 10: series 'x' begins a second time"),
        ("y,3,-3,0,down", "y,3,-3,0,up", SeriesUnordered, "line 8: 'label' is 'up' and was 'down'"),
        ("x,3,1,3,up", "x,3,warm,3,up", ValueKind, "line 4: column 'a' is 'warm', not a number"),
        ("x,4,2,4,up\n", "", SeriesInvalid, "series 'x' has 3 steps"),
        ("0.25", "inf", SeriesInvalid, "series 'x': channel 'a' is infinite at step 1"),
        ("label", "class", ValueKind, "column 'class' is 'up', not a number"),
        ("x,3,1,3,up", "x,,1,3,up", ValueMissing, "line 4: 'time' is empty"),
        ("x,3,1,3,up", ",3,1,3,up", ValueMissing, "line 4: 'series_id' is empty"),
        (",label", ",domain", ColumnMissing, "no column 'label' .*known: domain, series, series_id"),
    ],
)
def test_a_table_that_is_wrong(tmp_path: Path, old: str, new: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_data(written(tmp_path, LONG.replace(old, new)), needs=[LABEL])


def test_arrays_that_are_wrong() -> None:
    for source, error, said in (
        (np.zeros((2, 3, 4, 5)), SeriesInvalid, r"shape \(2, 3, 4, 5\)"),
        ({"x": np.zeros((2, 9))}, ColumnMissing, "no array 'series'"),
        ({"series": np.zeros((2, 9)), "label": ["a"]}, DataRagged, "'label' has 1 values for 2 series"),
        ([np.zeros((9, 2)), np.zeros((9, 1))], SeriesInvalid, "series 1 of the list has 1 channels, the others 2"),
        ({"series": np.zeros((2, 9, 2)), "channels": ["a"]}, DataRagged, "'channels' has 1 names for 2 channels"),
        (np.zeros((2, 9, 1), complex), ValueKind, "series 0 of the array holds complex numbers"),
        (np.full((2, 9), np.nan), SeriesInvalid, "series 0 of the array has no value at all"),
    ):
        with pytest.raises(error, match=said):
            read_data(source)


def test_rows_without_what_is_needed_are_dropped_where_that_is_asked_for() -> None:
    x = np.arange(27.0).reshape(3, 9)
    x[0] = np.nan
    source = {"series": x, "label": ["a", "b", None]}
    with pytest.raises(SeriesInvalid, match="--drop-empty"):
        read_data(source, needs=[LABEL])
    with pytest.raises(ValueMissing, match="label"):
        read_data({**source, "series": x[[1, 1, 1]]}, needs=[LABEL])
    table = read_data(source, needs=[LABEL], drop_empty=True)
    assert (table.dropped, list(table["label"]), table.series[0][0, 0]) == (2, ["b"], 9)


def test_long_series_are_cut_into_equal_windows() -> None:
    pieces = windows_of(np.arange(25.0)[:, None], 10)
    assert [len(piece) for piece in pieces] == [9, 8, 8]
    np.testing.assert_array_equal(np.concatenate(pieces)[:, 0], np.arange(25))


def test_windows_carry_the_group_of_their_series() -> None:
    table = read_data({"series": np.arange(40.0).reshape(2, 20), "group_id": ["p", "q"]})
    encoder = SeriesEncoder(1, hidden=2, dim=2, depth=1, kernels=(1,), window=8)
    data = open_data(table, AutoTCL.card, encoder)
    assert len(data) == 6
    assert data.group.tolist() == [0, 0, 0, 1, 1, 1]
    batch = data.columns["series"][torch.tensor([0, 5])]
    assert (batch.shape, batch.dtype) == ((2, 7, 1), torch.float32)
    assert batch[1, -1].isnan()


def test_missing_values_are_found_before_training() -> None:
    (series,) = walks(1)
    series[3, 0] = np.nan
    table, encoder = read_data([series, walks(1)[0]]), SeriesEncoder(2, hidden=2, dim=2, depth=1, kernels=(1,))
    with pytest.raises(SeriesInvalid, match="series 0 of the list: channel '0' has no value at step 3"):
        open_data(table, AutoTCL.card, encoder)
    report = check_data(table, AutoTCL.card, encoder, 8)
    assert [(problem.rows, problem.stops) for problem in report.problems] == [(1, True)]
    assert "no value at step 3" in str(report)


def test_series_alone_are_embedded() -> None:
    table = read_data({"series": np.zeros((2, 9)), "label": ["a", "b"]})
    assert len(values_of(table, "series", None)) == 2
    with pytest.raises(ValueKind, match="'label' holds no series"):
        refuse_values(table, "label")
