"""A table: named columns of equal length, mapped into memory, whose rows know where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from contrapose.data.arrow import JSON, PLACE, codes, is_text
from contrapose.data.columns import GROUP
from contrapose.errors import ColumnMissing, nearest

if TYPE_CHECKING:
    from torch import LongTensor


class Values(Sequence[Any]):
    """A column of n values, read when they are asked for.

    `values[3]` is one value; `values[10:20]`, `values[[4, 2]]` and `values[rows]`, with integers in a NumPy array or a
    LongTensor, are lists.
    """

    def __init__(self, column: pa.ChunkedArray, rows: np.ndarray | None = None) -> None:
        self._chunks = column.chunks
        self._starts = np.cumsum([0, *map(len, self._chunks)])
        self._rows = rows
        self._is_json = column.type == JSON

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            return self._gather(row_numbers([index], len(self)))[0]
        return self._gather(row_numbers(index, len(self)))

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), 1024):
            yield from self[start : start + 1024]

    def __repr__(self) -> str:
        return f"Values({len(self):,}: {', '.join(map(repr, self[:3]))}{', …' if len(self) > 3 else ''})"

    def _gather(self, rows: np.ndarray) -> list[Any]:
        if self._rows is not None:
            rows = self._rows[rows]
        chunk = np.searchsorted(self._starts, rows, side="right") - 1
        offset = rows - self._starts[chunk]
        # Value by value: `ChunkedArray.take` would join all the chunks first.
        values = [self._chunks[c][i].as_py() for c, i in zip(chunk.tolist(), offset.tolist(), strict=True)]
        return [None if value is None else json.loads(value) for value in values] if self._is_json else values


class Table:
    """Named columns of equal length over an Arrow table, in memory or mapped from a file.

    `source` names the data in messages. `by_line`: the rows come from the lines of a file. `dropped`: how many rows
    were left out because a needed column was empty. Rows count from 0, as in Python; lines from 1, as in an editor.
    """

    def __init__(
        self, arrow: pa.Table, *, source: str = "the table", by_line: bool = False, key: str | None = None
    ) -> None:
        if PLACE not in arrow.column_names:
            arrow = arrow.append_column(PLACE, pa.array(np.arange(len(arrow))))
        self.source = source
        self.dropped = 0
        self._arrow = arrow
        self._by_line = by_line
        self._key = key  # identifies the content where it is known already, as it is of a file
        self._rows: np.ndarray | None = None  # rows of `_arrow`; None: all

    def __len__(self) -> int:
        return len(self._arrow) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"Table({self.source}: {len(self):,} rows; {', '.join(self.columns)})"

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Values:
        self._require(name)
        return Values(self._arrow[name], self._rows)

    @property
    def columns(self) -> list[str]:
        return [name for name in self._arrow.column_names if name != PLACE]

    def arrow(self, name: str) -> pa.ChunkedArray:
        """A column in Arrow, for work on all its values at once; text, or no value at all, is `large_string`."""
        self._require(name)
        column = self._arrow[name]
        if is_text(column.type) or pa.types.is_null(column.type):
            column = column.cast(pa.large_string())
        return column if self._rows is None else column.take(pa.array(self._rows))

    def line(self, row: int) -> int | None:
        """The line of the file at which the row begins; None where the source has no lines."""
        return self._place(row) if self._by_line else None

    def where(self, row: int) -> str:
        """The place of a row in words: `pairs.csv, line 12` or `row 11 of the list`."""
        place = self._place(row)
        return f"{self.source}, line {place}" if self._by_line else f"row {place} of {self.source}"

    def places(self, rows: Sequence[int] | np.ndarray, first: int = 5) -> str:
        """The places of several rows without the source: `lines 12, 40, 41 and 7 more`."""
        word = ("line" if self._by_line else "row") + ("s" if len(rows) > 1 else "")
        shown = ", ".join(str(self._place(int(row))) for row in rows[:first])
        return f"{word} {shown}" + (f" and {len(rows) - first:,} more" if len(rows) > first else "")

    def take(self, rows: Sequence[int] | np.ndarray | LongTensor) -> Table:
        """Some rows, numbered anew from 0; nothing is copied."""
        rows = row_numbers(rows, len(self))
        taken = self._copy(self._arrow, self._key)
        taken._rows = rows if self._rows is None else self._rows[rows]
        return taken

    def renamed(self, names: Mapping[str, str]) -> Table:
        """The table with `new: old` names. An old column may get several names; one whose name is taken is left out."""
        for old in names.values():
            self._require(old)
        kept = [name for name in self._arrow.column_names if name not in names and name not in names.values()]
        sources = {**names, **{name: name for name in kept}}
        order = sorted(sources, key=lambda name: self._arrow.column_names.index(sources[name]))
        arrow = pa.table({name: self._arrow[sources[name]] for name in order})
        return self._copy(arrow, self._key and _sha256(self._key, json.dumps(sorted(names.items()))))

    def replaced(self, name: str, values: pa.Array | pa.ChunkedArray, content: str = "") -> Table:
        """The table with other values, made from its own, in a column; `content` is of what they stand for, such as files by their names."""
        table = self if self._rows is None else Table(self._arrow.take(pa.array(self._rows)))
        arrow = table._arrow.set_column(table._arrow.column_names.index(name), name, values)
        copy = self._copy(arrow, self.fingerprint + name + content)
        copy._rows = None
        return copy

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of the content: the file's bytes, or the values where there is no file; names; rows."""
        rows = b"" if self._rows is None else self._rows.tobytes()
        return _sha256(self._key or _content_key(self._arrow), rows)

    @cached_property
    def group(self) -> LongTensor | None:
        """The column `group_id` as integers 0, 1, …, int64 of shape (n,); None without it. No value: a group alone."""
        import torch

        return torch.from_numpy(codes(self.arrow(GROUP))) if GROUP in self else None

    def _place(self, row: int) -> int:
        return self._arrow[PLACE][int(row if self._rows is None else self._rows[row])].as_py()

    def _require(self, name: str) -> None:
        if name not in self.columns:
            raise ColumnMissing(f"{self.source} has no column '{name}'; {nearest(name, self.columns)}")

    def _copy(self, arrow: pa.Table, key: str | None) -> Table:
        copy = Table(arrow, source=self.source, by_line=self._by_line, key=key)
        copy._rows, copy.dropped = self._rows, self.dropped
        return copy


def row_numbers(index: Any, rows: int) -> np.ndarray:
    """Row numbers, int64 and not negative, of a slice or of integers in any container. Raises IndexError outside."""
    if isinstance(index, slice):
        return np.arange(*index.indices(rows))
    numbers = np.asarray(index)
    if numbers.size == 0:
        return np.empty(0, np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise TypeError(f"rows are given as integers, a slice, or a list of integers; got {type(index).__name__}")
    numbers = numbers.astype(np.int64)
    outside = (numbers < -rows) | (numbers >= rows)
    if outside.any():
        raise IndexError(f"row {numbers[outside][0]} of {rows}")
    return np.where(numbers < 0, numbers + rows, numbers)


def _sha256(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def _content_key(arrow: pa.Table) -> str:
    digest = hashlib.sha256(str(arrow.schema.remove_metadata()).encode())
    for batch in arrow.to_batches():
        digest.update(batch.serialize())
    return digest.hexdigest()
