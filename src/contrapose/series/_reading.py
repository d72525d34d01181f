"""Time series out of what a user has: arrays, .npz and .npy files, long tables and tables with a series in every row."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contrapose.data.arrow import is_text
from contrapose.data.columns import GROUP
from contrapose.data.faults import numbers
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import (
    ColumnMissing,
    DataDamaged,
    DataEmpty,
    DataFileMissing,
    DataRagged,
    SeriesInvalid,
    SeriesUnordered,
    ValueKind,
    ValueMissing,
    nearest,
)
from contrapose.series._table import SERIES, SeriesTable

NAME, TIME = "series_id", "time"
TIMES = ("date", "datetime", "timestamp")  # what a column of times is also called
WHOLE = ("label", "target", "score", "split", "domain", GROUP)  # of a series as a whole: one value over all its steps


def read_series(source: Any, rename: Mapping[str, str]) -> SeriesTable:
    """Series as they are, unchecked but for their form."""
    if isinstance(source, SeriesTable):
        return source
    if isinstance(source, (str, os.PathLike)) and str(source).lower().endswith((".npz", ".npy")):
        return from_arrays(load_arrays(Path(source).expanduser(), str(source)), rename, str(source))
    if hasattr(source, "detach"):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return from_arrays({SERIES: source}, rename, "the array")
    if isinstance(source, Mapping) and any(is_arrays(values) for values in source.values()):
        return from_arrays(source, rename, "the dict")
    if isinstance(source, Sequence) and not isinstance(source, str) and is_arrays(source):
        return from_arrays({SERIES: source}, rename, "the list")
    table = read(source, strict=False)
    column = rename.get(SERIES, SERIES)
    if column in table and is_list(table.arrow(column).type):
        return from_lists(table, rename)
    return from_long(table, rename)


def is_arrays(values: Any) -> bool:
    """Whether these are series: an array of two dimensions or more, or a list of arrays or of lists."""
    if hasattr(values, "ndim"):
        return values.ndim >= 2
    return isinstance(values, Sequence) and len(values) > 0 and isinstance(values[0], (np.ndarray, list))


def load_arrays(path: Path, source: str) -> dict[str, np.ndarray]:
    """The arrays of a .npz file, or that of a .npy file as "series"; a pickle within is never opened."""
    if not path.is_file():
        raise DataFileMissing(f"There is no file '{source}'; check the path.")
    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.ndarray):
            return {SERIES: opened}
        with opened:
            return {name: opened[name] for name in opened.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else "cut off"
        raise DataDamaged(
            f"{source} is no whole file of plain NumPy arrays: {reason}. Write it again, with numbers or text alone, by numpy.savez."
        ) from None


def from_arrays(arrays: Mapping[str, Any], rename: Mapping[str, str], source: str) -> SeriesTable:
    """`series` (n, t, c) or (n, t), or n arrays of (t, c) or (t,); every other array with n values is a column, `channels` are names."""
    arrays = {**arrays, **{name: arrays[yours] for name, yours in rename.items() if yours in arrays}}
    if SERIES not in arrays:
        raise ColumnMissing(
            f"{source} has no array '{SERIES}' of shape (n, t, c); {nearest(SERIES, arrays)} Say which: --map series=NAME"
        )
    given = arrays[SERIES]
    if hasattr(given, "ndim") and given.ndim not in (2, 3):
        raise SeriesInvalid(
            f"{source}: 'series' has shape {tuple(given.shape)}; n series of t steps and c channels have (n, t, c), of one channel (n, t)."
        )
    if not len(given):
        raise DataEmpty(f"{source} holds no series. Give at least one batch of them.")
    series = [one_series(each, f"series {row} of {source}") for row, each in enumerate(given)]
    others = {}
    for name, values in arrays.items():
        if name in (SERIES, "channels") or name in rename.values():
            continue
        values = np.asarray(values)
        if values.ndim == 1:
            if len(values) != len(series):
                raise DataRagged(
                    f"{source}: '{name}' has {len(values):,} values for {len(series):,} series; give one for each."
                )
            others[name] = values.tolist()
    count = series[0].shape[1]
    names = [str(name) for name in arrays.get("channels", range(count))]
    if len(names) != count:
        raise DataRagged(f"{source}: 'channels' has {len(names):,} names for {count:,} channels; give one for each.")
    return SeriesTable(series, names, others, source=source)


def one_series(values: Any, where: str) -> np.ndarray:
    """(t, c) float64. Raises SeriesInvalid, ValueKind."""
    try:
        given = np.asarray(values)
        if np.iscomplexobj(given):
            raise ValueKind(f"{where} holds complex numbers; give their parts, or size and angle, as channels.")
        series = given.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueKind(
            f"{where} holds something else than numbers, or steps with different numbers of channels."
        ) from None
    if series.ndim == 1:
        series = series[:, None]
    if series.ndim != 2:
        raise SeriesInvalid(f"{where} has shape {series.shape}; a series has (steps, channels).")
    return series


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def from_lists(table: Table, rename: Mapping[str, str]) -> SeriesTable:
    """A series in every row: a list of numbers, or a list of steps that are lists of channels."""
    table = table.renamed({name: yours for name, yours in rename.items() if yours in table})
    series = [one_series(with_nan(values), table.where(row)) for row, values in enumerate(table[SERIES])]
    names = [str(number) for number in range(series[0].shape[1])]
    others = {name: list(table[name]) for name in table.columns if name != SERIES}
    places = [table.where(row) for row in range(len(table))]
    return SeriesTable(series, names, others, source=table.source, places=places)


def with_nan(values: Any) -> Any:
    if values is None:
        return np.nan
    return [with_nan(value) for value in values] if isinstance(values, list) else values


def from_long(table: Table, rename: Mapping[str, str]) -> SeriesTable:
    """A row a step: `series_id` names the series (without it there is one), `time` orders it, each other column of numbers is a channel."""
    for name, yours in rename.items():
        for column in yours.split(",") if name == SERIES else [yours]:
            if column not in table:
                raise ColumnMissing(
                    f"--map {name}={yours}: {table.source} has no column '{column}'; {nearest(column, table.columns)}"
                )
    wanted = rename[SERIES].split(",") if SERIES in rename else None
    table = table.renamed({name: yours for name, yours in rename.items() if name != SERIES})
    time = next((name for name in (TIME, *TIMES) if name in table and name not in (wanted or ())), None)
    channels = wanted or [name for name in table.columns if name not in {NAME, time, *WHOLE, *rename}]
    if not channels:
        raise ColumnMissing(f"{table.source} has no column of numbers over time beside {', '.join(table.columns)}.")
    values = np.stack([channel(table, name) for name in channels], axis=1)
    starts = starts_of(table)
    stops = np.append(starts[1:], len(table))
    if time is not None:
        refuse_disorder(table, time, starts)
    others = {name: constant(table, name, starts, stops) for name in WHOLE if name in table and name not in channels}
    places = None
    if NAME in table:
        ids = table[NAME]
        names = [str(ids[int(start)]) for start in starts]
        others = {NAME: names, **others}
        places = [f"{table.source}, series '{name}'" for name in names]
    series = [values[start:stop] for start, stop in zip(starts, stops, strict=True)]
    return SeriesTable(series, channels, others, source=table.source, places=places)


def channel(table: Table, name: str) -> np.ndarray:
    """(n,) float64, NaN where a cell is empty. Raises ValueKind for what is no number."""
    found = numbers(table.arrow(name))
    wrong = np.flatnonzero(np.isnan(found) & ~absent(table, name))
    if len(wrong):
        row = int(wrong[0])
        raise ValueKind(
            f"{table.where(row)}: column '{name}' is {table[name][row]!r}, not a number ({len(wrong):,} such rows), so it is no channel. Say what it "
            f"is (--map time={name} or --map series_id={name}), or name the channels: --map series=COLUMN,COLUMN"
        )
    return found


def absent(table: Table, name: str) -> np.ndarray:
    """(n,) bool: where a column has no value."""
    column = table.arrow(name)
    missing = column.is_null(nan_is_null=True).to_numpy()
    if is_text(column.type):
        missing = missing | np.array([not str(value or "").strip() for value in table[name]])
    return missing


def starts_of(table: Table) -> np.ndarray:
    """The first row of each series. Raises SeriesUnordered where the rows of a series do not stand together."""
    if NAME not in table:
        return np.zeros(1, int)
    nameless = np.flatnonzero(absent(table, NAME))
    if len(nameless):
        raise ValueMissing(
            f"{table.where(int(nameless[0]))}: '{NAME}' is empty ({len(nameless):,} such rows), so it is not known which series the step belongs to. "
            "Fill it in, or leave the row out."
        )
    ids = np.array([str(value) for value in table[NAME]])
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    firsts: dict[str, int] = {}
    for start in starts.tolist():
        if firsts.setdefault(ids[start], start) != start:
            raise SeriesUnordered(
                f"{table.where(start)}: series '{ids[start]}' begins a second time; the rows of a series stand together. Sort by {NAME} and {TIME}."
            )
    return starts


def refuse_disorder(table: Table, time: str, starts: np.ndarray) -> None:
    """Raises SeriesUnordered where times do not rise within a series, ValueMissing for a step without one.

    Times that are neither numbers nor dates of ISO 8601 are not judged.
    """
    untimed = np.flatnonzero(absent(table, time))
    if len(untimed):
        raise ValueMissing(
            f"{table.where(int(untimed[0]))}: '{time}' is empty ({len(untimed):,} such rows), so the step has no place. Fill it in, or leave the row out."
        )
    moments = moments_of(table.arrow(time))
    if moments is None:
        return
    back = np.flatnonzero(~(np.diff(moments) > 0)) + 1
    back = back[~np.isin(back, starts)]
    if len(back):
        row = int(back[0])
        raise SeriesUnordered(
            f"{table.where(row)}: '{time}' is {table[time][row]} after {table[time][row - 1]}, and does not rise ({len(back):,} such rows). Sort by "
            f"{NAME} and {TIME}, one row a step."
        )


def moments_of(column: pa.ChunkedArray) -> np.ndarray | None:
    """Times as numbers (n,): numbers as they are, also where they are spelt as text, dates in microseconds; None for anything else."""
    if not pa.types.is_temporal(column.type):
        found = numbers(column)
        if np.isfinite(found).all():
            return found
    try:
        dates = column if pa.types.is_temporal(column.type) else pc.cast(column, pa.timestamp("us"))
        return pc.cast(pc.cast(dates, pa.timestamp("us")), pa.int64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def constant(table: Table, name: str, starts: np.ndarray, stops: np.ndarray) -> list[Any]:
    """The one value of each series. Raises SeriesUnordered where it changes within one."""
    values = list(table[name])
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        for row in range(start, stop):
            if values[row] != values[start]:
                raise SeriesUnordered(
                    f"{table.where(row)}: '{name}' is {values[row]!r} and was {values[start]!r} in the same series; a series has one. "
                    f"Name your series in a column {NAME}."
                )
    return [values[start] for start in starts.tolist()]
