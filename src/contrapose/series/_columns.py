"""Columns of a protocol under the names that the user's data have for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contrapose.data.columns import GROUP, Column
from contrapose.errors import ColumnMissing
from contrapose.series._reading import NAME, TIME
from contrapose.series._table import SeriesTable
from contrapose.series.data import read_data


def open_table(source: Any, columns: Mapping[str, str] | None, needs: Sequence[Column]) -> SeriesTable:
    """A protocol's data, checked. What is mapped holds for the training data and for every protocol at once; where a name is not in these
    data, they keep their own."""
    known = {NAME, TIME, GROUP, *(column.name for column in needs)}
    wanted = {name: yours for name, yours in (columns or {}).items() if name in known}
    try:
        return read_data(source, rename=wanted, needs=needs)
    except ColumnMissing:
        if not wanted:
            raise
        return read_data(source, needs=needs)
