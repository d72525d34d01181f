"""Rows of several modalities: any columns, each collated as its own encoder reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contrapose.data.arrow import is_blank, is_text
from contrapose.data.batches import Data
from contrapose.data.check import CheckReport, Problem, check
from contrapose.data.columns import GROUP, Column
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import (
    ColumnMissing,
    ContraposeError,
    DataEmpty,
    ModalitiesTooFew,
    ValueMissing,
    VectorsInvalid,
    nearest,
)
from contrapose.multimodal._arrays import arrays_of, arrays_table, npz_table, vectors_of
from contrapose.multimodal._projected import is_missing
from contrapose.multimodal.encoder import VectorEncoder
from contrapose.training.encoder import Encoder, Encoders
from contrapose.training.method import Card


def read_data(
    source: Any,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Sequence[Column] = (),
    drop_empty: bool = False,
    strict: bool = True,
) -> Table:
    """Rows of several modalities as a table: what `contrapose.data.readers.read` takes, an .npz file, or a dict of arrays (n, …).

    A column of vectors is an array of an .npz file, a list column of a Parquet or .jsonl file, or a column of plain numbers. A row that a
    modality lacks is null there, or NaN throughout. Paths of files are relative to the file of the table. `drop_empty` leaves out rows that lack any column. Raises what `read` raises.
    """
    if isinstance(source, (str, os.PathLike)) and os.fspath(source).lower().endswith(".npz"):
        source = npz_table(Path(source).expanduser(), os.fspath(source))
    elif isinstance(source, Mapping) and any(getattr(values, "ndim", 0) > 1 for values in source.values()):
        source = arrays_table({str(name): values for name, values in source.items()}, "the dict")
    table = read(source, rename=rename, needs=needs, drop_empty=drop_empty, strict=strict)
    if isinstance(source, (str, os.PathLike)) and Path(source).is_file():
        table = with_whole_paths(table, Path(source).parent)
    return _without_gaps(table) if drop_empty else table


def open_data(table: Table, card: Card, encoder: Encoders) -> Data:
    """A table as what a method trains on: a column for each encoder, as that encoder reads it.

    Raises ModalitiesTooFew, ColumnMissing, VectorsInvalid, and ValueMissing for a row without a modality whose encoder does not learn from
    missing ones.
    """
    refuse_columns(table, encoder)
    columns = {}
    for name, each in encoder.items():
        values = values_of(table, name, each)
        refuse_missing(table, name, each, values)
        columns[name] = opened_by(each, table, name, values)
    return Data(columns, len(table), table.group, {}, table.source, table.fingerprint)


def opened_by(encoder: Encoder, table: Table, column: str, values: Sequence[Any]) -> Any:
    """A column as its encoder opens it, which knows values but no table: its errors get the table's and the column's name."""
    try:
        return encoder.open_column(values)
    except ContraposeError as error:
        raise type(error)(f"{table.source}: column '{column}': {error.args[0]}") from None


def check_data(table: Table, card: Card, encoder: Encoders, batch_size: int) -> CheckReport:
    """What is wrong with rows of several modalities, by row."""
    report = check(table, card.columns, batch_size=batch_size)
    found = []
    if len(table) < 2:
        found.append(
            Problem(
                f"{table.source} holds a single row, so that no anchor has a negative; give two at least, a batch's worth is better.",
                0,
                "",
                stops=True,
            )
        )
    for name, each in encoder.items():
        try:
            refuse_columns(table, encoder)
            values = values_of(table, name, each)
            refuse_missing(table, name, each, values)
            opened_by(each, table, name, values)
        except ContraposeError as error:
            found.append(Problem(error.args[0], 0, "", stops=True))
    found = list({problem.message: problem for problem in found}.values())
    return replace(report, problems=(*report.problems, *found))


def values_of(table: Table, column: str, encoder: Encoder) -> Sequence[Any]:
    """A column's values as its encoder takes them: of vectors an array (n, size), what is missing NaN; else what stands in the table, lists of
    numbers (pictures) as arrays.

    Raises VectorsInvalid, with the place, for a row of vectors that does not fit the encoder.
    """
    if not isinstance(encoder, VectorEncoder):
        return arrays_of(table, column)
    vectors = vectors_of(table, column)
    if vectors.shape[1] != encoder.size:
        raise VectorsInvalid(
            f"{table.source}: column '{column}' holds {vectors.shape[1]:,} numbers a row, and its encoder reads {encoder.size:,}. "
            "Give vectors of the kind that it was made for."
        )
    return vectors


def refuse_values(table: Table, column: str) -> None:
    """Nothing: what a column may hold is known to its encoder alone, which refuses by itself."""


def refuse_columns(table: Table, encoders: Mapping[str, Encoder] | Encoders) -> None:
    """Raises ModalitiesTooFew, or ColumnMissing for an encoder whose column the table lacks."""
    if len(encoders) < 2:
        raise ModalitiesTooFew(
            f"{table.source} has {'one modality' if len(encoders) else 'no modality'}"
            f"{''.join(f', {name!r}' for name in encoders)}; at least two columns are needed beside {GROUP}: "
            "--encoder picture=vectors,sound=vectors names them."
        )
    for name in encoders:
        if name not in table:
            raise ColumnMissing(
                f"{table.source} has no column '{name}', which an encoder is given for; {nearest(name, table.columns)} "
                f"Or say which is meant: --map {name}=COLUMN"
            )


def refuse_missing(table: Table, column: str, encoder: Encoder, values: Sequence[Any]) -> None:
    """Raises ValueMissing, with the place of the first, for missing values that the encoder does not learn from."""
    if getattr(encoder, "takes_missing", False):
        return
    vectors = isinstance(values, np.ndarray)
    missing = np.isnan(values).any(axis=1) if vectors else np.array([is_missing(value) for value in values])
    rows = np.flatnonzero(missing)
    if len(rows):
        count = "the only such row" if len(rows) == 1 else f"{len(rows):,} such rows in all"
        lacks = "is empty" if not vectors or np.isnan(values[rows[0]]).all() else "lacks a number"
        raise ValueMissing(
            f"{table.where(int(rows[0]))}: column '{column}' {lacks} ({count}). To learn from rows that lack a modality, or part of one: "
            "--set encoder.missing=learned. To leave rows without a modality out: --drop-empty."
        )


def with_whole_paths(table: Table, folder: Path) -> Table:
    """The table with paths in place of texts that name files below the folder of its own file, in columns whose first text does."""
    for name in table.columns:
        values = table.arrow(name)
        if not is_text(values.type) or folder == Path():
            continue
        blank = is_blank(values)
        first = "" if blank.all() else values[int(blank.argmin())].as_py()
        if 0 < len(first) < 500 and not os.path.isabs(first) and os.path.isfile(folder / first):
            start, slash = (pa.scalar(text, pa.large_string()) for text in (str(folder), "/"))
            whole = pc.binary_join_element_wise(start, values, slash)
            table = table.replaced(name, pc.if_else(pa.array(blank), values, whole))
    return table


def _without_gaps(table: Table) -> Table:
    empty = np.zeros(len(table), bool)
    for column in table.columns:
        if column != GROUP:
            values = table.arrow(column)
            if is_text(values.type):
                empty |= is_blank(values)
            else:
                floats = pa.types.is_floating(values.type)
                empty |= values.is_null(nan_is_null=floats).to_numpy()
    if empty.all():
        raise DataEmpty(f"{table.source}: each of the {len(table):,} rows lacks a column; none is left.")
    if not empty.any():
        return table
    kept = table.take(np.flatnonzero(~empty))
    kept.dropped = table.dropped + int(empty.sum())
    return kept
