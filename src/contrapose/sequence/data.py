"""Interactions read as sequences, and sequences as what is trained on: every beginning of one, with the item that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import LongTensor, Tensor

from contrapose.data.batches import Data
from contrapose.data.check import CheckReport, Example, Problem, check
from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.errors import ItemUnknown, SequenceInvalid, ValueKind
from contrapose.sequence._table import COLUMNS, SequenceTable, sequence_table
from contrapose.training.method import Card

if TYPE_CHECKING:
    from contrapose.sequence.encoder import SequenceEncoder

__all__ = [
    "COLUMNS",
    "Beginnings",
    "SequenceTable",
    "check_data",
    "core",
    "open_data",
    "read_data",
    "refuse_values",
    "values_of",
]

LEAST = 3  # interactions of a user: one to go by, one to develop on, one to test on


def read_data(
    source: Any,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Sequence[Column] = (),
    drop_empty: bool = False,
    strict: bool = True,
) -> SequenceTable:
    """Interactions, one row each, as one sequence a user; or rows that hold whole sequences already.

    Args:
        source: what `contrapose.data.readers.read` takes. One row an interaction: `item`, `user` and, where the rows are not in the order
            of time already, `time`, a number or an ISO date. One row a user: `item` is a list, oldest first, and `user` may be absent. Or a
            SequenceTable, such as `core` gives.
        rename: `{"item": "StockCode"}`: the column `item` is the data's `StockCode`.
        needs: the columns to check; none given: `item`, `user` and `time`.
        drop_empty: leave out interactions without a value in one of them, and count them in `dropped`, in place of raising.
        strict: False leaves such interactions out without a word, for `check_data` to tell of.

    Interactions of a user at the same time stay in the order of the rows. Names are text: item 12 is item "12".
    Raises what `read` raises, ColumnMissing, ValueKind and SequenceInvalid.
    """
    if isinstance(source, SequenceTable):
        return source
    found = sequence_table(read(source, rename=rename, needs=needs or COLUMNS, drop_empty=drop_empty, strict=strict))
    if not len(found):
        raise SequenceInvalid(
            f"{found.source} has no interaction with both a user and an item; `contrapose check` lists the rows."
        )
    return found


def core(table: SequenceTable, least: int = 5) -> SequenceTable:
    """The k-core: users and items with at least `least` interactions among those that are left, over and over until all have.

    What the sequential literature does before anything else ("5-core"). Raises SequenceInvalid when nothing is left.
    """
    kept = np.ones(len(table.codes), bool)
    user = np.repeat(np.arange(len(table)), table.lengths)
    while True:
        before = kept.sum()
        for each in (table.codes, user):
            kept &= np.bincount(each[kept], minlength=each.max(initial=0) + 1)[each] >= least
        if kept.sum() == before:
            break
    if not kept.any():
        raise SequenceInvalid(
            f"{table.source} has no user and item with {least} interactions each; take a smaller number."
        )
    return table.kept(kept, f", {least}-core")


@dataclass(frozen=True, eq=False)
class Beginnings:
    """A column of beginnings of sequences: `column[rows]` is {"items": (b, t), "lengths": (b,)}, int64, 0 on the right of a shorter one.

    `codes` (total,) are item numbers from 1; beginning i are those before `stops[i]` and from `starts[i]` on, the last t of them.
    """

    codes: LongTensor
    starts: LongTensor
    stops: LongTensor
    max_length: int

    def __len__(self) -> int:
        return len(self.stops)

    def __getitem__(self, rows: LongTensor | Sequence[int]) -> dict[str, Tensor]:
        rows = torch.as_tensor(rows, dtype=torch.long)
        stops = self.stops[rows]
        starts = torch.maximum(self.starts[rows], stops - self.max_length)
        lengths = stops - starts
        places = torch.arange(self.max_length)
        items = self.codes[(starts[:, None] + places).clamp(max=len(self.codes) - 1)]
        return {"items": items.masked_fill(places >= lengths[:, None], 0), "lengths": lengths}


def open_data(table: SequenceTable, card: Card, encoder: SequenceEncoder) -> Data:
    """Every beginning of every sequence as a row: "sequence", the item that comes "next", and how many interactions are "left" after that.

    Raises ItemUnknown for an item that the encoder does not know and does not skip, SequenceInvalid where no user has two interactions.
    """
    codes, starts = encoded(table, encoder)
    lengths = np.diff(starts)
    if not (lengths > 1).any():
        raise SequenceInvalid(
            f"No user of {table.source} has two interactions, so there is no next item to learn from."
        )
    place = np.arange(len(codes)) - np.repeat(starts[:-1], lengths)
    left = np.repeat(starts[1:], lengths) - 1 - np.arange(len(codes))
    target = np.flatnonzero(place > 0)
    whole = torch.from_numpy(codes)
    columns = {
        "sequence": Beginnings(
            whole, torch.from_numpy(target - place[target]), torch.from_numpy(target), encoder.max_length
        ),
        "next": whole[torch.from_numpy(target)],
        "left": torch.from_numpy(left[target]),
    }
    owner = torch.from_numpy(np.repeat(np.arange(len(table)), lengths)[target])
    group = None if table.group is None else table.group[owner]
    return Data(columns, len(target), group, {}, table.source, table.fingerprint)


def encoded(table: SequenceTable, encoder: SequenceEncoder) -> tuple[np.ndarray, np.ndarray]:
    """The table's items as the encoder's numbers, (total,) from 1, and where users start, (n + 1,); unknown items are left out or refused."""
    numbers = np.array([encoder.number_of.get(name, 0) for name in table.items], np.int64)[table.codes]
    known = numbers > 0
    if not known.all() and encoder.unknown == "refuse":
        first = int((~known).argmax())
        name = table.items[table.codes[first]]
        row = int(np.searchsorted(table.starts, first, side="right")) - 1
        raise ItemUnknown(
            f"{table.where(row)}: the encoder has no item '{name}' ({int((~known).sum()):,} interactions with such items in all); "
            f"{encoder.hint(name)} "
            "Leave them out, or set encoder.unknown=skip."
        )
    starts = np.concatenate([[0], np.cumsum(known)])[table.starts]
    return numbers[known], starts


def check_data(table: SequenceTable, card: Card, encoder: SequenceEncoder, batch_size: int) -> CheckReport:
    """What is wrong with interactions, by row: values that are missing, users that are too short, sequences that are cut."""
    report = check(table.interactions, card.columns, batch_size=batch_size)
    problems = list(report.problems)
    short = np.flatnonzero(table.lengths < LEAST)
    if len(short):
        said = f"of a user with fewer than {LEAST} interactions: nothing of it can be held out."
        problems.append(Problem(said, len(short), table.interactions.places(table.first[short]), stops=False))
    long = np.flatnonzero(table.lengths > encoder.max_length)
    if len(long):
        said = f"of a user with more than {encoder.max_length} interactions: the encoder sees the last {encoder.max_length} before the next."
        problems.append(Problem(said, len(long), table.interactions.places(table.first[long]), stops=False))
    shown = sorted({0, len(table) // 2, len(table) - 1})
    examples = tuple(
        Example(table.where(row), {"item": ", ".join(table["item"][row][-encoder.max_length :])}) for row in shown
    )
    return replace(report, problems=tuple(problems), examples=examples)


def values_of(table: SequenceTable, column: str, encoder: Any) -> Sequence[Any]:
    """A column's values as an encoder takes them: lists of names of items."""
    return table[column]


def refuse_values(table: SequenceTable, column: str) -> None:
    """Raises ValueKind for any column but `item`: a user has no vector but that of the sequence."""
    if column != "item":
        raise ValueKind(
            f"{table.source}: column '{column}' holds names, and an encoder of sequences reads items: --column item."
        )
