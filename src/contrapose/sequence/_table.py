"""Interactions of users as sequences: one row a user, whose items stand in the order of time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import LongTensor

from contrapose.data.arrow import JSON, is_text, plain
from contrapose.data.columns import Column
from contrapose.data.faults import missing_columns, numbers
from contrapose.data.table import Table, Values, row_numbers
from contrapose.errors import ColumnMissing, SequenceInvalid, ValueKind, nearest

ITEM = Column("item", "label", "What was chosen; or a list of it, a whole sequence in a row.")
USER = Column("user", "label", "Who chose it. Not needed where each row holds a whole sequence.", required=False)
TIME = Column(
    "time", "time", "When: a number or a date. Without it the rows' order is the order of time.", required=False
)
COLUMNS = (ITEM, USER, TIME)


class SequenceTable:
    """n users with their items in the order of time, oldest first: what the methods of this modality learn from.

    `users` (n,) and `items` are names, each once, in alphabetical order; `codes` (total,) int64 are places in `items`, user after user, of
    which user i has those from `starts[i]` to `starts[i + 1]`. `interactions` is the table that they were read from; `first` (n,) are its
    rows at which the users begin.
    """

    columns = ("item", "user")

    def __init__(
        self,
        users: Sequence[str],
        items: Sequence[str],
        codes: np.ndarray,
        starts: np.ndarray,
        interactions: Table,
        first: np.ndarray,
        restriction: str = "",
    ) -> None:
        """`restriction`: what was left out of the interactions, in words; it stands in `source` and `fingerprint`."""
        self.users, self.items, self.codes, self.starts = tuple(users), tuple(items), codes, starts
        self.interactions, self.first, self.restriction = interactions, first, restriction
        self.dropped = interactions.dropped

    @property
    def source(self) -> str:
        return self.interactions.source + self.restriction

    @property
    def fingerprint(self) -> str:
        found = self.interactions.fingerprint
        return hashlib.sha256((found + self.restriction).encode()).hexdigest() if self.restriction else found

    @property
    def group(self) -> LongTensor | None:
        """The `group_id` of each user's first interaction as integers, (n,); None without that column."""
        return None if self.interactions.group is None else self.interactions.group[torch.from_numpy(self.first)]

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"SequenceTable({self.source}: {len(self):,} users, {len(self.items):,} items, {len(self.codes):,} interactions)"

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Sequence[Any]:
        """ "user": the names; "item": the names of each user's items, a list a user, read when asked for."""
        if name not in self.columns:
            raise ColumnMissing(
                f"The sequences of {self.source} have no column '{name}'; {nearest(name, self.columns)}"
            )
        return self.users if name == "user" else ItemLists(self)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) interactions of each user."""
        return np.diff(self.starts)

    def where(self, row: int) -> str:
        """The place of a user in words: `sales.csv, line 12 (user '17')`, the line of the first interaction."""
        return f"{self.interactions.where(int(self.first[row]))} (user '{self.users[row]}')"

    def sequence(self, row: int) -> np.ndarray:
        """The items of a user, places in `items`."""
        return self.codes[self.starts[row] : self.starts[row + 1]]

    def kept(self, interactions: np.ndarray, restriction: str) -> SequenceTable:
        """The table with some interactions alone, (total,) bool; users without any are left out, and items."""
        user = np.repeat(np.arange(len(self)), self.lengths)[interactions]
        rows, owner = np.unique(user, return_inverse=True)
        items, codes = np.unique(self.codes[interactions], return_inverse=True)
        starts = np.searchsorted(owner, np.arange(len(rows) + 1))
        names = [self.users[row] for row in rows], [self.items[code] for code in items]
        return SequenceTable(*names, codes, starts, self.interactions, self.first[rows], self.restriction + restriction)


class ItemLists(Sequence[Any]):
    """The names of each user's items: `[3]` is a list, `[10:20]` and `[[4, 2]]` are lists of them."""

    def __init__(self, table: SequenceTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, (int, np.integer)):
            return self[[rows]][0]
        names = self.table.items
        return [[names[code] for code in self.table.sequence(row)] for row in row_numbers(rows, len(self))]


def sequence_table(table: Table) -> SequenceTable:
    """A read table as sequences: of interactions, sorted by user and time, or of rows that hold whole sequences.

    Rows of one user at one time stay in the table's order. Rows without an item or a user are left out: whoever minds has refused them.
    Raises ColumnMissing, ValueKind and SequenceInvalid.
    """
    error = missing_columns(table, [ITEM])
    if error is not None:
        raise error
    items = table.arrow("item")
    if pa.types.is_list(items.type) or pa.types.is_large_list(items.type) or pa.types.is_fixed_size_list(items.type):
        return _of_lists(table, items.to_pylist())
    if items.type == JSON:
        values = list(table["item"])
        if any(isinstance(value, list) for value in values):
            return _of_lists(table, values)
    return _of_interactions(table)


