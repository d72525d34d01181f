"""Columns of a protocol under the names that the user's file has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contrapose.data.columns import GROUP, Column
from contrapose.data.readers import read
from contrapose.data.table import Table


def open_table(source: Any, columns: Mapping[str, str] | None, needs: Sequence[Column]) -> Table:
    """A protocol's data, not checked yet, its columns renamed as `--map` says.

    What is mapped holds for the training data and for every protocol at once. A file that has no column of your name keeps its own:
    `--map text=sentence` leaves alone a file that has `text` and no `sentence`.
    """
    table = read(source, needs=needs, strict=False)
    known = {*(column.name for column in needs), GROUP}
    return table.renamed({name: yours for name, yours in (columns or {}).items() if name in known and yours in table})
