"""Time series as what methods train on: windows of equal size, missing values marked, scaled as the encoder says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import LongTensor, Tensor

from contrapose.data.batches import Data, Rows
from contrapose.data.check import CheckReport, Problem
from contrapose.data.columns import GROUP, Column
from contrapose.data.faults import missing_columns
from contrapose.data.plain import plain_columns
from contrapose.data.readers import read
from contrapose.errors import ColumnUnknown, ContraposeError, DataEmpty, SeriesInvalid, ValueKind, nearest
from contrapose.series._reading import NAME, TIME, WHOLE, read_series
from contrapose.series._table import ROW, SERIES, Arrays, SeriesTable
from contrapose.training.method import Card, Method

if TYPE_CHECKING:
    from contrapose.series.encoder import SeriesEncoder

LEAST_STEPS = 4


def read_data(
    source: Any,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Sequence[Column] = (),
    drop_empty: bool = False,
    strict: bool = True,
) -> SeriesTable:
    """Time series and what is known of each, checked against what is needed of them.

    source: a .npz file or a dict with `series` (n, t, c) or (n, t), and any other arrays of n values as columns (`label`); a .npy file or an
        array of that shape; a list of arrays (t, c) or (t,), of any lengths; a .parquet or .jsonl file whose column `series` holds lists; or a
        long table (.csv, .tsv, .jsonl, .parquet, a DataFrame, whatever `contrapose.data.readers.read` takes) with a row a step: `series_id`
        names the series, whose rows stand together, `time` (or `date`, `datetime`, `timestamp`) rises within each; `label`, `target`, `score`,
        `split`, `domain` and `group_id` have one value a series; every other column is a channel. Without `series_id` the table is one series.
    rename: `{"series_id": "sensor", "time": "hour"}`; `{"series": "OT"}` or `{"series": "HUFL,OT"}` names the channels of a long table.
    needs: the columns to check; others are kept as they are.
    drop_empty: leave out series without any value, and series with a needed column empty, in place of raising.
    strict: False reads without the check of values; what cannot be read at all still raises.

    A value that is missing (an empty cell, NaN) is NaN; whether that is allowed, the encoder says (`missing`).
    Raises what `read` raises, SeriesInvalid, SeriesUnordered, ValueMissing, DataRagged, DataDamaged.
    """
    rename = dict(rename or {})
    known = [*(column.name for column in needs), NAME, TIME, *WHOLE, GROUP]
    for name in rename:
        if needs and name not in known:
            raise ColumnUnknown(
                f"--map {name}={rename[name]}: the method has no column '{name}'; {nearest(name, known)}"
            )
    table = read_series(source, rename)
    if not len(table):
        raise DataEmpty(f"{table.source} holds no series. Give at least one batch of them.")
    if not strict:
        return table
    empty = np.array([np.isnan(series).all() for series in table.series])
    if empty.any() and not drop_empty:
        raise SeriesInvalid(
            f"{table.where(int(empty.argmax()))} has no value at all ({int(empty.sum()):,} such series). Drop such series with --drop-empty."
        )
    for row, series in enumerate(table.series):
        if not empty[row]:
            refuse_series(series, table.where(row), table.channels)
    kept = table.take(np.flatnonzero(~empty)) if empty.any() else table
    if not len(kept):
        raise DataEmpty(f"{table.source}: none of the {len(table):,} series has any value.")
    others = [column for column in needs if column.name != SERIES]
    lacking = missing_columns(kept, others)
    if lacking is not None:
        raise lacking
    if others:
        numbered = kept.renumbered()
        checked = read(numbered.others, needs=others, drop_empty=drop_empty)
        kept = numbered.take(list(checked[ROW]))
        kept.others = checked
    kept.dropped = len(table) - len(kept)
    return kept


def refuse_series(series: np.ndarray, where: str, channels: Sequence[str]) -> None:
    """Raises SeriesInvalid for a series that no encoder takes: other channels than the rest, too few steps, an infinite value."""
    if series.shape[1] != len(channels):
        raise SeriesInvalid(
            f"{where} has {series.shape[1]} channels, the others {len(channels)}; all series need the same."
        )
    steps = length_of(series)
    if steps < LEAST_STEPS:
        raise SeriesInvalid(f"{where} has {steps} steps; {LEAST_STEPS} are the least that windows can be compared in.")
    if np.isinf(series).any():
        step, number = np.argwhere(np.isinf(series))[0]
        raise SeriesInvalid(
            f"{where}: channel '{channels[number]}' is infinite at step {step}. Mend it, or leave the cell empty."
        )


def refuse_missing(series: np.ndarray, where: str, channels: Sequence[str]) -> None:
    """Raises SeriesInvalid for a value that is missing before the end of the series."""
    inside = np.isnan(series[: length_of(series)])
    if inside.any():
        step, number = np.argwhere(inside)[0]
        name = channels[number] if number < len(channels) else number
        raise SeriesInvalid(
            f"{where}: channel '{name}' has no value at step {step} ({int(inside.sum()):,} values are missing in this series). Fill them in, or say "
            "what they mean: encoder.missing=mask hides such steps from the encoder, encoder.missing=zero reads them as 0 after scaling."
        )


def length_of(series: np.ndarray) -> int:
    """Steps up to the last one that has any value."""
    present = np.flatnonzero(~np.isnan(series).all(axis=1))
    return int(present[-1]) + 1 if len(present) else 0


class SeriesColumn:
    """n series of up to `longest` steps: `column[rows]` is float32 of shape (b, longest, c), NaN where there is no value."""

    def __init__(self, series: Sequence[np.ndarray]) -> None:
        self.lengths = torch.tensor([len(each) for each in series])
        self.longest = int(self.lengths.max())
        self.values = torch.full((len(series), self.longest, series[0].shape[1]), torch.nan)
        for row, each in enumerate(series):
            self.values[row, : len(each)] = torch.from_numpy(each)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: LongTensor) -> Tensor:
        return self.values[rows]


def lengths_of(column: SeriesColumn | Rows) -> LongTensor:
    """Steps of each row of a column, or of some of its rows."""
    return lengths_of(column.column)[column.rows] if isinstance(column, Rows) else column.lengths


def say_short_series(method: Method, data: Data, windows: int) -> None:
    """Leave a remark where series are too short for a term that compares windows of them."""
    short = int((lengths_of(data.columns[SERIES]) < windows).sum())
    if short:
        method.remarks.append(
            f"{short:,} of {len(data):,} series have fewer than {windows} steps, so no windows, and no part in the local term"
        )


def windows_of(series: np.ndarray, most: int) -> list[np.ndarray]:
    """A series cut into the fewest pieces of at most `most` steps, as equal as they can be."""
    pieces = np.array_split(series, -(-len(series) // most))
    return [piece for piece in pieces if not np.isnan(piece).all()]


def open_data(table: SeriesTable, card: Card, encoder: SeriesEncoder) -> Data:
    """A checked table as what a method trains on: windows of at most `encoder.window` steps, each with its series' other columns.

    Raises SeriesInvalid for channels that the encoder does not have, and for missing values where it refuses them.
    """
    pieces, owner = [], []
    for row, series in enumerate(table.series):
        ready = encoder.prepared(series, table.where(row))
        found = windows_of(ready, encoder.window)
        pieces += found
        owner += [row] * len(found)
    rows = np.array(owner)
    others, categories = plain_columns(table, [column for column in card.columns if column.name != SERIES])
    columns = {SERIES: SeriesColumn(pieces), **{name: values[rows] for name, values in others.items()}}
    group = None if table.group is None else table.group[rows]
    return Data(columns, len(pieces), group, categories, table.source, table.fingerprint)


def check_data(table: SeriesTable, card: Card, encoder: SeriesEncoder, batch_size: int) -> CheckReport:
    """What is wrong with series for a method, by series, as the encoder sees them."""
    found: dict[str, list[int]] = {}
    for row, series in enumerate(table.series):
        try:
            if np.isnan(series).all():
                raise SeriesInvalid("it has no value at all.")
            refuse_series(series, "", table.channels)
            encoder.prepared(series, "")
        except ContraposeError as error:
            found.setdefault(error.args[0].lstrip(": "), []).append(row)
    problems = [
        Problem(f"column 'series': {message}", len(rows), f"series {', '.join(map(str, rows[:5]))}", stops=True)
        for message, rows in found.items()
    ]
    for column in card.columns:
        if column.required and column.name not in table:
            problems.append(Problem(f"{table.source} has no column '{column.name}'.", 0, "", stops=True))
    return CheckReport(
        source=table.source,
        rows=len(table),
        columns=tuple(table.columns),
        groups=None if table.group is None else int(table.group.max()) + 1,
        limit=None,
        texts=(),
        examples=(),
        false_negatives=None,
        problems=tuple(problems),
    )


def refuse_unfit(encoder: SeriesEncoder, series: Sequence[np.ndarray], where: Callable[[int], str]) -> None:
    """Raises SeriesInvalid for the first series that the encoder does not take; `where(row)` names it."""
    for row, values in enumerate(series):
        encoder.prepared(values, where(row))


def values_of(table: SeriesTable, column: str, encoder: Any) -> Arrays:
    """The series as the encoder's `encode` takes them, (t, c) each, whole and not scaled."""
    refuse_values(table, column)
    return table[column]


def refuse_values(table: SeriesTable, column: str) -> None:
    """Raises ValueKind for a column that holds no series."""
    if column != SERIES:
        raise ValueKind(
            f"{table.source}: column '{column}' holds no series; an encoder of series embeds '{SERIES}' alone."
        )
