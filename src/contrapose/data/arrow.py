"""Python values in Arrow, and rows of a file streamed into an Arrow file that is then mapped into memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PLACE = "contrapose.place"  # hidden column of every table: the line in the file or, without lines, the row
JSON = pa.json_()  # type of a column whose values have no Arrow type in common
BATCH = 2048  # rows held in memory at once; enough for Arrow to be fast, few enough for long documents

Record = tuple[int, dict[str, Any]]  # place and values of one row
Types = dict[str, pa.DataType]


def array(values: Sequence[Any]) -> pa.Array:
    """Values of a column, None and NaN as null; values that have no Arrow type in common are kept as JSON.

    Raises TypeError for an object that JSON does not know either.
    """
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return as_json(values)


def as_json(values: Sequence[Any]) -> pa.Array:
    missing = [value is None or (isinstance(value, float) and value != value) for value in values]
    return pa.array([None if m else json.dumps(value) for m, value in zip(missing, values, strict=True)], type=JSON)


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text, plain or dictionary-encoded."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_blank(texts: pa.ChunkedArray) -> np.ndarray:
    """Per text whether it is null, empty, or white space alone; bool of shape (n,)."""
    blank = pc.or_(pc.utf8_is_space(texts), pc.equal(pc.binary_length(texts), 0))
    return pc.fill_null(blank, True).to_numpy()


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """Equal values get equal integers; together these are 0, 1, … without a gap. int64 of shape (n,).

    Each missing value (null, NaN, a blank text) gets an integer of its own: it is equal to nothing.
    """
    column = plain(column)
    if column.type == JSON:
        column = column.cast(JSON.storage_type)
        column = pc.if_else(pc.match_substring_regex(column, r'^"\s*"$'), None, column)
    elif pa.types.is_nested(column.type):
        column = pa.chunked_array([as_json(column.to_pylist()).storage])
    elif pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, pc.add(column, 0.0))  # -0.0 + 0.0 is 0.0: the two zeros are equal
    if is_text(column.type):
        column = column.cast(pa.large_string())
        column = pc.if_else(pa.array(is_blank(column)), None, column)
    encoded = pc.dictionary_encode(column.combine_chunks())
    numbers = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    missing = np.flatnonzero(numbers < 0)
    numbers[missing] = len(encoded.dictionary) + np.arange(len(missing))
    return numbers


def plain(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """The column without dictionary encoding, which an Arrow file would want to be the same in every batch."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def open_arrow(path: Path) -> pa.Table | None:
    """The table of an Arrow file, mapped into memory; None when there is none or it cannot be read."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid):
        return None


def write_batches(batches: Iterable[pa.RecordBatch], path: Path) -> int:
    """Writes batches of one schema, the rows numbered from 0. Returns how many rows there are."""
    rows, writer = 0, None
    with pa.OSFile(str(path), "wb") as sink:
        for batch in batches:
            columns = {name: plain(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
            numbered = pa.record_batch({**columns, PLACE: pa.array(np.arange(rows, rows + len(batch)))})
            writer = writer or pa.ipc.new_file(sink, numbered.schema)
            writer.write_batch(numbered)
            rows += len(batch)
        if writer is not None:
            writer.close()
    return rows


def write_records(records: Callable[[], Iterator[Record]], path: Path) -> int:
    """Streams rows into an Arrow file; a row that lacks a column has null there. Returns how many rows there are.

    A column's type is the narrowest that holds all its values. It is known for sure at the end alone, so the rows are
    read a second time when a later one widens a type, which happens to .jsonl files only: all else is text.
    """
    types: Types = {}
    while True:
        rows, written, types = _write_pass(records(), path, types)
        if written == types:
            return rows


def _write_pass(records: Iterator[Record], path: Path, types: Types) -> tuple[int, Types, Types]:
    """Writes rows in `types`, or in those of the first batch, while they fit. Returns rows, types written, needed."""
    rows, written, needed = 0, types, types
    with pa.OSFile(str(path), "wb") as sink:
        writer = None
        while batch := list(islice(records, BATCH)):
            columns, needed = _columns([values for _, values in batch], needed)
            if writer is None:
                written = needed
                schema = pa.schema({**written, PLACE: pa.int64()})
                writer = pa.ipc.new_file(sink, schema)
            if written == needed:
                places = pa.array([place for place, _ in batch], pa.int64())
                writer.write_batch(pa.record_batch({**columns, PLACE: places}, schema=schema))
            rows += len(batch)
        if writer is not None:
            writer.close()
    return rows, written, needed


def _columns(rows: list[dict[str, Any]], types: Types) -> tuple[dict[str, pa.Array], Types]:
    """The columns of some rows, and the types, widened where that was needed to hold them."""
    names = dict.fromkeys([*types, *(name for row in rows for name in row)])
    columns, widened = {}, {}
    for name in names:
        found = array([row.get(name) for row in rows])
        widened[name] = _wider(types.get(name, pa.null()), found.type)
        try:
            columns[name] = _cast(found, widened[name])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # an integer too large for float64, say
            widened[name] = JSON
            columns[name] = as_json(found.to_pylist())
    return columns, widened


def _wider(left: pa.DataType, right: pa.DataType) -> pa.DataType:
    """The narrowest type that holds the values of both; JSON when there is none."""
    if left == right or pa.types.is_null(right):
        return left
    try:
        both = [pa.schema([("column", kind)]) for kind in (left, right)]
        return pa.unify_schemas(both, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return JSON


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    return as_json(values.to_pylist()) if kind == JSON else values.cast(kind)
