"""A table of time series: one a row, of any length, with the columns that belong to a series as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from contrapose.data.table import Table, row_numbers
from contrapose.errors import ColumnMissing, nearest

if TYPE_CHECKING:
    from torch import LongTensor

SERIES = "series"
ROW = "contrapose.row"  # keeps the number of rows where there is no other column


class SeriesTable:
    """n time series, float64 of shape (t, c) each, NaN where a value is missing, and a table of what else is known of each.

    `channels`: their names. `source` names the data in messages; `places`: where each series stands, in words; None: its row.
    """

    def __init__(
        self,
        series: Sequence[np.ndarray],
        channels: Sequence[str],
        others: Mapping[str, Sequence[Any]] | Table | None = None,
        *,
        source: str,
        places: Sequence[str] | None = None,
    ) -> None:
        self.series = list(series)
        self.channels = tuple(channels)
        self.source = source
        self.places = None if places is None else list(places)
        if not isinstance(others, Table):
            columns = {name: pa.array(list(values), from_pandas=True) for name, values in (others or {}).items()}
            others = Table(pa.table({ROW: np.arange(len(self.series)), **columns}), source=source)
        self.others = others
        self.dropped = 0

    def __len__(self) -> int:
        return len(self.series)

    def __repr__(self) -> str:
        return f"SeriesTable({self.source}: {len(self):,} series of {len(self.channels)} channels; {', '.join(self.columns)})"

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Any:
        if name == SERIES:
            return Arrays(self.series)
        self._require(name)
        return self.others[name]

    @property
    def columns(self) -> list[str]:
        return [SERIES, *(name for name in self.others.columns if name != ROW)]

    @property
    def group(self) -> LongTensor | None:
        return self.others.group

    def arrow(self, name: str) -> pa.ChunkedArray:
        """A column that is not the series, in Arrow."""
        self._require(name)
        return self.others.arrow(name)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of names and values."""
        digest = hashlib.sha256(repr(self.channels).encode())
        for series in self.series:
            digest.update(str(series.shape).encode() + np.ascontiguousarray(series).tobytes())
        digest.update(self.others.fingerprint.encode())
        return digest.hexdigest()

    def where(self, row: int) -> str:
        """A series in words: `sensors.csv, series 'a7'`, or `series 11 of the array`."""
        return f"series {row} of {self.source}" if self.places is None else self.places[row]

    def take(self, rows: Sequence[int] | np.ndarray) -> SeriesTable:
        """Some rows, numbered anew from 0."""
        rows = row_numbers(rows, len(self))
        places = None if self.places is None else [self.places[row] for row in rows]
        taken = SeriesTable(
            [self.series[row] for row in rows], self.channels, self.others.take(rows), source=self.source, places=places
        )
        taken.dropped = self.dropped
        return taken

    def renumbered(self) -> SeriesTable:
        """The same rows, whose hidden numbers count from 0 again."""
        others = {name: list(self.others[name]) for name in self.others.columns if name != ROW}
        return SeriesTable(self.series, self.channels, others, source=self.source, places=self.places)

    def _require(self, name: str) -> None:
        if name not in self.columns or name == SERIES:
            raise ColumnMissing(f"{self.source} has no column '{name}'; {nearest(name, self.columns)}")


class Arrays(Sequence[np.ndarray]):
    """Arrays by number, slice, or several numbers."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, (int, np.integer)):
            return self.arrays[rows]
        return [self.arrays[row] for row in row_numbers(rows, len(self))]
