"""Values of a column that a method cannot use: found all at once, refused with the place of the first."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contrapose.data.arrow import JSON, is_blank, is_text
from contrapose.data.columns import Column
from contrapose.data.table import Table, Values
from contrapose.errors import ColumnMissing, ContraposeError, ValueKind, ValueMissing, nearest


@dataclass(frozen=True)
class Fault:
    """Rows of a column that share a fault. `what` goes on from the column's name: "is empty", "is 17, not a text"."""

    column: Column
    rows: np.ndarray  # int64, ascending, at least one
    what: str
    why: str
    mend: str
    error: type[ContraposeError]

    def refuse(self, table: Table) -> ContraposeError:
        """The error that names the first of the rows and how many there are."""
        count = "the only such row" if len(self.rows) == 1 else f"{len(self.rows):,} such rows in all"
        where = table.where(int(self.rows[0]))
        return self.error(f"{where}: column '{self.column.name}' {self.what} ({count}). {self.why} {self.mend}")


def missing_columns(table: Table, needs: Sequence[Column]) -> ColumnMissing | None:
    """The error for required columns that the table lacks, with the nearest that it has; None when all are there."""
    missing = [column for column in needs if column.required and column.name not in table]
    if not missing:
        return None
    names = " and ".join(f"'{column.name}' ({column.help.rstrip('.')})" for column in missing)
    lacks = f"{table.source} has no column{'s' if len(missing) > 1 else ''} {names}"
    if len(table.columns) == 1 and ";" in table.columns[0]:
        return ColumnMissing(f"{lacks}; its header, '{table.columns[0]}', has semicolons. Save it with commas.")
    free = set(table.columns) - {column.name for column in needs} or set(table.columns)
    guesses = {column.name: difflib.get_close_matches(column.name, free, n=1) or ["COLUMN"] for column in missing}
    maps = " ".join(f"--map {name}={guess}" for name, [guess] in guesses.items())
    return ColumnMissing(f"{lacks}; {nearest(missing[0].name, free)} Say which is meant: {maps}")


def faults(table: Table, column: Column) -> list[Fault]:
    """What is wrong with the values of a column that the table has: at most one fault of each sort."""
    values = table.arrow(column.name)
    missing = _is_missing(values)
    if column.kind == "text":
        wrong = _is_not_text(values) & ~missing
    elif column.kind in ("number", "score"):
        wrong = ~np.isfinite(numbers(values)) & ~missing
    else:
        wrong = np.zeros(len(missing), bool)
    found = []
    if missing.any():
        found.append(_empty(column, np.flatnonzero(missing)))
    if wrong.any():
        found.append(_wrong(column, np.flatnonzero(wrong), table))
    return found


def numbers(values: pa.ChunkedArray) -> np.ndarray:
    """A column as float64 of shape (n,): numbers as they are, texts as the numbers that they spell, else NaN."""
    try:
        if is_text(values.type):
            values = pc.if_else(pa.array(is_blank(values)), None, pc.utf8_trim_whitespace(values))
        return values.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # value by value, to find the ones that are no numbers
        return np.array([_number(value) for value in Values(values)])


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _is_missing(values: pa.ChunkedArray) -> np.ndarray:
    if is_text(values.type):
        return is_blank(values)
    if values.type == JSON:
        return np.array([value is None or (isinstance(value, str) and not value.strip()) for value in Values(values)])
    return values.is_null(nan_is_null=True).to_numpy()


def _is_not_text(values: pa.ChunkedArray) -> np.ndarray:
    if values.type == JSON:
        return np.array([not isinstance(value, str) or _is_half_character(value) for value in Values(values)])
    return np.full(len(values), not is_text(values.type))


def _is_half_character(text: str) -> bool:
    """Whether a text holds half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _empty(column: Column, rows: np.ndarray) -> Fault:
    why = "An empty text gives a constant embedding, so the row can't be learnt."
    if column.kind != "text":
        why = f"A row without its {column.kind} can't be used."
    return Fault(column, rows, "is empty", why, "Fill it in, or drop such rows with --drop-empty.", ValueMissing)


def _wrong(column: Column, rows: np.ndarray, table: Table) -> Fault:
    value = table[column.name][int(rows[0])]
    expected, why = "text", "Nothing is turned into text unasked: the column may be mistaken for another."
    if column.kind != "text":
        expected, why = "a finite number", "Only numbers can be compared with what the encoder says."
    elif isinstance(value, str):
        why = "It holds half of a surrogate pair, which is no character."
    shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:39] + "…"
    mend = f"Mend it, or name the column that is meant: --map {column.name}=COLUMN."
    return Fault(column, rows, f"is {shown}, not {expected}", why, mend, ValueKind)