def _of_interactions(table: Table) -> SequenceTable:
    error = missing_columns(table, [Column(USER.name, USER.kind, "Who chose the item")])
    if error is not None:
        raise error
    user, users = named(table.arrow("user"))
    item, items = named(table.arrow("item"))
    there = np.flatnonzero((user >= 0) & (item >= 0))
    time = times(table) if "time" in table else np.zeros(len(table))
    order = there[np.lexsort((time[there], user[there]))]  # stable: ties stay in the table's order
    starts = np.searchsorted(user[order], np.arange(len(users) + 1))
    whole = SequenceTable(users, items, item[order], starts, table, order[starts[:-1].clip(max=max(len(order) - 1, 0))])
    return whole if len(there) == len(table) else whole.kept(np.ones(len(order), bool), "")


def _of_lists(table: Table, values: list[Any]) -> SequenceTable:
    """Rows that hold whole sequences; the order within a list is the order of time."""
    for row, value in enumerate(values):
        if not isinstance(value, list):
            raise ValueKind(
                f"{table.where(row)}: column 'item' is {value!r}, and other rows hold a list of items. Give all rows in one form."
            )
        if not value:
            raise SequenceInvalid(
                f"{table.where(row)}: the sequence is empty, and says nothing of what comes next. Leave such rows out."
            )
        nested = next((each for each in value if isinstance(each, (list, dict))), None)
        if nested is not None:
            raise ValueKind(
                f"{table.where(row)}: the sequence holds {nested!r} where an item stands, which is a name or a number. Give one list of items a row."
            )
        if any(each is None or (isinstance(each, str) and not each.strip()) for each in value):
            raise SequenceInvalid(
                f"{table.where(row)}: the sequence holds an item without a name. Name it, or leave it out."
            )
    if "user" in table:
        user, users = named(table.arrow("user"))
        if (user < 0).any():
            raise SequenceInvalid(
                f"{table.where(int((user < 0).argmax()))}: the sequence has no user; name one, or leave out the column."
            )
        repeated = np.flatnonzero(np.bincount(user) > 1)
        if len(repeated):
            where = table.where(int(np.flatnonzero(user == repeated[0])[1]))
            raise SequenceInvalid(
                f"{where}: user '{users[repeated[0]]}' stands twice. Give one sequence a user, or one row an interaction."
            )
    else:
        user, users = np.arange(len(values)), [str(row) for row in range(len(values))]
    order = np.argsort(user, kind="stable")
    flat = [str(each) for row in order for each in values[row]]
    items, codes = np.unique(np.array(flat, dtype=object).astype(str), return_inverse=True)
    starts = np.concatenate([[0], np.cumsum([len(values[row]) for row in order])])
    return SequenceTable(users, items.tolist(), codes, starts, table, order)


def named(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A column of any kind as places in its distinct values, (n,) int64, -1 where there is none; and these as text, in alphabetical order."""
    if column.type == JSON:
        texts = pa.array([None if value is None else str(value) for value in Values(column)], pa.large_string())
    elif pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.all(
            pc.equal(pc.floor(column), column)
        ).as_py()  # whole numbers that became floats beside a missing one
        texts = (column.cast(pa.int64()) if whole else column).cast(pa.large_string())
    else:
        texts = plain(column).cast(pa.large_string())
    texts = pc.if_else(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), None, texts)
    encoded = pc.dictionary_encode(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts)
    names = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    place = np.empty(len(names) + 1, np.int64)
    place[order], place[-1] = np.arange(len(names)), -1
    return place[pc.fill_null(encoded.indices, len(names)).to_numpy(zero_copy_only=False)], [names[k] for k in order]


def times(table: Table) -> np.ndarray:
    """The column `time` as numbers, (n,) float64 or int64. Raises ValueKind, naming the first value that is neither a number nor a date."""
    column = table.arrow("time")
    if pa.types.is_temporal(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(0).to_numpy()
    found = numbers(column)
    if np.isfinite(found).all():
        return found
    if is_text(column.type):
        try:
            return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:
            pass
    wrong = np.flatnonzero(~np.isfinite(found))
    dates = [row for row in wrong if not _is_date(table["time"][int(row)])]
    row = int(dates[0] if dates else wrong[0])
    raise ValueKind(
        f"{table.where(row)}: column 'time' is {table['time'][row]!r}, and all rows need a number, or all a date such as 2011-12-09 12:50:00, to be put in order. "
        "Mend it, or name the column that is meant: --map time=COLUMN."
    )


def _is_date(value: Any) -> bool:
    try:
        pa.array([value], pa.large_string()).cast(pa.timestamp("us"))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True
