"""Data that are in memory already: lists, dicts, DataFrames, Arrow tables, datasets."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from contrapose.data.arrow import array, plain
from contrapose.data.columns import Column
from contrapose.data.table import Table
from contrapose.errors import DataEmpty, DataFormatUnknown, DataRagged


def object_table(source: Any, needs: Sequence[Column] = ()) -> Table:
    """A table of a Python object.

    A list of texts is the column "text". A list of dicts has their keys as columns. Tuples have no names: named tuples
    bring their own, others take the names of `needs` in order. Raises DataFormatUnknown, DataEmpty or DataRagged.
    """
    if isinstance(source, Table):
        return source
    if _is_a(source, "pandas", "DataFrame"):
        return _frame_table(source)
    if _is_a(source, "datasets", "Dataset"):
        return Table(source.with_format("arrow")[:], source="the Dataset")
    if _is_a(source, "datasets", "DatasetDict"):
        raise DataFormatUnknown(
            f"The DatasetDict has the splits {', '.join(source)}: give one of them, as in data[{next(iter(source))!r}]."
        )
    if isinstance(source, Mapping):
        return _mapping_table(source)
    if hasattr(source, "__arrow_c_stream__") and hasattr(source, "columns"):  # pyarrow, polars and others
        return Table(pa.table(source), source=f"the {type(source).__name__}")
    if hasattr(source, "tolist"):  # NumPy arrays, pandas Series
        source = source.tolist()
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _sequence_table(source, needs)
    raise DataFormatUnknown(
        f"Data cannot be read from an object of type {type(source).__name__}. Give a path, a list of texts, "
        "dicts or tuples, a dict of columns, a DataFrame, an Arrow table or a datasets.Dataset."
    )


def _is_a(source: Any, module: str, name: str) -> bool:
    """Whether the source is of a class of a library, which need not be installed for that."""
    return module in sys.modules and isinstance(source, getattr(sys.modules[module], name))


def _frame_table(frame: Any) -> Table:
    columns = {}
    for name, series in frame.items():
        if str(name) in columns:
            raise DataFormatUnknown(
                f"The DataFrame names the column '{name}' twice. Give each column a name of its own."
            )
        columns[str(name)] = plain(
            _column(series.tolist() if series.dtype == object else series, str(name), "the DataFrame")
        )
    return Table(pa.table(columns), source="the DataFrame")


def _mapping_table(columns: Mapping[str, Iterable[Any]]) -> Table:
    values = {str(name): list(column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"'{name}' {length:,}" for name, length in lengths.items())
        raise DataRagged(
            f"The columns of the dict are not equally long: {counts}. Each row needs a value, or None, in every column."
        )
    return _table(values, "the dict")


def _sequence_table(rows: Sequence[Any], needs: Sequence[Column]) -> Table:
    first = next((row for row in rows if row is not None), None)
    if isinstance(first, Mapping):
        _require_all(rows, Mapping)
        names = dict.fromkeys(name for row in rows for name in row)
        return _table({str(name): [row.get(name) for row in rows] for name in names}, "the list")
    if isinstance(first, (tuple, list)):
        _require_all(rows, (tuple, list))
        return _tuples_table(rows, getattr(first, "_fields", None) or [column.name for column in needs])
    return _table({"text": list(rows)}, "the list")


def _tuples_table(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> Table:
    width = len(rows[0])
    if width > len(names):
        known = f"only {', '.join(names)} can be told from their order" if names else "nothing says what they are"
        raise DataRagged(f"row 0 of the list has {width} values, and {known}. Give dicts, which name their values.")
    for number, row in enumerate(rows):
        if len(row) != width:
            raise DataRagged(
                f"row {number} of the list has {len(row)} values, row 0 has {width}. All rows need the same columns."
            )
    return _table({name: [row[position] for row in rows] for position, name in enumerate(names[:width])}, "the list")


def _require_all(rows: Sequence[Any], kind: type | tuple[type, ...]) -> None:
    for number, row in enumerate(rows):
        if not isinstance(row, kind):
            raise DataFormatUnknown(
                f"row {number} of the list is a {type(row).__name__}, other rows are {type(rows[0]).__name__}s. "
                "Give all rows in one form."
            )


def _table(columns: Mapping[str, list[Any]], source: str) -> Table:
    if not any(columns.values()):
        raise DataEmpty(f"{source.capitalize()} holds no rows. Give at least one batch of them.")
    return Table(pa.table({name: _column(values, name, source) for name, values in columns.items()}), source=source)


def _column(values: Any, name: str, source: str) -> pa.Array:
    try:
        return array(values)
    except TypeError as error:
        raise DataFormatUnknown(f"Column '{name}' of {source} holds a value that no table can keep: {error}.") from None
