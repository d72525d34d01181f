"""Vectors in tables: arrays become columns, and columns become arrays again."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contrapose.data.arrow import JSON, is_blank, is_text
from contrapose.data.cache import file_digest
from contrapose.data.faults import numbers
from contrapose.data.table import Table, Values
from contrapose.errors import DataDamaged, DataEmpty, DataFileMissing, DataRagged, VectorsInvalid

NUMBERS = "biuf"  # kinds of NumPy types that are numbers


def npz_table(path: Path, source: str) -> Table:
    """The arrays of an .npz file as columns, a row for each place along their first axis; arrays without axes are passed over.

    Raises DataFileMissing, DataDamaged for what is no .npz or holds pickles, DataEmpty, DataRagged.
    """
    if not path.is_file():
        raise DataFileMissing(f"There is no file '{source}'. Check the path.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataDamaged(
            f"{source} is not a whole .npz file of numbers and texts: {reason}. Write it again, without objects."
        ) from None
    columns = {name: array for name, array in arrays.items() if array.ndim > 0}
    return arrays_table(columns, source, f"{file_digest(path)}-npz")


def arrays_table(columns: Mapping[str, Any], source: str, key: str | None = None) -> Table:
    """Arrays of equal length, or whatever else holds a column's values, as a table. Raises DataEmpty, DataRagged, VectorsInvalid."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"'{name}' {length:,}" for name, length in lengths.items())
        raise DataRagged(f"The columns of {source} are not equally long: {counts}. Row i of each belongs together.")
    if not any(lengths.values()):
        raise DataEmpty(f"{source} holds no rows. Give at least one batch of them.")
    for name, values in columns.items():
        shape, kind = tuple(getattr(values, "shape", ())), str(getattr(values, "dtype", ""))
        if 0 in shape[1:] or "complex" in kind:
            held = f"is {kind}" if "complex" in kind else f"has shape {shape}, rows without a number"
            raise VectorsInvalid(
                f"{source}: column '{name}' {held}; give real numbers, one or more a row, or leave the column out."
            )
    return Table(pa.table({name: as_arrow(values) for name, values in columns.items()}), source=source, key=key)


def as_arrow(values: Any) -> pa.Array:
    """An array (n, …) of numbers as nested lists of fixed sizes, and (n,) as plain values. A missing row (NaN alone) is null."""
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray) or values.ndim == 1 or values.dtype.kind not in NUMBERS:
        return pa.array(values.tolist() if isinstance(values, np.ndarray) else list(values), from_pandas=True)
    column = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:1:-1]:
        column = pa.FixedSizeListArray.from_arrays(column, size)
    missing = np.isnan(values.reshape(len(values), -1)).all(axis=1) if values.dtype.kind == "f" else None
    mask = None if missing is None or not missing.any() else pa.array(missing)
    return pa.FixedSizeListArray.from_arrays(column, values.shape[1], mask=mask)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def holds_numbers(kind: pa.DataType) -> bool:
    """Whether a type is numbers, or lists of them."""
    while is_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def vectors_of(table: Table, name: str) -> np.ndarray:
    """A column's rows as vectors, float32 of shape (n, size): each flattened, what is missing NaN. Raises VectorsInvalid with the place."""
    column = table.arrow(name)
    if is_text(column.type):
        found = numbers(column)
        _refuse_words(table, name, ~np.isfinite(found) & ~is_blank(column))
        return found.astype(np.float32)[:, None]
    try:
        dense = _dense(column.combine_chunks()) if column.type != JSON else None
    except (ValueError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        dense = None
    if dense is None:  # row by row, for the one that is wrong
        return flat(table[name], lambda row: f"{table.where(row)}: column '{name}'")
    vectors = dense.reshape(len(dense), -1)
    _refuse_infinite(vectors, lambda row: f"{table.where(row)}: column '{name}'")
    return vectors


def arrays_of(table: Table, name: str) -> Sequence[Any]:
    """A column's values as they stand in the table, those that are lists of numbers as arrays: uint8 where they are bytes, else float32."""
    values, kind = table[name], table.arrow(name).type
    if not is_list(kind) or not holds_numbers(kind):
        return values
    while is_list(kind):
        kind = kind.value_type
    return Arrays(values, np.dtype(np.uint8 if pa.types.is_uint8(kind) else np.float32))


class Arrays(Sequence[Any]):
    """Lists of numbers as arrays, made when they are asked for; what is missing stays None."""

    def __init__(self, values: Values, kind: np.dtype) -> None:
        self.values, self.kind = values, kind

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        found = self.values[index]
        one = isinstance(index, (int, np.integer))
        made = [None if value is None else np.asarray(value, self.kind) for value in ([found] if one else found)]
        return made[0] if one else made


def flat(values: Sequence[Any], where: Any, size: int | None = None) -> np.ndarray:
    """Values as vectors, float32 of shape (n, size); None is NaN throughout. Raises VectorsInvalid, `where(row)` being the place in words."""
    rows: list[np.ndarray | None] = []
    for row, value in enumerate(values):
        if value is None:
            rows.append(None)
            continue
        try:
            each = np.asarray(value, dtype=np.float32).reshape(-1)
        except (TypeError, ValueError):
            raise VectorsInvalid(f"{where(row)} is {_short(value)}, not numbers in one shape.{FOR_TEXT}") from None
        size = size if size is not None else len(each)
        if len(each) != size:
            raise VectorsInvalid(
                f"{where(row)} holds {len(each):,} numbers where {size:,} were expected; every row needs as many, or none at all (null)."
            )
        rows.append(each)
    vectors = np.full((len(rows), size or 0), np.nan, np.float32)
    for row, each in enumerate(rows):
        if each is not None:
            vectors[row] = each
    _refuse_infinite(vectors, where)
    return vectors


FOR_TEXT = " Vectors are learned from numbers; for texts or pictures name their encoder: --encoder words=text:minilm."


def _dense(values: pa.Array) -> np.ndarray:
    """(n, …) float32 of numbers or nested lists, null as NaN. Raises ValueError for lists of several lengths."""
    if not is_list(values.type):
        return values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    present = values.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(values.filter(pa.array(present))).to_numpy(zero_copy_only=False)
    if len(lengths) == 0 or (lengths != lengths[0]).any():
        raise ValueError("lists of several lengths")
    inner = _dense(pc.list_flatten(values))
    dense = np.full((len(values), int(lengths[0]), *inner.shape[1:]), np.nan, np.float32)
    dense[present] = inner.reshape(int(present.sum()), int(lengths[0]), *inner.shape[1:])
    return dense


def _refuse_words(table: Table, name: str, wrong: np.ndarray) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise VectorsInvalid(
            f"{table.where(row)}: column '{name}' is {_short(table[name][row])}, not numbers in one shape.{FOR_TEXT}"
        )


def _refuse_infinite(vectors: np.ndarray, where: Any) -> None:
    infinite = np.isinf(vectors).any(axis=1)
    if infinite.any():
        raise VectorsInvalid(
            f"{where(int(infinite.argmax()))} holds infinity ({int(infinite.sum()):,} such rows in all), which nothing can be learned from; "
            "leave the value out (NaN) or mend it."
        )


def _short(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 40 else repr(value)[:39] + "…"
